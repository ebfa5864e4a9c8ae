"""Seeds and folds: what is trained, what is predicted, and what a row says."""

import dataclasses
import json

import numpy as np
import pytest
from small_cohort import CASES, SETTINGS, cohort, grids_of

from nic_jax import workdir
from nic_jax.classifiers import cross_validation
from nic_jax.classifiers.cross_validation import cross_validate
from nic_jax.classifiers.prediction import predict
from nic_jax.classifiers.trained import load_trained
from nic_jax.evaluation import predictions
from nic_jax.folds import Fold

LABELLED = CASES + 2
TASKS = ('classification', 'regression', 'survival')


def run(dataset, folder, *, seeds=(0,), report=lambda *told: None, **options):
    asked = {'model': 'mean', 'fields': {'dropout': 0.1}, 'settings': SETTINGS}
    return cross_validate(
        dataset, **asked | {'seeds': seeds, 'folder': folder, 'report': report} | options
    )


@pytest.fixture(scope='module')
def done(tmp_path_factory):
    """Of each task: a cohort, the folder of its two seeds and three folds, and the rows."""
    found = {}
    for task in TASKS:
        folder, dataset = tmp_path_factory.mktemp(task), cohort(task)
        found[task] = dataset, folder, run(dataset, folder, seeds=(0, 1))
    return found


@dataclasses.dataclass
class FakeTrained:
    number: int


@pytest.fixture
def fakes(monkeypatch):
    """Nothing is trained: fold k scores slide s with a likelihood of (1 + s % 5 + k) / 10."""
    asked = []

    def train(**options):
        asked.append(options)
        return FakeTrained(options['identity']['fold'])

    def score(trained, grids):
        high = [(1 + int(grid.slide_id[1:]) % 5 + trained.number) / 10 for grid in grids]
        return np.stack([1 - np.array(high), high], axis=1)

    monkeypatch.setattr(cross_validation, 'train', train)
    monkeypatch.setattr(cross_validation, 'predict', score)
    return asked


# ---- Rows ---------------------------------------------------------------------------------------


@pytest.mark.parametrize('task', TASKS)
def test_rows_are_written_and_read_back_as_they_are(done, tmp_path, task):
    _, _, rows = done[task]
    path = tmp_path / 'predictions.csv'
    predictions.write(path, rows)
    read = predictions.read(path)
    assert read == rows
    assert {predictions.task_of(row) for row in read} == {task}
    assert [predictions.has_label(row) for row in read] == [row['subset'] == 'test' for row in rows]


@pytest.mark.parametrize('task', TASKS)
def test_each_slide_is_predicted_once_a_seed_by_who_never_saw_it(done, task):
    dataset, folder, rows = done[task]
    found = {(row['seed'], row['slide_id']): row for row in rows}
    assert len(found) == len(rows) == 2 * len(dataset.grids)
    for seed in (0, 1):
        networks = [load_trained(folder / f'seed_{seed}' / f'fold_{k}') for k in range(3)]
        assert {each.seed for each in networks} == {seed}
        for index, grid in enumerate(dataset.grids):
            row = found[seed, grid.slide_id]
            scores = [predict(network, [grid])[0] for network in networks]
            if dataset.has_label[index]:
                (number,) = (k for k, fold in enumerate(dataset.folds) if index in fold.test)
                assert (row['subset'], row['fold']) == ('test', number)
                expected = scores[number]
            else:
                assert (row['subset'], row['fold']) == ('new', '')
                expected = np.mean(scores, axis=0)
            if task == 'classification':
                got = [row['score_low'], row['score_high']]
                assert row['prediction'] == ('low', 'high')[int(np.argmax(expected))]
            else:
                got = [row['prediction']]
            # Batches are filled with other slides.
            np.testing.assert_allclose(got, expected, rtol=1e-5)


@pytest.mark.parametrize('task', TASKS)
def test_rows_tell_what_the_cohort_knows(done, task):
    dataset, _, rows = done[task]
    index_of = {grid.slide_id: index for index, grid in enumerate(dataset.grids)}
    for row in rows:
        index = index_of[row['slide_id']]
        target, known = dataset.targets[index], dataset.has_label[index]
        assert row['case_id'] == dataset.case_ids[index]
        assert (row['label_name'], row['model']) == ('grade', 'mean')
        told = {key: row[key] for key in ('label', 'time', 'event') if key in row}
        if task == 'survival':
            expected = dict(zip(('time', 'event'), target if known else ('', ''), strict=True))
        elif task == 'regression':
            expected = {'label': target if known else ''}
        else:
            expected = {'label': ('low', 'high')[target] if known else ''}
        assert told == expected
        assert 'lesion_area' not in row
        assert not predictions.group_names(row)


def test_lesion_areas_and_groups_are_columns(fakes, tmp_path):
    areas = np.arange(LABELLED + 2) / 2
    areas[3] = np.nan
    groups = {'Test': np.arange(LABELLED + 2) < 5, 'Macro': np.arange(LABELLED + 2) == 3}
    rows = run(cohort(lesion_areas=areas, groups=groups), tmp_path)
    for row in rows:
        index = int(row['slide_id'][1:])
        assert row['lesion_area'] == ('' if index == 3 else index / 2)
        assert (row['group_Test'], row['group_Macro']) == (int(index < 5), int(index == 3))
    predictions.write(tmp_path / 'predictions.csv', rows)
    assert predictions.read(tmp_path / 'predictions.csv') == rows


def test_slides_that_every_fold_tests_have_the_folds_mean(fakes, tmp_path):
    roles = [(range(0, 6), range(6, 9)), (range(3, 9), range(0, 3))]
    external = range(9, CASES)
    folds = tuple(Fold(*map(np.array, (*role, external))) for role in roles)
    rows = run(cohort(folds=folds), tmp_path)
    tested = [row for row in rows if row['subset'] == 'test']
    assert [row['slide_id'] for row in tested] == ['s9', 's10', 's11']
    for row in tested:
        index = int(row['slide_id'][1:])
        assert row['fold'] == ''
        assert row['score_high'] == pytest.approx((1 + index % 5 + 0.5) / 10)
        assert row['label'] == ('low', 'high')[index % 2]


def test_slides_that_some_folds_test_have_a_row_of_each(fakes, tmp_path):
    parts = [(range(0, 4), range(4, 6), tested) for tested in ((6, 7), (7, 8), (8, 9))]
    folds = tuple(Fold(*map(np.array, part)) for part in parts)
    rows = run(cohort(folds=folds), tmp_path)
    tested = [(row['slide_id'], row['fold']) for row in rows if row['subset'] == 'test']
    assert tested == [('s6', 0), ('s7', 0), ('s7', 1), ('s8', 1), ('s8', 2), ('s9', 2)]


def test_a_single_fold_is_named_and_no_mean(fakes, tmp_path):
    folds = cohort().folds[:1]
    rows = run(cohort(folds=folds), tmp_path)
    assert {row['fold'] for row in rows if row['subset'] == 'test'} == {0}
    assert {row['fold'] for row in rows if row['subset'] == 'new'} == {''}


# ---- What is trained, on what -------------------------------------------------------------------


def test_cases_are_on_one_side_and_unlabelled_slides_on_none(fakes, tmp_path):
    dataset = cohort()
    run(dataset, tmp_path, seeds=(0, 7))
    assert [(each['seed'], each['identity']['fold']) for each in fakes] == [
        (seed, fold) for seed in (0, 7) for fold in range(3)
    ]
    for options in fakes:
        fold = dataset.folds[options['identity']['fold']]
        sides = [options[role] for role in ('train', 'valid')]
        cases = [set(side.case_ids) for side in sides]
        cases.append({dataset.case_ids[index] for index in fold.test})
        assert sum(map(len, cases)) == len(set().union(*cases)) == CASES
        for side, indices in zip(sides, (fold.train, fold.valid), strict=True):
            assert side.grids == [dataset.grids[index] for index in indices]
            np.testing.assert_array_equal(side.targets, dataset.targets[indices])
        assert options['identity'] | {'fold': 0} == {
            'encoder': 'some',
            'label': 'grade',
            'fold': 0,
        }
        assert (options['task'], options['classes']) == ('classification', 2)


def test_fewer_slides_train_and_the_same_test(fakes, tmp_path):
    dataset = cohort()
    whole = run(dataset, tmp_path / 'all')
    some = run(dataset, tmp_path / 'some', train_slides=5)
    assert [row['slide_id'] for row in some] == [row['slide_id'] for row in whole]
    for before, now in zip(fakes[:3], fakes[3:], strict=True):
        for role in ('train', 'valid'):
            assert set(now[role].case_ids) <= set(before[role].case_ids)
        sizes = [len(each['train'].grids) + len(each['valid'].grids) for each in (before, now)]
        assert sizes[0] > 8
        assert 4 <= sizes[1] <= 6  # whole cases, so about as many as asked for


def test_slides_without_a_label_are_left_out_when_not_wanted(fakes, tmp_path):
    rows = run(cohort(), tmp_path, predict_unlabelled=False)
    assert {row['subset'] for row in rows} == {'test'}
    assert len(rows) == LABELLED


def test_some_folds_keep_their_numbers(fakes, tmp_path):
    dataset = cohort()
    rows = run(dataset, tmp_path, only_folds=(2, 1))
    assert sorted(each['identity']['fold'] for each in fakes) == [1, 2]
    assert {options['folder'].name for options in fakes} == {'fold_1', 'fold_2'}
    held_out = {row['slide_id']: row['fold'] for row in rows if row['subset'] == 'test'}
    assert held_out == {f's{index}': k for k in (1, 2) for index in dataset.folds[k].test}
    (new,) = (row for row in rows if row['slide_id'] == f's{LABELLED}')
    assert new['score_high'] == pytest.approx((1 + LABELLED % 5 + 1.5) / 10)


def test_versions_are_those_that_the_grids_have(fakes, tmp_path):
    run(cohort(versions=(0,)), tmp_path)
    assert {options['settings'].versions for options in fakes} == {(0,)}


# ---- Again --------------------------------------------------------------------------------------


@pytest.mark.parametrize('task', TASKS)
def test_a_second_run_trains_and_predicts_nothing_again(done, monkeypatch, task):
    dataset, folder, rows = done[task]
    monkeypatch.setattr(cross_validation, 'predict', None)
    monkeypatch.setattr('nic_jax.classifiers.training.compile_step', None)
    told = []
    again = run(dataset, folder, seeds=(0, 1), report=lambda *record: told.append(record))
    assert again == rows
    assert not told


def test_new_slides_are_all_that_is_predicted(done, monkeypatch):
    dataset, folder, rows = done['classification']
    monkeypatch.setattr('nic_jax.classifiers.training.compile_step', None)
    (added,) = grids_of(np.random.default_rng(9), ['added'])
    more = dataclasses.replace(
        dataset,
        grids=[*dataset.grids, added],
        case_ids=[*dataset.case_ids, 'its own'],
        targets=np.append(dataset.targets, 0),
        has_label=np.append(dataset.has_label, False),
    )
    predicted = []

    def told(trained, grids):
        predicted.extend(grid.slide_id for grid in grids)
        return predict(trained, grids)

    monkeypatch.setattr(cross_validation, 'predict', told)
    again = run(more, folder, seeds=(0, 1))
    assert predicted == 6 * ['added']
    assert [row for row in again if row['slide_id'] != 'added'] == rows
    assert [row['subset'] for row in again if row['slide_id'] == 'added'] == ['new', 'new']


def test_a_network_trained_otherwise_is_not_reused(done):
    dataset, folder, _ = done['regression']
    with pytest.raises(ValueError, match=r'made with other settings: network\.dropout'):
        run(dataset, folder, fields={'dropout': 0.2})
    other = dataclasses.replace(dataset, identity={'encoder': 'another'})
    with pytest.raises(ValueError, match=r'identity\.encoder'):
        run(other, folder)


def test_folds_that_another_process_trains_are_waited_for(fakes, tmp_path):
    dataset = cohort()
    with workdir.lock(tmp_path, 'seed_0/fold_1'):
        assert run(dataset, tmp_path) is None
    assert [each['identity']['fold'] for each in fakes] == [0, 2]
    assert len(run(dataset, tmp_path)) == len(dataset.grids)


def test_progress_is_told_with_seed_and_fold(tmp_path):
    told = []
    run(cohort(), tmp_path, report=lambda *record: told.append(record), only_folds=(1,))
    assert [(seed, fold, record['epoch']) for seed, fold, record in told] == [(0, 1, 0), (0, 1, 1)]
    record = json.loads((tmp_path / 'seed_0/fold_1/classifier.json').read_text())
    assert record['result']['history'] == [record for _, _, record in told]
