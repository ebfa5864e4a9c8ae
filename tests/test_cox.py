import math

import jax
import jax.numpy as jnp
import lifelines
import lifelines.datasets
import numpy as np
import pytest

from nic_jax.classifiers.cox import negative_log_partial_likelihood

_value_and_gradient = jax.jit(jax.value_and_grad(negative_log_partial_likelihood))


def _naive(risks, times, events):
    """Efron's formula as it stands in the textbooks, float64, death by death."""
    total = 0.0
    for time in sorted(set(times[events == 1])):
        dead = [f for f, t, e in zip(risks, times, events, strict=True) if e and t == time]
        at_risk = sum(math.exp(f) for f, t in zip(risks, times, strict=True) if t >= time)
        total += sum(dead)
        for number in range(len(dead)):
            total -= math.log(at_risk - number / len(dead) * sum(map(math.exp, dead)))
    return -total / events.sum()


def _case(seed, count=40, ties=8):
    rng = np.random.default_rng(seed)
    return (
        rng.normal(size=count),
        rng.integers(1, ties, size=count).astype(float),
        rng.integers(2, size=count),
    )


def _loss64(*arrays, **further):
    with jax.enable_x64(True):
        arrays = [jnp.asarray(array) for array in arrays]
        value, gradient = _value_and_gradient(*arrays, **further)
        assert value.dtype == gradient.dtype == np.float64
        return float(value), np.asarray(gradient)


@pytest.fixture(scope='module')
def rossi():
    """Rossi's 432 released prisoners: 114 arrests in 49 weeks, so with many ties."""
    return lifelines.datasets.load_rossi()


@pytest.mark.parametrize('ties', [2, 8, 10_000])
def test_the_textbook_formula(ties):
    for seed in range(3):
        case = _case(seed, ties=ties)
        # The same sums in another order.
        assert _loss64(*case)[0] == pytest.approx(_naive(*case), rel=1e-12)
        single, _ = _value_and_gradient(*(np.float32(array) for array in case))
        assert single.dtype == np.float32
        assert float(single) == pytest.approx(_naive(*case), rel=1e-5)


def test_the_gradient_numerically():
    risks, times, events = _case(3)
    step = 1e-5
    slopes = [
        (_naive(risks + step * unit, times, events) - _naive(risks - step * unit, times, events))
        / (2 * step)
        for unit in np.eye(len(risks))
    ]
    # Central differences err by step² and by rounding, 1e-16 / step.
    np.testing.assert_allclose(_loss64(risks, times, events)[1], slopes, atol=1e-9)


def test_lifelines_optimum_is_ours(rossi):
    fitted = lifelines.CoxPHFitter().fit(rossi, 'week', 'arrest')  # ties by Efron
    covariates = rossi[fitted.params_.index].to_numpy(float)
    times, events = rossi['week'].to_numpy(float), rossi['arrest'].to_numpy()
    value, gradient = _loss64(covariates @ fitted.params_.to_numpy(), times, events)
    assert -value * events.sum() == pytest.approx(fitted.log_likelihood_, rel=1e-10)
    # lifelines stops its Newton steps at 1e-7.
    np.testing.assert_allclose(covariates.T @ gradient, 0, atol=1e-6)
    none, slope = _loss64(np.zeros(len(times)), times, events)
    assert np.abs(covariates.T @ slope).max() > 0.1  # so that a wrong optimum would show
    statistic = fitted.log_likelihood_ratio_test().test_statistic
    assert 2 * (none - value) * events.sum() == pytest.approx(statistic, rel=1e-8)


def test_lifelines_likelihood_away_from_the_optimum(rossi):
    fitted = lifelines.CoxPHFitter().fit(rossi[::2], 'week', 'arrest')
    others = rossi[1::2]
    covariates = others[fitted.params_.index].to_numpy(float)
    value, _ = _loss64(
        covariates @ fitted.params_.to_numpy(),
        others['week'].to_numpy(float),
        others['arrest'].to_numpy(),
    )
    average = fitted.score(others, scoring_method='log_likelihood')
    assert -value * others['arrest'].sum() / len(others) == pytest.approx(average, rel=1e-10)


def test_order_and_padding_change_nothing():
    risks, times, events = _case(5)
    value, gradient = _loss64(risks, times, events)
    order = np.random.default_rng(0).permutation(len(risks))
    permuted = _loss64(risks[order], times[order], events[order])
    assert permuted[0] == pytest.approx(value, rel=1e-12)
    np.testing.assert_allclose(permuted[1], gradient[order], atol=1e-14)

    rubbish = np.array([np.nan, np.inf, 3.0, -np.inf])
    padded = _loss64(
        np.concatenate([rubbish, risks]),
        np.concatenate([[np.nan, 1.0, times[0], 1e9], times]),
        np.concatenate([[1, 1, 1, 0], events]),
        mask=np.arange(len(risks) + 4) >= 4,
    )
    assert padded[0] == pytest.approx(value, rel=1e-12)
    np.testing.assert_allclose(padded[1], [0, 0, 0, 0, *gradient], atol=1e-14)


def test_higher_risks_for_the_earlier_deaths_are_better():
    times, events = np.arange(1.0, 9), np.ones(8)
    assert _loss64(-times, times, events)[0] < math.log(2) < _loss64(times, times, events)[0]


@pytest.mark.parametrize('scale', [1e4, 1e30])
def test_large_risks_stay_finite(scale):
    risks, times, events = _case(7)
    large = np.float32(risks * scale)
    value, gradient = _value_and_gradient(large, np.float32(times), np.float32(events))
    # So far apart, the logarithm of a sum is its largest term; what Efron takes is as nothing.
    ends = np.max(np.where(times >= times[:, None], large, -np.inf), axis=1)
    expected = (ends - large)[events == 1].mean()
    assert float(value) == pytest.approx(expected, rel=1e-4)
    assert np.isfinite(gradient).all()
    assert abs(float(gradient.sum())) < 1e-5  # a constant added to all risks changes nothing


@pytest.mark.parametrize('mask', [None, np.zeros(6, bool)])
def test_no_deaths_no_loss_and_no_gradient(mask):
    events = np.zeros(6) if mask is None else np.ones(6)
    value, gradient = _value_and_gradient(jnp.arange(6.0), np.arange(6.0), events, mask=mask)
    assert float(value) == 0
    np.testing.assert_array_equal(gradient, np.zeros(6))


def test_all_die_at_once():
    value, gradient = _loss64(np.zeros(5), np.ones(5), np.ones(5, bool))
    # 5 at risk, less a fifth of 5 each time: log 5!, shared by 5.
    assert value == pytest.approx(math.log(120) / 5, rel=1e-12)
    np.testing.assert_allclose(gradient, 0, atol=1e-15)
