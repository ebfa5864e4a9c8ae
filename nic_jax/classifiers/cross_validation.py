"""Every seed and fold of a data set: trained where it is not yet, its hold-out predicted."""

import dataclasses
import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from nic_jax import workdir
from nic_jax.classifiers.batches import Examples
from nic_jax.classifiers.prediction import predict
from nic_jax.classifiers.trained import Trained, TrainSettings
from nic_jax.classifiers.training import train
from nic_jax.folds import Fold
from nic_jax.grids import GridLike


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """Grids, what is known of them, and how they are split.

    Attributes:
        label_name: Of what is learned.
        task: 'classification' or 'regression'.
        grids: One a slide.
        case_ids: The patient of each.
        targets: `[N]`, class numbers or values; of those without a label, anything.
        has_label: bool `[N]`.
        class_names: Of a classification, else None.
        folds: Indices into `grids`; those without a label are in none.
        lesion_areas: `[N]` in cells, or None.
        versions: Those that the grids can be read in.
        identity: JSON values that tell these grids from others: encoder, stride, and so on.
    """

    label_name: str
    task: str
    grids: Sequence[GridLike]
    case_ids: Sequence[str]
    targets: np.ndarray
    has_label: np.ndarray
    class_names: tuple[str, ...] | None
    folds: Sequence[Fold]
    lesion_areas: np.ndarray | None
    versions: tuple[int, ...]
    identity: Mapping[str, Any]

    def examples(self, indices: np.ndarray) -> Examples:
        """Some of the labelled grids, for training."""
        return Examples([self.grids[index] for index in indices], self.targets[indices])


def cross_validate(
    dataset: Dataset,
    *,
    settings: TrainSettings,
    model: str,
    seeds: Sequence[int],
    folder: pathlib.Path,
    report: Callable[[int, int, dict], None],
    overwrite: bool = False,
) -> list[dict[str, Any]] | None:
    """Trains and predicts every seed and fold that is not yet.

    Each hold-out is predicted by the network that never saw it. Slides without a label are
    predicted by the mean of a seed's networks, one a fold.

    Args:
        dataset: What to learn from.
        settings: Of network and training.
        model: Its name.
        seeds: A random initialisation each.
        folder: WORKDIR/ENCODER/classifier/LABEL/MODEL.
        report: Called with seed, fold and record after each epoch.
        overwrite: Replace what other settings have trained.

    Returns:
        Rows of predictions.csv; None while other processes still train some of the folds.
    """
    versions = tuple(version for version in settings.versions if version in dataset.versions)
    settings = dataclasses.replace(settings, versions=versions)
    classes = len(dataset.class_names) if dataset.class_names else 1
    unlabelled = np.flatnonzero(~dataset.has_label)
    rows, waiting = [], 0
    for seed in seeds:
        scores_of_new = []
        for number, fold in enumerate(dataset.folds):
            place = folder / f'seed_{seed}' / f'fold_{number}'
            with workdir.lock(folder, f'seed_{seed}/fold_{number}') as free:
                if not free:
                    waiting += 1
                    continue
                trained = train(
                    train=dataset.examples(fold.train),
                    valid=dataset.examples(fold.valid),
                    task=dataset.task,
                    classes=classes,
                    settings=settings,
                    seed=seed,
                    folder=place,
                    report=lambda record, seed=seed, number=number: report(seed, number, record),
                    identity={**dataset.identity, 'label': dataset.label_name, 'fold': number},
                    overwrite=overwrite,
                )
                wanted = np.concatenate([fold.test, unlabelled])
                scores = _predict(trained, dataset, wanted, place / 'scores.json')
            for index, score in zip(fold.test, scores[: len(fold.test)], strict=True):
                rows.append(_row(dataset, index, score, model, seed, number, 'test'))
            if len(unlabelled):
                scores_of_new.append(scores[len(fold.test) :])
        if scores_of_new:
            for index, score in zip(unlabelled, np.mean(scores_of_new, axis=0), strict=True):
                rows.append(_row(dataset, index, score, model, seed, '', 'new'))
    return None if waiting else rows


def _predict(
    trained: Trained, dataset: Dataset, indices: np.ndarray, path: pathlib.Path
) -> np.ndarray:
    """Scores `[N, K]`; those of grids that were predicted before are read from `path`."""
    scores = json.loads(path.read_text(encoding='utf-8')) if path.exists() else {}
    grids = [dataset.grids[index] for index in indices]
    missing = [grid for grid in grids if grid.fingerprint not in scores]
    if missing:
        for grid, score in zip(missing, predict(trained, missing), strict=True):
            scores[grid.fingerprint] = score.tolist()
        workdir.write_atomically(path, json.dumps(scores))
    return np.array([scores[grid.fingerprint] for grid in grids])


def _row(
    dataset: Dataset,
    index: int,
    scores: np.ndarray,
    model: str,
    seed: int,
    fold: int | str,
    subset: str,
) -> dict[str, Any]:
    """One line of predictions.csv."""
    names = dataset.class_names
    target = dataset.targets[index]
    label = '' if not dataset.has_label[index] else names[target] if names else float(target)
    row = {
        'slide_id': dataset.grids[index].slide_id,
        'case_id': dataset.case_ids[index],
        'label_name': dataset.label_name,
        'model': model,
        'seed': seed,
        'fold': fold,
        'subset': subset,
        'label': label,
        'prediction': names[int(scores.argmax())] if names else float(scores[0]),
    }
    if names:
        row.update(
            {f'score_{name}': float(score) for name, score in zip(names, scores, strict=True)}
        )
    if dataset.lesion_areas is not None:
        row['lesion_area'] = int(dataset.lesion_areas[index])
    return row
