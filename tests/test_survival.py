import math
import time

import lifelines
import lifelines.datasets
import numpy as np
import pytest
import scipy.stats
from lifelines.utils import concordance_index

from nic_jax.evaluation import survival


def _case(seed, count=120, ties=25):
    """Times, events and risks with ties in all of them."""
    rng = np.random.default_rng(seed)
    times = rng.integers(1, ties, size=count).astype(float)
    return times, rng.random(count) < 0.6, (rng.normal(size=count) - 2 * times / ties).round(1)


@pytest.fixture(scope='module')
def rossi():
    data = lifelines.datasets.load_rossi()
    return data['week'].to_numpy(float), data['arrest'].to_numpy(), data['prio'].to_numpy(float)


@pytest.mark.parametrize('ties', [3, 25, 10_000])
def test_concordance_against_lifelines(ties):
    for seed in range(4):
        times, events, risks = _case(seed, ties=ties)
        expected = concordance_index(times, -risks, events)
        assert survival.concordance(times, events, risks).value == pytest.approx(expected)


def test_concordance_on_real_data(rossi):
    times, events, risks = rossi
    found = survival.concordance(*rossi).value
    assert found == pytest.approx(concordance_index(times, -risks, events))
    assert found > 0.55  # more convictions before, arrested sooner


def test_the_sign_of_concordance_higher_risk_dies_sooner():
    times, events = np.array([1.0, 2.0, 3.0, 4.0]), np.array([1, 1, 1, 0])
    assert survival.concordance(times, events, np.array([9, 5, 2, 1])).value == 1
    assert survival.concordance(times, events, np.array([1, 2, 5, 9])).value == 0
    assert survival.concordance(times, events, np.zeros(4)).value == 0.5


def test_pairs_that_count():
    def value(times, events, risks):
        return survival.concordance(np.array(times, float), np.array(events), np.array(risks)).value

    assert value([1, 1], [1, 0], [2, 1]) == 1  # censored when the other dies: outlived it
    assert math.isnan(value([1, 1], [1, 1], [2, 1]))  # died together: neither did
    assert math.isnan(value([1, 2], [0, 1], [2, 1]))  # censored before: unknown
    assert value([1, 2, 3], [1, 0, 1], [2, 5, 1]) == 0.5


@pytest.mark.parametrize(
    ('times', 'events', 'reason'),
    [([1, 2], [0, 0], 'no deaths'), ([1, 2], [0, 1], 'nobody outlives a death')],
)
def test_concordance_that_does_not_exist(times, events, reason):
    found = survival.concordance(np.array(times), np.array(events), np.array([1.0, 2.0]))
    assert math.isnan(found.value)
    assert reason in found.reason


def test_concordance_is_fast_enough_for_bootstraps():
    case = _case(0, count=500, ties=10_000)
    durations = []
    for _ in range(30):
        start = time.process_time()
        survival.concordance(*case)
        durations.append(time.process_time() - start)
    assert min(durations) < 2e-3  # the least disturbed by what else runs


def _curve_by_hand(times, events):
    """Product of 1 − d/n and Greenwood's sum, time by time: {time: (survival, low, high, n)}."""
    curve, product, greenwood = {}, 1.0, 0.0
    for moment in sorted(set(times)):
        n = int((times >= moment).sum())
        d = int(((times == moment) & events).sum())
        product *= 1 - d / n
        if product > 0:
            greenwood += d / (n * (n - d))
        if 0 < product < 1:
            width = scipy.stats.norm.ppf(0.975) * math.sqrt(greenwood) / abs(math.log(product))
            low, high = (product ** math.exp(sign * width) for sign in (1, -1))
        else:
            low = high = product
        curve[moment] = (product, low, high, n)
    return curve


@pytest.mark.parametrize('seed', range(3))
def test_kaplan_meier_by_hand(seed):
    times, events, _ = _case(seed)
    found = survival.kaplan_meier(times, events)
    expected = _curve_by_hand(times, events)
    assert found.times.tolist() == [0, *expected]
    # To 0 % and 100 % the sums agree up to their rounding.
    columns = np.array([(1, 1, 1, len(times)), *expected.values()]).T
    for values, column in zip(found[1:], columns, strict=True):
        np.testing.assert_allclose(values, column, atol=1e-12)


def test_kaplan_meier_to_the_last_death():
    found = survival.kaplan_meier(np.array([1.0, 2.0, 2.0]), np.array([1, 1, 1]))
    assert found.survival == pytest.approx([1, 2 / 3, 0])
    assert found.at_risk.tolist() == [3, 3, 2]
    assert np.isfinite(found.low).all()
    assert np.isfinite(found.high).all()


@pytest.mark.parametrize('seed', range(3))
def test_log_rank_against_scipy(seed):
    times, events, risks = _case(seed)
    high = survival.median_split(risks)
    found = survival.log_rank(times[high], events[high], times[~high], events[~high])
    groups = [
        scipy.stats.CensoredData.right_censored(times[who], ~events[who]) for who in (high, ~high)
    ]
    expected = scipy.stats.logrank(*groups)
    assert found == pytest.approx((expected.statistic**2, expected.pvalue))
    assert found.p < 0.5  # there is something to find


def test_log_rank_of_nothing():
    some = (np.array([1.0, 2.0]), np.array([1, 0]))
    none = (np.array([]), np.array([]))
    censored = (np.array([1.0, 2.0]), np.array([0, 0]))
    for case in ((*some, *none), (*none, *some), (*censored, *censored)):
        assert np.isnan(survival.log_rank(*case)).all()
    assert survival.log_rank(*some, *some) == pytest.approx((0, 1))


def test_the_median_itself_is_of_low_risk():
    assert survival.median_split([3, 1, 2]).tolist() == [True, False, False]
    assert survival.median_split([4, 1, 2, 3]).tolist() == [True, False, False, True]
    assert survival.median_split([1, 2, 2, 2, 3]).tolist() == [False] * 4 + [True]
    assert not survival.median_split([2, 2, 1]).any()


def test_survival_metrics(rossi):
    times, events, risks = rossi
    found = survival.survival_metrics(*rossi)
    assert list(found) == ['concordance', 'log_rank_p']
    assert found['concordance'] == survival.concordance(*rossi)
    high = risks > np.median(risks)
    expected = survival.log_rank(times[high], events[high], times[~high], events[~high]).p
    assert found['log_rank_p'].value == expected
    assert 0 < expected < 0.05


@pytest.mark.parametrize(
    ('events', 'risks', 'reason'),
    [([0, 0, 0], [1, 2, 3], 'no deaths'), ([1, 0, 1], [1, 1, 1], 'no risk is above the median')],
)
def test_a_test_that_does_not_exist(events, risks, reason):
    found = survival.survival_metrics(np.arange(1.0, 4), np.array(events), np.array(risks))
    assert math.isnan(found['log_rank_p'].value)
    assert found['log_rank_p'].reason == reason


@pytest.mark.parametrize(
    ('times', 'events', 'risks', 'message'),
    [
        ([1, 2], [1, 0], [1], 'must be the same'),
        ([], [], [], 'N ≥ 1'),
        ([1, np.nan], [1, 0], [1, 2], 'finite'),
        ([1, 2], [1, 0], [1, np.inf], 'finite'),
        ([1, 2], [1, 2], [1, 2], r'events are \[1 2\], must be 1 for a death'),
    ],
)
def test_arrays_that_do_not_go_together(times, events, risks, message):
    with pytest.raises(ValueError, match=message):
        survival.survival_metrics(np.array(times), np.array(events), np.array(risks))
