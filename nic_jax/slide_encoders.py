"""The encoders that an experiment on slides names: folders, and how slides are cut for them."""

import functools
import pathlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import ml_collections

from nic_jax import encoder_stage, options, prefetch, sweeps
from nic_jax.compression.settings import CompressSettings
from nic_jax.encoders.encoder import Encoder
from nic_jax.encoders.storage import load_encoder, read_encoder

Config = ml_collections.ConfigDict

# The patches of encoders that take any: the papers' size and resolution.
_ANY_PATCHES = (128, 0.5)


class AskedEncoder(NamedTuple):
    """An encoder that a config names.

    Attributes:
        named: As the config has it.
        folder: The name of its folder.
        load: The workdir -> the encoder, which may have to be trained first.
        settings: How slides are cut for it.
    """

    named: str
    folder: str
    load: Callable[[pathlib.Path | None], Encoder]
    settings: CompressSettings


def trained_here(config: Config) -> list[str]:
    """The encoders that are trained here."""
    return [name for name in options.names(config.encoder) if name in encoder_stage.OBJECTIVES]


def asked_encoders(config: Config) -> list[AskedEncoder]:
    """Each encoder asked for, with the name of its folder and how slides are cut for it."""
    found = []
    for named in options.names(config.encoder):
        if named in encoder_stage.OBJECTIVES:
            name = named + sweeps.encoder_suffix(config)
            inputs = ((config.patches.patch_size, config.patches.mpp),)
            load = functools.partial(lambda name, home: read_encoder(home / name), name)
        else:
            given = load_encoder(named)
            name, inputs = given.name, given.inputs
            load = functools.partial(lambda given, home: given, given)
        settings = compress_settings(config, inputs)
        found.append(AskedEncoder(named, folder_name(name, inputs, settings), load, settings))
    return found


def compress_settings(config: Config, inputs: Sequence[tuple[int, float]]) -> CompressSettings:
    """The settings of a config, completed by the (px, µm/px) that the encoder was made for."""
    size, mpp = inputs[0] if inputs else _ANY_PATCHES
    tiling = config.tiling
    if tiling.patch_size is not None:
        size, mpp = tiling.patch_size, dict(inputs).get(tiling.patch_size, mpp)
    return CompressSettings(
        patch_size=size,
        stride=tiling.stride or size,
        mpp=tiling.mpp or mpp,
        mpp_tolerance=tiling.mpp_tolerance,
        edges=tiling.edges,
        allow_upsampling=tiling.allow_upsampling,
        default_mpp=tiling.default_mpp,
        tissue_mpp=config.tissue.mpp,
        tissue_threshold=config.tissue.threshold,
        encode_all=config.compress.encode_all,
        versions=config.compress.versions,
        batch=config.compress.batch,
        workers=config.compress.workers or prefetch.default_workers(),
        precision=config.precision,
    )


def folder_name(name: str, inputs: Sequence[tuple[int, float]], settings: CompressSettings) -> str:
    """An encoder's folder: its name, and stride, size and µm/px where they are not its own."""
    size, mpp = inputs[0] if inputs else _ANY_PATCHES
    if settings.patch_size != size:
        name += f'-p{settings.patch_size}'
    if settings.stride != settings.patch_size:
        name += f'-s{settings.stride}'
    if settings.mpp != mpp:
        name += f'-{settings.mpp:g}mpp'
    return name
