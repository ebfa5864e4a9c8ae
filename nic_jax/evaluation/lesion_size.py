"""Detection as a function of lesion area (Tellez et al., IEEE TPAMI 2021, Fig. 8).

Of two classes, the second's slides are binned by the area of their lesions: their mean probability
beside that of the others, and their AUC against the others. Where the others have lesions as well,
as where the label is how these are arranged, a bin's slides are compared with the others of the
same bin. Of more classes, all slides are binned and it is the accuracy.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nic_jax.evaluation.calibration import equal_bins
from nic_jax.evaluation.metrics import auc
from nic_jax.evaluation.predicted import Predicted, collect
from nic_jax.evaluation.resampling import (
    interval,
    multiplicities,
    resampled_auc,
    resampled_mean,
)

BINS = 6
_IN_A_BIN = 5  # slides, at least


def by_lesion_size(
    rows: Sequence[Mapping[str, Any]], *, seed: int = 0, rounds: int = 1000, unit: str = 'slide'
) -> list[dict[str, Any]]:
    """Figures of classifications for each bin of lesion area; bins are of equal count.

    Lesions of unknown area are left out, and labels of which no area is known.

    Args:
        rows: Of one or several predictions.csv, see `predicted.collect`.
        seed: Of the bootstrap.
        rounds: Of the bootstrap.
        unit: 'slide' or 'case'.

    Returns:
        A record an encoder, label, model, point, bin and `metric`, which is 'probability' and 'auc'
        of two classes (of the second, `positive`), 'accuracy' of more: `area_from`, `area_to` and
        the median `area` in cells; `radius` in cells, of the circle of that area; `slides` (how
        many; of an AUC, the positives), `value` (mean over seeds) with its 95 % interval `low` to
        `high`, cases resampled. Metric 'probability_of_others' is that of the slides without
        lesions, of area 0 (of the others of the same bin where they have lesions).
    """
    records = []
    for each in collect(rows, unit=unit):
        if each.task == 'classification':
            weights = multiplicities(each.case_ids, seed=seed, rounds=rounds)
            records += _by_area(each, weights)
    return records


def _by_area(predicted: Predicted, weights: np.ndarray) -> list[dict[str, Any]]:
    areas, targets = predicted.lesion_areas, predicted.targets
    two = len(predicted.class_names) == 2
    others = (targets == 0) & two
    # A label of lesions' arrangement, not of their presence.
    everywhere = bool(others.any() and (areas[others] > 0).all())
    binned = np.flatnonzero((areas > 0) & (everywhere | ~others))
    if not binned.size:
        return []
    names = ('encoder', 'label_name', 'model', 'point', 'positive')
    known = {name: getattr(predicted, name) for name in names}
    bin_of = np.full(len(areas), -1)
    bin_of[binned] = equal_bins(areas[binned], bins=BINS, in_a_bin=_IN_A_BIN)
    records = []
    for number in range(bin_of.max() + 1):
        here = bin_of == number
        place = known | _place(areas[here])
        if not two:
            right = predicted.predictions.argmax(-1) == targets
            records.append(place | {'metric': 'accuracy'} | _mean(right, here, weights))
            continue
        probability, lesions = predicted.predictions[..., 1], here & ~others
        beside = here & others if everywhere else others
        records.append(place | {'metric': 'probability'} | _mean(probability, lesions, weights))
        if everywhere:
            name = {'metric': 'probability_of_others'}
            records.append(place | name | _mean(probability, beside, weights))
        records.append(
            place | {'metric': 'auc'} | _auc(predicted, np.flatnonzero(lesions | beside), weights)
        )
    if two and others.any() and not everywhere:
        place = known | _place(np.zeros(1)) | {'metric': 'probability_of_others'}
        records.append(place | _mean(predicted.predictions[..., 1], others, weights))
    return records


def _place(areas: np.ndarray) -> dict[str, float]:
    middle = float(np.median(areas))
    return {
        'area_from': float(areas.min()),
        'area_to': float(areas.max()),
        'area': middle,
        'radius': math.sqrt(middle / math.pi),
    }


def _mean(values: np.ndarray, here: np.ndarray, weights: np.ndarray) -> dict[str, float]:
    """The mean over seeds and some slides of values `[S, N]`."""
    over_seeds = values.mean(0)
    figures = resampled_mean((over_seeds * here)[:, None], here[:, None], weights)
    low, high, _ = interval(figures[:, 0])
    value = float(over_seeds[here].mean()) if here.any() else math.nan
    return {'slides': int(here.sum()), 'value': value, 'low': low, 'high': high}


def _auc(predicted: Predicted, chosen: np.ndarray, weights: np.ndarray) -> dict[str, float]:
    some, weights = predicted.at(chosen), weights[:, chosen]
    values = [auc(some.targets, scores).value for scores in some.predictions]
    figures = [resampled_auc(some.targets, scores, weights) for scores in some.predictions]
    low, high, _ = interval(np.mean(figures, axis=0))
    count = int((some.targets == 1).sum())
    return {'slides': count, 'value': float(np.mean(values)), 'low': low, 'high': high}
