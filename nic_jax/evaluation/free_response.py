"""Lesions found against false alarms (FROC), as CAMELYON16's challenge counts.

A detection inside a lesion finds it; a lesion counts once, by its best detection. Any other
detection is a false positive, on slides with lesions as on those without: as the challenge has it,
sensitivity is drawn against the mean number of false positives over all slides. (Its paper, JAMA
2017, counts those of normal slides; where every image has a lesion, there are none.)
"""

import collections
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from nic_jax.evaluation.localisation import LocalisationError
from nic_jax.evaluation.localisation_summary import GROUP
from nic_jax.evaluation.resampling import interval, multiplicities

RATES = (0.25, 0.5, 1, 2, 4, 8)  # false positives a slide, of the challenge's score


class Curve(NamedTuple):
    """Sensitivity against false positives, from no detection to all.

    Attributes:
        false_positives: A slide, ascending from 0, `[K]`.
        sensitivity: Share of lesions found, `[K]`.
    """

    false_positives: np.ndarray
    sensitivity: np.ndarray


def free_response(
    rows: Sequence[Mapping[str, Any]], *, seed: int = 0, rounds: int = 1000
) -> list[dict[str, Any]]:
    """The curve of each encoder, label, model and method, of slides of the subset 'test'.

    Args:
        rows: Of detections.csv, and an `encoder`, `label_name` and `model` that its folder tells.
        seed: Of the bootstrap over cases.
        rounds: Of the bootstrap.

    Returns:
        Records of these and `method`: `slides`, `lesions` (counts), `curve` (a `Curve`),
        `sensitivities` at `RATES` with `lows` and `highs`, the ends of 95 % intervals, and their
        mean `score` with its interval `low` to `high`. Figures are NaN where there is no lesion.

    Raises:
        LocalisationError: Rows disagree about how many lesions a slide has.
    """
    groups = collections.defaultdict(lambda: collections.defaultdict(list))
    for row in rows:
        if row['subset'] == 'test':
            groups[tuple(row[name] for name in GROUP)][row['slide_id']].append(row)
    records = []
    for key, by_slide in groups.items():
        found = _gather(by_slide)
        curve = _curve(found, np.ones(len(found.lesions)))
        sensitivities = np.interp(RATES, *curve)
        drawn = multiplicities(found.case_ids, seed=seed, rounds=rounds)
        # Interpolated between two thresholds, and the last one's beyond it, as the challenge does.
        resampled = np.array([np.interp(RATES, *_curve(found, weights)) for weights in drawn])
        intervals = [interval(column) for column in resampled.T]
        low, high, _ = interval(resampled.mean(1))
        records.append(
            dict(zip(GROUP, key, strict=True))
            | {
                'slides': len(found.lesions),
                'lesions': int(found.lesions.sum()),
                'curve': curve,
                'sensitivities': sensitivities.tolist(),
                'lows': [each.low for each in intervals],
                'highs': [each.high for each in intervals],
                'score': float(sensitivities.mean()),
                'low': low,
                'high': high,
            }
        )
    return records


class _Found(NamedTuple):
    """The detections of N slides that count, E of them, by descending score.

    Attributes:
        case_ids: `[N]`.
        lesions: How many, `[N]`.
        slide: Of each detection, int `[E]`.
        hit: Whether it is a lesion's best, else a false positive, bool `[E]`.
        last: Where each run of equal scores ends, `[K]`.
    """

    case_ids: np.ndarray
    lesions: np.ndarray
    slide: np.ndarray
    hit: np.ndarray
    last: np.ndarray


def _gather(by_slide: Mapping[str, Sequence[Mapping[str, Any]]]) -> _Found:
    counted = []  # (score, slide, hit)
    for number, (slide_id, rows) in enumerate(by_slide.items()):
        if len({row['lesions'] for row in rows}) > 1:
            raise LocalisationError(
                f'{slide_id} has different numbers of lesions in its rows: explain it again'
            )
        best = {}
        for row in rows:
            if row['score'] != '' and row['lesion'] == '':
                counted.append((row['score'], number, False))
            elif row['score'] != '':
                best[row['lesion']] = max(row['score'], best.get(row['lesion'], 0))
        counted += [(score, number, True) for score in best.values()]
    counted.sort(key=lambda each: -each[0])
    scores, slide, hit = zip(*counted, strict=True) if counted else ((), (), ())
    first = [rows[0] for rows in by_slide.values()]
    return _Found(
        case_ids=np.array([row['case_id'] for row in first]),
        lesions=np.array([row['lesions'] for row in first]),
        slide=np.array(slide, int),
        hit=np.array(hit, bool),
        last=np.flatnonzero(np.diff(scores, append=-1)),
    )


def _curve(found: _Found, weights: np.ndarray) -> Curve:
    """The curve of slides that are drawn so often, `[N]`; sensitivity is NaN without lesions."""
    drawn = weights.astype(float)
    of_each = drawn[found.slide]
    false, hits = (
        np.concatenate([[0], np.cumsum(of_each * counts)[found.last]])
        for counts in (~found.hit, found.hit)
    )
    lesions = drawn @ found.lesions
    return Curve(
        false_positives=false / drawn.sum(),
        sensitivity=hits / lesions if lesions else np.full_like(hits, np.nan),
    )
