"""Whether probabilities mean what they say: reliability curves, their error, and Brier's score.

Of two classes the probability of the second is compared with how often it is true; of more, the
probability of the foretold class with how often it is right.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import scipy.stats

from nic_jax.evaluation.predicted import Predicted, collect
from nic_jax.evaluation.resampling import interval, multiplicities, resampled_mean

BINS = 10
_IN_A_BIN = 5  # slides, at least; where that leaves fewer bins, there are fewer


def calibration_error(labels: np.ndarray, scores: np.ndarray) -> float:
    """Expected calibration error: mean distance of probability and frequency over equal bins.

    Few slides make it large by chance alone, the more bins the larger.

    Args:
        labels: integers `[N]`, from 0 to K − 1.
        scores: probabilities `[N, K]`.
    """
    probability, true = _told_and_true(labels, scores)
    bins = equal_bins(probability)
    gaps = np.bincount(bins, probability - true)
    return float(np.abs(gaps).sum() / len(labels))


def brier(labels: np.ndarray, scores: np.ndarray) -> float:
    """Mean squared distance of probabilities from the truth, summed over classes if over two.

    Args:
        labels: integers `[N]`, from 0 to K − 1.
        scores: probabilities `[N, K]`.
    """
    truth = np.eye(scores.shape[1])[labels]
    squares = ((scores - truth) ** 2).sum(1)
    return float(squares.mean() / (2 if scores.shape[1] == 2 else 1))


def equal_bins(values: np.ndarray, *, bins: int = BINS, in_a_bin: int = _IN_A_BIN) -> np.ndarray:
    """Bins of equal count, int `[N]` from 0; equal values share a bin, so some may differ."""
    bins = max(1, min(bins, len(values) // in_a_bin))
    ranks = scipy.stats.rankdata(values)
    _, numbers = np.unique(((ranks - 0.5) * bins / len(values)).astype(int), return_inverse=True)
    return numbers


def calibration(
    rows: Sequence[Mapping[str, Any]], *, seed: int = 0, rounds: int = 1000, unit: str = 'slide'
) -> list[dict[str, Any]]:
    """Reliability curves of classifications, the predictions of all seeds together.

    Args:
        rows: Of one or several predictions.csv, see `predicted.collect`.
        seed: Of the bootstrap.
        rounds: Of the bootstrap.
        unit: 'slide' or 'case'.

    Returns:
        A record a bin: `encoder, label_name, model, point`, `positive` (the second of two classes,
        '' of more), `bin`, `predictions` (how many), `probability` (its mean) and `frequency` with
        its 95 % interval `low` to `high`, cases resampled.
    """
    records = []
    for each in collect(rows, unit=unit):
        if each.task == 'classification':
            weights = multiplicities(each.case_ids, seed=seed, rounds=rounds)
            records += _curve(each, weights)
    return records


def _curve(predicted: Predicted, weights: np.ndarray) -> list[dict[str, Any]]:
    told = [_told_and_true(predicted.targets, scores) for scores in predicted.predictions]
    probability, true = (np.stack(arrays) for arrays in zip(*told, strict=True))  # [S, N]
    bins = equal_bins(probability.ravel()).reshape(probability.shape)
    inside = bins[..., None] == np.arange(bins.max() + 1)  # [S, N, B]
    figures = resampled_mean((true[..., None] * inside).sum(0), inside.sum(0), weights)
    records = []
    for number, column in enumerate(figures.T):
        here = inside[..., number]
        low, high, _ = interval(column)
        records.append(
            {
                'encoder': predicted.encoder,
                'label_name': predicted.label_name,
                'model': predicted.model,
                'point': predicted.point,
                'positive': predicted.positive,
                'bin': number,
                'predictions': int(here.sum()),
                'probability': float(probability[here].mean()),
                'frequency': float(true[here].mean()),
                'low': low,
                'high': high,
            }
        )
    return records


def _told_and_true(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities `[N]` of what is foretold, and 1 where it is so, else 0."""
    if scores.shape[1] == 2:
        return scores[:, 1], (labels == 1).astype(float)
    return scores.max(1), (scores.argmax(1) == labels).astype(float)
