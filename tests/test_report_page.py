import csv
import json
import math
import re
import urllib.parse

import numpy as np
import pytest
from html_pages import HOSTILE, read
from made_up_predictions import classification, regression, survival
from sklearn import metrics

from nic_jax import evaluate_stage
from nic_jax.report import page_curves, page_findings, page_results, page_tables
from nic_jax.report.page import write_page
from nic_jax.report.page_inputs import read_csv
from nic_jax.report.page_parts import Whisker
from nic_jax.workdir import log_metrics, record_failure

CONFIG = {'seed': 3, 'precision': 'default', 'evaluate': {'unit': 'slide'}, 'slides': 'a.csv'}


def some_rows():
    return [
        {**row, 'label_name': label_name, 'encoder': encoder, 'model': model}
        for label_name, make in (
            ('grade', classification),
            ('share', regression),
            ('death', survival),
        )
        for number, (encoder, model) in enumerate(
            [('vae', 'cnn'), ('vae', 'mean'), ('bigan', 'cnn')]
        )
        for row in make(slides=40, random=number)
    ]


@pytest.fixture(scope='module')
def made(tmp_path_factory):
    """A workdir with everything that evaluation makes, and its page."""
    home = tmp_path_factory.mktemp('home') / 'study'
    home.mkdir()
    rows = some_rows()
    records, _ = evaluate_stage.evaluate(rows, home=home, seed=0, rounds=50)
    for epoch in range(3):
        where = {'encoder': 'vae', 'label_name': 'grade', 'model': 'cnn', 'seed': 0, 'fold': 1}
        losses = {'epoch': epoch, 'loss': 1 / (1 + epoch), 'valid_loss': 1.0, 'steps_per_s': 7.5}
        log_metrics(home, {'stage': 'classify', **where, **losses})
    for step, loss in ((0, math.nan), (2, 1.5), (4, 0.75)):
        record = {**where, 'step': step, 'loss': loss, 'valid_loss': 1.0}
        log_metrics(home, {'stage': 'finetune', **record})
    with (home / 'metrics.jsonl').open('a') as file:
        file.write('{"stage": "classify", "enc')  # a process was killed here
    return home, rows, records, write_page(home, CONFIG, rows=rows, experiment='cohort.py')


def test_a_page_holds_what_evaluation_found(made):
    home, _, records, path = made
    page = read(path)
    assert path == home / 'report' / 'index.html'
    sections = [attrs['id'] for attrs in page.all('section')]
    assert sections == [
        *('results', 'comparisons', 'cohort', 'curves', 'confusion', 'training', 'timings'),
        *('settings', 'versions', 'files'),
    ]
    for record in records:
        primary = record['primary']
        mean, sd, low, high = (
            f'{value:.3f}'
            for value in (
                record['mean'][primary],
                record['sd'][primary],
                record['low'],
                record['high'],
            )
        )
        assert f'{mean} ({sd}) [{low}, {high}]' in page.text
        for name, value in record['mean'].items():
            if not name.endswith('_p'):
                assert page_tables.figure(value) in page.text, name
    for told in ('3 epochs', '7.5 steps/s', 'evaluate.unit', 'a.csv', 'jax', 'cohort.py'):
        assert told in page.text


def test_a_page_needs_nothing_but_itself(made):
    page = read(made[3])
    assert not page.all('script')
    assert not page.all('link')
    assert len(page.all('img')) == 8  # ROC, calibration, values, three survivals, two trainings
    assert all(attrs['src'].startswith('data:image/') for attrs in page.all('img'))
    assert all(attrs['alt'] for attrs in page.all('img'))
    links = [attrs['href'] for attrs in page.all('a')]
    anchors = {attrs['id'] for attrs in page.all('section')}
    for link in links:
        assert link[1:] in anchors if link.startswith('#') else (made[3].parent / link).exists()
    (policy,) = [a['content'] for a in page.all('meta') if 'http-equiv' in a]
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def test_the_same_workdir_gives_the_same_page(made):
    home, rows, _, path = made
    before = path.read_bytes()
    write_page(home, CONFIG, rows=rows, experiment='cohort.py')
    assert path.read_bytes() == before


def test_names_cannot_break_the_page_nor_leave_its_folder(tmp_path):
    home = tmp_path / 'a' / 'b' / 'home'
    home.mkdir(parents=True)
    rows = [
        {
            **{key.replace('tumour', HOSTILE): value for key, value in row.items()},
            'slide_id': f'{HOSTILE}{row["slide_id"]}',
            'label_name': HOSTILE,
            'encoder': '"><img src=x onerror=alert(1)>',
            'model': "$\\frac{'",
            'label': row['label'].replace('tumour', HOSTILE),
            'prediction': row['prediction'].replace('tumour', HOSTILE),
        }
        for row in classification(slides=24)
    ]
    (home / 'report').mkdir()
    columns = ('encoder', 'label_name', 'model', 'slides', 'cases', 'seeds', 'metric', 'mean')
    with (home / 'report' / 'table.csv').open('w', newline='') as file:
        writer = csv.writer(file)
        writer.writerow([*columns, 'sd', 'low', 'high'])
        writer.writerow([rows[0]['encoder'], HOSTILE, HOSTILE, 24, 24, 1, 'auc', 0.8, '', 0.7, 0.9])
    for record in ({'stage': 'classify', 'label_name': HOSTILE}, {'stage': 'compress'}):
        numbers = {'seed': 0, 'fold': 0, 'epoch': 0, 'loss': 1.0, 'valid_loss': 1.0}
        log_metrics(home, {'encoder': HOSTILE, 'model': "$\\frac{'", **numbers, **record})
    record_failure(home, stage='compress', slide_id=HOSTILE, path=tmp_path, reason=HOSTILE)
    path = write_page(home, {'seed': 0, HOSTILE: HOSTILE}, rows=rows, experiment=HOSTILE)

    page = read(path)
    assert not page.all('script')
    assert all(attrs['src'].startswith('data:') for attrs in page.all('img'))
    assert not any(name.startswith('on') for _, attrs in page.elements for name in attrs)
    for section in ('failures', 'settings', 'cohort', 'results'):
        assert section in [attrs['id'] for attrs in page.all('section')]
    assert page.text.count(HOSTILE) >= 10
    assert [each.name for each in tmp_path.iterdir()] == ['a']
    assert [each.name for each in (tmp_path / 'a').rglob('*.html')] == ['index.html']


def test_an_empty_workdir_has_a_page_of_settings_and_versions(tmp_path):
    path = write_page(tmp_path, {'seed': 0}, rows=[])
    assert [each['id'] for each in read(path).all('section')] == ['settings', 'versions']


def test_the_best_is_told_with_what_is_not_told_apart_from_it(made):
    home, _, records, _ = made
    pairs = read_csv(home / 'report' / 'comparisons.csv')
    table = read_csv(home / 'report' / 'table.csv')
    found = page_findings.findings(table, pairs, noun='slides', swept='point')
    assert [each.label_name for each in found] == ['grade', 'share', 'death']
    for each in found:
        of_label = [record for record in records if record['label_name'] == each.label_name]
        best = max(of_label, key=lambda record: record['mean'][record['primary']])
        assert each.figure == f'{best["mean"][best["primary"]]:.3f}'
        assert each.told.startswith(f'{best["encoder"]}, {best["model"]}: 40 slides of 40 cases')
        for pair in pairs:
            shared = {'model': 'encoder', 'encoder': 'model'}[pair['compared']]
            names = {pair['first'], pair['second']}
            own = best[pair['compared']]
            if (
                pair['label_name'] == each.label_name
                and pair['within'] == best[shared]
                and own in names
            ):
                (other,) = names - {own}
                told = re.findall(r'not told apart from (.*)', each.told)
                assert (pair['verdict'] == 'tie') == (
                    bool(told) and other in re.split(', | or ', told[0])
                )


def test_intervals_are_drawn_where_they_are():
    row = {'encoder': 'vae', 'model': 'cnn', 'label_name': 'grade', 'metric': 'auc', 'seeds': '1'}
    rows = [
        {**row, 'slides': '9', 'cases': '9', 'mean': mean, 'low': low, 'high': high, 'model': model}
        for model, mean, low, high in (('a', '0.7', '0.62', '0.9'), ('b', '0.8', '0.7', '0.95'))
    ]
    table, *_ = page_results.hold_outs(rows, noun='slides', swept='point')
    assert table.columns[table.whiskers] == '0.5…1.0'
    assert [line[0] for line in table.rows] == ['b', 'a']  # the best first
    assert table.best == {0}
    drawn = table.rows[1][table.whiskers]
    assert isinstance(drawn, Whisker)
    assert drawn == pytest.approx((0.24, 0.4, 0.8, 0.0))


def test_counts_of_a_confusion_matrix(tmp_path):
    rows = classification(slides=30, seeds=(0,), classes=('a', 'b', 'c'), encoder='vae')
    page = read(write_page(tmp_path, CONFIG, rows=rows)).text
    for label in 'abc':
        counts = [
            sum(row['label'] == label and row['prediction'] == taken for row in rows)
            for taken in 'abc'
        ]
        told = ' '.join(f'{count}{round(count / 10 * 100)}%' for count in counts)
        assert f'{label} {told} 10' in page


@pytest.mark.parametrize('rounded', [False, True])
def test_curves_are_those_of_scikit_learn(rounded):
    rng = np.random.default_rng(0)
    labels = rng.random(80) < 0.4
    scores = labels + rng.normal(size=80)
    scores = scores.round() if rounded else scores  # equal ones
    weights = np.stack([np.ones(80, int), rng.integers(0, 3, 80)])
    curves = page_curves.roc(labels, scores, weights)
    lines = page_curves.precision_recall(labels, scores, weights)
    for weight, curve, line in zip(weights, curves, lines, strict=True):
        kept = {'sample_weight': weight}
        false, true, _ = metrics.roc_curve(labels, scores, drop_intermediate=False, **kept)
        last = np.flatnonzero(np.diff(false, append=2))
        np.testing.assert_allclose(curve, np.interp(page_curves.GRID, false[last], true[last]))
        precision, recall, _ = metrics.precision_recall_curve(labels, scores, **kept)
        expected = [
            precision[:-1][recall[:-1] >= at - 1e-12].max(initial=0) for at in page_curves.GRID
        ]
        np.testing.assert_allclose(line, expected)


def test_a_class_without_slides_has_no_curve():
    nobody = np.zeros(5, bool)
    for curve in (page_curves.roc, page_curves.precision_recall):
        assert np.isnan(curve(nobody, np.arange(5.0), np.ones((1, 5)))).all()


def test_unknown_tables_show_intervals_beside_their_figures(tmp_path):
    path = tmp_path / 'localisation.csv'
    path.write_text(
        'method,slides,jaccard,jaccard_low,jaccard_high,jaccard_both,jaccard_both_low,'
        'jaccard_both_high\ngrad_cam,12,0.61234,0.5,0.75,nan,nan,nan\n'
    )
    table = page_tables.any_table(path, 'how well')
    assert table.columns == ['method', 'slides', 'Jaccard index']
    assert table.rows == [['grad_cam', '12', '0.612 [0.500, 0.750]']]
    assert table.numbers == {1, 2}


def test_a_sweep_is_told_by_what_was_swept(tmp_path):
    rows = [
        {**row, 'encoder': 'vae', 'point': float(point)}
        for point in (50, 100)
        for row in classification(slides=40, skill=point / 50, random=point)
    ]
    evaluate_stage.evaluate(rows, home=tmp_path, seed=0, rounds=20, points='classifier.slides')
    config = CONFIG | {'sweep': {'key': 'classifier.train_slides', 'values': [50, 100]}}
    page = read(write_page(tmp_path, config, rows=rows))
    assert 'train slides 100: 40 slides' in page.text
    assert 'curves' in [each['id'] for each in page.all('section')]  # the sweep's own
    assert 'confusion' not in [each['id'] for each in page.all('section')]


def test_settings_of_an_experiment_are_all_told(tmp_path):
    from nic_jax import config as defaults

    config = defaults.cohort()
    page = read(write_page(tmp_path, config, rows=[])).text
    for section, values in json.loads(json.dumps(config.to_dict(), default=list)).items():
        for key in values if isinstance(values, dict) and values else ():
            assert f'{section}.{key}' in page
    assert 'classifier.learning_rate 0.001' in page


def test_files_beside_the_page_are_linked_whatever_their_names(tmp_path):
    (tmp_path / 'report').mkdir()
    (tmp_path / 'report' / 'a %2F#?.csv').write_text('a\n')
    page = read(write_page(tmp_path, CONFIG, rows=[]))
    (link,) = [a['href'] for a in page.all('a') if not a['href'].startswith('#')]
    assert urllib.parse.unquote(link) == 'a %2F#?.csv'
    assert '#' not in link
    assert '?' not in link
