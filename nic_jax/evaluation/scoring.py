"""What each task is scored by: all figures of one seed, and the primary one of all resamples."""

import numpy as np

from nic_jax.evaluation.metrics import Score, classification_metrics, regression_metrics
from nic_jax.evaluation.predicted import Predicted
from nic_jax.evaluation.resampling import (
    resampled_auc,
    resampled_concordance,
    resampled_spearman,
)
from nic_jax.evaluation.survival import survival_metrics

# With intervals and comparisons, and what the papers' tables show; the higher the better.
PRIMARY = {'classification': 'auc', 'regression': 'spearman', 'survival': 'concordance'}


def score(predicted: Predicted) -> dict[int, dict[str, Score]]:
    """All figures of each seed."""
    found = {}
    for seed, values in zip(predicted.seeds, predicted.predictions, strict=True):
        if predicted.task == 'classification':
            found[seed] = classification_metrics(predicted.targets, values)
        elif predicted.task == 'regression':
            found[seed] = regression_metrics(predicted.targets, values)
        else:
            found[seed] = survival_metrics(predicted.targets, predicted.events, values)
    return found


def resampled_primary(predicted: Predicted, weights: np.ndarray) -> np.ndarray:
    """The primary figure's mean over seeds in each resample, `[R]`; NaN where there is none.

    Args:
        predicted: Of N units.
        weights: `[R, N]`, see `resampling.multiplicities`.
    """
    targets, events = predicted.targets, predicted.events
    figures = []
    for values in predicted.predictions:
        if predicted.task == 'classification':
            figures.append(resampled_auc(targets, values, weights))
        elif predicted.task == 'regression':
            figures.append(resampled_spearman(targets, values, weights))
        else:
            figures.append(resampled_concordance(targets, events, values, weights))
    return np.mean(figures, axis=0)
