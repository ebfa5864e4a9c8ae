"""The stage that trains encoders, whatever the patches come from."""

import dataclasses
import functools
import json
import pathlib
import shutil
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import ml_collections
import numpy as np

from nic_jax import devices, options, progress, sweeps, workdir
from nic_jax.encoders import architectures, batches, storage, training
from nic_jax.encoders.batches import Batches, Source
from nic_jax.encoders.bigan import bigan
from nic_jax.encoders.contrastive import contrastive
from nic_jax.encoders.multitask import multitask
from nic_jax.encoders.objective import Objective
from nic_jax.encoders.supervised import supervised
from nic_jax.encoders.training import EncoderSettings
from nic_jax.encoders.vae import vae
from nic_jax.encoders.vicreg import vicreg
from nic_jax.patches import pairs, store
from nic_jax.patches.augmentation import PRESETS, augment
from nic_jax.report import pictures, training_curve

Config = ml_collections.ConfigDict

OBJECTIVES = ('supervised', 'multitask', 'vae', 'contrastive', 'bigan', 'vicreg')


def settings_of(config: Config, name: str) -> EncoderSettings:
    """How an objective is trained; what the config adds to `EncoderSettings` is left out."""
    names = {field.name for field in dataclasses.fields(EncoderSettings)}
    return EncoderSettings(**{key: config[name][key] for key in names})


def sets_of(config: Config, name: str) -> list[str]:
    """The sets of patches that an objective learns from; tasks without tiles are left out."""
    asked = options.names(config[name].sets)
    tasks = config.tasks if 'tasks' in config else {}
    return [each for each in asked if each not in tasks or tasks[each].tiles is not None]


def check(config: Config, names: list[str]) -> None:
    """Checks the settings of the encoders that are trained here.

    Raises:
        ValueError: One that cannot be; the message names what can.
    """
    for name in names:
        settings = settings_of(config, name)
        if settings.augmentation not in PRESETS:
            raise ValueError(
                f'--config.{name}.augmentation={settings.augmentation} must be one of '
                f'{", ".join(PRESETS)}'
            )
        if settings.batch % jax.local_device_count():
            raise ValueError(
                f'--config.{name}.batch={settings.batch} must be a multiple of the '
                f'{jax.local_device_count()} devices'
            )
        if not sets_of(config, name):
            raise ValueError(f'--config.{name}.sets={config[name].sets} names no task with tiles')
        if name == 'supervised' and len(sets_of(config, name)) != 1:
            raise ValueError(
                f'--config.supervised.sets={config.supervised.sets} must be one set of labelled '
                'patches; multitask takes several'
            )


def train_encoder(
    name: str,
    config: Config,
    home: pathlib.Path,
    *,
    sources: Callable[[str], Source],
    mpp: float | None,
    made_of: Mapping[str, Any],
    overwrite: bool,
) -> None:
    """Trains one encoder, or goes on with it; a finished one is left as it is.

    Args:
        name: One of `OBJECTIVES`.
        config: `config[name]` holds its settings and sets; beside it `code_size` and `seed`.
        home: The workdir.
        sources: A set's name to its patches; called for those needed.
        mpp: µm/px of the patches, or None.
        made_of: What tells the sets of patches apart from others, JSON values.
        overwrite: Replace an encoder that was trained with other settings.
    """
    called = name + sweeps.encoder_suffix(config)  # its folder
    folder, settings = home / called / 'encoder', settings_of(config, name)
    made_with = {
        'objective': name,
        'settings': dataclasses.asdict(settings),
        'code_size': config.code_size,
        'seed': config.seed,
        'sets': {each: made_of[each] for each in sets_of(config, name)},
    }

    def built() -> tuple[Objective, Batches]:
        found = {each: sources(each) for each in sets_of(config, name)}
        return build(name, settings, found, code_size=config.code_size, seed=config.seed)

    with workdir.alone(home, f'{called}/encoder'):
        # Before anything is noted, so that settings that cannot be trained are easily mended.
        ready = None if workdir.is_finished(folder) else built()
        if workdir.begin(folder, made_with, overwrite=overwrite):
            progress.console.print(f'encoder: {called} is trained')
            return
        objective, feed = ready or built()
        began = time.perf_counter()
        with progress.bar(f'encoder {called}', total=settings.steps, unit='steps') as advance:
            weights = training.train(
                objective,
                batches=feed.train,
                valid=feed.valid,
                settings=settings,
                seed=config.seed,
                folder=folder / 'unfinished',
                report=functools.partial(_report, called, settings, home, advance, [began]),
            )
        kept = objective.keep
        other = 'last' if kept == 'best' else 'best'
        storage.write_encoder(folder / other, objective.encoder(weights[other], mpp))
        history = json.loads((folder / 'unfinished' / training.HISTORY).read_text('utf-8'))
        training_curve.draw(history, folder / 'curve.png', title=called, watched=objective.watched)
        if objective.pictures is not None:
            some = feed.valid[0]()['patches'][:50]
            rows = objective.pictures(weights[kept], some)
            rows = {title: np.clip(np.asarray(row), 0, 255) for title, row in rows.items()}
            pictures.patch_sheet(rows, folder / 'samples.png')
        storage.write_encoder(home / called, objective.encoder(weights[kept], mpp))
        workdir.write_atomically(folder / training.HISTORY, json.dumps(history, indent=1))
        workdir.finish(folder)
        shutil.rmtree(folder / 'unfinished')
    seconds = time.perf_counter() - began
    progress.console.print(
        f'encoder: {called} trained, {history[-1]["step"]:,} steps, {seconds / 60:.1f} min '
        f'→ {folder}'
    )


def source_of(folder: pathlib.Path) -> Source:
    """A finished set as what encoders learn from; its test patches are not in it."""
    found = store.open_set(folder)
    subsets = ('train', 'valid')
    has_pairs = all(pairs.has_pairs(folder, subset) for subset in subsets)
    return Source(
        pixels=found.pixels,
        train=found.indices('train'),
        valid=found.indices('valid'),
        labels=found.labels,
        classes=found.classes,
        pairs={each: pairs.load_pairs(folder, each) for each in subsets} if has_pairs else None,
    )


def build(
    name: str, settings: EncoderSettings, found: Mapping[str, Source], *, code_size: int, seed: int
) -> tuple[Objective, Batches]:
    """An objective by its name, and the batches that it eats.

    Raises:
        ValueError: Patches that are too small, have no labels, or no pairs.
    """
    first = next(iter(found.values()))
    _, size, _, channels = first.pixels.shape
    network = architectures.encoder_network(
        name, family=settings.network, patch_size=size, channels=channels, code_size=code_size
    )
    preset = PRESETS[settings.augmentation]
    common = {'augment': lambda key, patches: augment(key, patches, preset)}
    feed = {'batch': settings.batch, 'seed': seed, 'devices': devices.data_mesh().size}
    if name in ('supervised', 'multitask'):
        classes = {each: len(source.classes) for each, source in found.items()}
        if bad := [each for each, count in classes.items() if count < 2]:
            raise ValueError(f'{name}: the set {", ".join(bad)} has no two classes to tell apart')
        common['weight_decay'] = settings.weight_decay
        if name == 'supervised':
            objective = supervised(network, *classes.values(), **common)
        else:
            objective = multitask(network, classes, **common)
        return objective, batches.labelled(list(found.values()), **feed)

    source = batches.join(list(found.values()))
    if len(source.train) < 2 * settings.batch:
        raise ValueError(
            f'{name}: {len(source.train)} training patches are too few for batches of '
            f'{settings.batch}; make more patches or set --config.{name}.batch lower'
        )
    decoder = functools.partial(
        architectures.decoder_network, name, size=network['input_size'], kind=settings.decoder
    )
    if name == 'bigan':
        units = 128 if size == architectures.CELL else 1024
        objective = bigan(network, generator=decoder(), critic_units=units, **common)
        return objective, batches.plain(source, **feed)
    common['weight_decay'] = settings.weight_decay
    if name == 'vae':
        return vae(network, decoder=decoder(), **common), batches.plain(source, **feed)
    if name == 'vicreg':
        return vicreg(network, **common), batches.plain(source, **feed)
    if source.pairs is None:
        raise ValueError(f'{name}: its sets of patches have no pairs; run the stage patches again')
    return contrastive(network, **common), batches.paired(source, **feed)


def _report(name, settings, home, advance, before: list[float], record) -> None:
    """Logs a validation and shows it: a bar on a terminal, a line elsewhere."""
    workdir.log_metrics(home, {'stage': 'encoder', 'encoder': name, **record})
    done, now = record['step'], time.perf_counter()
    taken = (done - 1) % settings.epoch_steps + 1  # steps since the last report
    left = (settings.steps - done) * (now - before.pop()) / taken / 60
    before.append(now)
    parts = ', '.join(
        f'{key.replace("_", " ")} {value:.4g}'
        for key, value in record.items()
        if key not in ('step', 'learning_rate', 'images_per_s')
    )
    advance(taken, description=f'encoder {name}: {parts}')
    if not progress.console.is_terminal:
        progress.console.print(
            f'encoder {name}: step {done:,}/{settings.steps:,}: {parts}; learning rate '
            f'{record["learning_rate"]:.2g}; {record["images_per_s"]:,.0f} images/s; '
            f'{left:.1f} min left'
        )
