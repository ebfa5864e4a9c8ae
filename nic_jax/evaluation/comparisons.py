"""Which of two is better, if either: paired bootstrap of the difference, over patients."""

import collections
import functools
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nic_jax.evaluation.predicted import Predicted, collect
from nic_jax.evaluation.predictions import PredictionsError
from nic_jax.evaluation.resampling import interval, multiplicities
from nic_jax.evaluation.scoring import PRIMARY, resampled_primary, score


def compare(
    rows: Sequence[Mapping[str, Any]], *, seed: int = 0, rounds: int = 1000, unit: str = 'slide'
) -> list[dict[str, Any]]:
    """Compares all models on the same encoder, and all encoders under the same model.

    Both are scored on the slides that both predict, and on the same resamples of their cases. The
    intervals are of each pair alone: of twenty pairs that are equal, one is expected to be told
    apart.

    Args:
        rows: Of one or several predictions.csv, see `predicted.collect`.
        seed: Of the bootstrap.
        rounds: Of the bootstrap.
        unit: 'slide' or 'case'.

    Returns:
        A record a pair, labels and points apart: `label_name`, `point`, `compared` ('model' or
        'encoder'), `within` (the encoder or model that is the same), `first`, `second`, `metric`
        (the primary one), `units` (that both predict), `first_mean` and `second_mean` over seeds,
        their `difference`, its 95 % interval `low` to `high`, `skipped` resamples without a figure,
        and the `verdict` about the first, see `verdict`.

    Raises:
        PredictionsError: The same slide has different labels, or labels have different classes.
    """
    found = collect(rows, unit=unit)

    @functools.cache
    def drawn(case_ids: tuple[str, ...]) -> np.ndarray:
        return multiplicities(case_ids, seed=seed, rounds=rounds)

    @functools.cache
    def scored(predicted: Predicted, units: tuple) -> tuple[float, np.ndarray]:
        part = _part(predicted, units)
        values = [each[PRIMARY[part.task]].value for each in score(part).values()]
        weights = drawn(tuple(part.case_ids.tolist()))
        return float(np.mean(values)), resampled_primary(part, weights)

    records = []
    for compared, same in (('model', 'encoder'), ('encoder', 'model')):
        groups = collections.defaultdict(list)
        for each in found:
            groups[each.label_name, each.point, getattr(each, same)].append(each)
        for (label_name, point, within), members in groups.items():
            for first, second in itertools.combinations(members, 2):
                units = _common(first, second)
                if not units:
                    continue
                (first_mean, one), (second_mean, other) = (
                    scored(first, units),
                    scored(second, units),
                )
                low, high, skipped = interval(one - other)
                records.append(
                    {
                        'label_name': label_name,
                        'point': point,
                        'compared': compared,
                        'within': within,
                        'first': getattr(first, compared),
                        'second': getattr(second, compared),
                        'metric': PRIMARY[first.task],
                        'units': len(units),
                        'first_mean': first_mean,
                        'second_mean': second_mean,
                        'difference': first_mean - second_mean,
                        'low': low,
                        'high': high,
                        'skipped': skipped,
                        'verdict': verdict(low, high),
                    }
                )
    return records


def verdict(low: float, high: float) -> str:
    """'better' or 'worse' where the interval of a difference excludes 0, else 'tie'.

    'unknown' where there is no interval.
    """
    if np.isnan(low):
        return 'unknown'
    if low > 0:
        return 'better'
    return 'worse' if high < 0 else 'tie'


def _common(first: Predicted, second: Predicted) -> tuple:
    """The units that both predict.

    Raises:
        PredictionsError: They know different things of them.
    """
    if (first.task, first.class_names) != (second.task, second.class_names):
        raise PredictionsError(
            f'{first} and {second} cannot be compared: {first.task} of {first.class_names} and '
            f'{second.task} of {second.class_names}; give what differs different label names'
        )
    if first.units == second.units:
        units = first.units
    else:
        others = set(second.units)
        units = tuple(unit for unit in first.units if unit in others)
    one, other = _part(first, units), _part(second, units)
    for name in ('targets', 'events', 'case_ids'):
        mine, theirs = getattr(one, name), getattr(other, name)
        if mine is not None and (differing := np.flatnonzero(mine != theirs)).size:
            index = differing[0]
            raise PredictionsError(
                f'{first} and {second} disagree about {units[index][0]}: {name} {mine[index]} and '
                f'{theirs[index]}; predict it again with one table of slides'
            )
    return units


def _part(predicted: Predicted, units: tuple) -> Predicted:
    if units == predicted.units:
        return predicted
    place = {unit: index for index, unit in enumerate(predicted.units)}
    return predicted.at([place[unit] for unit in units])
