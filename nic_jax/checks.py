"""What is wrong in a config, and what it would do, before anything long starts."""

import pathlib

import jax
import ml_collections

from nic_jax import kinds, made_slides, options, progress, slide_stages, sweeps
from nic_jax.classifiers.models import build_network
from nic_jax.classifiers.trained import initial_variables
from nic_jax.networks.grid_cnn import GridCNN, size_chain
from nic_jax.stages import STAGES

Config = ml_collections.ConfigDict


def check(config: Config, home: pathlib.Path | None = None) -> None:
    """Checks a config before anything long starts, and tells the sizes inside the networks.

    Slides that the experiment makes itself are checked when they are made.

    Raises:
        ValueError: A stage, value or network that cannot be; the message names what can.
    """
    options.check(config, tuple(STAGES))
    if options.makes_slides(config):
        made_slides.check(config)
    for _, point in sweeps.points(config):
        if 'finetune' in point.stages and 'cohort' in point and point.cohort.shuffle_cells:
            raise ValueError(
                '--config.cohort.shuffle_cells=True shuffles codes, and finetune trains from '
                'pixels, which stay where they are: leave one of them out'
            )
        if not options.makes_slides(config) or made_slides.are_made(config, home):
            kinds.stages(point).check(made_slides.located(point, home))
        elif 'slides' in point:
            slide_stages.check_encoders(point)
        if 'classify' in point.stages and 'classifier' in point:
            _check_networks(point)


def _check_networks(config: Config) -> None:
    for model in options.models(config):
        fields, settings = options.model_settings(config, model)
        network = build_network(model, fields, outputs=1, crop=settings.crop)
        # Shapes alone: what does not fit the crop, or together, is told now.
        jax.eval_shape(
            lambda network=network, crop=settings.crop: initial_variables(
                network, jax.random.key(0), crop=crop, code_size=1
            )
        )
        if isinstance(network, GridCNN):
            chain = size_chain(settings.crop, network.strides, padding=network.padding)
            progress.console.print(
                f'{model}: {len(network.strides)} layers of {", ".join(map(str, network.widths))} '
                f'filters, cells along a side {" → ".join(map(str, chain))}'
            )


def dry_run(config: Config, home: pathlib.Path | None = None) -> bool:
    """Says what would be done, and does nothing; False where some slides could not be."""
    if options.makes_slides(config) and not made_slides.are_made(config, home):
        progress.console.print('the slides are made first, by the stage slides')
        return True
    return kinds.stages(config).dry_run(made_slides.located(config, home))
