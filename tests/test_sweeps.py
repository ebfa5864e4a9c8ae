"""Sweeps: which settings, where their points lie, and that an interrupted one goes on."""

import csv
import json
import pathlib
import shutil

import numpy as np
import pytest
from program import load_experiment

from nic_jax import config as defaults
from nic_jax import slide_encoders, stages, sweeps, synthetic_stages, workdir
from nic_jax.evaluation import predictions
from nic_jax.grids import stack

HOME = pathlib.Path('home')
TRAIN_SIZE = ('classifier.train_slides', (8, 20))
CODE_SIZE = ('code_size', (4, 8))
ONE_SEED = ('--config.data.digits=sklearn', '--config.classifier.seeds=(0,)')
SMALL = ('synthetic.py:debug', *ONE_SEED)
SWEEP_DEBUG = ('synthetic.py:debug_sweep', *ONE_SEED, '--config.encoder=supervised')


def synthetic(key=None, values=(), **changes):
    config = defaults.synthetic()
    config.update(changes)
    config.sweep.key, config.sweep['values'] = key, values
    return config


def cohort(key=None, values=(), **changes):
    config = defaults.cohort()
    config.update(changes)
    config.sweep.key, config.sweep['values'] = key, values
    return config


# ---- Points -------------------------------------------------------------------------------------


def test_without_a_sweep_there_is_one_point_and_no_suffix():
    ((value, point),) = sweeps.points(synthetic())
    assert value is None
    assert sweeps.suffix(point, 'cnn') == sweeps.encoder_suffix(point) == ''
    assert sweeps.grid_suffix(point) == ''


def test_points_are_copies_with_the_key_set():
    config = synthetic('cnn.dropout', (0, 0.25)).lock()
    found = sweeps.points(config)
    assert [value for value, _ in found] == [0.0, 0.25]
    assert [point.cnn.dropout for _, point in found] == [0.0, 0.25]
    assert all(isinstance(point.cnn.dropout, float) for _, point in found)
    found[0][1].cnn.dense = 7
    assert config.cnn.dropout == 0.2  # as it was
    assert config.cnn.dense != 7
    assert found[1][1].cnn.dense != 7


@pytest.mark.parametrize(
    ('config', 'message'),
    [
        (synthetic('classifier.nothing', (1,)), r'nothing cannot be swept; .*classifier\.epochs'),
        (synthetic('data.train_images', (1,)), r'can sweep .*images\.lesion_min'),
        (synthetic('supervised.steps', (1,)), 'cannot be swept'),
        (synthetic('abmil.width', (1,)), 'cannot be swept'),  # another model's
        (synthetic('cnn.widths', ((1,),)), 'cannot be swept'),  # not a number
        (synthetic('cnn.pooling', ('flatten',)), 'cannot be swept'),
        (synthetic('tiling.stride', (1,)), 'cannot be swept'),
        (cohort('images.stride', (1,)), r'can sweep .*tiling\.stride'),
        (cohort('cohort.label', ('a',)), 'cannot be swept'),
        (synthetic('code_size', ()), 'no values of code_size'),
        (synthetic(None, (1,)), 'values of no key'),
        (synthetic('code_size', (4, 4)), 'a value twice'),
        (synthetic('code_size', (4.0,)), r'4\.0; values of code_size must be int'),
        (synthetic('code_size', (True,)), 'must be int'),
        (cohort('cohort.shuffle_cells', (0, 1)), 'values of cohort.shuffle_cells must be bool'),
        (synthetic('cnn.dropout', ('much',)), "'much'; values of cnn.dropout must be float"),
        (synthetic('images.stride', ('9',)), 'must be int'),
    ],
)
def test_what_cannot_be_swept_is_told(config, message):
    with pytest.raises(ValueError, match=message):
        sweeps.points(config)


def test_tables_of_tiles_have_nothing_to_sweep():
    config = defaults.tiles(task={})
    config.sweep.key, config.sweep['values'] = CODE_SIZE
    with pytest.raises(ValueError, match='can sweep nothing'):
        sweeps.points(config)


def test_a_model_s_own_setting_is_not_swept_behind_its_back():
    config = synthetic('classifier.learning_rate', (0.1, 0.01), model='cnn,abmil')
    assert len(sweeps.points(config)) == 2
    config.abmil.learning_rate = 0.5
    with pytest.raises(ValueError, match=r'does not reach abmil.*sweep\.key=abmil\.learning_rate'):
        sweeps.points(config)


def test_the_crop_is_the_whole_image_with_every_stride():
    config = synthetic('images.stride', (4, 5, 9, 18))
    config.images.size, config.classifier.crop = 360, 40
    config.images.lesion_max = 180
    for stride, point in sweeps.points(config):
        assert point.classifier.crop == len(range(0, 360 - 9 + 1, stride))
    assert config.classifier.crop == 40
    config.sweep['values'] = (0,)
    with pytest.raises(ValueError, match=r'stride=0 must be from 1 to 351'):
        sweeps.points(config)


# ---- Folders ------------------------------------------------------------------------------------

SWEEPS = [
    (synthetic('classifier.train_slides', (100, 1000)), 'cnn', ['', '']),
    (synthetic('classifier.learning_rate', (1e-5, 0.1, 0.10001)), 'cnn', [''] * 3),
    (cohort('cohort.folds', (4, 5)), 'spatial', ['', '']),
    (cohort('cohort.shuffle_cells', (False, True)), 'spatial', ['', '']),
    (synthetic('cnn.dense', (8, 16), model='abmil,cnn'), 'cnn', ['', '']),
    (synthetic('code_size', (4, 16)), 'cnn', ['-c4', '-c16']),
    (synthetic('images.stride', (9, 18)), 'cnn', ['@stride=9', '@stride=18']),
    (synthetic('images.lesion_max', (36, 72)), 'cnn', ['@lesion_max=36', '@lesion_max=72']),
]


@pytest.mark.parametrize(('config', 'model', 'folders'), SWEEPS)
def test_every_point_has_a_place_of_its_own(config, model, folders):
    key, places = config.sweep.key.split('.')[-1], set()
    for (value, point), folder in zip(sweeps.points(config), folders, strict=True):
        assert sweeps.encoder_suffix(point) + sweeps.grid_suffix(point) == folder
        suffix = sweeps.suffix(point, model)
        assert suffix == ('' if folder else f'@{key}={value}')
        # Reversible: the name, and the value.
        assert sweeps.without_suffix(model + suffix + folder).removesuffix(folder) == model
        assert (suffix + folder).replace('-c', '=').split('=')[1] == str(value)
        places.add((folder, suffix))
    assert len(places) == len(folders)


def test_a_network_s_own_sweep_leaves_other_models_alone():
    _, point = sweeps.points(synthetic('cnn.dense', (8,), model='abmil,cnn'))[0]
    assert sweeps.suffix(point, 'abmil') == ''
    assert sweeps.suffix(point, 'cnn') == '@dense=8'


def test_synthetic_encoders_share_weights_where_grids_differ():
    for value, point in sweeps.points(synthetic('images.stride', (9, 18), encoder='vae,mean')):
        names = [folder.name for folder in synthetic_stages.encoder_folders(point, HOME)]
        assert names == [f'vae@stride={value}', f'mean@stride={value}']
    for value, point in sweeps.points(synthetic(*CODE_SIZE, encoder='vae,mean')):
        names = [folder.name for folder in synthetic_stages.encoder_folders(point, HOME)]
        assert names == [f'vae-c{value}', 'mean']  # which has no size to choose


def test_encoders_learn_from_the_images_before_the_sweep():
    config = synthetic('images.lesion_max', (36, 72))
    for value, point in sweeps.points(config):
        assert point.images.lesion_max == value
        assert sweeps.base_images(point) == config.images.to_dict()
    _, point = sweeps.points(synthetic(*CODE_SIZE))[0]
    assert sweeps.base_images(point) == point.images.to_dict()


def test_slides_have_a_folder_a_stride_and_a_size_of_code():
    for stride, point in sweeps.points(cohort('tiling.stride', (64, 128), encoder='vae,mean_rgb')):
        folders = [asked.folder for asked in slide_encoders.asked_encoders(point)]
        assert folders == (['vae-s64', 'mean_rgb-s64'] if stride == 64 else ['vae', 'mean_rgb'])
    for size, point in sweeps.points(cohort(*CODE_SIZE, encoder='vae,mean_rgb')):
        folders = [asked.folder for asked in slide_encoders.asked_encoders(point)]
        assert folders == [f'vae-c{size}', 'mean_rgb']


# ---- Predictions --------------------------------------------------------------------------------


def row(model, slide_id='s'):
    return {
        'slide_id': slide_id,
        'case_id': 'c',
        'label_name': 'digit',
        'model': model,
        'seed': 0,
        'fold': 0,
        'subset': 'test',
        'label': 'a',
        'prediction': 'b',
        'score_a': 0.25,
        'score_b': 0.75,
    }


def leave(home, encoder, model):
    """Predictions in the folder that `stages` gives a model and its suffix."""
    folder = home / encoder / 'classifier' / 'digit' / workdir.file_name(model)
    predictions.write(folder / 'predictions.csv', [row(sweeps.without_suffix(model))])


def read(config, home):
    rows = sweeps.read_points(config, home, synthetic_stages.encoder_folders)
    return {(each['encoder'], each['model'], each.get('point', '')) for each in rows}


def test_predictions_of_every_point_are_read_and_of_no_other_sweep(tmp_path):
    for encoder, model in (
        ('vae', 'cnn'),
        ('vae', 'abmil'),
        ('vae', 'cnn@train_slides=8'),
        ('vae', 'cnn@train_slides=20'),
        ('vae', 'abmil@train_slides=20'),
        ('vae', 'cnn@train_slides=99'),
        ('vae', 'cnn@dense=8'),
        ('vae-c4', 'cnn'),
        ('vae@stride=9', 'cnn'),
        ('vae@stride=18', 'cnn'),
        ('mean', 'cnn'),
    ):
        leave(tmp_path, encoder, model)
    plain = {('vae', 'cnn', ''), ('vae', 'abmil', '')}
    assert read(synthetic(encoder='vae'), tmp_path) == plain
    assert read(synthetic(*TRAIN_SIZE, encoder='vae', model='cnn,abmil'), tmp_path) == {
        ('vae', 'cnn', 8),
        ('vae', 'cnn', 20),
        ('vae', 'abmil', 20),
    }
    assert read(synthetic('images.stride', (9, 18), encoder='vae'), tmp_path) == {
        ('vae', 'cnn', 9),
        ('vae', 'cnn', 18),
    }
    for encoder, model in (('vae', 'cnn'), ('vae', 'cnn@train_slides=8'), ('vae@stride=9', 'cnn')):
        leave(tmp_path, f'{encoder}/finetune', model)
    tuned = ('vae, fine-tuned', 'cnn')
    assert (*tuned, '') in read(synthetic(encoder='vae'), tmp_path)
    found = read(synthetic(*TRAIN_SIZE, encoder='vae', model='cnn,abmil'), tmp_path)
    assert {each for each in found if each[0] == tuned[0]} == {(*tuned, 8)}
    found = read(synthetic('images.stride', (9, 18), encoder='vae'), tmp_path)
    assert {each for each in found if each[0] == tuned[0]} == {(*tuned, 9)}
    shutil.rmtree(tmp_path / 'vae' / 'finetune')
    # What points share is there at each of them.
    assert read(synthetic(*CODE_SIZE, encoder='vae,mean'), tmp_path) == {
        ('vae', 'cnn', 4),
        ('mean', 'cnn', 4),
        ('mean', 'cnn', 8),
    }
    assert read(synthetic('cnn.dense', (8,), encoder='vae', model='cnn,abmil'), tmp_path) == {
        ('vae', 'cnn', 8),
        ('vae', 'abmil', 8),
    }


# ---- Whole runs ---------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def begun(program, tmp_path_factory):
    """A workdir in which the sweep over strides got no further than its first point."""
    home = tmp_path_factory.mktemp('begun')
    program.run(home, *SWEEP_DEBUG, '--config.sweep.values=(9,)')
    return home, files(home), read_metrics(home)


@pytest.fixture(scope='module')
def swept(program, begun):
    """The workdir of the whole sweep."""
    home, _, _ = begun
    return home, program.run(home, *SWEEP_DEBUG)


def files(home):
    """When each file that a stage made was written."""
    return {
        path.relative_to(home).as_posix(): path.stat().st_mtime_ns
        for pattern in (
            'patches/*',
            '*/encoder/**/*',
            '*/grids/**/*',
            '*/classifier/*/*/seed_*/**/*',
        )
        for path in home.glob(pattern)
        if path.is_file()
    }


def sweep(key, values):
    """A sweep declared on the command line."""
    return f'--config.sweep.key={key}', f'--config.sweep.values={values}'


def read_metrics(home, stage=None):
    lines = (home / 'metrics.jsonl').read_text(encoding='utf-8').splitlines()
    records = [json.loads(line) for line in lines]
    return [record for record in records if stage is None or record['stage'] == stage]


def read_table(home):
    with (home / 'report' / 'table.csv').open(newline='', encoding='utf-8') as file:
        return list(csv.DictReader(file))


def test_points_of_a_stride_share_the_weights_and_nothing_else(swept):
    home, _ = swept
    folders = {path.name for path in home.glob('*') if (path / 'grids').exists()}
    assert folders == {'supervised@stride=9', 'supervised@stride=18'}
    assert [path.parent.name for path in home.glob('*/encoder')] == ['supervised']
    assert [record['step'] for record in read_metrics(home, 'encoder')] == [10, 20]
    fine, coarse = (
        stack.open_stack(home / f'supervised@stride={stride}' / 'grids' / 'test.zarr')
        for stride in (9, 18)
    )
    # Every second cell of the same images, encoded alike.
    np.testing.assert_array_equal(coarse.codes, fine.codes[:, ::2, ::2])
    np.testing.assert_array_equal(coarse.masks, fine.masks[:, ::2, ::2])
    points = [(each['encoder'], each['model'], each['point']) for each in read_table(home)]
    assert set(points) == {('supervised', 'cnn', '9'), ('supervised', 'cnn', '18')}
    pictures = {path.name for path in (home / 'report').glob('image*.png')}
    assert pictures == {'image@stride=9.png', 'image@stride=18.png'}


def test_an_interrupted_sweep_goes_on_and_a_finished_one_does_nothing(program, begun, swept):
    home, first, logged = begun
    after, metrics = files(home), read_metrics(home)
    assert first.items() <= after.items()  # what the first point made was left as it was
    assert any('stride=18' in name for name in after.keys() - first.keys())
    trained = [each for each in metrics[len(logged) :] if each['stage'] in ('encoder', 'classify')]
    assert {each['encoder'] for each in trained} == {'supervised@stride=18'}

    printed = program.run(home, *SWEEP_DEBUG)
    assert files(home) == after
    assert len(read_metrics(home, 'classify')) == len(
        [e for e in metrics if e['stage'] == 'classify']
    )
    assert 'images encoded' not in printed


@pytest.mark.slow
def test_training_sizes_share_grids(program, swept, tmp_path):
    shutil.copytree(swept[0], tmp_path, dirs_exist_ok=True)
    before, logged = files(tmp_path), len(read_metrics(tmp_path, 'classify'))
    program.run(tmp_path, *SMALL, '--config.encoder=mean', *sweep(*TRAIN_SIZE))
    after = files(tmp_path)
    assert before.items() <= after.items()  # nothing that was there is made again
    assert {name.split('/')[1] for name in after.keys() - before.keys()} == {'grids', 'classifier'}
    assert (tmp_path / 'mean' / 'grids' / 'train.zarr').exists()
    folders = {workdir.file_name(f'cnn@train_slides={count}') for count in (8, 20)}
    assert {path.name for path in tmp_path.glob('mean/classifier/digit/*')} == folders
    steps = {
        (each['encoder'], each['model']): each['step']
        for each in read_metrics(tmp_path, 'classify')[logged:]
    }
    # Two epochs of one batch of 16, of the three quarters that train.
    assert steps == {('mean', f'cnn@train_slides={count}'): 2 for count in (8, 20)}
    assert {each['point'] for each in read_table(tmp_path)} == {'8', '20'}


@pytest.mark.slow
def test_sizes_of_codes_share_patches(program, swept, tmp_path):
    shutil.copytree(swept[0], tmp_path, dirs_exist_ok=True)
    before, logged = files(tmp_path), len(read_metrics(tmp_path, 'encoder'))
    arguments = ('--config.encoder=supervised', *sweep('code_size', (4,)))
    program.run(tmp_path, *SMALL, *arguments, '--stages=patches,encoder,compress')
    after = files(tmp_path)
    assert before.items() <= after.items()
    assert {name.split('/')[0] for name in after.keys() - before.keys()} == {'supervised-c4'}
    trained = read_metrics(tmp_path, 'encoder')[logged:]
    assert {each['encoder'] for each in trained} == {'supervised-c4'}
    test = stack.open_stack(tmp_path / 'supervised-c4' / 'grids' / 'test.zarr')
    assert test.codes.shape == (10, 40, 40, 4)


def test_lesions_of_other_sizes_are_coded_by_encoders_of_the_same_patches(tmp_path):
    config = load_experiment('synthetic.py').get_config('debug')
    config.data.digits, config.encoder, config.stages = 'sklearn', 'mean', ('patches', 'compress')
    config.sweep.key, config.sweep['values'] = 'images.lesion_max', (72, 180)
    assert stages.run(config, tmp_path, overwrite=False)
    assert workdir.made_with(tmp_path / 'patches')['images']['lesion_max'] == 180
    areas = []
    for longest in (72, 180):
        folder = tmp_path / f'mean@lesion_max={longest}'
        areas.append(stack.open_stack(folder / 'grids' / 'train.zarr').lesion_areas())
    # L × L/2 px in cells of 81 px; its border adds less than a cell to a side.
    assert areas[0].max() < (72 + 9) * (36 + 9) / 81 < areas[1].max()
