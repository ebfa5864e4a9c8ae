import math

import numpy as np
import pytest
from made_up_predictions import classification, regression
from sklearn.metrics import roc_auc_score

from nic_jax.evaluation.lesion_size import by_lesion_size


def with_areas(rows, area_of):
    """Rows with a lesion area by the number of the slide and its label."""
    return [
        {**row, 'lesion_area': area_of(int(row['slide_id'].split()[-1]), row['label'])}
        for row in rows
    ]


@pytest.fixture(scope='module')
def presence():
    """Normal slides without lesions; those with larger ones are told with more certainty."""
    rng = np.random.default_rng(0)
    areas = np.exp(rng.uniform(0, math.log(300), 120)).round(2)
    rows = with_areas(
        classification(slides=120), lambda n, label: areas[n] if label == 'tumour' else ''
    )
    for row in rows:
        size = math.log(row['lesion_area']) / 6 if row['lesion_area'] else 0
        row['score_tumour'] = float(np.clip(0.2 + 0.6 * size + 0.1 * rng.normal(), 0, 1))
        row['score_normal'] = 1 - row['score_tumour']
    return rows


def test_positives_are_binned_and_compared_with_all_negatives(presence):
    records = by_lesion_size(presence, rounds=200)
    probability = [record for record in records if record['metric'] == 'probability']
    assert [record['slides'] for record in probability] == [10] * 6
    normal = [row for row in presence if row['label'] == 'normal']
    for record in probability:
        (area,) = (
            other
            for other in records
            if other['metric'] == 'auc' and other['area'] == record['area']
        )
        inside = [
            row
            for row in presence
            if row['label'] == 'tumour'
            and record['area_from'] <= row['lesion_area'] <= record['area_to']
        ]
        assert len(inside) == 2 * 10
        assert record['value'] == pytest.approx(np.mean([r['score_tumour'] for r in inside]))
        assert record['low'] < record['value'] < record['high']
        assert record['area'] == pytest.approx(np.median([r['lesion_area'] for r in inside]))
        assert math.pi * record['radius'] ** 2 == pytest.approx(record['area'])
        expected = []
        for seed in (0, 1):
            some = [row for row in inside + normal if row['seed'] == seed]
            truth = [row['label'] == 'tumour' for row in some]
            expected.append(roc_auc_score(truth, [row['score_tumour'] for row in some]))
        assert area['value'] == pytest.approx(np.mean(expected))
        assert area['low'] <= area['value'] <= area['high']
        assert area['slides'] == 10
    (others,) = (r for r in records if r['metric'] == 'probability_of_others')
    assert others['value'] == pytest.approx(np.mean([row['score_tumour'] for row in normal]))
    assert (others['slides'], others['area']) == (60, 0)
    values = [record['value'] for record in probability]
    assert values == sorted(values)  # larger ones are found better, as they were made


def test_lesions_of_unknown_area_are_left_out(presence):
    unknown = [
        {**row, 'lesion_area': ''} if row['slide_id'].endswith('1') else row for row in presence
    ]
    counts = [r['slides'] for r in by_lesion_size(unknown, rounds=20) if r['metric'] == 'auc']
    assert sum(counts) == 48
    assert by_lesion_size(classification() + regression(label_name='growth'), rounds=20) == []
    nothing_known = with_areas(classification(), lambda number, label: '')
    assert by_lesion_size(nothing_known, rounds=20) == []


def test_where_all_have_lesions_a_bin_is_compared_within_itself():
    # Arrangement: both classes have lesions of the same areas, told apart where they are large.
    rows = with_areas(classification(slides=120), lambda number, label: 8.0 + number // 2)
    for row in rows:
        right = row['label'] == 'tumour'
        told = right if row['lesion_area'] > 38 else row['seed']
        row['score_tumour'] = 0.9 if told else 0.1
        row['score_normal'] = 1 - row['score_tumour']
    records = by_lesion_size(rows, rounds=50)
    areas = [r for r in records if r['metric'] == 'auc']
    assert [record['slides'] for record in areas] == [10] * 6  # and as many others
    assert areas[0]['value'] == 0.5
    assert areas[-1]['value'] == 1
    others = [r for r in records if r['metric'] == 'probability_of_others']
    assert [record['area'] for record in others] == [record['area'] for record in areas]
    assert others[-1]['value'] == pytest.approx(0.1)


def test_of_many_classes_it_is_the_accuracy():
    rows = with_areas(
        classification(slides=90, classes='abc', seeds=(0, 1)), lambda number, label: number + 1
    )
    records = by_lesion_size(rows, rounds=50)
    assert {record['metric'] for record in records} == {'accuracy'}
    assert [record['slides'] for record in records] == [15] * 6
    first = [row for row in rows if row['lesion_area'] <= 15]
    right = [row['prediction'] == row['label'] for row in first]
    assert records[0]['value'] == pytest.approx(np.mean(right))
    assert (records[0]['area_from'], records[0]['area_to'], records[0]['area']) == (1, 15, 8)
