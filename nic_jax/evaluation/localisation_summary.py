"""Rows of localisation.csv, summed up: means with intervals, by lesion area, and who beats whom.

Slides of the subset 'test' that have a lesion count, and no others; several seeds' or folds' maps
of one slide are averaged first. Intervals are the central 95 % of the bootstrap over cases. Rows
have an `encoder` as well, which their file's folder tells.
"""

import collections
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from nic_jax.evaluation.calibration import equal_bins
from nic_jax.evaluation.comparisons import verdict
from nic_jax.evaluation.lesion_size import BINS
from nic_jax.evaluation.localisation import METRICS
from nic_jax.evaluation.resampling import Interval, interval, multiplicities, resampled_mean

GROUP = ('encoder', 'label_name', 'model', 'method')

Rows = Sequence[Mapping[str, Any]]


class _Slides(NamedTuple):
    """The figures of N slides by one method, sorted by id.

    Attributes:
        ids: `[N]`.
        case_ids: `[N]`.
        areas: Of their lesions, `[N]`.
        figures: Each metric's, `[N]`; NaN where there is none.
    """

    ids: np.ndarray
    case_ids: np.ndarray
    areas: np.ndarray
    figures: Mapping[str, np.ndarray]


def summarise(rows: Rows, *, seed: int = 0, rounds: int = 1000) -> list[dict[str, Any]]:
    """The mean of each metric.

    Returns:
        A record an encoder, label, model and method: `slides` and `cases` (counts), and each of
        `localisation.METRICS` with METRIC`_low` to METRIC`_high`; NaN where slides have no such.
    """
    records = []
    for key, slides in _collect(rows).items():
        record = dict(zip(GROUP, key, strict=True)) | {
            'slides': len(slides.ids),
            'cases': len(set(slides.case_ids.tolist())),
        }
        weights = multiplicities(slides.case_ids, seed=seed, rounds=rounds)
        for metric in METRICS:
            value, (low, high, _) = _mean(slides.figures[metric], weights)
            record |= {metric: value, f'{metric}_low': low, f'{metric}_high': high}
        records.append(record)
    return records


def by_lesion_size(
    rows: Rows, *, metric: str = 'jaccard', seed: int = 0, rounds: int = 1000
) -> list[dict[str, Any]]:
    """The mean of a metric in bins of lesion area, of equal count.

    Returns:
        A record an encoder, label, model, method and bin: `metric`, `area_from`, `area_to` and the
        median `area` in cells; `radius` in cells, of the circle of that area; `slides` and `value`
        with its interval `low` to `high`.
    """
    records = []
    for key, slides in _collect(rows).items():
        weights = multiplicities(slides.case_ids, seed=seed, rounds=rounds)
        bin_of = equal_bins(slides.areas, bins=BINS)
        for number in range(bin_of.max() + 1):
            here = bin_of == number
            areas = slides.areas[here]
            value, (low, high, _) = _mean(slides.figures[metric][here], weights[:, here])
            records.append(
                dict(zip(GROUP, key, strict=True))
                | {
                    'metric': metric,
                    'area_from': float(areas.min()),
                    'area_to': float(areas.max()),
                    'area': float(np.median(areas)),
                    'radius': math.sqrt(np.median(areas) / math.pi),
                    'slides': int(here.sum()),
                    'value': value,
                    'low': low,
                    'high': high,
                }
            )
    return records


def compare(
    rows: Rows, *, metric: str = 'jaccard', seed: int = 0, rounds: int = 1000
) -> list[dict[str, Any]]:
    """Compares methods, encoders and models, whatever else is the same, on slides that both have.

    Returns:
        A record a pair: `label_name`, `compared` ('method', 'encoder' or 'model'), `within` (what
        is the same), `first`, `second`, `metric`, `slides` (of both), `first_mean`, `second_mean`,
        their `difference` with its interval `low` to `high`, and the `verdict` about the first, see
        `comparisons.verdict`.
    """
    found = _collect(rows)
    records = []
    for compared in ('method', 'encoder', 'model'):
        place = GROUP.index(compared)
        groups = collections.defaultdict(list)
        for key in found:
            groups[key[:place] + key[place + 1 :]].append(key)
        for members in groups.values():
            for first, second in itertools.combinations(members, 2):
                one, other = found[first], found[second]
                _, here, there = np.intersect1d(one.ids, other.ids, return_indices=True)
                if not len(here):
                    continue
                values = one.figures[metric][here], other.figures[metric][there]
                weights = multiplicities(one.case_ids[here], seed=seed, rounds=rounds)
                difference, (low, high, _) = _mean(values[0] - values[1], weights)
                same = [name for name in GROUP if name not in (compared, 'label_name')]
                records.append(
                    {
                        'label_name': first[GROUP.index('label_name')],
                        'compared': compared,
                        'within': ', '.join(first[GROUP.index(name)] for name in same),
                        'first': first[place],
                        'second': second[place],
                        'metric': metric,
                        'slides': len(here),
                        'first_mean': float(values[0].mean()),
                        'second_mean': float(values[1].mean()),
                        'difference': difference,
                        'low': low,
                        'high': high,
                        'verdict': verdict(low, high),
                    }
                )
    return records


def _collect(rows: Rows) -> dict[tuple[str, ...], _Slides]:
    groups = collections.defaultdict(lambda: collections.defaultdict(list))
    for row in rows:
        if row['subset'] == 'test' and not math.isnan(_number(row['jaccard'])):
            groups[tuple(row[name] for name in GROUP)][row['slide_id']].append(row)
    return {key: _slides(by_slide) for key, by_slide in groups.items()}


def _slides(by_slide: Mapping[str, Rows]) -> _Slides:
    ids = sorted(by_slide)
    means = {
        name: np.array([np.mean([_number(row[name]) for row in by_slide[each]]) for each in ids])
        for name in ('lesion_area', *METRICS)
    }
    return _Slides(
        ids=np.array(ids),
        case_ids=np.array([by_slide[each][0]['case_id'] for each in ids]),
        areas=means.pop('lesion_area'),
        figures=means,
    )


def _mean(values: np.ndarray, weights: np.ndarray) -> tuple[float, Interval]:
    """The mean of values `[N]` that are there, and its interval over resamples `[R, N]`."""
    there = ~np.isnan(values)
    if not there.any():
        return math.nan, Interval(math.nan, math.nan, len(weights))
    figures = resampled_mean(np.nan_to_num(values)[:, None], there[:, None], weights)
    return float(values[there].mean()), interval(figures[:, 0])


def _number(value: Any) -> float:
    return math.nan if value == '' else float(value)
