import numpy as np
import pytest
from made_up_predictions import classification, regression, survival
from sklearn.metrics import roc_auc_score

from nic_jax import progress
from nic_jax.evaluation.comparisons import compare, verdict
from nic_jax.evaluation.predictions import PredictionsError
from nic_jax.evaluation.tables import table
from nic_jax.report import comparisons as report


def test_the_interval_is_that_of_a_plain_loop_on_the_same_resamples():
    one = classification(slides=40, slides_a_case=2, skill=1.0, model='cnn')
    other = classification(slides=40, slides_a_case=2, skill=0.4, model='mean', random=1)
    (record,) = compare(one + other, seed=5, rounds=60)
    cases = sorted({row['case_id'] for row in one})

    def auc(rows, drawn, seed):
        of_case = {case: [] for case in cases}
        for row in rows:
            if row['seed'] == seed:
                of_case[row['case_id']].append(row)
        some = [row for case in drawn for row in of_case[case]]
        truth = [row['label'] == 'tumour' for row in some]
        return roc_auc_score(truth, [row['score_tumour'] for row in some])

    def difference(drawn):
        return np.mean([auc(one, drawn, s) - auc(other, drawn, s) for s in (0, 1)])

    rng = np.random.default_rng(5)
    drawn = [[cases[i] for i in rng.integers(20, size=20)] for _ in range(60)]
    expected = np.percentile([difference(each) for each in drawn], [2.5, 97.5])
    assert record['difference'] == pytest.approx(difference(cases))
    assert (record['low'], record['high']) == pytest.approx(tuple(expected))
    assert (record['first'], record['second'], record['metric']) == ('cnn', 'mean', 'auc')


@pytest.mark.parametrize('make', [classification, regression, survival])
def test_verdicts(make):
    good = {'skill': 3.0} if make is classification else {'noise': 0.2}
    bad = {'skill': 0.0} if make is classification else {'noise': 30.0}
    rows = (
        make(model='good', **good)
        + make(model='bad', random=1, **bad)
        + make(model='bad too', random=2, **bad)
    )
    records = {(r['first'], r['second']): r for r in compare(rows, rounds=300)}
    assert records['good', 'bad']['verdict'] == 'better'
    assert records['bad', 'bad too']['verdict'] == 'tie'
    (turned,) = compare(
        rows[80:160] + rows[:80] if make is not classification else rows[120:240] + rows[:120],
        rounds=300,
    )
    assert (turned['first'], turned['verdict']) == ('bad', 'worse')


def test_a_model_is_its_own_equal():
    rows = regression(model='a') + regression(model='b')
    (record,) = compare(rows, rounds=50)
    assert (record['difference'], record['low'], record['high']) == (0, 0, 0)
    assert record['verdict'] == 'tie'


def test_pairing_tells_apart_what_intervals_do_not():
    rows = regression(slides=60, seeds=(0,), noise=0.8, model='a')
    worse = np.random.default_rng(7).normal(size=60) * 0.3
    rows += [
        {**row, 'model': 'b', 'prediction': row['prediction'] + noise}
        for row, noise in zip(rows, worse, strict=True)
    ]
    (record,) = compare(rows, rounds=500)
    alone = table(rows, rounds=500)
    assert record['difference'] == pytest.approx(
        alone[0]['mean']['spearman'] - alone[1]['mean']['spearman']
    )
    for each in alone:
        assert record['high'] - record['low'] < 0.6 * (each['high'] - each['low'])


def test_models_within_an_encoder_and_encoders_within_a_model():
    rows = []
    for encoder in ('vae', 'bigan'):
        for number, model in enumerate(('cnn', 'mean', 'abmil')):
            rows += classification(encoder=encoder, model=model, random=number)
            rows += regression(encoder=encoder, model=model, random=number, label_name='growth')
    records = compare(rows, rounds=20)
    pairs = {
        (r['label_name'], r['compared'], r['within'], r['first'], r['second']) for r in records
    }
    assert len(pairs) == len(records) == 2 * (2 * 3 + 3)
    assert ('growth', 'model', 'bigan', 'cnn', 'abmil') in pairs
    assert ('label', 'encoder', 'mean', 'vae', 'bigan') in pairs


def test_points_of_a_sweep_are_compared_each():
    rows = [
        row
        for point in (100.0, 200.0)
        for model in ('cnn', 'mean')
        for row in classification(point=point, model=model)
    ]
    assert [record['point'] for record in compare(rows, rounds=20)] == [100.0, 200.0]


def test_what_both_predict_is_compared():
    one, other = classification(model='a'), classification(model='b')
    other = [row for row in other if row['slide_id'] != 'folder/slide, 3']
    (record,) = compare(one + other, rounds=20)
    assert record['units'] == 59
    assert record['first_mean'] == record['second_mean']
    strangers = [{**row, 'slide_id': f'another {row["slide_id"]}'} for row in other]
    assert compare(one + strangers, rounds=20) == []


def test_models_must_agree_about_the_truth():
    one, other = classification(model='a'), classification(model='b')
    flipped = [
        {**row, 'label': 'tumour'} if row['slide_id'].endswith(', 4') else row for row in other
    ]
    with pytest.raises(PredictionsError, match=r'disagree about folder/slide, 4: targets 0 and 1'):
        compare(one + flipped, rounds=20)
    with pytest.raises(PredictionsError, match='cannot be compared'):
        compare(one + regression(model='b'), rounds=20)


def test_by_case():
    rows = [
        row
        for number, model in enumerate('ab')
        for row in classification(slides=60, slides_a_case=3, model=model, random=number)
    ]
    (record,) = compare(rows, rounds=20, unit='case')
    assert record['units'] == 20


@pytest.mark.parametrize(
    ('low', 'high', 'expected'),
    [
        (0.1, 0.2, 'better'),
        (-0.2, -0.1, 'worse'),
        (-0.1, 0.1, 'tie'),
        (0.0, 0.1, 'tie'),
        (np.nan, np.nan, 'unknown'),
    ],
)
def test_the_rule(low, high, expected):
    assert verdict(low, high) == expected


def test_the_best_is_shown_against_the_others():
    rows = [
        row
        for number, (model, skill) in enumerate((('poor', 0.0), ('best', 3.0), ('fair', 1.0)))
        for row in classification(model=model, skill=skill, random=number)
    ]
    records = compare(rows, rounds=200)
    shown = report.against_the_best(records)
    assert {(row['first'], row['second']) for row in shown} == {('best', 'poor'), ('best', 'fair')}
    assert all(row['difference'] > 0 and row['low'] <= row['difference'] for row in shown)
    assert shown[0]['verdict'] == 'better'
    with progress.console.capture() as capture:
        report.show(records)
    lines = [line for line in capture.get().splitlines() if 'best' in line and 'poor' in line]
    assert len(lines) == 1
    assert lines[0].split()[-1] == 'better'
    with progress.console.capture() as capture:
        report.show([])
    assert capture.get() == ''
