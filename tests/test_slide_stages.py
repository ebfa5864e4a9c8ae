"""Cohorts of slides: what is checked before anything long, and what is never reused."""

import csv
import dataclasses
import json
import shutil

import numpy as np
import pytest
from bags import compile_quickly
from program import load_experiment
from slide_files import tissue_image, write_pyramid

from nic_jax import checks, options, slide_encoders, slide_stages, stages
from nic_jax.classifiers.models import network_fields
from nic_jax.cohort import CohortError
from nic_jax.compression.compress import grid_path
from nic_jax.encoders.mean_rgb import mean_rgb
from nic_jax.evaluation import predictions
from nic_jax.grids import GridError
from nic_jax.grids.cache import CachedGrid
from nic_jax.grids.shuffled import ShuffledGrid
from nic_jax.workdir import file_name, fingerprint

ENCODER = 'mean_rgb-p16'
LABEL = 'HER2 +/-'


def load_config(table, **changes):
    config = load_experiment('cohort.py').get_config('debug')
    config.slides = str(table)
    config.tiling.patch_size = 16
    config.tissue.mpp = 2.0
    config.cohort.label = LABEL
    config.update_from_flattened_dict(changes)
    return config


@pytest.fixture(scope='module', autouse=True)
def quick_compilation():
    yield from compile_quickly()


FURTHER = ('months', 'died', 'lesion_area_mm2', 'group_Late')


@pytest.fixture(scope='module')
def table(tmp_path_factory):
    """Twelve slides of one case each, every second of another colour.

    Two folds test s6 and s7, and one of them four more; nobody knows of s11 how it ended.
    """
    folder = tmp_path_factory.mktemp('slides')
    with (folder / 'slides.csv').open('w', newline='') as file:
        writer = csv.writer(file)
        writer.writerow(['slide_id', 'path', LABEL, 'fold_0', 'fold_1', *FURTHER])
        for number in range(12):
            image = tissue_image(256, 256, seed=number, margin=32)
            if number % 2:
                image = image[..., ::-1].copy()
            path = folder / f's{number}.tif'
            write_pyramid(path, image, tile=64, levels=1, mpp=0.5)
            words = ['train', 'train', 'train', 'train', 'valid', 'valid', 'test', 'test']
            first = words[number] if number < 8 else 'train'
            second = words[number] if number < 8 else 'test'
            # Every second dies soon; s3 and s8 are censored.
            outcome = (3 + number + 20 * (number % 2), int(number not in (3, 8)))
            outcome = ('', '') if number == 11 else outcome
            area = '' if number == 5 else 0.00064 * number
            further = (*outcome, area, int(number > 6))
            writer.writerow([f's{number}', path.name, 'np'[number % 2], first, second, *further])
    return folder / 'slides.csv'


@pytest.fixture(scope='module')
def learned(table, tmp_path_factory):
    home = tmp_path_factory.mktemp('run')
    config = load_config(table)
    checks.check(config)
    assert stages.compress(config, home, overwrite=False)
    assert stages.classify(config, home, overwrite=False)
    return config, home


def scores(home, label=LABEL, model='spatial'):
    folder = home / ENCODER / 'classifier' / file_name(label) / model
    return predictions.read(folder / 'predictions.csv')


@pytest.fixture
def home(learned, tmp_path):
    """A workdir with the grids alone."""
    _, before = learned
    shutil.copytree(before / ENCODER / 'grids', tmp_path / ENCODER / 'grids')
    return tmp_path


def held_out(rows):
    return [(row['slide_id'], row['fold']) for row in rows if row['subset'] == 'test']


@pytest.fixture
def untrainable(monkeypatch):
    """Whatever is not trained yet cannot be."""
    monkeypatch.setattr('nic_jax.classifiers.training.compile_step', None)


# ---- Labels, folds, and what is told of slides --------------------------------------------------


def test_a_label_of_any_name_and_overlapping_folds_are_scored(learned):
    config, home = learned
    assert stages.evaluate(config, home, overwrite=False)
    rows = scores(home)
    # Two slides are tested by both folds, and have the mean.
    assert held_out(rows) == [('s6', ''), ('s7', ''), ('s8', 1), ('s9', 1), ('s10', 1), ('s11', 1)]
    assert {row['label_name'] for row in rows} == {LABEL}
    assert {row['model'] for row in rows} == {'spatial'}
    assert (home / 'report' / 'table.csv').exists()


def test_areas_are_in_cells_and_groups_are_told(learned):
    config, home = learned
    for row in scores(home):
        number = int(row['slide_id'][1:])
        # 16 px of 0.5 µm are 64 µm² a cell.
        assert row['lesion_area'] == pytest.approx(10 * number)
        assert row['group_Late'] == int(number > 6)
    ((dataset,), complete) = slide_stages.datasets(config, home, ENCODER)
    assert complete
    assert np.flatnonzero(np.isnan(dataset.lesion_areas)).tolist() == [5]


def test_labels_and_models_are_learned_at_once(table, home):
    config = load_config(
        table,
        **{
            'model': 'mean,abmil',
            'cohort.label': f'{LABEL},outcome,months',
            'cohort.task': 'classification,survival,regression',
            'cohort.time': 'months',
            'cohort.event': 'died',
        },
    )
    checks.check(config)
    assert stages.classify(config, home, overwrite=False)
    tasks = {LABEL: 'classification', 'outcome': 'survival', 'months': 'regression'}
    for model in ('mean', 'abmil'):
        for label, task in tasks.items():
            rows = scores(home, label, model)
            assert {predictions.task_of(row) for row in rows} == {task}
            new = [row['slide_id'] for row in rows if row['subset'] == 'new']
            assert new == ([] if label == LABEL else ['s11'])
    for row in scores(home, 'outcome', 'mean'):
        number = int(row['slide_id'][1:])
        expected = ('', '') if number == 11 else (3 + number + 20 * (number % 2), number != 8)
        assert (row['time'], row['event']) == expected
    assert stages.evaluate(config, home, overwrite=False)


@pytest.mark.parametrize('missing', ['time', 'event'])
def test_survival_wants_its_columns(table, missing):
    config = load_config(
        table,
        **{'cohort.task': 'survival', 'cohort.time': 'months', 'cohort.event': 'died'},
    )
    config.cohort[missing] = None
    with pytest.raises(ValueError, match=f'--config.cohort.{missing}=COLUMN'):
        checks.check(config)


def test_some_folds_are_trained_and_the_others_later(table, home, learned):
    config = load_config(table, **{'cohort.only_folds': (1,)})
    assert stages.classify(config, home, overwrite=False)
    assert held_out(scores(home)) == [(f's{number}', 1) for number in range(6, 12)]
    (path,) = home.glob(f'{ENCODER}/classifier/*/spatial/seed_0/*/classifier.json')
    assert path.parent.name == 'fold_1'
    written = path.stat().st_mtime_ns
    assert stages.classify(load_config(table), home, overwrite=False)
    assert path.stat().st_mtime_ns == written
    assert scores(home) == scores(learned[1])


def test_hold_outs_that_the_encoder_has_learned_from_are_refused(table, home, monkeypatch):
    """Before anything long, and by the grids where the slide's file is gone."""
    print_of_s8 = fingerprint(table.parent / 's8.tif')['fingerprint']
    tuned = dataclasses.replace(mean_rgb(), learned_from=(print_of_s8,))
    monkeypatch.setattr(slide_encoders, 'load_encoder', lambda named: tuned)
    config = load_config(table)
    refusal = 'fold 1 tests 6 slides, and it knows the cases of 1 of them, such as s8'
    with pytest.raises(CohortError, match=refusal):
        checks.check(config)
    with pytest.raises(CohortError, match=refusal):
        stages.classify(config, home, overwrite=False)
    config.cohort.only_folds = (0,)
    checks.check(config)
    datasets, complete = slide_stages.datasets(config, home, ENCODER)
    assert (len(datasets), complete) == (1, True)
    gone = load_config(home / 'gone.csv')  # a table of the same slides, whose files are not there
    shutil.copy(table, home / 'gone.csv')
    checks.check(gone)
    with pytest.raises(CohortError, match=refusal):
        stages.classify(gone, home, overwrite=False)


def test_grids_of_another_encoder_are_refused_without_the_slides(table, home, monkeypatch):
    other = dataclasses.replace(mean_rgb(), network={'kind': 'another'})
    monkeypatch.setattr(slide_encoders, 'load_encoder', lambda named: other)
    shutil.copy(table, home / 'gone.csv')
    with pytest.raises(GridError, match='holds no grid of these slides'):
        slide_stages.datasets(load_config(home / 'gone.csv'), home, ENCODER)
    reasons = (home / 'failures.csv').read_text()
    assert 'was made with other settings (encoder: stored' in reasons


def test_a_slide_without_a_grid_tells_that_its_case_is_known(table, home, monkeypatch, tmp_path):
    print_of_s0 = fingerprint(table.parent / 's0.tif')['fingerprint']
    tuned = dataclasses.replace(mean_rgb(), learned_from=(print_of_s0,))
    monkeypatch.setattr(slide_encoders, 'load_encoder', lambda named: tuned)
    with table.open(newline='') as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row['path'] = str(table.parent / row['path'])
        row['case_id'] = 'p' if row['slide_id'] in ('s0', 's6') else row['slide_id']
        if row['slide_id'] == 's0':
            row |= {LABEL: '', 'fold_0': '', 'fold_1': ''}
    with (tmp_path / 'cases.csv').open('w', newline='') as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    shutil.rmtree(grid_path(home / ENCODER, 's0'))
    with pytest.raises(CohortError, match='such as s6'):
        slide_stages.datasets(load_config(tmp_path / 'cases.csv'), home, ENCODER)


def test_two_encoders_of_one_name_are_refused(table):
    config = load_config(table, encoder='mean_rgb,mean_rgb')
    with pytest.raises(ValueError, match='has several that are called mean_rgb-p16'):
        checks.check(config)


def test_labels_of_what_all_folds_test_decide_nothing(table, learned, untrainable, tmp_path):
    _, home = learned
    shutil.copytree(home, tmp_path / 'home')
    with table.open(newline='') as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row['path'] = str(table.parent / row['path'])
        if row['slide_id'] in ('s6', 's7'):
            row[LABEL] = {'n': 'p', 'p': 'n'}[row[LABEL]]
    other = tmp_path / 'other.csv'
    with other.open('w', newline='') as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    # Finished trainings are taken up only where all that went into them is the same.
    assert stages.classify(load_config(other), tmp_path / 'home', overwrite=False)
    for before, now in zip(scores(home), scores(tmp_path / 'home'), strict=True):
        assert (before['label'] != now['label']) == (now['slide_id'] in ('s6', 's7'))
        assert now | {'label': ''} == before | {'label': ''}


# ---- How grids are read -------------------------------------------------------------------------


def test_codes_come_from_memory_within_a_budget(table, home):
    config = load_config(table, **{'classifier.cache_gb': 4e-6})
    ((dataset,), _) = slide_stages.datasets(config, home, ENCODER)
    assert all(isinstance(grid, CachedGrid) for grid in dataset.grids)
    memory = dataset.grids[0].memory
    assert all(grid.memory is memory for grid in dataset.grids)
    for grid in dataset.grids:
        grid.crop(0, 0, 16, 0)
    kept = sum(layer.nbytes for layer in memory.layers.values())
    assert kept + memory.left == 4000
    assert 0 < len(memory.layers) < 12


def test_shuffled_cells_are_another_training_of_the_same_codes(table, learned, home):
    config = load_config(table, **{'cohort.shuffle_cells': True, 'model': 'mean'})
    plain = load_config(table, model='mean')
    assert stages.classify(config, home, overwrite=False)
    with pytest.raises(ValueError, match=r'other settings: .*identity\.shuffle_cells'):
        stages.classify(plain, home, overwrite=False)
    shuffled = scores(home, model='mean')
    assert stages.classify(plain, home, overwrite=True)
    # The mean of a slide is what it was; only its sum is taken in another order.
    for before, now in zip(shuffled, scores(home, model='mean'), strict=True):
        assert before['score_p'] == pytest.approx(now['score_p'], rel=1e-3)


def test_a_slides_cells_are_shuffled_alike_whatever_becomes_of_others(table, home):
    config = load_config(table, **{'cohort.shuffle_cells': True})
    ((whole,), _) = slide_stages.datasets(config, home, ENCODER)
    shutil.rmtree(home / ENCODER / 'grids' / 's0.zarr')
    ((fewer,), complete) = slide_stages.datasets(config, home, ENCODER)
    assert not complete
    assert len(fewer.grids) == len(whole.grids) - 1
    for grid, same in zip(whole.grids[1:], fewer.grids, strict=True):
        assert isinstance(grid, ShuffledGrid)
        assert grid.fingerprint == same.fingerprint
        np.testing.assert_array_equal(grid.crop(0, 0, 16, 3), same.crop(0, 0, 16, 3))
    assert len({grid.seed for grid in whole.grids}) == 12


@pytest.mark.parametrize('turn_grids', [False, True])
def test_the_layout_of_one_version_can_be_turned(table, tmp_path, monkeypatch, turn_grids):
    turning = dataclasses.replace(mean_rgb(), turn_invariant=False)
    monkeypatch.setattr(slide_encoders, 'load_encoder', lambda name: turning)
    config = load_config(table, **{'classifier.turn_grids': turn_grids, 'model': 'mean'})
    config.classifier.epochs = 1
    assert stages.compress(config, tmp_path, overwrite=False)
    ((dataset,), _) = slide_stages.datasets(config, tmp_path, ENCODER)
    assert dataset.versions == (tuple(range(8)) if turn_grids else (0,))
    grid = dataset.grids[0]
    if turn_grids:
        np.testing.assert_array_equal(grid.crop(0, 0, 16, 1), np.rot90(grid.crop(0, 0, 16, 0)))
    else:
        with pytest.raises(GridError, match='holds 1 version'):
            grid.crop(0, 0, 16, 1)
    assert stages.classify(config, tmp_path, overwrite=False)
    for path in tmp_path.glob(f'{ENCODER}/classifier/*/mean/seed_0/*/classifier.json'):
        record = json.loads(path.read_text())
        assert record['settings']['versions'] == list(dataset.versions)
        assert record['identity'].get('turn_grids', False) == turn_grids


# ---- Again, and with other settings -------------------------------------------------------------


def test_a_second_run_predicts_nothing_again(learned, monkeypatch):
    config, home = learned
    before = scores(home)
    monkeypatch.setattr('nic_jax.classifiers.cross_validation.predict', None)
    assert stages.classify(config, home, overwrite=False)
    assert scores(home) == before


def test_a_classifier_of_other_grids_is_not_reused(learned, table, tmp_path):
    _, home = learned
    other = load_config(table)
    other.tissue.threshold = 0.3
    with pytest.raises(GridError, match='holds no grid of these slides'):
        stages.classify(other, home, overwrite=False)
    assert 'tissue: stored' in (home / 'failures.csv').read_text()
    assert stages.compress(other, home, overwrite=True)
    with pytest.raises(ValueError, match=r'made with other settings: examples\.train'):
        stages.classify(other, home, overwrite=False)


@pytest.mark.parametrize(
    ('key', 'value', 'message'),
    [
        ('encoder', 'mean_rgb,typo', "no encoder 'typo'"),
        ('encoder', 'mean_rgb,', 'names no encoder'),
        ('shard', '0/3', 'training needs all of them'),
        ('seed', -1, 'must not be negative'),
        ('stages', ('compress', 'nonsense'), 'the stages are slides, patches, encoder'),
        ('model', 'spatial,svm', "--config.model: no 'svm'; there are spatial"),
        ('cnn.widths', (8,), 'give --config.cnn.widths as many'),
        ('cnn.pooling', 'max', 'must be one of'),
        ('transformer.heads', 5, 'must be a multiple of heads=5'),
        ('spatial.windows', (2,), 'must be odd'),
        ('classifier.crop', 2, 'too small for a 3×3 layer'),
        ('cohort.label', 'nothing', "no column 'nothing'"),
        ('cohort.label', f'{LABEL},nothing', "no column 'nothing'"),
        ('cohort.label', None, '--config.cohort.label=COLUMN'),
        ('cohort.task', 'ranking', 'must be one of classification, regression, survival'),
        ('cohort.task', 'classification,regression', 'has 2 tasks for the 1 labels'),
        ('cohort.only_folds', (0, 2), 'the folds are 0 … 1'),
        ('compress.versions', 4, 'must be one of 1, 8'),
        ('tiling.stride', 0, 'must be more than 0'),
    ],
)
def test_wrong_settings_fail_before_anything_is_done(table, key, value, message):
    config = load_config(table, model='spatial,cnn,transformer')
    config.update_from_flattened_dict({key: value})
    with pytest.raises(ValueError, match=message):
        checks.check(config)


def test_a_networks_own_section_goes_before_the_common_one(table):
    config = load_config(table, model='abmil')
    config.abmil.update(units=7, learning_rate=0.5)
    fields, settings = options.model_settings(config, 'abmil')
    assert fields == network_fields('abmil') | {'units': 7}
    assert settings.learning_rate == 0.5
    assert settings.epochs == config.classifier.epochs
    _, others = options.model_settings(config, 'mean')
    assert others.learning_rate == config.classifier.learning_rate


def test_folders_tell_what_is_not_the_encoders_own():
    config = load_config('slides.csv')
    config.tiling.update(patch_size=64, stride=32, mpp=1.0)
    (asked,) = slide_encoders.asked_encoders(config)
    assert (asked.named, asked.folder) == ('mean_rgb', 'mean_rgb-p64-s32-1mpp')
    settings = asked.settings
    assert (settings.patch_size, settings.stride, settings.mpp) == (64, 32, 1.0)
    assert np.isclose(settings.tissue_threshold, 0.6)


def test_slides_are_cut_for_the_encoder_that_is_trained_on_them():
    config = load_config('slides.csv', encoder='vae')
    config.patches.update(patch_size=64, mpp=1.0)
    config.tiling.patch_size = None
    (asked,) = slide_encoders.asked_encoders(config)
    assert asked.folder == 'vae'
    assert (asked.settings.patch_size, asked.settings.stride, asked.settings.mpp) == (64, 64, 1.0)
    config.tiling.update(stride=32, mpp=0.5)
    (asked,) = slide_encoders.asked_encoders(config)
    assert asked.folder == 'vae-s32-0.5mpp'
