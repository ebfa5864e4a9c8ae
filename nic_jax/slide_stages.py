"""The stages of experiments on slides."""

import pathlib

import ml_collections

from nic_jax import challenges, cohort, encoder_stage, prefetch, progress, workdir
from nic_jax.compression import dry_run as dry_run_
from nic_jax.compression.compress import compress_cohort
from nic_jax.encoders.encoder import Encoder
from nic_jax.patches.slide_patches import annotation_files, make_slide_set
from nic_jax.patches.slide_settings import SlidePatches
from nic_jax.patches.store import open_set
from nic_jax.report.patch_sheets import draw_set
from nic_jax.slide_datasets import check_labels, datasets, entries
from nic_jax.slide_encoders import asked_encoders, trained_here

__all__ = [
    'check',
    'check_encoders',
    'compress',
    'datasets',
    'dry_run',
    'encoder',
    'encoder_folders',
    'patches',
    'pictures',
]

Config = ml_collections.ConfigDict

_SET = 'slides'  # the set of patches that is drawn from them


def check(config: Config) -> None:
    """Reads the table, its labels and its folds before anything long starts.

    Raises:
        ValueError: What is wrong in the table, in the names of encoders, or in what they take.
    """
    found = entries(config, tell=True)
    part = cohort.shard(found, config.shard)
    trained = trained_here(config)
    given = check_encoders(config)
    if {'patches', 'encoder'} & set(config.stages):
        if not trained:
            raise ValueError(
                f'the stages patches and encoder train encoders, and --config.encoder='
                f'{config.encoder} names none of {", ".join(encoder_stage.OBJECTIVES)}'
            )
        if len(part) < len(found):
            raise ValueError(f'--config.shard={config.shard} is for compressing; train without it')
        encoder_stage.check(config, trained)
        _patch_settings(config)
    if 'classify' in config.stages:
        if len(part) < len(found):
            raise ValueError(
                f'--config.shard={config.shard} compresses a part of the slides, and training '
                'needs all of them; give --stages=compress with it, and train afterwards'
            )
        check_labels(config, found, given)


def check_encoders(config: Config) -> list[Encoder]:
    """Loads the encoders that are given, where a stage is asked for that needs them.

    Raises:
        ValueError: One that cannot be had, or takes no such patches, or two of the same name.
    """
    if set(config.stages) <= {'slides'}:
        return []
    trained, given, asked_for = trained_here(config), [], asked_encoders(config)
    folders = [asked.folder for asked in asked_for]
    if twice := sorted({folder for folder in folders if folders.count(folder) > 1}):
        raise ValueError(
            f'--config.encoder={config.encoder} has several that are called {", ".join(twice)}; '
            'compare them in workdirs of their own'
        )
    for asked in asked_for:
        if asked.named not in trained:
            encoder = asked.load(None)
            encoder.check_input(asked.settings.patch_size, channels=3)
            given.append(encoder)
    return given


def patches(config: Config, home: pathlib.Path, *, overwrite: bool) -> bool:
    """Slides, and annotations where there are some → training patches and pairs of them."""
    found = entries(config, purpose=challenges.FOR_ENCODERS)
    settings, folder = _patch_settings(config), home / 'patches' / _SET
    summary = make_slide_set(
        found,
        annotation_files(found, pathlib.Path(config.slides)),
        settings,
        folder,
        home=home,
        seed=config.seed,
        workers=config.compress.workers or prefetch.default_workers(),
        overwrite=overwrite,
    )
    if summary.done or not (folder / 'patches.png').exists():
        draw_set(folder, seed=config.seed)
    for note in summary.notes:
        progress.console.print(f'patches: {note}')
    progress.console.print(
        f'patches: {summary.done} slides read, {summary.skipped} were complete, {summary.failed} '
        f'failed, {summary.short} had fewer patches than asked; {summary.patches:,} patches in '
        f'{summary.seconds:.0f} s → {folder}'
    )
    return not summary.failed


def encoder(config: Config, home: pathlib.Path, *, overwrite: bool) -> bool:
    """Trains encoders on the patches."""
    settings = _patch_settings(config)
    folder = home / 'patches' / _SET
    open_set(folder)  # unfinished, it would not tell what it is made of
    made_of = {'settings': workdir.made_with(folder), 'slides': _slides_in(folder)}
    for name in trained_here(config):
        encoder_stage.train_encoder(
            name,
            config,
            home,
            sources=lambda _: encoder_stage.source_of(folder),
            mpp=settings.mpp,
            made_of={_SET: made_of},
            overwrite=overwrite,
        )
    return True


def _slides_in(folder: pathlib.Path) -> str:
    """What tells the patches of these slides from those of others."""
    path = folder / 'patches.csv'
    return workdir.fingerprint(path)['fingerprint'] if path.exists() else ''


def _patch_settings(config: Config) -> SlidePatches:
    """How patches are drawn; pairs where an encoder is trained on them."""
    fields = config.patches.to_dict()
    fields |= {name: tuple(fields[name]) for name in ('classes', 'per_class')}
    if 'contrastive' not in trained_here(config):
        fields |= {'train_pairs': 0, 'valid_pairs': 0}
    return SlidePatches(**fields)


def compress(config: Config, home: pathlib.Path, *, overwrite: bool) -> bool:
    """Slides × encoder → grids."""
    found = cohort.shard(entries(config), config.shard)
    failed = elsewhere = 0
    for asked in asked_encoders(config):
        folder = home / asked.folder
        summary = compress_cohort(
            found, asked.load(home), folder=folder, settings=asked.settings, overwrite=overwrite
        )
        failed += summary.failed
        progress.console.print(
            f'compress: {summary.done} slides compressed, {summary.skipped} were complete, '
            f'{summary.failed} failed, {summary.without_tissue} without tissue; '
            f'{summary.patches:,} patches in {summary.seconds:.0f} s → {folder / "grids"}'
        )
        elsewhere += summary.elsewhere
    if failed:
        progress.console.print(f'failures, with their reasons: {home / "failures.csv"}')
    if elsewhere:
        message = f'{elsewhere} slides are being compressed by other processes'
        if 'classify' in config.stages:
            raise ValueError(f'{message}; run this again when they are done, to train on all')
        progress.console.print(message)
    return not failed


def encoder_folders(config: Config, home: pathlib.Path) -> list[pathlib.Path]:
    """The folder of each encoder asked for."""
    return [home / asked.folder for asked in asked_encoders(config)]


def pictures(config: Config, home: pathlib.Path) -> list[pathlib.Path]:
    """Pictures of the report beyond its table."""
    del config, home
    return []


def dry_run(config: Config) -> bool:
    """Says what the compress stage would do with this process's slides."""
    found = cohort.shard(entries(config), config.shard)
    failed = 0
    for asked in asked_encoders(config):
        if asked.named in trained_here(config):
            count = len(found) * config.patches.per_slide
            progress.console.print(
                f'{asked.named}: trained here first, '
                f'{config[asked.named].steps:,} steps of {config[asked.named].batch}, on at most '
                f'{count:,} patches, {count * 3 * config.patches.patch_size**2 / 1e9:.2g} GB'
            )
        else:
            failed += dry_run_.dry_run(found, asked.load(None), asked.settings)
    return not failed
