"""The stages, in order. Each is safe to run again: it resumes what is unfinished.

A stage is a function of (config, workdir) that returns whether all of its units succeeded. What
reads slides and what draws synthetic images differ; the stages from grids on are the same.
"""

import pathlib

import ml_collections

from nic_jax import slide_stages, synthetic_stages

Config = ml_collections.ConfigDict


def patches(config: Config, workdir: pathlib.Path, *, overwrite: bool) -> bool:
    """Draws the patches that encoders are trained on."""
    return _source(config, 'patches')(config, workdir, overwrite=overwrite)


def encoder(config: Config, workdir: pathlib.Path, *, overwrite: bool) -> bool:
    """Trains encoders on patches."""
    return _source(config, 'encoder')(config, workdir, overwrite=overwrite)


def compress(config: Config, workdir: pathlib.Path, *, overwrite: bool) -> bool:
    """Encodes slides or images into grids."""
    return _source(config, 'compress')(config, workdir, overwrite=overwrite)


STAGES = {'patches': patches, 'encoder': encoder, 'compress': compress}


def _source(config: Config, stage: str):
    """The module that makes grids for this experiment has the stage, or it is an error."""
    module = slide_stages if 'slides' in config else synthetic_stages
    if not hasattr(module, stage):
        raise ValueError(f'this experiment has no stage {stage!r}: its encoder is a trained one')
    return getattr(module, stage)


def dry_run(config: Config) -> None:
    """Says what would be done."""
    raise ValueError('later')
