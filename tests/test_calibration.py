import numpy as np
import pytest
from made_up_predictions import classification, regression
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss

from nic_jax.evaluation.calibration import brier, calibration, calibration_error, equal_bins


def two_class(count=200, power=1.0):
    """Probabilities of class 1, and labels that are 1 with that probability to some power."""
    rng = np.random.default_rng(0)
    probability = rng.random(count)
    labels = (rng.random(count) < probability**power).astype(int)
    return labels, np.stack([1 - probability, probability], axis=1)


def test_the_curve_is_scikit_learns():
    labels, scores = two_class()
    frequency, probability = calibration_curve(labels, scores[:, 1], n_bins=10, strategy='quantile')
    rows = [
        {**row, 'label': str(label), 'score_0': float(score[0]), 'score_1': float(score[1])}
        for row, label, score in zip(
            classification(slides=200, seeds=(0,), classes='01'), labels, scores, strict=True
        )
    ]
    records = calibration(rows, rounds=200)
    assert [record['predictions'] for record in records] == [20] * 10
    # Scores are divided by their sum, which is 1 but for rounding.
    assert [record['probability'] for record in records] == pytest.approx(probability.tolist())
    assert [record['frequency'] for record in records] == pytest.approx(frequency.tolist())
    assert all(record['low'] <= record['frequency'] <= record['high'] for record in records)
    assert calibration_error(labels, scores) == pytest.approx(
        np.abs(frequency - probability).mean()
    )


def test_what_is_not_calibrated_is_told():
    honest, boastful = (calibration_error(*two_class(2000, power)) for power in (1, 4))
    assert honest < 0.05  # ten bins of 200: by chance some .4 · sqrt(.17 / 200) · 2 = .02
    # E|p − p⁴| = 1/2 − 1/5, but for chance.
    assert boastful == pytest.approx(0.3, abs=0.03)


@pytest.mark.parametrize('classes', [2, 4])
def test_brier_is_scikit_learns(classes):
    rng = np.random.default_rng(0)
    labels = rng.integers(classes, size=50)
    scores = rng.dirichlet(np.ones(classes), size=50)
    expected = brier_score_loss(labels, scores[:, 1] if classes == 2 else scores)
    assert brier(labels, scores) == pytest.approx(expected)


def test_of_many_classes_it_is_the_one_that_is_foretold():
    labels = np.array([0] * 7 + [1] * 3)
    scores = np.tile([0.6, 0.3, 0.1], (10, 1))  # one bin: right 7 times of 10, told .6
    assert calibration_error(labels, scores) == pytest.approx(0.1)


def test_equal_predictions_share_a_bin():
    assert np.bincount(equal_bins(np.arange(100.0))).tolist() == [10] * 10
    numbers = equal_bins(np.repeat([0.2, 0.4, 0.9], [40, 15, 45]))
    assert len(np.unique(numbers)) == 3
    assert numbers.tolist() == sorted(numbers)
    shuffled = np.random.default_rng(0).permutation(100)
    values = np.repeat([0.2, 0.4, 0.9], [40, 15, 45])
    assert equal_bins(values[shuffled]).tolist() == numbers[shuffled].tolist()


def test_few_slides_have_fewer_bins():
    assert equal_bins(np.arange(3.0)).max() == 0
    assert equal_bins(np.arange(20.0)).max() == 3


def test_seeds_are_taken_together_and_regressions_left_out():
    records = calibration(
        classification(slides=60, seeds=(0, 1, 2)) + regression(label_name='growth'), rounds=20
    )
    assert {record['label_name'] for record in records} == {'label'}
    assert sum(record['predictions'] for record in records) == 180
    together = sum(record['frequency'] * record['predictions'] for record in records)
    assert together == pytest.approx(90)
