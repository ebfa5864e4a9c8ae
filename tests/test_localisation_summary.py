import math

import numpy as np
import pytest
from made_up_localisation import localisation

from nic_jax.evaluation.localisation_summary import by_lesion_size, compare, summarise


def mean(rows, metric='jaccard'):
    return np.mean([row[metric] for row in rows])


def test_means_and_intervals_are_those_of_a_plain_loop_over_cases():
    rows = localisation()
    (record,) = summarise(rows, seed=3, rounds=80)
    assert (record['encoder'], record['method']) == ('vae', 'grad_cam')
    assert (record['slides'], record['cases']) == (24, 12)
    cases = sorted({row['case_id'] for row in rows})
    rng = np.random.default_rng(3)
    drawn = [[cases[i] for i in rng.integers(len(cases), size=len(cases))] for _ in range(80)]
    for metric in ('jaccard', 'average_precision', 'pointing'):
        of_case = {case: [row[metric] for row in rows if row['case_id'] == case] for case in cases}
        figures = [np.mean([value for case in each for value in of_case[case]]) for each in drawn]
        expected = np.percentile(figures, [2.5, 97.5])
        assert record[metric] == pytest.approx(mean(rows, metric))
        ends = record[f'{metric}_low'], record[f'{metric}_high']
        assert ends == pytest.approx(tuple(expected))
    assert math.isnan(record['jaccard_both'])
    assert math.isnan(record['jaccard_both_low'])


def test_a_second_region_counts_where_there_is_one():
    rows = localisation()
    for row in rows[::2]:
        row['jaccard_both'] = row['jaccard'] / 2
    (record,) = summarise(rows, rounds=50)
    assert record['jaccard_both'] == pytest.approx(mean(rows[::2]) / 2)
    assert record['jaccard_both_low'] < record['jaccard_both'] < record['jaccard_both_high']


def test_only_hold_outs_with_lesions_count():
    rows = localisation()
    valid = localisation(subset='valid', skill=0.9, random=1)
    normal = [{**row, 'slide_id': 'normal', 'lesion_area': 0} for row in rows[:2]]
    for row, nothing in zip(normal, (math.nan, ''), strict=True):
        row |= dict.fromkeys(('jaccard', 'average_precision', 'pointing'), nothing)
    for function in (summarise, by_lesion_size):
        expected = function(rows, rounds=20)
        np.testing.assert_equal(function([*rows, *valid, *normal], rounds=20), expected)
        assert function([*valid, *normal]) == []
    assert compare([*valid, *normal]) == []


def test_the_maps_of_several_seeds_are_averaged_for_each_slide():
    rows = localisation(seeds=(0, 1))
    rows = [row for row in rows if row['seed'] == 0 or row['slide_id'].endswith('5')]
    (record,) = summarise(rows, rounds=20)
    slides = {row['slide_id'] for row in rows}
    expected = np.mean([mean([row for row in rows if row['slide_id'] == s]) for s in slides])
    assert record['slides'] == 24
    assert record['jaccard'] == pytest.approx(expected)
    assert record['jaccard'] != pytest.approx(mean(rows))


def test_bins_are_of_lesion_area():
    rows = localisation(slides=60)
    records = by_lesion_size(rows, rounds=100)
    assert [record['slides'] for record in records] == [10] * 6
    for record in records:
        inside = [
            row for row in rows if record['area_from'] <= row['lesion_area'] <= record['area_to']
        ]
        assert len(inside) == 10
        assert record['value'] == pytest.approx(mean(inside))
        assert record['low'] < record['value'] < record['high']
        assert record['area'] == np.median([row['lesion_area'] for row in inside])
        assert math.pi * record['radius'] ** 2 == pytest.approx(record['area'])
    by_metric = by_lesion_size(rows, metric='pointing', rounds=10)
    assert by_metric[0]['metric'] == 'pointing'
    assert by_metric[-1]['value'] > by_metric[0]['value']


def test_pairs_are_compared_on_slides_that_both_have():
    good = localisation(skill=0.6)
    worse = localisation(skill=0.3, method='occlusion', random=1)[6:]
    alike = [{**row, 'encoder': 'bigan', 'jaccard': 1 - row['jaccard']} for row in good]
    alike = [
        {**row, 'jaccard': other['jaccard'] + sign * 0.1}
        for row, other, sign in zip(alike, good, [1, -1] * 12, strict=True)
    ]
    records = compare(good + worse + alike, rounds=300)
    assert [(r['compared'], r['within']) for r in records] == [
        ('method', 'vae, cnn'),
        ('encoder', 'cnn, grad_cam'),
    ]
    methods, encoders = records
    assert (methods['first'], methods['second']) == ('grad_cam', 'occlusion')
    assert methods['slides'] == 18
    assert methods['first_mean'] == pytest.approx(mean(good[6:]))
    assert methods['second_mean'] == pytest.approx(mean(worse))
    assert methods['difference'] == pytest.approx(mean(good[6:]) - mean(worse))
    assert 0 < methods['low'] < methods['difference'] < methods['high']
    assert methods['verdict'] == 'better'
    # Pairs of +0.1 and −0.1 in each case: no difference in any resample.
    assert encoders['difference'] == pytest.approx(0, abs=1e-12)
    assert encoders['high'] - encoders['low'] < 1e-12


def test_a_difference_that_chance_makes_is_a_tie():
    rows = localisation(skill=0.5) + localisation(skill=0.5, model='abmil', random=1)
    (record,) = compare(rows, rounds=300)
    assert (record['compared'], record['within']) == ('model', 'vae, grad_cam')
    assert record['low'] < 0 < record['high']
    assert record['verdict'] == 'tie'
