import pathlib

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from nic_jax import folds
from nic_jax.cohort import CohortError, SlideEntry


def _entries(rows):
    return [SlideEntry(f's{i}', pathlib.Path('x'), row=row) for i, row in enumerate(rows)]


def _check_partition(result, case_ids):
    """Each fold holds every example once, no case twice, and each example is tested once."""
    case_ids = np.asarray(case_ids)
    everything = np.arange(len(case_ids)).tolist()
    for fold in result:
        roles = (fold.train, fold.valid, fold.test)
        assert sorted(np.concatenate(roles).tolist()) == everything
        cases = [set(case_ids[role]) for role in roles]
        assert sum(map(len, cases)) == len(set.union(*cases))
    assert sorted(np.concatenate([fold.test for fold in result]).tolist()) == everything


@hypothesis.settings(max_examples=60, deadline=None)
@hypothesis.given(
    slides_of_cases=st.lists(st.integers(1, 3), min_size=24, max_size=60),
    parts=st.integers(3, 6),
    seed=st.integers(0, 1000),
    task=st.sampled_from(['classification', 'regression']),
    data=st.data(),
)
def test_rotation(slides_of_cases, parts, seed, task, data):
    cases = np.repeat(np.arange(len(slides_of_cases)), slides_of_cases)
    label_of_case = np.arange(len(slides_of_cases)) % 3
    labels = label_of_case[cases] if task == 'classification' else np.sin(np.arange(len(cases)) * 7)
    train_parts = data.draw(st.integers(1, parts - 2))
    result = folds.rotate_folds(
        cases, labels, task=task, parts=parts, train_parts=train_parts, seed=seed
    )
    assert len(result) == parts
    _check_partition(result, cases)
    for k, fold in enumerate(result):
        tests = [result[(k + step) % parts].test for step in range(parts)]
        held = parts - train_parts
        np.testing.assert_array_equal(fold.valid, np.sort(np.concatenate(tests[1:held])))
        np.testing.assert_array_equal(fold.train, np.sort(np.concatenate(tests[held:])))
        assert len(fold.test)
        if task == 'classification':
            assert set(labels[fold.test]) == {0, 1, 2}


def test_classes_are_spread_evenly():
    labels = np.array([0] * 60 + [1] * 20)
    result = folds.rotate_folds(np.arange(80), labels, task='classification', seed=0)
    assert len(result) == 4
    for fold in result:
        assert np.bincount(labels[fold.test]).tolist() == [15, 5]
        assert (len(fold.train), len(fold.valid)) == (40, 20)


def test_values_are_spread_evenly_even_with_ties():
    rng = np.random.default_rng(0)
    values = np.concatenate([np.zeros(70), rng.normal(10, 1, 30)])
    result = folds.rotate_folds(np.arange(100), values, task='regression', seed=0)
    for fold in result:
        assert 6 <= (values[fold.test] > 0).sum() <= 9


def test_seeds_shuffle_and_repeat():
    labels = np.arange(40) % 2
    first, again, other = (
        folds.rotate_folds(np.arange(40), labels, task='classification', seed=seed)
        for seed in (1, 1, 2)
    )
    assert first[0].test.tolist() == again[0].test.tolist() != other[0].test.tolist()


def test_without_a_part_to_test_the_part_left_validates():
    labels = np.arange(40) % 2
    result = folds.rotate_folds(np.arange(40), labels, task='classification', train_parts=3, seed=0)
    assert [(len(f.train), len(f.valid), len(f.test)) for f in result] == [(30, 10, 0)] * 4
    assert sorted(np.concatenate([f.valid for f in result]).tolist()) == list(range(40))


@pytest.mark.parametrize(
    ('cases', 'labels', 'task', 'message'),
    [
        ('aab', [0, 0, 1], 'classification', '2 cases cannot make 4 parts'),
        ('abcdefgg', [0, 0, 0, 0, 1, 1, 1, 1], 'classification', 'class 1 has 3 cases'),
        ('abcde', [0, 1, 2, np.nan, 3], 'regression', 'not finite'),
    ],
)
def test_too_few(cases, labels, task, message):
    with pytest.raises(CohortError, match=message):
        folds.rotate_folds(list(cases), labels, task=task, seed=0)


def test_impossible_parts():
    for parts, train_parts in ((1, 1), (4, 4), (4, 0)):
        with pytest.raises(CohortError, match='two parts or more'):
            folds.rotate_folds(
                np.arange(9),
                np.ones(9),
                task='regression',
                parts=parts,
                train_parts=train_parts,
                seed=0,
            )
    with pytest.raises(ValueError, match='task'):
        folds.rotate_folds(np.arange(9), np.ones(9), task='survival', seed=0)
    with pytest.raises(ValueError, match='9 case_ids and 8 labels'):
        folds.rotate_folds(np.arange(9), np.ones(8), task='regression', seed=0)


def test_no_columns_no_folds():
    assert folds.given_folds(_entries([{'grade': '1'}] * 3), 'abc') is None


def test_a_split_column_in_every_spelling():
    words = ['train', 'Training', '', 'val', 'valid', 'VALIDATION', 'test', 'testing', 'NA']
    (fold,) = folds.given_folds(_entries([{'split': word} for word in words]), 'abcdefghi')
    assert (fold.train.tolist(), fold.valid.tolist(), fold.test.tolist()) == (
        [0, 1],
        [3, 4, 5],
        [6, 7],
    )


def test_numbered_parts_rotate():
    rows = [{'fold': number} for number in ('1', '2', '3', '10', '', '2')]
    result = folds.given_folds(_entries(rows), 'abcdeb')
    assert [f.test.tolist() for f in result] == [[0], [1, 5], [2], [3]]
    assert [f.valid.tolist() for f in result] == [[1, 5], [2], [3], [0]]
    assert [f.train.tolist() for f in result] == [[2, 3], [0, 3], [0, 1, 5], [1, 2, 5]]


def test_a_column_for_each_fold():
    rows = [
        {'fold_10': 'test', 'fold_2': 'train'},
        {'fold_10': 'train', 'fold_2': 'valid'},
        {'fold_10': 'valid', 'fold_2': ''},
    ]
    two, ten = folds.given_folds(_entries(rows), 'abc')
    assert (two.train.tolist(), two.valid.tolist(), two.test.tolist()) == ([0], [1], [])
    assert (ten.train.tolist(), ten.valid.tolist(), ten.test.tolist()) == ([1], [2], [0])


@pytest.mark.parametrize(
    ('rows', 'message'),
    [
        ([{'split': 'train', 'fold': '1'}] * 3, 'split and by fold'),
        ([{'split': w} for w in ('train', 'valid', 'hold-out')], "slide 's2': split is 'hold-out'"),
        ([{'fold': w} for w in ('1', '2', 'x')], "slide 's2': fold is 'x'"),
        ([{'fold': w} for w in ('1', '2', '1')], '2 parts; it takes 3'),
        ([{'split': w} for w in ('train', 'test', 'test')], 'no slide to valid on'),
        ([{'split': ''}] * 3, 'no slide to train on'),
    ],
)
def test_given_folds_in_error(rows, message):
    with pytest.raises(CohortError, match=message):
        folds.given_folds(_entries(rows), 'abc')


@pytest.mark.parametrize(
    ('column', 'words'), [('split', ('train', 'valid', 'test')), ('fold', ('0', '1', '2'))]
)
def test_a_case_on_two_sides_is_named(column, words):
    rows = [{column: word} for word in words]
    with pytest.raises(CohortError, match="case 'P1' is on two sides of column " + column):
        folds.given_folds(_entries(rows), ['P0', 'P1', 'P1'])
