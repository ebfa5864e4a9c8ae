"""Rows of predictions.csv as arrays: what one model foretold of one label, by every seed."""

import collections
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nic_jax.evaluation.predictions import (
    LESION_AREA,
    SCORE,
    PredictionsError,
    class_names,
    has_label,
    task_of,
)

UNITS = ('slide', 'case')


@dataclasses.dataclass(frozen=True, eq=False)
class Predicted:
    """Predictions of the same N slides (or cases) by S seeds.

    Attributes:
        encoder: '' where rows name none.
        label_name: Of what is predicted.
        model: Its name.
        point: The swept number, '' outside sweeps.
        task: 'classification', 'regression' or 'survival'.
        class_names: K of a classification, else none.
        units: `[N]`, each the id of a slide (or case) and its fold, '' for several folds' mean; a
            slide counts once for each fold that tests it.
        case_ids: `[N]`.
        slides: Slides in all, N unless units are cases.
        targets: `[N]`, class numbers, values or times.
        events: `[N]`, 1 died and 0 censored; None but for survival.
        seeds: S.
        predictions: Probabilities `[S, N, K]` that sum to 1, or values or risks `[S, N]`.
        lesion_areas: `[N]` in cells, NaN where unknown.
    """

    encoder: str
    label_name: str
    model: str
    point: float | str
    task: str
    class_names: tuple[str, ...]
    units: tuple[tuple[str, int | str], ...]
    case_ids: np.ndarray
    slides: int
    targets: np.ndarray
    events: np.ndarray | None
    seeds: tuple[int, ...]
    predictions: np.ndarray
    lesion_areas: np.ndarray

    @property
    def positive(self) -> str:
        """The second of two classes, which scores are of; '' of more."""
        return self.class_names[1] if len(self.class_names) == 2 else ''

    def at(self, indices: Sequence[int] | np.ndarray) -> 'Predicted':
        """Some of the units."""
        return dataclasses.replace(
            self,
            units=tuple(self.units[index] for index in indices),
            case_ids=self.case_ids[indices],
            slides=len(indices),
            targets=self.targets[indices],
            events=None if self.events is None else self.events[indices],
            predictions=self.predictions[:, indices],
            lesion_areas=self.lesion_areas[indices],
        )

    def __str__(self) -> str:
        point = '' if self.point == '' else f' at {self.point:g}'
        return ', '.join(filter(None, (self.label_name, self.encoder, self.model))) + point


def collect(rows: Sequence[Mapping[str, Any]], *, unit: str = 'slide') -> list[Predicted]:
    """Gathers hold-outs by encoder, label, model and point.

    Rows without a label, and subsets other than 'test', are left out.

    Args:
        rows: Of one or several predictions.csv; columns `encoder` and `point` keep apart what they
            tell apart.
        unit: 'slide', or 'case' for the mean prediction (scores, values or risks) over the slides
            of a case; its lesion area is their sum.

    Raises:
        PredictionsError: A model's seeds predict different slides, a slide is there twice, or the
            slides of a case have different labels.
    """
    if unit not in UNITS:
        raise ValueError(f'{unit=} must be one of {", ".join(UNITS)}')
    groups = collections.defaultdict(lambda: collections.defaultdict(dict))
    for row in rows:
        if row['subset'] == 'test' and has_label(row):
            key = (row.get('encoder', ''), row['label_name'], row['model'], row.get('point', ''))
            place = row['slide_id'], row['fold']
            of_seed = groups[key][row['seed']]
            if place in of_seed:
                raise PredictionsError(
                    f'{", ".join(filter(None, map(str, key)))}: {row["slide_id"]} is predicted '
                    f'twice by seed {row["seed"]}; tell the runs apart by encoder, model or point'
                )
            of_seed[place] = row
    found = [_predicted(key, by_seed) for key, by_seed in groups.items()]
    return [_by_case(each) for each in found] if unit == 'case' else found


def _predicted(key: tuple, by_seed: Mapping[int, Mapping[tuple, Mapping[str, Any]]]) -> Predicted:
    what = ', '.join(filter(None, map(str, key)))
    # A fold is a number, or '' beside numbers.
    units = sorted(next(iter(by_seed.values())), key=lambda unit: (unit[0], str(unit[1])))
    for number, predicted in by_seed.items():
        if differing := predicted.keys() ^ set(units):
            raise PredictionsError(
                f'{what}: seed {number} predicts other slides than the first seed, such as '
                f'{", ".join(sorted({slide for slide, _ in differing})[:3])}: let all folds of all '
                'seeds finish'
            )
    ordered = [[predicted[unit] for unit in units] for predicted in by_seed.values()]
    first = ordered[0]
    task, names = task_of(first[0]), class_names(first[0])
    for row in (row for rows in ordered for row in rows):
        if row.keys() == first[0].keys():
            continue
        if (task_of(row), class_names(row)) != (task, names):
            raise PredictionsError(
                f'{what}: {row["slide_id"]} has other classes than {first[0]["slide_id"]}: '
                f'{class_names(row)}, not {names}'
            )
    events = None
    if task == 'classification':
        number_of = {name: number for number, name in enumerate(names)}
        targets = np.array([number_of[row['label']] for row in first])
        columns = [SCORE + name for name in names]
        values = np.array([[[row[c] for c in columns] for row in rows] for rows in ordered])
        values /= values.sum(-1, keepdims=True)  # rounded in the file
    else:
        targets = np.array([row['time' if task == 'survival' else 'label'] for row in first], float)
        values = np.array([[row['prediction'] for row in rows] for rows in ordered], float)
        if task == 'survival':
            events = np.array([row['event'] for row in first])
    areas = [row.get(LESION_AREA, '') for row in first]
    return Predicted(
        *key,
        task=task,
        class_names=tuple(names),
        units=tuple(units),
        case_ids=np.array([row['case_id'] for row in first]),
        slides=len(units),
        targets=targets,
        events=events,
        seeds=tuple(by_seed),
        predictions=values,
        lesion_areas=np.array([np.nan if area == '' else area for area in areas], float),
    )


def _by_case(predicted: Predicted) -> Predicted:
    """A unit a case (and fold), foretold as the mean over its slides."""
    slides_of = collections.defaultdict(list)
    for index, (case, (_, fold)) in enumerate(
        zip(predicted.case_ids.tolist(), predicted.units, strict=True)
    ):
        slides_of[case, fold].append(index)
    for (case, _), indices in slides_of.items():
        for known in filter(lambda known: known is not None, (predicted.targets, predicted.events)):
            differing = [index for index in indices if known[index] != known[indices[0]]]
            if differing:
                one, other = predicted.units[indices[0]][0], predicted.units[differing[0]][0]
                raise PredictionsError(
                    f'{predicted}: the slides of case {case} have different labels, such as {one} '
                    f'and {other}: give a case one label, or score by slide'
                )
    chosen = list(slides_of.values())
    first = predicted.at([indices[0] for indices in chosen])
    return dataclasses.replace(
        first,
        units=tuple(slides_of),
        slides=predicted.slides,
        predictions=np.stack([predicted.predictions[:, i].mean(1) for i in chosen], axis=1),
        lesion_areas=np.array([predicted.lesion_areas[indices].sum() for indices in chosen]),
    )
