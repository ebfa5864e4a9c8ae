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


@hypothesis.settings(max_examples=60, deadline=None)
@hypothesis.given(
    slides_of_cases=st.lists(st.integers(1, 4), min_size=8, max_size=60),
    dead=st.integers(4, 60),
    seed=st.integers(0, 1000),
)
def test_survival_has_deaths_in_every_part(slides_of_cases, dead, seed):
    rng = np.random.default_rng(seed)
    count = len(slides_of_cases)
    cases = np.repeat(np.arange(count), slides_of_cases)
    of_case = np.stack([rng.integers(1, 20, count), rng.permutation(count) < dead], axis=1)
    labels = of_case[cases].astype(float)
    result = folds.rotate_folds(cases, labels, task='survival', seed=seed)
    assert len(result) == 4
    _check_partition(result, cases)
    for fold in result:
        assert labels[fold.test, 1].any()


def test_survival_is_spread_by_event_and_by_time():
    events = np.arange(120) % 3 == 0
    times = np.random.default_rng(0).permutation(120) + 1.0
    result = folds.rotate_folds(
        np.arange(120), np.stack([times, events], axis=1), task='survival', seed=0
    )
    for event, of_each_third in ((True, 40 / 12), (False, 80 / 12)):
        thirds = np.array_split(np.sort(times[events == event]), 3)
        for fold in result:
            found = times[fold.test][events[fold.test] == event]
            counts = [np.isin(third, found).sum() for third in thirds]
            np.testing.assert_allclose(counts, of_each_third, atol=1)


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
        ('abcde', [[1, 0], [np.nan, 0], [2, 1], [3, 1], [4, 1]], 'survival', 'not finite'),
        ('abccd', [[1, 1], [2, 1], [3, 1], [3, 1], [4, 0]], 'survival', '3 cases with an event'),
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
        folds.rotate_folds(np.arange(9), np.ones(9), task='ranking', seed=0)
    with pytest.raises(ValueError, match=r'must be \[N, 2\] for survival'):
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


def test_numbered_parts_beside_a_test_set():
    rows = [{'fold': number} for number in ('1', 'test', '2', '3', '', 'Testing', '2')]
    result = folds.given_folds(_entries(rows), 'abcdefc')
    assert [f.test.tolist() for f in result] == [[1, 5]] * 3
    assert [f.valid.tolist() for f in result] == [[0], [2, 6], [3]]
    assert [f.train.tolist() for f in result] == [[2, 3, 6], [0, 3], [0, 2, 6]]
    two = folds.given_folds(_entries([{'fold': cell} for cell in ('1', '2', 'test')]), 'abc')
    assert [(f.train.tolist(), f.valid.tolist(), f.test.tolist()) for f in two] == [
        ([1], [0], [2]),
        ([0], [1], [2]),
    ]


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
        ([{'fold': w} for w in ('1', '2', 'train')], "fold is 'train', expected the number"),
        ([{'fold': w} for w in ('1', '2', '1')], '2 parts; it takes 3'),
        ([{'fold': w} for w in ('1', 'test', '1')], '1 parts; it takes 2 or more, to train and'),
        ([{'split': w} for w in ('train', 'test', 'test')], 'no slide to valid on'),
        ([{'split': ''}] * 3, 'no slide to train on'),
    ],
)
def test_given_folds_in_error(rows, message):
    with pytest.raises(CohortError, match=message):
        folds.given_folds(_entries(rows), 'abc')


@pytest.mark.parametrize(
    ('column', 'words'),
    [
        ('split', ('train', 'valid', 'test')),
        ('fold', ('0', '1', '2')),
        ('fold', ('0', '1', 'test')),
    ],
)
def test_a_case_on_two_sides_is_named(column, words):
    rows = [{column: word} for word in words]
    with pytest.raises(CohortError, match="case 'P1' is on two sides of column " + column):
        folds.given_folds(_entries(rows), ['P0', 'P1', 'P1'])


def _subset(fold, cases, targets, slides, task='classification', seed=0):
    return folds.subset_cases(fold, cases, targets, slides=slides, task=task, seed=seed)


@hypothesis.settings(max_examples=30, deadline=None)
@hypothesis.given(
    slides_of_cases=st.lists(st.integers(1, 4), min_size=24, max_size=60),
    task=st.sampled_from(['classification', 'regression', 'survival']),
    seed=st.integers(0, 1000),
)
def test_smaller_subsets_are_parts_of_larger_ones(slides_of_cases, task, seed):
    cases = np.repeat(np.arange(len(slides_of_cases)), slides_of_cases)
    classes = cases % 3 if task == 'classification' else cases % 2
    targets = {
        'classification': classes,
        'regression': np.sin(cases),
        'survival': np.stack([1.0 + cases, classes], axis=1),
    }[task]
    fold = folds.rotate_folds(cases, targets, task=task, seed=seed)[0]
    available = len(fold.train) + len(fold.valid)
    larger = fold
    for slides in range(available - 1, 0, -3):
        subset = _subset(fold, cases, targets, slides, task, seed)
        assert subset.test is fold.test
        for role in ('train', 'valid'):
            chosen, every = getattr(subset, role), getattr(fold, role)
            assert set(chosen) <= set(getattr(larger, role))
            np.testing.assert_array_equal(chosen, every[np.isin(cases[every], cases[chosen])])
            wanted = slides * len(every) / available
            least = 1 if task == 'regression' else len(set(classes[every]))
            # Half a case of 4 slides off, half a slide of rounding; of each class at least a case.
            assert wanted - 2.5 <= len(chosen) <= max(wanted + 2.5, 4 * least)
            if task != 'regression':
                assert set(classes[chosen]) == set(classes[every])
        larger = subset


def test_subsets_keep_the_proportion_of_classes_and_roles():
    labels = np.array([0] * 300 + [1] * 100)
    fold = folds.rotate_folds(np.arange(400), labels, task='classification', seed=0)[0]
    assert (len(fold.train), len(fold.valid)) == (200, 100)
    for slides in (12, 60, 150, 240):
        subset = _subset(fold, np.arange(400), labels, slides)
        assert (len(subset.train), len(subset.valid)) == (slides * 2 // 3, slides // 3)
        for chosen in (subset.train, subset.valid):
            assert abs(labels[chosen].sum() - len(chosen) / 4) <= 1


def test_cases_of_two_classes_stand_for_both():
    cases = [f'P{i}' for i in range(20) for _ in range(2)]
    labels = np.array([0, 1] * 20)
    fold = folds.Fold(np.arange(30), np.arange(30, 40), np.array([], int))
    subset = _subset(fold, cases, labels, 1)
    assert (len(subset.train), len(subset.valid)) == (2, 2)


def test_all_slides_are_the_fold_itself():
    fold = folds.Fold(np.arange(6), np.arange(6, 9), np.arange(9, 12))
    for slides in (0, 9, 10):
        assert _subset(fold, np.arange(12), np.arange(12) % 3, slides) is fold
    with pytest.raises(CohortError, match=r'slides=-1 .* 0 for all'):
        _subset(fold, np.arange(12), np.arange(12) % 3, -1)


def test_subsets_depend_on_the_seed_and_not_on_the_order_of_the_table():
    cases, labels = np.array([f'P{i:02d}' for i in range(40)]), np.arange(40) % 2
    fold = folds.Fold(np.arange(24), np.arange(24, 32), np.arange(32, 40))
    chosen, again, other = (_subset(fold, cases, labels, 10, seed=seed) for seed in (1, 1, 2))
    assert chosen.train.tolist() == again.train.tolist() != other.train.tolist()
    back = folds.Fold(*(39 - role[::-1] for role in (fold.train, fold.valid, fold.test)))
    turned = _subset(back, cases[::-1], labels[::-1], 10, seed=1)
    assert set(cases[::-1][turned.train]) == set(cases[chosen.train])
