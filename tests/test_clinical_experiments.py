"""The papers' cohorts: settings, and whole runs on miniatures in the challenges' own layouts."""

import collections
import csv

import numpy as np
import pytest
from program import load_experiment
from sklearn import metrics
from tile_files import read_csv

from nic_jax import challenges, checks, stages, sweeps
from nic_jax.evaluation import predictions
from nic_jax.patches.store import open_set

VARIANTS = {
    'camelyon': ('', 'published', 'stride', 'code_size', 'train_size', 'debug'),
    'tupac': ('', 'multitask', 'tasks', 'code_size', 'debug'),
    'liver': ('', 'light', 'strong', 'tasks', 'debug'),
    'rectum': ('', 'published', 'debug'),
}
# Nearly all of a run's time is compilation, so that only CAMELYON16's trains an encoder, and one
# network will do; the slow test has them all.
SHORT = ('--config.model=spatial', '--config.encoder=mean_rgb')
WITHOUT_TRAINING = '--stages=slides,compress,classify,evaluate'
MEAN_RGB = 'mean_rgb-p16-10mpp'


def run(program, folder, name, *arguments):
    """The workdir of a finished run of a debug variant, and what it printed."""
    return folder, program.run(folder, f'{name}.py:debug', *arguments)


@pytest.fixture(scope='module')
def camelyon(program, tmp_path_factory):
    return run(program, tmp_path_factory.mktemp('camelyon'), 'camelyon', SHORT[0])


@pytest.fixture(scope='module')
def tupac(program, tmp_path_factory):
    return run(program, tmp_path_factory.mktemp('tupac'), 'tupac', *SHORT, WITHOUT_TRAINING)


@pytest.fixture(scope='module')
def liver(program, tmp_path_factory):
    return run(program, tmp_path_factory.mktemp('liver'), 'liver', *SHORT)


@pytest.fixture(scope='module')
def rectum(program, tmp_path_factory):
    return run(program, tmp_path_factory.mktemp('rectum'), 'rectum', SHORT[1])


def predicted(home, encoder, label, model):
    return predictions.read(home / encoder / 'classifier' / label / model / 'predictions.csv')


# ---- Settings ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('name', 'variant'),
    [(name, variant) for name, variants in VARIANTS.items() for variant in variants],
)
def test_every_variant_has_stages_that_exist_and_sweeps_that_can_be(name, variant):
    config = load_experiment(f'{name}.py').get_config(variant)
    assert set(config.stages) <= stages.STAGES.keys()
    points = sweeps.points(config)
    assert len(points) == (len(config.sweep['values']) or 1)
    if 'cohort' in config:
        assert config.cohort.layout in challenges.LAYOUTS
        assert config.model == 'spatial,cnn'
    if variant != 'debug':
        assert 'miniature' not in config
        seeds = config.probe.seeds if name == 'rectum' else config.classifier.seeds
        assert len(seeds) == 2  # initialisations, of which tables give mean and deviation


def test_protocols_are_the_papers():
    for name in ('camelyon', 'tupac', 'liver'):
        config = load_experiment(f'{name}.py').get_config()
        assert (config.cohort.folds, config.cohort.train_parts) == (4, 2)
    assert load_experiment('tupac.py').get_config('multitask').cohort.train_parts == 3
    task = load_experiment('rectum.py').get_config().tasks.rectum
    assert (task.valid_share, task.test_share) == (0.1, 0.4)  # 1 and 4 of ten parts
    assert task.per_class == (15_000, 852, 4000)


@pytest.mark.parametrize('name', ['camelyon', 'tupac', 'liver'])
def test_files_are_checked_before_anything_starts(name, tmp_path):
    config = load_experiment(f'{name}.py').get_config()
    config.encoder = 'mean_rgb'
    config.stages = ('compress', 'classify', 'evaluate')
    config.slides = str(tmp_path)
    with pytest.raises(ValueError, match=str(tmp_path)):
        checks.check(config)


# ---- CAMELYON16 ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_camelyon_tests_every_slide_once_but_those_for_encoders(camelyon):
    home, printed = camelyon
    entries = challenges.read('camelyon16', home / 'slides')
    expected = challenges.used_for(entries, challenges.FOR_CLASSIFICATION)
    assert len(expected) == 18
    assert '8 of 159 normal, 8 of 111 tumor, 6 of 129 test slides of the release' in printed
    assert 'test_049.tif is left out' in printed
    for encoder in (MEAN_RGB, 'supervised'):
        rows = predicted(home, encoder, 'metastasis', 'spatial')
        assert sorted(row['slide_id'] for row in rows) == [each.slide_id for each in expected]
        assert {row['fold'] for row in rows} == {0, 1, 2, 3}
    drawn_from = {*open_set(home / 'patches' / 'slides').columns['name']}
    assert drawn_from == {entry.slide_id for entry in entries} - {
        entry.slide_id for entry in expected
    }


@pytest.mark.slow
def test_camelyon_knows_groups_and_lesions_in_cells(camelyon):
    home, _ = camelyon
    entries = {each.slide_id: each.row for each in challenges.read('camelyon16', home / 'slides')}
    rows = predicted(home, 'supervised', 'metastasis', 'spatial')
    for row in rows:
        told = entries[row['slide_id']]
        assert row['label'] == told['metastasis']
        for group in ('group_Test', 'group_Macro'):
            assert int(row[group]) == int(told[group])
        # A cell is of 16 px of 10 µm.
        assert row['lesion_area'] == pytest.approx(float(told['lesion_area_mm2']) / 0.16**2)
    table = (home / 'report' / 'table.csv').read_text(encoding='utf-8')
    assert 'Test' in table
    assert 'Macro' in table
    assert (home / 'report' / 'lesion_size.csv').exists()


@pytest.mark.slow
def test_camelyon_learns_what_the_miniature_shows(camelyon):
    rows = predicted(camelyon[0], MEAN_RGB, 'metastasis', 'spatial')
    labels = [row['label'] == 'tumor' for row in rows]
    assert metrics.roc_auc_score(labels, [row['score_tumor'] for row in rows]) > 0.9


# ---- TUPAC16 -------------------------------------------------------------------------------------


def test_tupac_submits_the_mean_of_four_networks(tupac):
    home, printed = tupac
    rows = predicted(home, MEAN_RGB, 'proliferation', 'spatial')
    new = {row['slide_id']: row for row in rows if row['subset'] == 'new'}
    assert sorted(new) == [f'TUPAC-TE-{number:03d}' for number in range(1, 5)]
    assert {row['fold'] for row in new.values()} == {''}
    path = home / 'report' / f'submission_{MEAN_RGB}_spatial.csv'
    assert str(path) in printed
    with path.open(newline='') as file:
        lines = list(csv.reader(file))
    assert [line[0] for line in lines] == ['-1'] * 4
    expected = [new[name]['prediction'] for name in sorted(new)]
    np.testing.assert_allclose([float(line[1]) for line in lines], expected, atol=1e-6)
    tested = [row for row in rows if row['subset'] == 'test']
    assert len({row['slide_id'] for row in tested}) == len(tested) == 12


def test_the_multitask_protocol_has_no_hold_outs_but_a_submission(tupac, tmp_path, capsys):
    config = load_experiment('tupac.py').get_config('multitask')
    config.update(encoder='mean_rgb', model='spatial')
    config.tiling.update(mpp=10.0, patch_size=16)
    rows = predicted(tupac[0], MEAN_RGB, 'proliferation', 'spatial')
    new = [row for row in rows if row['subset'] == 'new']
    place = tmp_path / MEAN_RGB / 'classifier' / 'proliferation' / 'spatial'
    predictions.write(place / 'predictions.csv', new)
    assert stages.evaluate(config, tmp_path, overwrite=False)
    name = f'submission_{MEAN_RGB}_spatial.csv'
    expected = (tupac[0] / 'report' / name).read_text()
    assert (tmp_path / 'report' / name).read_text() == expected
    assert 'no fold tests a slide' in capsys.readouterr().out


# ---- Liver ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_liver_scores_patients_for_both_labels(liver):
    home, printed = liver
    assert '21 slides of 16 patients' in printed
    records = read_csv(home / 'report' / 'table.csv')
    assert {record['label_name'] for record in records} == {'growth_pattern', 'survival'}
    assert {record['cases'] for record in records} == {'16'}
    rows = predicted(home, MEAN_RGB, 'survival', 'spatial')
    assert len(rows) == 21
    folds = collections.defaultdict(set)
    for row in rows:
        folds[row['case_id']].add(row['fold'])
        assert row['event'] in (0, 1)
        assert row['time'] > 0
    assert all(len(found) == 1 for found in folds.values())
    assert list((home / 'report').glob('survival_*.png'))


# ---- Rectum --------------------------------------------------------------------------------------


def test_rectum_draws_the_patches_asked_for_by_patient(rectum):
    home, _ = rectum
    found = open_set(home / 'patches' / 'rectum')
    counts = collections.Counter(
        zip(found.columns['subset'].tolist(), found.columns['label'].tolist(), strict=True)
    )
    assert len(found.classes) == 9
    for subset, number in (('train', 40), ('valid', 8), ('test', 30)):
        assert {counts[subset, name] for name in found.classes} == {number}
    subsets = collections.defaultdict(set)
    for source, subset in zip(found.columns['source'], found.columns['subset'], strict=True):
        subsets[source].add(subset)
    assert collections.Counter(map(tuple, subsets.values())) == {
        ('train',): 5,
        ('valid',): 1,
        ('test',): 4,
    }


def test_rectum_predicts_each_test_patch_once_and_tells_tissues_apart(rectum):
    home, printed = rectum
    rows = predicted(home, 'mean_rgb', 'rectum', 'linear')
    assert len({row['slide_id'] for row in rows}) == len(rows) == 270
    hits = np.mean([row['label'] == row['prediction'] for row in rows])
    assert hits > 3 / 9  # the miniature's colours tell; chance is a ninth
    assert (home / 'report' / 'confusion_rectum.png').exists()
    assert '11 slides of 10 patients' in printed


# ---- As they are ---------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize('name', VARIANTS)
def test_a_debug_variant_runs_as_it_is_and_again(program, name, tmp_path):
    run(program, tmp_path, name)
    assert read_csv(tmp_path / 'report' / 'table.csv')
    before = {path: path.read_bytes() for path in tmp_path.rglob('predictions.csv')}
    weights = {path: path.stat().st_mtime_ns for path in tmp_path.rglob('encoder.json')}
    run(program, tmp_path, name)
    assert before == {path: path.read_bytes() for path in before}
    assert weights == {path: path.stat().st_mtime_ns for path in weights}
