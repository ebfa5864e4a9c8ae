"""Every experiment: its command and variants, and whole runs from nothing to a table."""

import csv
import json
import math
import shutil
import signal
import time

import jax
import numpy as np
import pytest
import sklearn.datasets
import slide_files
import zarr
from program import ROOT, finish, load_experiment
from tile_files import read_csv

from nic_jax.classifiers.trained import load_trained
from nic_jax.encoders.architectures import encoder_network
from nic_jax.encoders.conv import conv_encoder, module
from nic_jax.encoders.storage import load_encoder, write_encoder
from nic_jax.evaluation import localisation
from nic_jax.grids import schema
from nic_jax.stages import STAGES
from nic_jax.synthetic import digits
from nic_jax.synthetic.rectangles import RectangleStudy
from nic_jax.synthetic.study import split_images

EXPERIMENTS = sorted((ROOT / 'experiments').glob('[!_]*.py'))
ENCODERS = ('supervised', 'vae', 'mean')
QUICKSTART = ('quickstart.py:debug', '--config.classifier.checkpoint_every=1')
OTHER_ENCODERS = ('contrastive', 'bigan', 'mean')
SYNTHETIC = (
    'synthetic.py:debug',
    f'--config.encoder={",".join(OTHER_ENCODERS)}',
    '--config.data.digits=sklearn',
)
COHORT = (
    'cohort.py:debug',
    '--config.encoder=mean_rgb',
    '--config.tiling.patch_size=16',
    '--config.tissue.mpp=2',
)
SEEDS = '--config.classifier.seeds=(0, 1)'
UNLABELLED = ('s03', 's12')
MEAN_RGB = 'mean_rgb-p16'


@pytest.fixture(scope='module')
def begun(program, slides, tmp_path_factory):
    """The workdirs and processes of the two longest runs, which go on side by side."""
    asked = {
        'quickstart': QUICKSTART,
        'cohort': (*COHORT, *learn(slides / 'slides.csv', 'grade'), SEEDS),
    }
    workdirs = {name: tmp_path_factory.mktemp(name) for name in asked}
    processes = {name: program.start(workdirs[name], *asked[name]) for name in asked}
    yield {name: (workdirs[name], processes[name]) for name in asked}
    for process in processes.values():
        process.kill()  # Does nothing to one that has ended.
        process.communicate()


@pytest.fixture(scope='module')
def quickstart(begun):
    """The workdir of a finished run."""
    workdir, process = begun['quickstart']
    finish(process)
    return workdir


@pytest.fixture(scope='module')
def cohort(begun):
    """The workdir of a finished classification."""
    workdir, process = begun['cohort']
    finish(process)
    return workdir


@pytest.fixture(scope='module')
def synthetic(program, quickstart, tmp_path_factory):
    """The workdir of a finished run; after quickstart's, whose compiled functions it shares."""
    workdir = tmp_path_factory.mktemp('synthetic')
    program.run(workdir, *SYNTHETIC)
    return workdir


def learn(table, label):
    return f'--config.slides={table}', f'--config.cohort.label={label}'


def read_metrics(workdir, stage):
    lines = (workdir / 'metrics.jsonl').read_text(encoding='utf-8').splitlines()
    return [record for record in map(json.loads, lines) if record['stage'] == stage]


def predictions_path(workdir, encoder='supervised', label='digit', model='cnn'):
    return workdir / encoder / 'classifier' / label / model / 'predictions.csv'


def cohort_predictions(workdir, label):
    return read_csv(predictions_path(workdir, MEAN_RGB, label, 'spatial'))


# ---- The files ----------------------------------------------------------------------------------


@pytest.mark.parametrize('path', EXPERIMENTS, ids=lambda path: path.stem)
def test_an_experiment_tells_its_command_and_refuses_other_variants(path):
    module = load_experiment(path.name)
    assert f'python -m nic_jax.main --config=experiments/{path.name} --workdir=' in module.__doc__
    assert 'Time' in module.__doc__
    assert 'Result' in module.__doc__
    assert set(module.get_config().stages) <= STAGES.keys()
    with pytest.raises(ValueError, match=r"no variant 'nothing' .*debug"):
        module.get_config('nothing')


def test_synthetic_is_the_papers_study_at_its_scale():
    config = load_experiment('synthetic.py').get_config()
    study = RectangleStudy(**config.images)
    assert (study.size, study.cells, study.digits) == (3600, 400, 25_920)
    assert (study.lesion_min, study.lesion_max) == (36, 1800)
    assert config.data.encoder_images + config.data.train_images == config.data.test_images
    assert config.data.test_images == 25_000
    assert config.classifier.crop == study.cells
    assert len(config.classifier.seeds) == 2


@pytest.mark.parametrize('variant', ['', 'encoders', 'small', 'debug'])
def test_synthetic_crops_whole_images_in_every_variant(variant):
    config = load_experiment('synthetic.py').get_config(variant)
    assert config.classifier.crop == RectangleStudy(**config.images).cells


@pytest.mark.parametrize(
    ('name', 'variant'),
    [
        ('quickstart', ''),
        ('quickstart', 'debug'),
        ('synthetic', ''),
        ('synthetic', 'encoders'),
        ('synthetic', 'small'),
    ],
)
def test_no_image_has_two_roles(name, variant):
    data = load_experiment(f'{name}.py').get_config(variant).data
    split = split_images(
        encoder_images=data.encoder_images,
        train_images=data.train_images,
        test_images=data.test_images,
    )
    ranges = [split.encoder_train, split.encoder_valid, split.train, split.test]
    counts = [data.encoder_images, data.train_images, data.test_images]
    assert len(set().union(*ranges)) == sum(map(len, ranges)) == sum(counts)


def test_the_digits_without_download_are_parted_into_training_and_test():
    parts = [digits.load_digits('sklearn', subset=subset) for subset in ('train', 'test')]
    whole = sklearn.datasets.load_digits().images > digits.SKLEARN_THRESHOLD

    def multiset(images):
        return sorted(image[:8, :8].astype(np.uint8).tobytes() for image in images)

    # Together they are all there are, each once: none is in both.
    assert multiset([*parts[0].images, *parts[1].images]) == multiset(whole)


# ---- Whole runs on synthetic images -------------------------------------------------------------


@pytest.mark.parametrize(
    ('name', 'encoders', 'seeds'),
    [('quickstart', ENCODERS, ('0',)), ('synthetic', OTHER_ENCODERS, ('0', '1'))],
)
def test_a_run_leaves_predictions_tables_and_pictures(request, name, encoders, seeds):
    workdir = request.getfixturevalue(name)
    for encoder in encoders:
        rows = read_csv(predictions_path(workdir, encoder))
        expected = [(f'test/{n:06d}', seed) for seed in seeds for n in range(10)]
        assert [(row['slide_id'], row['seed']) for row in rows] == expected
        for row in rows:
            scores = [float(row[f'score_{digit}']) for digit in range(10)]
            assert math.isclose(sum(scores), 1, abs_tol=1e-5)
            assert row['prediction'] == str(int(np.argmax(scores)))
            assert 0 < float(row['lesion_area']) < 40 * 40
    table = read_csv(workdir / 'report' / 'table.csv')
    assert {row['encoder'] for row in table} == set(encoders)
    for row in table:
        if row['metric'] == 'accuracy':
            of_encoder = read_csv(predictions_path(workdir, row['encoder']))
            right = [row['label'] == row['prediction'] for row in of_encoder]
            assert math.isclose(float(row['mean']), np.mean(right))
    assert (workdir / 'report' / 'image.png').read_bytes().startswith(b'\x89PNG')
    assert (workdir / 'patches' / 'patches.png').read_bytes().startswith(b'\x89PNG')


@pytest.mark.parametrize(
    ('name', 'encoders'), [('quickstart', ENCODERS), ('synthetic', OTHER_ENCODERS)]
)
def test_a_run_shows_where_networks_looked(request, name, encoders):
    workdir = request.getfixturevalue(name)
    for encoder in encoders:
        folder = workdir / encoder / 'explain' / 'digit' / 'cnn'
        maps = zarr.open_group(folder / 'test.zarr', mode='r')
        assert maps['grad_cam'].shape == (10, 40, 40)
        assert np.isfinite(maps['grad_cam'][:]).all()
        rows = localisation.read_rows(folder / 'localisation.csv')
        tested = [row for row in rows if row['subset'] == 'test']
        areas = {
            row['slide_id']: float(row['lesion_area'])
            for row in read_csv(predictions_path(workdir, encoder))
        }
        assert {row['slide_id']: row['lesion_area'] for row in tested} == areas
        assert all(0 <= row['jaccard_both'] <= 1 for row in tested)
        # The post-processing is chosen on images that validate, and on no other.
        assert all(row['slide_id'].startswith('train/') for row in rows if row not in tested)
    found = read_csv(workdir / 'report' / 'localisation.csv')
    assert {row['encoder'] for row in found} == set(encoders)
    assert 'test/000000' in (workdir / 'report' / 'index.html').read_text(encoding='utf-8')


@pytest.mark.parametrize(('name', 'trainings'), [('quickstart', 3), ('synthetic', 6)])
def test_a_run_logs_finite_figures(request, name, trainings):
    workdir = request.getfixturevalue(name)
    trained = read_metrics(workdir, 'encoder')
    assert [record['step'] for record in trained] == 2 * [10, 20]  # Two encoders.
    classified = read_metrics(workdir, 'classify')
    assert len(classified) == 2 * trainings  # Epochs.
    for record in trained + classified:
        figures = [value for value in record.values() if not isinstance(value, str)]
        assert np.isfinite(figures).all(), record
    for record in read_metrics(workdir, 'evaluate'):
        assert math.isfinite(record['mean']['accuracy'])
        assert math.isfinite(record['mean']['log_loss'])


@pytest.mark.parametrize('name', ['quickstart', 'synthetic'])
def test_encoders_leave_curves_and_what_they_draw(request, name):
    workdir = request.getfixturevalue(name)
    pictures = {
        path.relative_to(workdir).as_posix()
        for path in workdir.glob('*/encoder/*.png')
        if path.read_bytes().startswith(b'\x89PNG')
    }
    trained, drawing = {
        'quickstart': (('supervised', 'vae'), 'vae'),
        'synthetic': (('contrastive', 'bigan'), 'bigan'),
    }[name]
    curves = {f'{encoder}/encoder/curve.png' for encoder in trained}
    assert pictures == curves | {f'{drawing}/encoder/samples.png'}


def test_training_and_test_grids_are_of_other_images_and_other_digits(quickstart):
    for encoder in ENCODERS:
        train, test = (
            schema.read_complete(quickstart / encoder / 'grids' / f'{subset}.zarr')
            for subset in ('train', 'test')
        )
        assert train['digits'] != test['digits']
        assert not set(range(*train['indices'])) & set(range(*test['indices']))


def test_a_finished_run_does_nothing_again(program, quickstart):
    outcomes = [predictions_path(quickstart, encoder) for encoder in ENCODERS]
    before = [path.read_bytes() for path in outcomes]
    written = {
        path: path.stat().st_mtime_ns
        for pattern in ('patches/*', '*/encoder/**/*', '*/grids/**/*', '*/classifier/*/*/seed_*/**')
        for path in quickstart.glob(pattern)
        if path.is_file()
    }
    epochs = len(read_metrics(quickstart, 'classify'))
    printed = program.run(quickstart, *QUICKSTART)
    assert [path.read_bytes() for path in outcomes] == before
    assert {path: path.stat().st_mtime_ns for path in written} == written
    assert len(read_metrics(quickstart, 'classify')) == epochs
    assert 'images encoded' not in printed


def test_a_run_that_is_killed_twice_goes_on_to_the_same_predictions(program, quickstart, tmp_path):
    arguments = (*QUICKSTART, '--config.encoder=supervised')
    for stage in ('encoder', 'classify'):  # After half the steps; after half the epochs.
        process = program.start(tmp_path, *arguments)
        while process.poll() is None:
            if (tmp_path / 'metrics.jsonl').exists() and read_metrics(tmp_path, stage):
                process.kill()
            time.sleep(0.002)
        process.communicate()
        assert process.returncode == -signal.SIGKILL, f'done before it was killed in {stage}'
        assert not predictions_path(tmp_path).exists()
    program.run(tmp_path, *arguments)
    assert predictions_path(tmp_path).read_bytes() == predictions_path(quickstart).read_bytes()
    # What was done before was not done twice.
    assert [record['step'] for record in read_metrics(tmp_path, 'encoder')] == [10, 20]
    assert [record['epoch'] for record in read_metrics(tmp_path, 'classify')] == [0, 1]


# ---- Whole runs on slides -----------------------------------------------------------------------


@pytest.fixture(scope='module')
def slides(tmp_path_factory):
    """A table of 16 slides of 8 patients: grade b is darker; two have no labels."""
    folder = tmp_path_factory.mktemp('slides')
    rows = []
    for number in range(16):
        slide_id, grade = f's{number:02d}', 'ab'[number // 2 % 2]
        image = slide_files.tissue_image(256, 256 + 16 * (number % 3), seed=number, margin=16)
        if grade == 'b':
            image = np.where(image == 255, image, (image * 0.6).astype(np.uint8))
        slide_files.write_pyramid(folder / f'{slide_id}.tif', image, mpp=0.5)
        age = 40 + number + 20 * (grade == 'b')
        labels = ('', 'NA') if slide_id in UNLABELLED else (grade, age)
        rows.append((slide_id, f'{slide_id}.tif', f'p{number // 2}', *labels))
    write_table(folder / 'slides.csv', rows)
    (folder / 'broken.tif').write_bytes((folder / 's00.tif').read_bytes()[:1000])
    write_table(folder / 'with_broken.csv', [*rows, ('s99', 'broken.tif', 'p9', '', '')])
    return folder


def write_table(path, rows):
    with path.open('w', encoding='utf-8', newline='') as file:
        csv.writer(file).writerows([('slide_id', 'path', 'case_id', 'grade', 'age'), *rows])


def check_rows(rows, table, label, seeds):
    """Each slide once a seed: hold-outs where there is a label, which is the table's, else new."""
    assert len(rows) == len(table) * len(seeds)
    by_key = {(row['seed'], row['slide_id']): row for row in rows}
    assert set(by_key) == {(seed, row['slide_id']) for seed in seeds for row in table}
    for seed in seeds:
        for known in table:
            row = by_key[seed, known['slide_id']]
            assert row['case_id'] == known['case_id']
            if known['slide_id'] in UNLABELLED:
                assert (row['subset'], row['fold'], row['label']) == ('new', '', '')
            else:
                assert row['subset'] == 'test'
                assert row['label'] in (known[label], f'{known[label]}.0')
    held_out = [row for row in rows if row['subset'] == 'test']
    folds_of_case = {
        case: {row['fold'] for row in held_out if row['case_id'] == case}
        for case in {row['case_id'] for row in held_out}
    }
    assert all(len(numbers) == 1 for numbers in folds_of_case.values())
    assert set().union(*folds_of_case.values()) == {'0', '1', '2', '3'}


def test_a_cohort_is_predicted_once_a_seed_and_cases_are_never_split(cohort, slides):
    rows = cohort_predictions(cohort, 'grade')
    check_rows(rows, read_csv(slides / 'slides.csv'), 'grade', ('0', '1'))
    for row in rows:
        scores = {name: float(row[f'score_{name}']) for name in 'ab'}
        assert math.isclose(sum(scores.values()), 1, abs_tol=1e-5)
        assert row['prediction'] == max(scores, key=scores.get)
    assert not (cohort / 'failures.csv').exists()
    (auc,) = (row for row in read_csv(cohort / 'report' / 'table.csv') if row['metric'] == 'auc')
    assert (auc['slides'], auc['cases'], auc['seeds']) == ('14', '8', '2')
    assert 0 <= float(auc['low']) <= float(auc['high']) <= 1


def test_slides_are_explained_by_networks_that_never_saw_them(cohort):
    rows = [row for row in cohort_predictions(cohort, 'grade') if row['seed'] == '0']
    (folder,) = cohort.glob('*/explain/grade/spatial')
    for row in rows:
        text = (folder / row['slide_id'] / 'explained.json').read_text(encoding='utf-8')
        record = json.loads(text)
        expected = [int(row['fold'])] if row['subset'] == 'test' else [0, 1, 2, 3]
        assert record['folds'] == expected
        assert record['target'] == record['prediction'] == row['prediction']
        assert record['subset'] == row['subset']
    assert not (folder / 'localisation.csv').exists()  # nothing is known of lesions


@pytest.mark.slow
def test_a_regression_shares_the_grids(program, cohort, slides):
    grids = sorted((cohort / MEAN_RGB / 'grids').glob('*.zarr/zarr.json'))
    times = [path.stat().st_mtime_ns for path in grids]
    assert len(grids) == 16
    arguments = (*learn(slides / 'slides.csv', 'age'), '--config.cohort.task=regression')
    program.run(cohort, *COHORT, *arguments)
    rows = cohort_predictions(cohort, 'age')
    check_rows(rows, read_csv(slides / 'slides.csv'), 'age', ('0',))
    assert np.isfinite([float(row['prediction']) for row in rows]).all()
    assert not any(name.startswith('score_') for name in rows[0])
    assert [path.stat().st_mtime_ns for path in grids] == times


@pytest.mark.slow
def test_an_encoder_is_tuned_with_its_classifier(program, slides, tmp_path):
    network = encoder_network('vae', family='pyramid', patch_size=16, channels=3, code_size=6)
    network |= {'widths': [4, 8], 'dense': 8}
    weights = module(network).init(jax.random.key(0), np.zeros((1, 16, 16, 3), np.float32))
    given = tmp_path / 'given' / 'small'
    write_encoder(given, conv_encoder('small', network, weights, mpp=0.5))
    home = tmp_path / 'home'
    printed = program.run(
        home,
        'cohort.py:debug',
        f'--config.encoder={given}',
        '--config.tissue.mpp=2',
        *learn(slides / 'slides.csv', 'grade'),
        '--config.cohort.only_folds=(0, 1)',
        '--config.classifier.seeds=(0,)',
        *(f'--config.finetune.{name}=2' for name in ('steps', 'slides', 'valid_every')),
        '--config.finetune.hold=0',
        '--config.finetune.chunk=16',
        '--config.explain.slides=4',
        '--stages=compress,classify,finetune,explain,evaluate',
    )
    assert 'device: the pixels of' in printed
    tuned = home / 'small' / 'finetune' / 'classifier' / 'grade' / 'spatial'
    rows = read_csv(tuned / 'predictions.csv')
    frozen = read_csv(home / 'small' / 'classifier' / 'grade' / 'spatial' / 'predictions.csv')
    keys = ('slide_id', 'fold', 'subset')  # slides without a label too
    assert [[row[key] for key in keys] for row in rows] == [
        [row[key] for key in keys] for row in frozen
    ]
    best = load_encoder(str(tuned / 'seed_0' / 'fold_1'))
    assert best.network == network
    assert best.name == f'small-tuned-{best.sha256()[:6]}'
    # It serves for other slides, and for what its own fold tests: this is said, and done.
    other = (
        'cohort.py:debug',
        f'--config.encoder={tuned / "seed_0" / "fold_1"}',
        '--config.tissue.mpp=2',
        '--config.classifier.seeds=(0,)',
        '--stages=compress,classify',
        *learn(slides / 'slides.csv', 'grade'),
    )
    refused = program.run(tmp_path / 'other', *other, status=2)
    assert f'encoder {best.name} was fine-tuned with the labels of hold-outs: fold 0' in refused
    assert '--config.cohort.only_folds="(1,)"' in refused
    program.run(tmp_path / 'other', *other, '--config.cohort.only_folds=(1,)')
    again = read_csv(tmp_path / 'other' / best.name / 'classifier/grade/spatial/predictions.csv')
    assert {row['slide_id'] for row in again if row['subset'] == 'test'} == {
        row['slide_id'] for row in rows if (row['subset'], row['fold']) == ('test', '1')
    }
    table = read_csv(home / 'report' / 'table.csv')
    assert {row['encoder'] for row in table} == {'small', 'small, fine-tuned'}
    # Each slide is explained by its own fold's pair: these are the maps of its codes.
    explained = home / 'small' / 'finetune' / 'explain' / 'grade' / 'spatial'
    folds_of = {row['slide_id']: row['fold'] for row in rows if row['subset'] == 'test'}
    files = sorted(explained.glob('*/explained.json'))
    assert len(files) == 4
    for path in files:
        told = json.loads(path.read_text())
        if told['subset'] == 'test':
            assert told['folds'] == [int(folds_of[told['slide_id']])]
            assert told['encoder'] == 'small, fine-tuned'


def test_synthetic_images_are_tuned_from_their_labels(program, synthetic, tmp_path):
    shutil.copytree(synthetic, tmp_path, dirs_exist_ok=True)
    printed = program.run(
        tmp_path,
        SYNTHETIC[0],
        SYNTHETIC[2],
        '--config.encoder=bigan,mean',
        '--config.classifier.seeds=(0,)',
        *(f'--config.finetune.{name}=2' for name in ('steps', 'slides', 'valid_every')),
        '--config.finetune.hold=0',
        '--config.finetune.chunk=400',
        '--stages=finetune,explain,evaluate',
    )
    assert 'mean has no weights to train' in printed
    tuned = tmp_path / 'bigan' / 'finetune' / 'classifier' / 'digit' / 'cnn'
    rows = read_csv(tuned / 'predictions.csv')
    assert len(rows) == 10  # test images
    assert load_encoder(str(tuned / 'seed_0' / 'fold_0')).channels == 1
    # What is drawn for training is what the grids were made of: at first, the loss is the same.
    path = tmp_path / 'bigan' / 'classifier' / 'digit' / 'cnn' / 'seed_0' / 'fold_0'
    losses = [record['valid_loss'] for record in load_trained(path).history]
    first = load_trained(tuned / 'seed_0' / 'fold_0').history[0]['valid_loss']
    assert first == pytest.approx(min(losses), abs=1e-3)  # grids are of half precision
    table = read_csv(tmp_path / 'report' / 'table.csv')
    names = {'bigan', 'bigan, fine-tuned', 'mean'}
    assert {row['encoder'] for row in table} == names
    found = read_csv(tmp_path / 'report' / 'localisation.csv')
    assert {row['encoder'] for row in found} == names
    assert 'bigan, fine-tuned' in (tmp_path / 'report' / 'index.html').read_text()


def test_a_broken_slide_is_named_and_the_others_go_on(program, cohort, slides, tmp_path):
    shutil.copytree(cohort, tmp_path, dirs_exist_ok=True)
    before = cohort_predictions(tmp_path, 'grade')
    arguments = (*learn(slides / 'with_broken.csv', 'grade'), SEEDS)
    printed = program.run(tmp_path, *COHORT, *arguments, status=1)
    assert 's99' in printed
    failures = read_csv(tmp_path / 'failures.csv')
    assert {(row['slide_id'], row['stage']) for row in failures} >= {('s99', 'compress')}
    assert {row['slide_id'] for row in failures} == {'s99'}
    assert all(row['reason'] for row in failures)
    assert cohort_predictions(tmp_path, 'grade') == before
