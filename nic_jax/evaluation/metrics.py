"""Figures of merit. What cannot be computed is NaN, with the reason."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy.stats
from sklearn import metrics

from nic_jax.evaluation import calibration


class Score(NamedTuple):
    """A figure, and why it is NaN where it is."""

    value: float
    reason: str = ''


def auc(labels: np.ndarray, scores: np.ndarray) -> Score:
    """Area under the ROC curve: of class 1 if there are two, else the mean of one against the rest.

    Args:
        labels: integers [N].
        scores: [N, K].
    """
    K = scores.shape[1]
    counts = np.bincount(labels, minlength=K)
    if absent := np.flatnonzero((counts == 0) | (counts == len(labels))).tolist():
        return Score(math.nan, f'classes {absent} have no positives or no negatives')
    areas = [_binary_auc(labels == k, scores[:, k]) for k in (range(K) if K > 2 else (1,))]
    return Score(float(np.mean(areas)))


def _binary_auc(positive: np.ndarray, scores: np.ndarray) -> float:
    """Mann–Whitney's U over all pairs, ties counting half."""
    n_positive = int(positive.sum())
    ranks = scipy.stats.rankdata(scores)
    wins = ranks[positive].sum() - n_positive * (n_positive + 1) / 2
    return wins / (n_positive * (len(scores) - n_positive))


def spearman(targets: np.ndarray, values: np.ndarray) -> Score:
    """Rank correlation of two arrays [N]."""
    return _correlation(scipy.stats.spearmanr, targets, values)


def pearson(targets: np.ndarray, values: np.ndarray) -> Score:
    """Linear correlation of two arrays [N]."""
    return _correlation(scipy.stats.pearsonr, targets, values)


def _correlation(function: Callable, targets: np.ndarray, values: np.ndarray) -> Score:
    if len(targets) < 2:
        return Score(math.nan, f'{len(targets)} slides are too few')
    for name, array in (('targets', targets), ('predictions', values)):
        if np.ptp(array) == 0:
            return Score(math.nan, f'all {name} are equal')
    return Score(float(function(targets, values).statistic))


def classification_metrics(labels: np.ndarray, scores: np.ndarray) -> dict[str, Score]:
    """Returns auc, average_precision (of two classes), accuracy, balanced_accuracy, log_loss.

    And calibration_error and brier, see `calibration`.

    Args:
        labels: integers [N], from 0 to K − 1.
        scores: probabilities [N, K].

    Raises:
        ValueError: shapes or labels that do not go together.
    """
    N, K = scores.shape
    if labels.shape != (N,) or not N or labels.min() < 0 or labels.max() >= K:
        raise ValueError(f'{labels.shape=} must be [N] of 0 … K − 1 for {scores.shape=}')
    predicted = scores.argmax(1)
    present = np.unique(labels)
    absent = sorted(set(range(K)) - set(present.tolist()))
    found = {'auc': auc(labels, scores)}
    if K == 2:
        found['average_precision'] = (
            Score(float(metrics.average_precision_score(labels, scores[:, 1])))
            if 1 in present
            else Score(math.nan, 'no positives')
        )
    recalls = [(predicted[labels == label] == label).mean() for label in present]
    chosen = scores[np.arange(N), labels] / scores.sum(1)
    return {
        **found,
        'accuracy': Score(float((predicted == labels).mean())),
        'balanced_accuracy': (
            Score(math.nan, f'no slide of classes {absent}')
            if absent
            else Score(float(np.mean(recalls)))
        ),
        'log_loss': Score(float(-np.log(np.maximum(chosen, 1e-12)).mean())),
        'calibration_error': Score(calibration.calibration_error(labels, scores)),
        'brier': Score(calibration.brier(labels, scores)),
    }


def regression_metrics(targets: np.ndarray, values: np.ndarray) -> dict[str, Score]:
    """Returns spearman, pearson and mean_squared_error of two arrays [N]."""
    if targets.shape != values.shape or targets.ndim != 1 or not len(targets):
        raise ValueError(f'{targets.shape=} and {values.shape=} must be the same [N], N ≥ 1')
    return {
        'spearman': spearman(targets, values),
        'pearson': pearson(targets, values),
        'mean_squared_error': Score(float(((targets - values) ** 2).mean())),
    }
