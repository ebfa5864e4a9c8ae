import math

import numpy as np
import pytest
from made_up_localisation import detections

from nic_jax.evaluation.free_response import RATES, free_response
from nic_jax.evaluation.localisation import LocalisationError

KEY = {'encoder': 'vae', 'label_name': 'tumour', 'model': 'cnn', 'method': 'grad_cam'}


def row(slide, score, lesion, lesions):
    known = {'slide_id': slide, 'case_id': slide, 'subset': 'test', **KEY}
    return {**known, 'score': score, 'lesion': lesion, 'lesions': lesions}


def sensitivities(rows, slides):
    """By counting at each threshold; `slides` may name a slide several times."""
    lesions = {each['slide_id']: each['lesions'] for each in rows}
    points = [(0.0, 0.0)]
    for threshold in sorted({each['score'] for each in rows} - {''}, reverse=True):
        false, hits = 0, 0
        for slide in slides:
            high = [
                each['lesion']
                for each in rows
                if each['slide_id'] == slide and each['score'] != '' and each['score'] >= threshold
            ]
            false += high.count('')
            hits += len(set(high) - {''})
        points.append((false / len(slides), hits / sum(lesions[slide] for slide in slides)))
    found = []
    for rate in RATES:
        below = [(x, y) for x, y in points if x <= rate][-1]
        above = [(x, y) for x, y in points if x > rate][:1] or [(math.inf, below[1])]
        share = (rate - below[0]) / (above[0][0] - below[0])
        found.append(below[1] + share * (above[0][1] - below[1]))
    return found


def test_a_curve_computed_by_hand():
    rows = [
        row('one', 0.9, 1, 3),
        row('one', 0.8, '', 3),
        row('one', 0.7, 1, 3),  # the same lesion again counts nowhere
        row('one', 0.3, 2, 3),
        row('two', 0.6, '', 0),  # false positives of a normal slide count as well
        row('two', 0.3, '', 0),
        row('three', 0.8, 1, 1),
        row('four', '', '', 0),
    ]
    (record,) = free_response(rows, rounds=50)
    assert (record['slides'], record['lesions']) == (4, 4)
    assert {name: record[name] for name in KEY} == KEY
    # Thresholds .9, .8 (a hit and a false positive), .6 and .3 (another such pair).
    np.testing.assert_allclose(record['curve'].false_positives, [0, 0, 0.25, 0.5, 0.75])
    np.testing.assert_allclose(record['curve'].sensitivity, [0, 0.25, 0.5, 0.5, 0.75])
    assert record['sensitivities'] == pytest.approx([0.5, 0.5, 0.75, 0.75, 0.75, 0.75])
    assert record['score'] == pytest.approx(2 / 3)


def test_it_is_what_counting_at_each_threshold_gives():
    rows = detections(slides=30, skill=0.2)
    (record,) = free_response(rows, rounds=10)
    slides = sorted({each['slide_id'] for each in rows})
    assert record['sensitivities'] == pytest.approx(sensitivities(rows, slides))
    assert 0 < record['sensitivities'][0] < record['sensitivities'][3] <= 1
    assert record['score'] == pytest.approx(np.mean(record['sensitivities']))


def test_intervals_are_those_of_a_plain_loop_over_cases():
    rows = detections(slides=24, slides_a_case=2, skill=0.5)
    (record,) = free_response(rows, seed=5, rounds=30)
    slides_of = {}
    for each in rows:
        slides_of.setdefault(each['case_id'], {})[each['slide_id']] = None
    cases = sorted(slides_of)
    rng = np.random.default_rng(5)
    figures = []
    for _ in range(30):
        drawn = [cases[index] for index in rng.integers(len(cases), size=len(cases))]
        figures.append(sensitivities(rows, [slide for case in drawn for slide in slides_of[case]]))
    low, high = np.percentile(figures, [2.5, 97.5], axis=0)
    assert record['lows'] == pytest.approx(low.tolist())
    assert record['highs'] == pytest.approx(high.tolist())
    low, high = np.percentile(np.mean(figures, axis=1), [2.5, 97.5])
    assert (record['low'], record['high']) == pytest.approx((low, high))


def test_maps_are_kept_apart_and_validation_slides_left_out():
    one, other = detections(skill=3), detections(skill=0.1, method='occlusion')
    records = free_response([*one, *detections(subset='valid', random=1), *other], rounds=10)
    assert [record['method'] for record in records] == ['grad_cam', 'occlusion']
    assert records[0]['score'] == free_response(one, rounds=10)[0]['score'] > records[1]['score']
    assert free_response(detections(subset='valid')) == []


def test_a_slide_without_detections_lowers_both_shares():
    rows = [row('one', 0.9, 1, 1), row('one', 0.8, '', 1)]
    (before,) = free_response(rows, rounds=5)
    (after,) = free_response([*rows, row('two', '', '', 3)], rounds=5)
    assert before['curve'].false_positives[-1] == 2 * after['curve'].false_positives[-1] == 1
    assert before['sensitivities'][-1] == 4 * after['sensitivities'][-1] == 1
    (nothing,) = free_response([row('two', '', '', 3)], rounds=5)
    assert nothing['score'] == nothing['high'] == 0


def test_without_lesions_there_is_no_figure():
    (record,) = free_response([row('one', 0.9, '', 0), row('two', 0.1, '', 0)], rounds=5)
    assert math.isnan(record['score'])
    assert math.isnan(record['low'])
    assert record['lesions'] == 0


def test_rows_that_disagree_are_refused():
    with pytest.raises(LocalisationError, match='one has different numbers of lesions'):
        free_response([row('one', 0.9, 1, 1), row('one', 0.8, '', 2)])
