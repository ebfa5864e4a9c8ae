import csv
import json

import numpy as np
import pytest
import scipy.stats
from lifelines.utils import concordance_index
from made_up_predictions import classification, regression, survival
from sklearn.metrics import roc_auc_score

from nic_jax import progress
from nic_jax.evaluation.tables import table
from nic_jax.report import tables as report


def auc_of(rows, **conditions):
    """Scikit-learn's, of the rows that have some values."""
    some = [row for row in rows if all(row[name] == value for name, value in conditions.items())]
    truth = [row['label'] == 'tumour' for row in some]
    return roc_auc_score(truth, [row['score_tumour'] for row in some])


def test_all_hold_outs_are_scored_once_a_seed():
    rows = classification(slides=20, slides_a_case=2)
    new = {**rows[0], 'slide_id': 'new', 'label': '', 'subset': 'new'}
    (record,) = table([*rows, new], rounds=200)
    expected = [auc_of(rows, seed=seed) for seed in (0, 1)]
    assert [record['by_seed'][seed]['auc'] for seed in (0, 1)] == pytest.approx(expected)
    assert record['mean']['auc'] == pytest.approx(np.mean(expected))
    assert record['sd']['auc'] == pytest.approx(np.std(expected, ddof=1))
    assert (record['primary'], record['task'], record['unit']) == ('auc', 'classification', 'slide')
    assert record['low'] < record['mean']['auc'] < record['high']
    assert (record['seeds'], record['slides'], record['cases']) == (2, 20, 10)
    assert record['reasons'] == {}


def test_the_interval_is_that_of_a_plain_loop_over_cases():
    rows = classification(slides=30, slides_a_case=2, skill=0.5)
    (record,) = table(rows, seed=3, rounds=60)
    cases = sorted({row['case_id'] for row in rows})
    of_case = {
        (case, seed): [row for row in rows if (row['case_id'], row['seed']) == (case, seed)]
        for case in cases
        for seed in (0, 1)
    }
    rng = np.random.default_rng(3)
    figures = []
    for _ in range(60):
        drawn = [cases[index] for index in rng.integers(len(cases), size=len(cases))]
        figures.append(
            np.mean([auc_of([r for c in drawn for r in of_case[c, seed]]) for seed in (0, 1)])
        )
    expected = np.percentile(figures, [2.5, 97.5])
    assert (record['low'], record['high']) == pytest.approx(tuple(expected))


def test_folds_are_scored_by_themselves_and_averaged():
    rows = classification(slides=64, skill=0.7)
    (record,) = table(rows, rounds=20)
    expected = {
        fold: np.mean([auc_of(rows, seed=seed, fold=fold) for seed in (0, 1)]) for fold in range(4)
    }
    assert {fold: found['auc'] for fold, found in record['folds'].items()} == pytest.approx(
        expected
    )
    assert record['fold_mean']['auc'] == pytest.approx(np.mean(list(expected.values())))
    together = [{**row, 'fold': ''} for row in rows]  # each the mean of several folds' networks
    (record,) = table(together, rounds=20)
    assert (record['folds'], record['fold_mean']) == ({}, {})
    assert record['mean']['auc'] == pytest.approx(np.mean([auc_of(rows, seed=s) for s in (0, 1)]))


def test_a_group_is_scored_on_its_rows_alone():
    rows = classification(slides=60, group_Test=0, group_Macro=1)
    for row in rows:
        row['group_Test'] = int(int(row['slide_id'].split()[-1]) >= 20)
    (record,) = table(rows, rounds=50)
    test = record['groups']['Test']
    expected = [auc_of(rows, seed=seed, group_Test=1) for seed in (0, 1)]
    assert test['mean']['auc'] == pytest.approx(np.mean(expected))
    assert (test['slides'], test['cases']) == (40, 40)
    assert test['low'] < test['mean']['auc'] < test['high']
    macro = record['groups']['Macro']
    assert {name: macro[name] for name in macro} == {name: record[name] for name in macro}


def test_by_case_the_slides_of_a_case_are_one():
    rows = classification(slides=60, slides_a_case=3, seeds=(0,), skill=0.3)
    (record,) = table(rows, rounds=20, unit='case')
    means, labels = {}, {}
    for row in rows:
        means.setdefault(row['case_id'], []).append(row['score_tumour'])
        labels[row['case_id']] = row['label'] == 'tumour'
    expected = roc_auc_score(list(labels.values()), [np.mean(each) for each in means.values()])
    assert record['mean']['auc'] == pytest.approx(expected)
    assert (record['slides'], record['cases'], record['unit']) == (60, 20, 'case')
    assert record['mean']['auc'] != table(rows, rounds=20)[0]['mean']['auc']


def test_models_encoders_labels_and_points_are_kept_apart():
    rows = (
        classification(model='cnn')
        + classification(model='mean')
        + classification(encoder='vae', point=16.0)
        + classification(encoder='vae', point=128.0)
        + regression(label_name='growth', seeds=(0,), noise=0)
    )
    records = table(rows, rounds=20)
    assert [(r['encoder'], r['label_name'], r['model'], r['point']) for r in records] == [
        ('', 'label', 'cnn', ''),
        ('', 'label', 'mean', ''),
        ('vae', 'label', 'cnn', 16.0),
        ('vae', 'label', 'cnn', 128.0),
        ('', 'growth', 'cnn', ''),
    ]
    assert records[-1]['mean']['spearman'] == pytest.approx(1)
    assert np.isnan(records[-1]['sd']['spearman'])


def test_regression_and_survival_have_their_own_figures():
    values, times = regression(seeds=(0,)), survival(seeds=(0,), label_name='survival')
    of_values, of_times = table(values + times, rounds=200)
    targets, predicted = zip(*((row['label'], row['prediction']) for row in values), strict=True)
    assert of_values['mean'] == pytest.approx(
        {
            'spearman': scipy.stats.spearmanr(targets, predicted).statistic,
            'pearson': scipy.stats.pearsonr(targets, predicted).statistic,
            'mean_squared_error': np.square(np.subtract(targets, predicted)).mean(),
        }
    )
    assert (of_times['primary'], of_times['task']) == ('concordance', 'survival')
    columns = [[row[name] for row in times] for name in ('time', 'prediction', 'event')]
    expected = concordance_index(columns[0], -np.array(columns[1]), columns[2])
    assert of_times['mean']['concordance'] == pytest.approx(expected)
    assert expected > 0.7  # a higher risk dies sooner
    assert of_times['low'] < expected < of_times['high']
    assert 0 <= of_times['mean']['log_rank_p'] < 0.05


def test_one_class_only_gives_reasons_instead_of_figures():
    rows = [row for row in classification() if row['label'] == 'normal']
    (record,) = table(rows, rounds=20)
    assert np.isnan(record['mean']['auc'])
    assert record['skipped'] == 20
    assert 'no positives' in record['reasons']['auc']


def test_records_are_shown_and_written(tmp_path):
    rows = classification(group_Test=1, encoder='bigan [16]') + classification(
        group_Test=0, encoder='vae', seeds=(0,)
    )
    records = table(rows, rounds=50)
    json.dumps(records)
    with progress.console.capture() as capture:
        report.show(records)
    shown = capture.get()
    first = records[0]
    assert f'{first["mean"]["auc"]:.3f} ({first["sd"]["auc"]:.3f}) [{first["low"]:.3f}, ' in shown
    assert 'bigan [16]' in shown
    assert f'{first["fold_mean"]["auc"]:.3f}' in shown
    assert f'{first["mean"]["calibration_error"]:.3f}' in shown

    report.write(tmp_path / 'table.csv', records)
    with (tmp_path / 'table.csv').open(newline='') as file:
        lines = list(csv.DictReader(file))
    (line,) = (
        line
        for line in lines
        if (line['encoder'], line['metric'], line['group']) == ('bigan [16]', 'auc', '')
    )
    assert float(line['mean']) == first['mean']['auc']
    assert float(line['low']) == first['low']
    assert float(line['fold_3']) == first['folds'][3]['auc']
    assert float(line['fold_mean']) == first['fold_mean']['auc']
    groups = [(line['encoder'], line['group']) for line in lines if line['metric'] == 'auc']
    assert groups == [('bigan [16]', ''), ('bigan [16]', 'Test'), ('vae', '')]
