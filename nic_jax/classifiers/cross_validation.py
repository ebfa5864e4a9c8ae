"""Every seed and fold of a data set: trained where it is not yet, its hold-out predicted."""

import collections
import dataclasses
import functools
import json
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from nic_jax import learned, workdir
from nic_jax.classifiers.batches import Examples
from nic_jax.classifiers.prediction import predict
from nic_jax.classifiers.trained import TrainSettings
from nic_jax.classifiers.training import train
from nic_jax.folds import Fold, subset_cases
from nic_jax.grids import GridLike

Predict = Callable[[list[int]], Iterable[np.ndarray]]  # indices of slides -> scores [K] of each


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """Grids, what is known of them, and how they are split.

    Attributes:
        label_name: Of what is learned.
        task: 'classification', 'regression' or 'survival'.
        grids: One a slide.
        case_ids: The patient of each.
        targets: `[N]`, class numbers or values, or of survival (time, event) `[N, 2]`; of those
            without a label, anything.
        has_label: bool `[N]`.
        class_names: Of a classification, else None.
        folds: Indices into `grids`; those without a label are in none.
        lesion_areas: `[N]` in cells, NaN where unknown, or None.
        groups: Names of subsets that are scored for themselves, and who is in: bool `[N]`.
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
    groups: Mapping[str, np.ndarray]
    versions: tuple[int, ...]
    identity: Mapping[str, Any]

    @property
    def unlabelled(self) -> np.ndarray:
        """Indices of those without a label."""
        return np.flatnonzero(~self.has_label)

    def chosen_folds(self, only: Sequence[int]) -> tuple[int, ...]:
        """The numbers of the folds that are asked for; none asked for are all."""
        return tuple(only) or tuple(range(len(self.folds)))

    def examples(self, indices: np.ndarray) -> Examples:
        """Some of the labelled grids, for training."""
        return Examples(
            [self.grids[index] for index in indices],
            self.targets[indices],
            [self.case_ids[index] for index in indices],
        )


def cross_validate(
    dataset: Dataset,
    *,
    model: str,
    fields: Mapping[str, Any],
    settings: TrainSettings,
    seeds: Sequence[int],
    folder: pathlib.Path,
    report: Callable[[int, int, dict], None],
    train_slides: int = 0,
    only_folds: Sequence[int] = (),
    predict_unlabelled: bool = True,
    overwrite: bool = False,
) -> list[dict[str, Any]] | None:
    """Trains and predicts every seed and fold that is not yet.

    Args:
        dataset: What to learn from.
        model: One of `models.NETWORKS`.
        fields: Of the network, where they differ from its defaults.
        settings: Of the training.
        seeds: As of `predict_folds`, with `folder`, `train_slides`, `only_folds` and
            `predict_unlabelled`.
        folder: WORKDIR/ENCODER/classifier/LABEL/MODEL.
        report: Called with seed, fold and record after each epoch.
        train_slides: See `seeds`.
        only_folds: See `seeds`.
        predict_unlabelled: See `seeds`.
        overwrite: Replace what other settings have trained.

    Returns:
        Rows of predictions.csv; None while other processes still train some of the folds.
    """
    versions = tuple(version for version in settings.versions if version in dataset.versions)
    settings = dataclasses.replace(settings, versions=versions)

    def fit(seed: int, number: int, fold: Fold) -> Predict:
        trained = train(
            train=dataset.examples(fold.train),
            valid=dataset.examples(fold.valid),
            task=dataset.task,
            classes=len(dataset.class_names) if dataset.class_names else 1,
            model=model,
            fields=fields,
            settings=settings,
            seed=seed,
            folder=folder / learned.network(seed, number),
            report=functools.partial(report, seed, number),
            identity={**dataset.identity, 'label': dataset.label_name, 'fold': number},
            overwrite=overwrite,
        )
        return lambda indices: predict(trained, [dataset.grids[index] for index in indices])

    return predict_folds(
        dataset,
        fit,
        model=model,
        seeds=seeds,
        folder=folder,
        train_slides=train_slides,
        only_folds=only_folds,
        predict_unlabelled=predict_unlabelled,
    )


def predict_folds(
    dataset: Dataset,
    fit: Callable[[int, int, Fold], Predict],
    *,
    model: str,
    seeds: Sequence[int],
    folder: pathlib.Path,
    train_slides: int = 0,
    only_folds: Sequence[int] = (),
    predict_unlabelled: bool = True,
) -> list[dict[str, Any]] | None:
    """Predicts each hold-out by the network that never saw it.

    Slides that every one of several folds tests, and those without a label, are predicted by the
    mean of a seed's networks.

    Args:
        dataset: What is learned from.
        fit: Seed, number of the fold, fold -> what predicts by the network trained in it. Called
            once for each, while no other process is in its folder.
        model: The networks' name in predictions.csv.
        seeds: A random initialisation each.
        folder: Of the networks of all seeds and folds.
        train_slides: How many train and validate in a fold; 0 for all.
        only_folds: Numbers of the folds to train and predict; none for all.
        predict_unlabelled: Predict slides without a label too.

    Returns:
        Rows of predictions.csv; None while other processes still train some of the folds.
    """
    unlabelled = dataset.unlabelled if predict_unlabelled else np.array([], int)
    numbers = dataset.chosen_folds(only_folds)
    rows, waiting = [], False
    for seed in seeds:
        found = collections.defaultdict(dict)  # slide -> {fold: scores}
        for number in numbers:
            fold = subset_cases(
                dataset.folds[number],
                dataset.case_ids,
                dataset.targets,
                slides=train_slides,
                task=dataset.task,
                seed=number,
            )
            name = learned.network(seed, number)
            with workdir.lock(folder, name) as free:
                if not free:
                    waiting = True
                    continue
                wanted = np.concatenate([fold.test, unlabelled])
                by_network = fit(seed, number, fold)
                scores = kept_scores(folder / name / 'scores.json', dataset, wanted, by_network)
            for index, score in zip(wanted.tolist(), scores, strict=True):
                found[index][number] = score
        for index, by_fold in sorted(found.items()):
            mean = len(by_fold) == len(numbers)
            rows += prediction_rows(dataset, index, by_fold, model=model, seed=seed, mean=mean)
    return None if waiting else rows


def kept_scores(
    path: pathlib.Path,
    dataset: Dataset,
    indices: np.ndarray,
    predict: Predict,
) -> np.ndarray:
    """Scores `[N, K]` of slides; those of grids that were predicted before are read from `path`.

    Args:
        path: scores.json of a network.
        dataset: The grids.
        indices: Of the slides in it.
        predict: Scores slides that were not.
    """
    scores = json.loads(path.read_text(encoding='utf-8')) if path.exists() else {}
    prints = {int(index): dataset.grids[index].fingerprint for index in indices}
    missing = [index for index, fingerprint in prints.items() if fingerprint not in scores]
    if missing:
        for index, score in zip(missing, predict(missing), strict=True):
            scores[prints[index]] = score.tolist()
        workdir.write_atomically(path, json.dumps(scores))
    return np.array([scores[fingerprint] for fingerprint in prints.values()])


def prediction_rows(
    dataset: Dataset,
    index: int,
    by_fold: Mapping[int, np.ndarray],
    *,
    model: str,
    seed: int,
    mean: bool,
) -> list[dict[str, Any]]:
    """Lines of predictions.csv: one for each fold, or one for the `mean` of several."""
    subset = 'test' if dataset.has_label[index] else 'new'
    if subset == 'new' or (mean and len(by_fold) > 1):
        by_fold = {'': np.mean(list(by_fold.values()), axis=0)}
    return [
        _row(dataset, index, scores, model=model, seed=seed, fold=fold, subset=subset)
        for fold, scores in by_fold.items()
    ]


def _row(
    dataset: Dataset,
    index: int,
    scores: np.ndarray,
    *,
    model: str,
    seed: int,
    fold: int | str,
    subset: str,
) -> dict[str, Any]:
    names = dataset.class_names
    row = {
        'slide_id': dataset.grids[index].slide_id,
        'case_id': dataset.case_ids[index],
        'label_name': dataset.label_name,
        'model': model,
        'seed': seed,
        'fold': fold,
        'subset': subset,
        **_label(dataset, index),
        'prediction': names[int(scores.argmax())] if names else float(scores[0]),
    }
    if names:
        row |= {f'score_{name}': float(score) for name, score in zip(names, scores, strict=True)}
    if dataset.lesion_areas is not None:
        area = float(dataset.lesion_areas[index])
        row['lesion_area'] = '' if np.isnan(area) else area
    return row | {f'group_{name}': int(members[index]) for name, members in dataset.groups.items()}


def _label(dataset: Dataset, index: int) -> dict[str, Any]:
    target, known = dataset.targets[index], dataset.has_label[index]
    if dataset.task == 'survival':
        time, event = (float(target[0]), int(target[1])) if known else ('', '')
        return {'time': time, 'event': event}
    if dataset.class_names:
        return {'label': dataset.class_names[target] if known else ''}
    return {'label': float(target) if known else ''}
