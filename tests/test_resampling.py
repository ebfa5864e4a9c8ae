import math
import time

import lifelines.utils
import numpy as np
import pytest

from nic_jax.evaluation import metrics, resampling

R, N = 40, 50


def indices_of(weights):
    """The slides of each resample, as often as they are drawn: the plain loop's."""
    return [np.repeat(np.arange(len(row)), row) for row in weights]


@pytest.fixture
def weights():
    # Cases of one slide and of several.
    cases = [f'case {number}' for number in np.random.default_rng(1).integers(30, size=N)]
    return resampling.multiplicities(cases, seed=0, rounds=R)


@pytest.mark.parametrize('decimals', [1, 12], ids=['ties', 'no ties'])
@pytest.mark.parametrize('classes', [2, 4])
def test_resampled_auc_is_that_of_the_plain_loop(weights, classes, decimals):
    rng = np.random.default_rng(0)
    labels = rng.integers(classes, size=N)
    scores = rng.random((N, classes)).round(decimals)
    expected = [metrics.auc(labels[each], scores[each]).value for each in indices_of(weights)]
    found = resampling.resampled_auc(labels, scores, weights)
    np.testing.assert_allclose(found, expected, rtol=1e-12)  # sums of halves: rounding alone


@pytest.mark.parametrize('decimals', [0, 12], ids=['ties', 'no ties'])
def test_resampled_spearman_is_that_of_the_plain_loop(weights, decimals):
    rng = np.random.default_rng(0)
    targets = rng.normal(size=N).round(decimals)
    values = (targets + rng.normal(size=N)).round(decimals)
    expected = [metrics.spearman(targets[each], values[each]).value for each in indices_of(weights)]
    found = resampling.resampled_spearman(targets, values, weights)
    np.testing.assert_allclose(found, expected, rtol=1e-11)


@pytest.mark.parametrize('decimals', [0, 12], ids=['ties', 'no ties'])
def test_resampled_concordance_is_lifelines_of_the_plain_loop(weights, decimals):
    rng = np.random.default_rng(0)
    times = (5 * rng.random(N)).round(decimals)
    risks = (rng.normal(size=N) - times / 5).round(decimals)
    events = (rng.random(N) < 0.6).astype(int)
    expected = [
        lifelines.utils.concordance_index(times[each], -risks[each], events[each])
        for each in indices_of(weights)
    ]
    found = resampling.resampled_concordance(times, events, risks, weights)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_resampled_means_are_those_of_the_plain_loop(weights):
    rng = np.random.default_rng(0)
    values, inside = rng.random(N), rng.random((N, 2)) < 0.5
    found = resampling.resampled_mean(values[:, None] * inside, inside, weights)
    for number in range(2):
        expected = [values[each[inside[each, number]]].mean() for each in indices_of(weights)]
        np.testing.assert_allclose(found[:, number], expected, rtol=1e-12)


def test_many_weights_are_taken_a_block_at_a_time(weights, monkeypatch):
    labels = np.arange(N) % 2
    scores = np.random.default_rng(0).random((N, 2))
    at_once = resampling.resampled_auc(labels, scores, weights)
    monkeypatch.setattr(resampling, '_BLOCK', 3 * N + 1)
    assert resampling.resampled_auc(labels, scores, weights).tolist() == at_once.tolist()


def test_resamples_without_a_figure_are_nan():
    weights = np.array([[4, 0, 0, 0], [1, 1, 1, 1], [0, 0, 2, 2]])
    labels, values = np.array([0, 0, 1, 1]), np.array([1.0, 2, 3, 4])
    scores = np.stack([-values, values], axis=1)
    assert np.isnan(resampling.resampled_auc(labels, scores, weights)).tolist() == [1, 0, 1]
    assert np.isnan(resampling.resampled_spearman(values, values, weights)).tolist() == [1, 0, 0]
    events = np.array([1, 1, 0, 0])
    found = resampling.resampled_concordance(values, events, -values, weights)
    assert np.isnan(found).tolist() == [1, 0, 1]
    assert found[1] == 1


def test_cases_are_resampled_whole():
    case_ids = ['b', 'a', 'b', 'c', 'a', 'b']
    drawn = resampling.multiplicities(case_ids, seed=0, rounds=500)
    by_case = {case: drawn[:, np.array(case_ids) == case] for case in 'abc'}
    for columns in by_case.values():
        assert (columns == columns[:, :1]).all()
    assert (sum(columns[:, 0] for columns in by_case.values()) == 3).all()
    # A case is missed by (2/3)³ of resamples, ± 3 standard errors.
    assert abs((by_case['a'][:, 0] == 0).mean() - 8 / 27) < 0.062


def test_the_interval_of_a_mean_is_the_textbook_one():
    values = np.random.default_rng(0).normal(size=200)
    drawn = resampling.multiplicities([str(i) for i in range(200)], seed=0, rounds=4000)
    found = resampling.interval(drawn @ values / 200)
    error = 1.96 * values.std() / np.sqrt(200)
    assert found == pytest.approx((values.mean() - error, values.mean() + error, 0), abs=0.02)


def test_whole_cases_give_wider_intervals_than_slides():
    values = np.repeat(np.random.default_rng(0).normal(size=30), 10)
    ones = np.ones((300, 1))
    by_case, by_slide = (
        resampling.interval(
            resampling.resampled_mean(
                values[:, None], ones, resampling.multiplicities(cases, seed=0, rounds=500)
            )[:, 0]
        )
        for cases in (np.repeat(np.arange(30), 10).astype(str), np.arange(300).astype(str))
    )
    assert by_case.high - by_case.low > 2 * (by_slide.high - by_slide.low)


def test_degenerate_resamples_are_skipped_and_counted():
    labels = np.array([0, 0, 0, 1])
    scores = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.4, 0.6]])
    drawn = resampling.multiplicities(list('abcd'), seed=0, rounds=1000)
    found = resampling.interval(resampling.resampled_auc(labels, scores, drawn))
    expected = (3 / 4) ** 4 + (1 / 4) ** 4
    assert abs(found.skipped / 1000 - expected) < 0.05
    assert found[:2] == (1, 1)
    nothing = resampling.interval(np.full(10, math.nan))
    assert nothing.skipped == 10
    assert math.isnan(nothing.low)


def test_a_thousand_resamples_of_600_slides_take_milliseconds():
    rng = np.random.default_rng(0)
    labels, scores = np.arange(600) % 2, rng.random((600, 2))
    drawn = resampling.multiplicities([str(i) for i in range(600)], seed=0)
    began = time.process_time()
    resampling.resampled_auc(labels, scores, drawn)
    # 30 models of 3 seeds in 45 s at the worst; the loop took 0.3 s a model on an idle core, and
    # this 15 ms: the bound leaves room for a busy machine.
    assert time.process_time() - began < 0.5
