import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from nic_jax.evaluation import predictions
from nic_jax.evaluation.tables import table


def _rows(count=20, seeds=(0, 1), model='cnn', **extra):
    rng = np.random.default_rng(0)
    rows = []
    for seed in seeds:
        for index in range(count):
            score = float(np.clip(0.3 * (index % 2) + 0.7 * rng.random(), 0, 1))
            rows.append(
                {
                    'slide_id': f'folder/slide, {index}',
                    'case_id': f'case {index // 2}',
                    'label_name': 'tumour',
                    'model': model,
                    'seed': seed,
                    'fold': index % 4,
                    'subset': 'test',
                    'label': ('normal', 'tumour')[index % 2],
                    'prediction': ('normal', 'tumour')[score > 0.5],
                    'score_normal': 1 - score,
                    'score_tumour': score,
                    **extra,
                }
            )
    return rows


def _regression(count=12):
    return [
        {
            **{name: value for name, value in row.items() if not name.startswith('score_')},
            'label': float(index),
            'prediction': index**1.5 / 3,
        }
        for index, row in enumerate(_rows(count, seeds=(0,)))
    ]


@pytest.mark.parametrize('rows', [_rows(), _rows(lesion_area=7), _regression()])
def test_what_is_read_is_what_was_written(tmp_path, rows):
    rows[1] = {**rows[1], 'label': '', 'fold': '', 'subset': 'new'}
    predictions.write(tmp_path / 'predictions.csv', rows)
    assert predictions.read(tmp_path / 'predictions.csv') == rows
    assert [path.name for path in tmp_path.iterdir()] == ['predictions.csv']


def test_rows_that_cannot_be_written(tmp_path):
    with pytest.raises(predictions.PredictionsError, match='no predictions'):
        predictions.write(tmp_path / 'a.csv', [])
    with pytest.raises(predictions.PredictionsError, match='among rows of'):
        predictions.write(tmp_path / 'a.csv', _rows(2) + _regression(2))


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (('label_name', 'name'), 'no columns label_name'),
        (('tumour,cnn,0,1,test,tumour', 'tumour,cnn,0,1,test,benign'), "line 3: label 'benign'"),
        (('slide, 1', 'slide, 0'), 'line 3: folder/slide, 0 was predicted in line 2'),
        (('cnn,0,1', 'cnn,zero,1'), 'line 2: .*zero'),
        (('0.5,0.5', '0.5,0.6'), 'line 4: the scores do not sum to 1'),
        (('0.5,0.5', 'nan,0.5'), 'line 4: score_normal is nan'),
        (('0.5,0.5', '0.5'), 'line 4: not as many fields'),
    ],
)
def test_a_broken_file_is_refused_with_its_line(tmp_path, change, message):
    rows = _rows(4, seeds=(0,))
    rows[0]['fold'] = rows[1]['fold']
    rows[2] |= {'score_normal': 0.5, 'score_tumour': 0.5}
    path = tmp_path / 'predictions.csv'
    predictions.write(path, rows)
    path.write_text(path.read_text().replace(*change, 1))
    with pytest.raises(predictions.PredictionsError, match=message):
        predictions.read(path)


def test_all_hold_outs_are_scored_once_a_seed():
    rows = _rows()
    new = {**rows[0], 'slide_id': 'new', 'label': '', 'subset': 'new'}
    (record,) = table([*rows, new], rounds=200)
    expected = [
        roc_auc_score(
            [row['label'] == 'tumour' for row in rows if row['seed'] == seed],
            [row['score_tumour'] for row in rows if row['seed'] == seed],
        )
        for seed in (0, 1)
    ]
    assert [record['by_seed'][seed]['auc'] for seed in (0, 1)] == pytest.approx(expected)
    assert record['mean']['auc'] == pytest.approx(np.mean(expected))
    assert record['sd']['auc'] == pytest.approx(np.std(expected, ddof=1))
    assert record['primary'] == 'auc'
    assert record['low'] < record['mean']['auc'] < record['high']
    assert (record['seeds'], record['slides'], record['cases']) == (2, 20, 10)
    assert record['reasons'] == {}


def test_models_and_encoders_are_kept_apart():
    rows = _rows() + _rows(model='mean') + _rows(encoder='vae') + _regression()
    rows[-12:] = [{**row, 'label_name': 'growth'} for row in rows[-12:]]
    records = table(rows, rounds=20)
    assert [(r['encoder'], r['label_name'], r['model']) for r in records] == [
        ('', 'tumour', 'cnn'),
        ('', 'tumour', 'mean'),
        ('vae', 'tumour', 'cnn'),
        ('', 'growth', 'cnn'),
    ]
    assert records[-1]['mean']['spearman'] == pytest.approx(1)
    assert np.isnan(records[-1]['sd']['spearman'])


def test_seeds_must_have_predicted_the_same_slides():
    with pytest.raises(predictions.PredictionsError, match=r'seed 1 .*slide, 19'):
        table(_rows()[:-1])


def test_one_class_only_gives_reasons_instead_of_figures():
    rows = [row for row in _rows() if row['label'] == 'normal']
    (record,) = table(rows, rounds=20)
    assert np.isnan(record['mean']['auc'])
    assert record['skipped'] == 20
    assert 'no positives' in record['reasons']['auc']
