"""Probes of the codes of tiles: fitted on training tiles, chosen by validation, scored on test."""

import dataclasses
import pathlib
from collections.abc import Iterable, Sequence

import ml_collections
import numpy as np

from nic_jax import options, progress, workdir
from nic_jax.classifiers import probe as probe_
from nic_jax.classifiers.probe import ProbeSettings
from nic_jax.evaluation import predictions
from nic_jax.patches.store import PatchSet, open_set

Config = ml_collections.ConfigDict


def probes_of(config: Config) -> list[str]:
    """The probes asked for."""
    return options.names(config.probe.models)


def probe_all(
    config: Config,
    home: pathlib.Path,
    *,
    folders: Sequence[pathlib.Path],
    tasks: Iterable[str],
    overwrite: bool,
) -> None:
    """Trains the probes of every encoder and task, and predicts the test tiles.

    Args:
        config: Its `probe`.
        home: The workdir.
        folders: Of the encoders.
        tasks: Names of the sets of tiles.
        overwrite: Replace predictions that were made with other settings.
    """
    settings = ProbeSettings(
        **{field.name: config.probe[field.name] for field in dataclasses.fields(ProbeSettings)}
    )
    for folder in folders:
        for task in tasks:
            found = open_set(home / 'patches' / task)
            codes = codes_of(home, folder, task)
            for model in probes_of(config):
                place = folder / 'classifier' / task / model
                seeds = list(config.probe.seeds) if model == 'mlp' else [0]
                made_with = {
                    'codes': workdir.made_with(folder / 'codes' / task),
                    'settings': dataclasses.asdict(settings),
                    'seeds': seeds,
                }
                with workdir.alone(home, f'{folder.name}/classifier/{task}/{model}'):
                    if workdir.begin(place, made_with, overwrite=overwrite):
                        continue
                    rows = []
                    for seed in seeds:
                        scores = _probe(model, codes, found, settings, seed)
                        rows += _rows(found, scores, task, model, seed)
                    predictions.write(place / 'predictions.csv', rows)
                    workdir.finish(place)
        progress.console.print(
            f'classify: {folder.name}: {", ".join(probes_of(config))} → {folder / "classifier"}'
        )


def codes_of(home: pathlib.Path, folder: pathlib.Path, task: str) -> np.ndarray:
    """An encoder's codes of the patches that are there, float32 `[N, C]`.

    Raises:
        ValueError: They are not finished, or of other patches.
    """
    place = folder / 'codes' / task
    if not workdir.is_finished(place):
        raise ValueError(f'{place} is not finished; run the stage compress first')
    if workdir.made_with(place)['patches'] != workdir.made_with(home / 'patches' / task):
        raise ValueError(f'{place} are codes of other patches; run compress with --overwrite')
    return np.load(place / 'codes.npy', mmap_mode='r')


def _probe(
    model: str, codes: np.ndarray, found: PatchSet, settings: ProbeSettings, seed: int
) -> np.ndarray:
    """Probabilities of the test tiles, `[n, K]`."""
    train, valid = (
        (codes[indices], found.labels[indices])
        for indices in (found.indices(subset, labelled=True) for subset in ('train', 'valid'))
    )
    predict = probe_.fit(
        model, train, valid, classes=len(found.classes), settings=settings, seed=seed
    )
    return predict(codes[found.indices('test', labelled=True)])


def _rows(found: PatchSet, scores: np.ndarray, task: str, model: str, seed: int) -> list[dict]:
    rows = []
    for index, probabilities in zip(found.indices('test', labelled=True), scores, strict=True):
        rows.append(
            {
                'slide_id': _name(found, index),
                'case_id': str(found.columns['source'][index]),
                'label_name': task,
                'model': model,
                'seed': seed,
                'fold': 0,
                'subset': 'test',
                'label': found.classes[found.labels[index]],
                'prediction': found.classes[int(probabilities.argmax())],
            }
            | {
                predictions.SCORE + name: float(score)
                for name, score in zip(found.classes, probabilities, strict=True)
            }
        )
    return rows


def _name(found: PatchSet, index: int) -> str:
    """A tile's path; of a patch of a slide, the slide and the corner's position on it, px."""
    name, x, y = (str(found.columns[column][index]) for column in ('name', 'x', 'y'))
    return f'{name}@{x},{y}' if x else name
