"""The bootstrap over patients: how often each slide is drawn, and figures of all draws at once.

R: resamples, N: slides, K: classes. A resample is a row of weights, how often each slide is in it;
predictions are sorted once and every figure computed from the weights, which is exact and hundreds
of times as fast as indexing each resample.
"""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

_BLOCK = 1 << 18  # weights at a time, which fit a core's cache


class Interval(NamedTuple):
    """The central 95 % of a bootstrap; `skipped` of its rounds gave no figure."""

    low: float
    high: float
    skipped: int


def multiplicities(case_ids: Sequence[str], *, seed: int, rounds: int = 1000) -> np.ndarray:
    """Resamples cases with replacement, all slides of a case together.

    Args:
        case_ids: The case of each slide, N.
        seed: Of the resampling.
        rounds: Resamples.

    Returns:
        How often each slide is in each resample, int16 `[R, N]`.
    """
    names, case_of = np.unique(np.asarray(case_ids), return_inverse=True)
    rng = np.random.default_rng(seed)
    drawn = np.empty((rounds, len(names)), np.int16)
    for counts in drawn:
        counts[:] = np.bincount(rng.integers(len(names), size=len(names)), minlength=len(names))
    return drawn[:, case_of]


def interval(figures: np.ndarray) -> Interval:
    """The interval of resampled figures `[R]`; those that are NaN are skipped, and counted."""
    kept = figures[~np.isnan(figures)]
    if not len(kept):
        return Interval(math.nan, math.nan, len(figures))
    low, high = np.percentile(kept, [2.5, 97.5])
    return Interval(float(low), float(high), len(figures) - len(kept))


def resampled_mean(values: np.ndarray, counts: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Means of B bins in each resample, `[R, B]`; NaN where nothing of a bin is drawn.

    Args:
        values: `[N, B]`, summed over what each slide has in a bin.
        counts: `[N, B]`, how much that is.
        weights: `[R, N]`.
    """
    sums, totals = (
        np.concatenate([block @ each for block in _blocks(weights)])
        for each in (values.astype(float), counts.astype(float))
    )
    with np.errstate(invalid='ignore'):
        return sums / totals


def resampled_auc(labels: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """`metrics.auc` of each resample, `[R]`; NaN where a class has no positives or no negatives.

    Args:
        labels: integers `[N]`.
        scores: `[N, K]`.
        weights: `[R, N]`.
    """
    K = scores.shape[1]
    classes = range(K) if K > 2 else (1,)
    return np.mean([_binary_auc(labels == k, scores[:, k], weights) for k in classes], axis=0)


def resampled_spearman(targets: np.ndarray, values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """`metrics.spearman` of each resample, `[R]`; NaN where all of either are equal."""
    rank_targets, rank_values = _ranking(targets), _ranking(values)
    figures = []
    for block in _blocks(weights):
        total = block.sum(1, keepdims=True)
        x, y = rank_targets(block), rank_values(block)
        x -= (block * x).sum(1, keepdims=True) / total
        y -= (block * y).sum(1, keepdims=True) / total
        products = [(block * a * b).sum(1) for a, b in ((x, y), (x, x), (y, y))]
        with np.errstate(invalid='ignore'):
            figures.append(products[0] / np.sqrt(products[1] * products[2]))
    return np.concatenate(figures)


def resampled_concordance(
    times: np.ndarray, events: np.ndarray, risks: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """`survival.concordance` of each resample, `[R]`; NaN where no pair can be compared."""
    weights = weights.astype(float)
    won, pairs = np.zeros(len(weights)), np.zeros(len(weights))
    died = np.flatnonzero(events)
    step = max(1, _BLOCK // max(1, len(times)))
    for start in range(0, len(died), step):
        first = died[start : start + step, None]
        outlived = (times[first] < times) | ((times[first] == times) & (events == 0))
        wins = np.heaviside(risks[first] - risks, 0.5) * outlived
        drawn = weights[:, first[:, 0]]
        won += ((drawn @ wins) * weights).sum(1)
        pairs += ((drawn @ outlived.astype(float)) * weights).sum(1)
    with np.errstate(invalid='ignore'):
        return won / pairs


def _binary_auc(positive: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mann–Whitney's U over all pairs, ties counting half."""
    order, starts = _order(scores)
    figures = []
    for block in _blocks(weights):
        block = block[:, order]
        positives = block * positive[order]
        negatives = block - positives
        if len(starts) < len(order):
            positives = np.add.reduceat(positives, starts, axis=1)
            negatives = np.add.reduceat(negatives, starts, axis=1)
        wins = (positives * (negatives.cumsum(1) - negatives / 2)).sum(1)
        with np.errstate(invalid='ignore'):
            figures.append(wins / (positives.sum(1) * negatives.sum(1)))
    return np.concatenate(figures)


def _ranking(values: np.ndarray):
    """A function from weights `[r, N]` to ranks `[r, N]`, the mean of ties, up to a constant."""
    order, starts = _order(values)
    tie_of = np.empty(len(values), int)
    tie_of[order] = np.repeat(np.arange(len(starts)), np.diff([*starts, len(values)]))

    def ranks(block: np.ndarray) -> np.ndarray:
        together = np.add.reduceat(block[:, order], starts, axis=1)
        return (together.cumsum(1) - together / 2)[:, tie_of]

    return ranks


def _order(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What sorts values, and where in that order each run of equal ones starts."""
    order = np.argsort(values, kind='stable')
    return order, np.flatnonzero(np.diff(values[order], prepend=-np.inf))


def _blocks(weights: np.ndarray) -> Iterator[np.ndarray]:
    """Some rows of weights at a time, as float64 `[r, N]`."""
    step = max(1, _BLOCK // max(1, weights.shape[1]))
    for start in range(0, len(weights), step):
        yield weights[start : start + step].astype(float)
