import collections
import time

import numpy as np
import pytest
from array_grid import ArrayGrid, random_grids

from nic_jax.classifiers.batches import DRAWS, Examples, plan_batch, training_batches
from nic_jax.grids import turn

SETTINGS = {'seed': 3, 'batch': 8, 'crop': 5, 'versions': (0, 3, 5), 'draw': 'classes'}


def _examples(count=6, *, targets=None, cases=None, **kwargs):
    grids = random_grids(count, **kwargs)
    targets = np.arange(count) % 2 if targets is None else targets
    return Examples(grids, targets, cases or [grid.slide_id for grid in grids])


def test_a_batch_depends_on_seed_and_step_alone():
    examples = _examples()
    whole = list(training_batches(examples, first=0, last=6, **SETTINGS))
    rest = list(training_batches(_examples(), first=4, last=6, **SETTINGS))
    for (codes, targets), (codes_again, targets_again) in zip(whole[4:], rest, strict=True):
        np.testing.assert_array_equal(codes, codes_again)
        np.testing.assert_array_equal(targets, targets_again)
    other = next(training_batches(examples, first=0, last=1, **{**SETTINGS, 'seed': 4}))
    assert (other[0] != whole[0][0]).any()
    assert (whole[0][0] != whole[1][0]).any()


def test_codes_are_the_turned_crops_of_the_plan():
    examples = _examples()
    plan = plan_batch(examples, 2, **SETTINGS)
    codes, targets = next(training_batches(examples, first=2, last=3, **SETTINGS))
    assert codes.dtype == np.float32
    assert codes.shape == (8, 5, 5, 3)
    assert {draw.version for draw in plan} <= {0, 3, 5}
    for row, target, draw in zip(codes, targets, plan, strict=True):
        assert target == draw.index % 2
        padded = np.pad(examples.grids[draw.index].codes, ((5, 5), (5, 5), (0, 0)))
        window = padded[draw.top + 5 : draw.top + 10, draw.left + 5 : draw.left + 10]
        np.testing.assert_array_equal(row, turn(window, draw.version))


@pytest.mark.parametrize(('task', 'expected'), [('classification', 0.5), ('regression', 0.2)])
def test_balance_over_classes_or_slides(task, expected):
    examples = _examples(10, targets=np.array([0] * 8 + [1] * 2))
    settings = {**SETTINGS, 'batch': 200, 'draw': DRAWS[task]}
    drawn = [draw.index for step in range(10) for draw in plan_batch(examples, step, **settings)]
    counts = collections.Counter(drawn)
    share = sum(counts[index] for index in (8, 9)) / 2000
    assert abs(share - expected) < 0.04
    assert set(counts) == set(range(10))


def test_of_survival_each_batch_holds_a_slide_of_different_cases():
    cases = ['a'] * 4 + ['b', 'c', 'd', 'd']
    examples = _examples(8, targets=np.stack([np.arange(8.0), np.ones(8)], 1), cases=cases)
    settings = {**SETTINGS, 'batch': 3, 'draw': DRAWS['survival']}
    counts = collections.Counter()
    for step in range(400):
        drawn = [draw.index for draw in plan_batch(examples, step, **settings)]
        assert len({cases[index] for index in drawn}) == 3
        counts.update(drawn)
    # Cases are equally likely (300 draws each, sd 9), and so are the slides of one.
    of_case = collections.Counter()
    for index, count in counts.items():
        of_case[cases[index]] += count
    assert all(abs(count - 300) < 45 for count in of_case.values())
    assert all(abs(counts[index] - 75) < 45 for index in range(4))
    _, targets = next(training_batches(examples, first=0, last=1, **settings))
    assert targets.shape == (3, 2)


def test_a_grid_that_fits_is_always_centred_and_needs_no_weights():
    examples = _examples(size=5)
    assert {(d.top, d.left) for d in plan_batch(examples, 0, **{**SETTINGS, 'crop': 7})} == {
        (-1, -1)
    }
    assert not examples._centres


class SlowGrid(ArrayGrid):
    def crop(self, *args):
        time.sleep(0.002)
        return super().crop(*args)


def test_reading_ahead_is_bounded_and_in_order():
    grids = [SlowGrid(str(i), np.full((5, 5, 1), i, np.float32)) for i in range(4)]
    examples = Examples(grids, np.arange(4.0), list('abcd'))
    settings = {**SETTINGS, 'draw': 'slides'}
    batches = training_batches(examples, first=0, last=100, ahead=3, **settings)
    for _ in range(4):
        codes, targets = next(batches)
        np.testing.assert_array_equal(codes[:, 2, 2, 0], targets)
    batches.close()
    assert sum(grid.crops_read for grid in grids) <= (4 + 3) * 8


def test_an_error_in_reading_reaches_the_caller():
    examples = _examples()
    del examples.grids[0].codes
    with pytest.raises(AttributeError):
        list(training_batches(examples, first=0, last=20, **SETTINGS))


@pytest.mark.parametrize(
    ('grids', 'targets', 'cases', 'message'),
    [
        (random_grids(2), np.zeros(3), 'ab', '2 grids, 3 targets and 2 case_ids'),
        (random_grids(2), np.zeros(2), 'a', '2 grids, 2 targets and 1 case_ids'),
        ([], np.zeros(0), '', 'at least one'),
        (random_grids(2), np.array([0, np.nan]), 'ab', 'finite'),
        (random_grids(2), np.array([[1, 1], [np.inf, 0]]), 'ab', 'finite'),
        (random_grids(1) + random_grids(1, code_size=4), np.zeros(2), 'ab', r'\[3, 4\]'),
    ],
)
def test_examples_that_do_not_go_together_are_refused(grids, targets, cases, message):
    with pytest.raises(ValueError, match=message):
        Examples(grids, targets, list(cases))


def test_the_fingerprint_tells_examples_apart():
    assert _examples().fingerprint() == _examples().fingerprint()
    assert _examples().fingerprint() != _examples(seed=5).fingerprint()  # other codes
    assert _examples().fingerprint() != _examples(prefix='other').fingerprint()
    flipped = _examples(targets=1 - np.arange(6) % 2)
    assert _examples().fingerprint() != flipped.fingerprint()
    assert _examples().fingerprint() != _examples(cases=list('abcdee')).fingerprint()
