"""The stages of experiments on slides."""

import pathlib

import ml_collections

from nic_jax import cohort, prefetch, progress
from nic_jax.compression import compress as compress_
from nic_jax.compression.settings import CompressSettings
from nic_jax.encoders.encoder import Encoder
from nic_jax.encoders.storage import load_encoder

Config = ml_collections.ConfigDict

# The patches of encoders that take any: the papers' size and resolution.
_ANY_PATCHES = (128, 0.5)


def compress(config: Config, workdir: pathlib.Path, *, overwrite: bool) -> bool:
    """Slides × encoder → grids."""
    entries = _entries(config)
    failed = 0
    for named in config.encoder.split(','):
        encoder = load_encoder(named)
        settings = compress_settings(config, encoder)
        folder = workdir / encoder_folder(encoder, settings)
        summary = compress_.compress_cohort(
            entries, encoder, folder=folder, settings=settings, overwrite=overwrite
        )
        failed += summary.failed
        progress.console.print(
            f'compress: {summary.done} slides compressed, {summary.skipped} were complete, '
            f'{summary.failed} failed, {summary.without_tissue} without tissue; '
            f'{summary.patches:,} patches in {summary.seconds:.0f} s → {folder / "grids"}'
        )
        if summary.elsewhere:
            progress.console.print(f'{summary.elsewhere} are being compressed by other processes')
    if failed:
        progress.console.print(f'failures, with their reasons: {workdir / "failures.csv"}')
    return not failed




def compress_settings(config: Config, encoder: Encoder) -> CompressSettings:
    """The settings of a config, completed by what the encoder was made for."""
    size, mpp = encoder.inputs[0] if encoder.inputs else _ANY_PATCHES
    tiling = config.tiling
    if tiling.patch_size is not None:
        size, mpp = tiling.patch_size, dict(encoder.inputs).get(tiling.patch_size, mpp)
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


def encoder_folder(encoder: Encoder, settings: CompressSettings) -> str:
    """An encoder's folder: its name, and stride, size and µm/px where they are not its own."""
    size, mpp = encoder.inputs[0] if encoder.inputs else _ANY_PATCHES
    name = encoder.name
    if settings.patch_size != size:
        name += f'-p{settings.patch_size}'
    if settings.stride != settings.patch_size:
        name += f'-s{settings.stride}'
    if settings.mpp != mpp:
        name += f'-{settings.mpp:g}mpp'
    return name


def _entries(config: Config) -> tuple[cohort.SlideEntry, ...]:
    """This process's part of the cohort."""
    entries, others = cohort.find_slides(config.slides)
    if others:
        shown = ', '.join(str(path) for path in others[:5]) + (' …' if len(others) > 5 else '')
        progress.console.print(f'{len(others)} files are no slides: {shown}')
    if not entries:
        raise cohort.CohortError(f'{config.slides}: no slides there')
    return cohort.shard(entries, config.shard)
