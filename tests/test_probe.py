"""Probes: what each can find in codes, and that test codes decide nothing."""

import numpy as np
import pytest

from nic_jax.classifiers import probe
from nic_jax.classifiers.probe import PROBES, ProbeSettings, fit

SETTINGS = ProbeSettings(units=16, batch=32, epochs=30)


def separable(count, seed):
    """Three clusters of codes `[N, 4]`, a direction each."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    return (3 * np.eye(4)[labels] + rng.normal(0, 0.5, (count, 4))).astype(np.float32), labels


def exclusive_or(count, seed):
    """Two classes that no plane parts: whether two signs agree."""
    rng = np.random.default_rng(seed)
    signs = rng.choice([-1.0, 1.0], (count, 2))
    codes = signs + rng.normal(0, 0.2, (count, 2))
    return codes.astype(np.float32), (signs.prod(1) > 0).astype(int)


def predictor(name, make, *, classes, seed=0, settings=SETTINGS):
    return fit(name, make(300, 1), make(90, 2), classes=classes, settings=settings, seed=seed)


def accuracy(predict, test):
    return (predict(test[0]).argmax(1) == test[1]).mean()


@pytest.mark.parametrize('name', PROBES)
def test_clusters_are_told_apart(name):
    predict, test = predictor(name, separable, classes=3), separable(100, 3)
    scores = predict(test[0])
    assert scores.shape == (100, 3)
    np.testing.assert_allclose(scores.sum(1), 1, rtol=1e-5)
    assert (scores >= 0).all()
    assert (scores.argmax(1) == test[1]).mean() > 0.95


@pytest.mark.parametrize(
    ('name', 'low', 'high'), [('linear', 0, 0.7), ('mlp', 0.95, 1), ('knn', 0.95, 1)]
)
def test_what_is_buried_only_some_dig_out(name, low, high):
    found = accuracy(predictor(name, exclusive_or, classes=2), exclusive_or(200, 3))
    assert low <= found <= high


@pytest.mark.parametrize('name', PROBES)
def test_the_scale_of_codes_does_not_matter(name):
    test = separable(60, 3)
    gain = np.array([1e-2, 1, 30, 1e3], np.float32)
    shift = np.array([0, 5, -20, 100], np.float32)

    def scaled(count, seed):
        codes, labels = separable(count, seed)
        return codes * gain + shift, labels

    plain, other = (predictor(name, make, classes=3) for make in (separable, scaled))
    found = [plain(test[0]), other(test[0] * gain + shift)]
    # Rounding of the standardised codes, which training carries on.
    np.testing.assert_allclose(*found, rtol=0, atol=0.02)


@pytest.mark.parametrize('name', PROBES)
def test_a_prediction_depends_on_its_own_code_alone(name):
    predict, (codes, _) = predictor(name, separable, classes=3), separable(20, 3)
    whole = predict(codes)
    predict(1000 * codes)  # whatever is asked in between
    for others in (codes[:1], np.concatenate([codes[:1], 1000 * codes])):
        np.testing.assert_allclose(predict(others)[:1], whole[:1], rtol=0, atol=1e-6)


def test_codes_are_standardised_by_training_codes(monkeypatch):
    seen = {}

    def spy(train, valid, **kwargs):
        seen.update(train=train[0], valid=valid[0])
        return lambda codes: codes

    monkeypatch.setattr(probe, '_fit_mlp', spy)
    (train, labels), valid = separable(300, 1), separable(90, 2)
    predict = fit('mlp', (train, labels), valid, classes=3, settings=SETTINGS, seed=0)
    mean, deviation = train.astype(float).mean(0), train.astype(float).std(0)
    np.testing.assert_allclose(seen['train'].mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(seen['train'].std(0), 1, atol=1e-5)
    np.testing.assert_allclose(seen['valid'], (valid[0] - mean) / deviation, atol=1e-4)
    test = 50 + 9 * valid[0]
    np.testing.assert_allclose(predict(test), (test - mean) / deviation, rtol=1e-4)


def test_a_feature_that_never_varies_does_no_harm():
    def make(count, seed):
        codes, labels = separable(count, seed)
        return np.column_stack([codes, np.full(count, 3, np.float32)]), labels

    assert accuracy(predictor('mlp', make, classes=3), make(60, 3)) > 0.95


def test_validation_chooses_the_strength():
    class Fixed:
        """Gives the right class so much, and counts its uses."""

        def __init__(self, score):
            self.score, self.asked = score, 0

        def fit(self, codes, labels):
            self.labels = labels
            return self

        def predict_proba(self, codes):
            self.asked += 1
            return np.tile([self.score, 1 - self.score], (len(codes), 1))

    train, valid = (np.zeros((4, 1)), np.array([1, 1, 0, 1])), (np.zeros((3, 1)), np.zeros(3, int))
    candidates = [Fixed(score) for score in (0.2, 0.9, 0.6)]
    predict = probe._best(candidates, train, valid)
    assert predict(np.zeros((1, 1)))[0, 0] == 0.9
    assert [each.asked for each in candidates] == [1, 2, 1]


def test_the_mlp_keeps_the_weights_of_its_best_validation():
    train, _ = exclusive_or(200, 1), None
    valid = exclusive_or(80, 2)
    wrong = (valid[0], 1 - valid[1])  # what is learnt makes it worse: the first epochs are best
    few = ProbeSettings(units=16, batch=32, epochs=1)
    many = ProbeSettings(units=16, batch=32, epochs=20, patience=20)
    first, kept = (
        fit('mlp', train, wrong, classes=2, settings=settings, seed=0) for settings in (few, many)
    )
    losses = [probe._log_loss(each(valid[0]), wrong[1]) for each in (first, kept)]
    assert losses[1] <= losses[0]
    assert accuracy(kept, valid) < 0.9
    free = fit('mlp', train, valid, classes=2, settings=many, seed=0)
    assert accuracy(free, valid) > 0.95


def test_the_seed_decides_the_mlp():
    codes = exclusive_or(20, 3)[0]
    few = ProbeSettings(units=16, batch=32, epochs=2)
    first, again, other = (
        predictor('mlp', exclusive_or, classes=2, seed=seed, settings=few)(codes)
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    for name in ('linear', 'knn'):
        one, two = (predictor(name, exclusive_or, classes=2, seed=seed)(codes) for seed in (0, 1))
        np.testing.assert_array_equal(one, two)


def test_few_patches_are_enough():
    train, valid = separable(6, 1), separable(6, 2)
    for name in PROBES:
        predict = fit(name, train, valid, classes=3, settings=SETTINGS, seed=0)
        assert np.isfinite(predict(valid[0])).all()


def test_what_cannot_be_fitted_is_refused():
    train, valid = separable(30, 1), separable(30, 2)
    common = {'classes': 3, 'settings': SETTINGS, 'seed': 0}
    with pytest.raises(ValueError, match="probe='svm' must be one of mlp, linear, knn"):
        fit('svm', train, valid, **common)
    for bad in (np.nan, np.inf):
        broken = (np.where(np.arange(4) == 2, bad, valid[0]), valid[1])
        with pytest.raises(ValueError, match='codes are not finite'):
            fit('linear', train, broken, **common)
        with pytest.raises(ValueError, match='codes are not finite'):
            fit('linear', broken, valid, **common)
    one_missing = (train[0][train[1] != 1], train[1][train[1] != 1])
    for name in PROBES:
        with pytest.raises(ValueError, match=r'no training patches of class 1'):
            fit(name, one_missing, valid, **common)
