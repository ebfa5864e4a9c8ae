import math

import numpy as np
import pytest
import scipy.stats
from sklearn import metrics as sklearn_metrics

from nic_jax.evaluation import metrics


def _case(classes, count=60, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(classes, size=count)
    scores = rng.random((count, classes)).round(1) + 0.4 * np.eye(classes)[labels] + 0.01
    return labels, scores / scores.sum(1, keepdims=True)


@pytest.mark.parametrize('classes', [2, 5])
def test_classification_against_scikit_learn(classes):
    labels, scores = _case(classes)
    found = {
        name: score.value for name, score in metrics.classification_metrics(labels, scores).items()
    }
    predicted = scores.argmax(1)
    expected = {
        'auc': sklearn_metrics.roc_auc_score(
            labels, scores[:, 1] if classes == 2 else scores, multi_class='ovr'
        ),
        'accuracy': sklearn_metrics.accuracy_score(labels, predicted),
        'balanced_accuracy': sklearn_metrics.balanced_accuracy_score(labels, predicted),
        'log_loss': sklearn_metrics.log_loss(labels, scores),
        'brier': sklearn_metrics.brier_score_loss(labels, scores[:, 1] if classes == 2 else scores),
    }
    if classes == 2:
        expected['average_precision'] = sklearn_metrics.average_precision_score(
            labels, scores[:, 1]
        )
    assert 0 < found.pop('calibration_error') < 1  # scikit-learn has none: see test_calibration
    assert found == pytest.approx(expected)


def test_a_missing_class_is_nan_with_a_reason():
    labels, scores = _case(2)
    found = metrics.classification_metrics(np.zeros_like(labels), scores)
    for name in ('auc', 'average_precision', 'balanced_accuracy'):
        assert math.isnan(found[name].value)
        assert found[name].reason
    assert found['accuracy'].reason == ''
    labels, scores = _case(4)
    keep = labels != 2
    found = metrics.classification_metrics(labels[keep], scores[keep])
    assert 'classes [2]' in found['auc'].reason


def test_regression_against_scipy():
    rng = np.random.default_rng(0)
    targets = rng.normal(size=30)
    values = targets + rng.normal(size=30)
    found = metrics.regression_metrics(targets, values)
    assert found['spearman'].value == scipy.stats.spearmanr(targets, values).statistic
    assert found['pearson'].value == scipy.stats.pearsonr(targets, values).statistic
    assert found['mean_squared_error'].value == pytest.approx(np.mean((targets - values) ** 2))


@pytest.mark.parametrize(
    ('targets', 'values', 'reason'),
    [([1, 1, 1], [1, 2, 3], 'all targets'), ([1, 2], [3, 3], 'all predictions'), ([1], [2], 'few')],
)
def test_correlations_that_do_not_exist(targets, values, reason):
    found = metrics.regression_metrics(np.array(targets, float), np.array(values, float))
    for name in ('spearman', 'pearson'):
        assert math.isnan(found[name].value)
        assert reason in found[name].reason


def test_shapes_are_checked():
    with pytest.raises(ValueError, match=r'labels\.shape'):
        metrics.classification_metrics(np.array([0, 2]), np.ones((2, 2)) / 2)
    with pytest.raises(ValueError, match='must be the same'):
        metrics.regression_metrics(np.zeros(3), np.zeros(2))
