"""The stages of experiments on labelled patches: encoders trained and compared patch by patch.

The patches of a task are the tiles of a table or, where its settings are those of `SlideTask`, are
drawn from annotated slides.
"""

import pathlib
import time

import jax
import ml_collections
import numpy as np

from nic_jax import encoder_stage, options, prefetch, progress, slide_tasks, workdir
from nic_jax.classifiers.probe import PROBES
from nic_jax.compression.encode import batch_encoder
from nic_jax.encoders.encoder import Encoder
from nic_jax.encoders.storage import load_encoder, read_encoder
from nic_jax.evaluation import predictions
from nic_jax.patches import pairs as pairs_
from nic_jax.patches.slide_settings import SlideTask
from nic_jax.patches.store import PatchesError, PatchSet, open_set
from nic_jax.patches.tiles import check_table, make_tile_set
from nic_jax.report import codes as codes_report
from nic_jax.report.patch_sheets import draw_set
from nic_jax.tile_probes import codes_of, probe_all, probes_of
from nic_jax.tile_tasks import made_of, patches_made_with, tables
from nic_jax.workdir import save_array

Config = ml_collections.ConfigDict

_ENCODE_BATCH = 256
# Pairs drawn of a set: every tile is in several, once with itself.
_PAIRS_PER_TILE = 4


def check(config: Config) -> None:
    """Checks names, tables and settings before anything long starts.

    Raises:
        ValueError: What cannot be; the message names what can.
    """
    tables(config)
    trained, loaded = _split(config)
    encoder_stage.check(config, trained)
    for name in trained:
        for each in encoder_stage.sets_of(config, name):
            if each not in tables(config):
                raise ValueError(
                    f'--config.{name}.sets={config[name].sets} names {each!r}; the tasks with '
                    f'tiles are {", ".join(tables(config))}'
                )
    given = [load_encoder(each) for each in loaded]
    folders = [*trained, *(encoder.name for encoder in given)]
    if twice := sorted({name for name in folders if folders.count(name) > 1}):
        raise ValueError(
            f'--config.encoder={config.encoder} has several that are called {", ".join(twice)}; '
            'compare them in workdirs of their own'
        )
    for encoder in given:
        for table in tables(config).values():
            encoder.check_input(table.patch_size, channels=3)
    for each in probes_of(config):
        if each not in PROBES:
            raise ValueError(f'--config.probe.models: {each!r} must be one of {", ".join(PROBES)}')
    if 'patches' in config.stages:
        for name, table in tables(config).items():
            if isinstance(table, SlideTask):
                probed = 'classify' in config.stages
                slide_tasks.check(name, table, seed=config.seed, probed=probed)
                continue
            counts = check_table(table, seed=config.seed).counts()
            for subset in ('valid', 'test') if 'classify' in config.stages else ():
                if not any(count for label, count in counts[subset].items() if label):
                    raise ValueError(
                        f'{table.tiles}: no labelled tile for {subset}, and probes need some; '
                        f'give some, or --config.tasks.{name}.{subset}_share'
                    )


def patches(config: Config, home: pathlib.Path, *, overwrite: bool) -> bool:
    """Decodes the tiles of every task, or reads them from slides, and draws pairs of them."""
    succeeded = True
    for name, table in tables(config).items():
        folder = home / 'patches' / name
        if isinstance(table, SlideTask):
            succeeded &= slide_tasks.make(
                name,
                table,
                folder,
                home=home,
                seed=config.seed,
                workers=_workers(config),
                pairs=_needs_pairs(config, name),
                overwrite=overwrite,
            )
            continue
        with workdir.alone(home, f'patches/{name}'):
            if workdir.begin(folder, made_of(table, config.seed), overwrite=overwrite):
                _draw_pairs(config, folder)
                progress.console.print(f'patches: {name} is complete')
                continue
            summary = make_tile_set(
                table, folder, home=home, name=name, seed=config.seed, workers=_workers(config)
            )
            _draw_pairs(config, folder)
            draw_set(folder, seed=config.seed)
            workdir.finish(folder)
        progress.console.print(f'patches: {name}: {summary} → {folder}')
    return succeeded


def _draw_pairs(config: Config, folder: pathlib.Path) -> None:
    """Draws the pairs of a set that are not drawn yet.

    Raises:
        PatchesError: There can be none, and an encoder is to be trained on them.
    """
    needed = _needs_pairs(config, folder.name)
    found = open_set(folder)
    for subset in ('train', 'valid'):
        if pairs_.has_pairs(folder, subset):
            continue
        count = _PAIRS_PER_TILE * len(found.indices(subset))
        try:
            drawn = pairs_.draw_pairs(found, subset, count, seed=config.seed)
        except PatchesError as error:
            if needed:
                raise
            progress.console.print(f'patches: {folder.name}: contrastive cannot learn: {error}')
            continue
        pairs_.save_pairs(folder, subset, drawn)


def encoder(config: Config, home: pathlib.Path, *, overwrite: bool) -> bool:
    """Trains the encoders that are not given."""
    made_of = {name: patches_made_with(home, name) for name in tables(config)}
    for name in _split(config)[0]:
        resolutions = {tables(config)[each].mpp for each in encoder_stage.sets_of(config, name)}
        encoder_stage.train_encoder(
            name,
            config,
            home,
            sources=lambda each: encoder_stage.source_of(home / 'patches' / each),
            mpp=resolutions.pop() if len(resolutions) == 1 else None,
            made_of=made_of,
            overwrite=overwrite,
        )
    return True


def compress(config: Config, home: pathlib.Path, *, overwrite: bool) -> bool:
    """Encodes every tile of every task with every encoder."""
    for folder in encoder_folders(config, home):
        encoder = _load(config, home, folder.name)
        encode = batch_encoder(encoder, versions=1)
        for task in tables(config):
            place = folder / 'codes' / task
            made_with = {
                'encoder': encoder.sha256(),
                'patches': workdir.made_with(home / 'patches' / task),
                'precision': config.precision,
                **slide_tasks.content(home / 'patches' / task),
            }
            with workdir.alone(home, f'{folder.name}/codes/{task}'):
                if workdir.begin(place, made_with, overwrite=overwrite):
                    continue
                found = open_set(home / 'patches' / task)
                codes, speed = _encode(encode, found)
                save_array(place / 'codes.npy', codes)
                workdir.finish(place)
            record = {'encoder': folder.name, 'task': task, 'patches_per_s': speed}
            workdir.log_metrics(home, {'stage': 'compress', **record})
            told = f', {speed:,.0f} patches/s' if np.isfinite(speed) else ''
            progress.console.print(
                f'compress: {folder.name}, {task}: {len(codes):,} codes of {codes.shape[1]}{told} '
                f'→ {place / "codes.npy"}'
            )
    return True


def _encode(encode, found: PatchSet) -> tuple[np.ndarray, float]:
    """Codes float32 `[N, C]`, and patches a second after the first batch has been compiled."""
    pieces, began = [], None
    for start in range(0, len(found), _ENCODE_BATCH):
        pixels = found.pixels[start : start + _ENCODE_BATCH]
        missing = _ENCODE_BATCH - len(pixels)  # one shape, compiled once
        padded = np.pad(pixels, ((0, missing), (0, 0), (0, 0), (0, 0)))
        pieces.append(encode(padded)[0])
        jax.block_until_ready(pieces[-2:][0])
        if began is None:
            jax.block_until_ready(pieces[0])
            began = time.perf_counter()
    codes = np.concatenate([np.asarray(piece) for piece in pieces])[: len(found)]
    seconds = time.perf_counter() - began
    return codes, (len(found) - _ENCODE_BATCH) / seconds if len(pieces) > 1 else float('nan')


def classify(config: Config, home: pathlib.Path, *, overwrite: bool) -> bool:
    """Trains the probes of every encoder and task, and predicts the test tiles."""
    folders, tasks = encoder_folders(config, home), list(tables(config))
    probe_all(config, home, folders=folders, tasks=tasks, overwrite=overwrite)
    return True


def pictures(config: Config, home: pathlib.Path) -> list[pathlib.Path]:
    """Confusion matrices, and maps of the test tiles' codes, for each task."""
    made = []
    folders = encoder_folders(config, home)
    for task in tables(config):
        paths = {folder.name: folder / 'classifier' / task / 'mlp' for folder in folders}
        rows = {
            name: predictions.read(path / 'predictions.csv')
            for name, path in paths.items()
            if (path / 'predictions.csv').exists()
        }
        if rows:
            classes = predictions.class_names(next(iter(rows.values()))[0])
            made += codes_report.confusions(rows, classes, home / 'report', task=task)
        needed = [home / 'patches' / task, *(folder / 'codes' / task for folder in folders)]
        if not all(map(workdir.is_finished, needed)):
            continue  # predictions alone were kept
        found = open_set(home / 'patches' / task)
        test = found.indices('test', labelled=True)
        codes = {folder.name: codes_of(home, folder, task)[test] for folder in folders}
        path = home / 'report' / f'codes_{task}.png'
        codes_report.code_map(codes, found.labels[test], found.classes, path, seed=config.seed)
        made.append(path)
    return made


def encoder_folders(config: Config, home: pathlib.Path) -> list[pathlib.Path]:
    """The folder of each encoder asked for."""
    trained, loaded = _split(config)
    return [home / name for name in trained] + [home / load_encoder(each).name for each in loaded]


def dry_run(config: Config) -> bool:
    """Says how many tiles of which classes there are, and what they come to."""
    for name, table in tables(config).items():
        if isinstance(table, SlideTask):
            slide_tasks.dry_run(name, table, seed=config.seed)
            continue
        found = check_table(table, seed=config.seed)
        gigabytes = len(found.tiles) * 3 * table.patch_size**2 / 1e9
        progress.console.print(f'{name}: {len(found.tiles):,} tiles, {gigabytes:.2g} GB of patches')
        for subset, classes in found.counts().items():
            listing = ', '.join(
                f'{count:,} {label or "without label"}' for label, count in classes.items()
            )
            progress.console.print(f'  {subset}: {listing}')
    trained, loaded = _split(config)
    for name in trained:
        settings = encoder_stage.settings_of(config, name)
        progress.console.print(
            f'{name}: {settings.steps:,} steps of {settings.batch}, from {config[name].sets}'
        )
    progress.console.print(f'given: {", ".join(loaded) or "none"}. Nothing was written.')
    return True


def _split(config: Config) -> tuple[list[str], list[str]]:
    """The encoders that are trained here, and those that are given."""
    asked = options.names(config.encoder)
    trained = [name for name in asked if name in encoder_stage.OBJECTIVES]
    return trained, [name for name in asked if name not in trained]


def _load(config: Config, home: pathlib.Path, name: str) -> Encoder:
    trained, loaded = _split(config)
    if name in trained:
        stored = workdir.made_with(home / name / 'encoder') or {}
        for task, patches in stored.get('sets', {}).items():
            if patches_made_with(home, task) not in (None, patches):
                raise ValueError(
                    f'{home / name} was trained on other patches of {task}, perhaps on those that '
                    'test it now; run the stage encoder with --overwrite'
                )
        return read_encoder(home / name)
    return next(each for each in map(load_encoder, loaded) if each.name == name)


def _needs_pairs(config: Config, task: str) -> bool:
    """Whether an encoder is to be trained on pairs of a task's patches."""
    trained = _split(config)[0]
    return 'contrastive' in trained and task in encoder_stage.sets_of(config, 'contrastive')


def _workers(config: Config) -> int:
    return config.workers or prefetch.default_workers()
