import csv

import pytest
from made_up_predictions import classification, regression, survival

from nic_jax import progress
from nic_jax.evaluate_stage import evaluate
from nic_jax.evaluation import predictions


def read_csv(path):
    with path.open(newline='', encoding='utf-8') as file:
        return list(csv.DictReader(file))


def test_predictions_are_enough_for_all_tables_and_figures(tmp_path):
    rows = []
    for number, (encoder, model) in enumerate(
        (encoder, model) for encoder in ('vae', 'bigan') for model in ('cnn', 'mean')
    ):
        path = tmp_path / encoder / model / 'predictions.csv'
        some = {'model': model, 'random': number, 'label_name': 'HER2 +/-', 'group_Test': 1}
        written = classification(slides=40, **some)
        for index, row in enumerate(written):
            row['lesion_area'] = index + 1.0 if row['label'] == 'tumour' else ''
        predictions.write(path, written)
        rows += [{**row, 'encoder': encoder} for row in predictions.read(path)]
        rows += regression(encoder=encoder, model=model, random=number, label_name='growth')
        rows += survival(encoder=encoder, model=model, random=number, label_name='survival')
    with progress.console.capture() as capture:
        records, made = evaluate(rows, home=tmp_path, seed=0, rounds=50)
    assert len(records) == 12
    names = {path.name for path in made}
    assert names == {
        'table.csv',
        'comparisons.csv',
        'calibration.csv',
        'lesion_size.csv',
        'calibration_HER2 %2B%2F-.png',
        'lesion_size_HER2 %2B%2F-.png',
        *(f'survival_survival_{e}_{m}.png' for e in ('vae', 'bigan') for m in ('cnn', 'mean')),
    }
    assert all(path.parent == tmp_path / 'report' and path.stat().st_size for path in made)
    table = read_csv(tmp_path / 'report' / 'table.csv')
    assert {row['metric'] for row in table} >= {'auc', 'spearman', 'concordance', 'log_rank_p'}
    assert len(read_csv(tmp_path / 'report' / 'comparisons.csv')) == 3 * (2 + 2)
    for text in ('hold-outs', 'concordance', 'against', 'verdict'):
        assert text in capture.get()


def test_a_sweep_is_drawn_and_what_does_not_apply_is_not(tmp_path):
    rows = [
        row
        for point in (16.0, 128.0)
        for row in regression(seeds=(0,), point=point, encoder='vae', noise=100 / point)
    ]
    records, made = evaluate(rows, home=tmp_path, seed=0, points='code size', rounds=50)
    assert [record['point'] for record in records] == [16, 128]
    assert [path.name for path in made] == ['table.csv', 'sweep_label.png']


def test_by_case_and_by_slide_differ(tmp_path):
    rows = classification(slides=60, slides_a_case=3, encoder='vae', skill=0.3)
    by_slide, by_case = (
        evaluate(rows, home=tmp_path / unit, seed=0, unit=unit, rounds=50)[0][0]
        for unit in ('slide', 'case')
    )
    assert by_slide['mean']['auc'] < by_case['mean']['auc']  # noise is averaged


def test_without_hold_outs_there_is_nothing_to_score(tmp_path):
    rows = [{**row, 'subset': 'new', 'label': ''} for row in classification(encoder='vae')]
    with pytest.raises(ValueError, match='no fold tests a slide'):
        evaluate(rows, home=tmp_path, seed=0)
