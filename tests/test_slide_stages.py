"""Cohorts of slides: what is checked before anything long, and what is never reused."""

import csv
import importlib.util
import pathlib

import numpy as np
import pytest
from slide_files import tissue_image, write_pyramid

from nic_jax import slide_encoders, stages
from nic_jax.evaluation import predictions
from nic_jax.grids import GridError

EXPERIMENT = pathlib.Path(__file__).parents[1] / 'experiments' / 'cohort.py'


def load_config(table, **changes):
    spec = importlib.util.spec_from_file_location('cohort_experiment', EXPERIMENT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = module.get_config('debug')
    config.slides = str(table)
    config.tiling.patch_size = 16
    config.tissue.mpp = 2.0
    config.cohort.label = 'HER2 +/-'
    config.update(changes)
    return config


@pytest.fixture(scope='module')
def table(tmp_path_factory):
    """Twelve slides of one case each, every second of another colour."""
    folder = tmp_path_factory.mktemp('slides')
    with (folder / 'slides.csv').open('w', newline='') as file:
        writer = csv.writer(file)
        writer.writerow(['slide_id', 'path', 'HER2 +/-', 'fold_0', 'fold_1'])
        for number in range(12):
            image = tissue_image(256, 256, seed=number, margin=32)
            if number % 2:
                image = image[..., ::-1].copy()
            path = folder / f's{number}.tif'
            write_pyramid(path, image, tile=64, levels=1, mpp=0.5)
            words = ['train', 'train', 'train', 'train', 'valid', 'valid', 'test', 'test']
            first = words[number] if number < 8 else 'train'
            second = words[number] if number < 8 else 'test'
            writer.writerow([f's{number}', path.name, 'np'[number % 2], first, second])
    return folder / 'slides.csv'


@pytest.fixture(scope='module')
def learned(table, tmp_path_factory):
    home = tmp_path_factory.mktemp('run')
    config = load_config(table)
    stages.check(config)
    assert stages.compress(config, home, overwrite=False)
    assert stages.classify(config, home, overwrite=False)
    return config, home


def scores(home):
    return predictions.read(next(home.glob('*/classifier/*/*/predictions.csv')))


def test_a_label_of_any_name_and_overlapping_folds_are_scored(learned):
    config, home = learned
    assert stages.evaluate(config, home, overwrite=False)
    rows = scores(home)
    tested = sorted((row['slide_id'], row['fold']) for row in rows)
    assert len(tested) == len(set(tested)) == 8
    assert [slide for slide, fold in tested if fold == 0] == ['s6', 's7']
    assert {row['label_name'] for row in rows} == {'HER2 +/-'}


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
        ('stages', ('compress', 'nonsense'), 'the stages are patches, encoder'),
        ('classifier.widths', (8,), 'give --config.classifier.widths as many'),
        ('classifier.crop', 2, 'too small for a 3×3 layer'),
        ('cohort.label', 'nothing', "no column 'nothing'"),
        ('cohort.task', 'survival', 'must be one of classification, regression'),
        ('compress.versions', 4, 'must be one of 1, 8'),
        ('tiling.stride', 0, 'must be more than 0'),
    ],
)
def test_wrong_settings_fail_before_anything_is_done(table, key, value, message):
    config = load_config(table)
    config.update_from_flattened_dict({key: value})
    with pytest.raises(ValueError, match=message):
        stages.check(config)


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
