"""A small cohort of grids in memory with labels of every task, for tests."""

import numpy as np
from array_grid import ArrayGrid

from nic_jax.classifiers.cross_validation import Dataset
from nic_jax.classifiers.trained import TrainSettings
from nic_jax.folds import Fold, rotate_folds

SIDE, C, CASES = 6, 3, 12
# Enough to train: one small step after another, of all that there is.
SETTINGS = TrainSettings(
    crop=SIDE, batch=4, epochs=2, steps_per_epoch=2, versions=(0, 3), test_crops=1
)


def targets_of(task, rng, count):
    """Random labels: classes 0 and 1 in turn, values, or times of which every third is censored."""
    if task == 'classification':
        return np.arange(count) % 2
    if task == 'regression':
        return 50 + 10 * rng.normal(size=count)
    return np.stack([rng.uniform(1, 9, count), np.arange(count) % 3 > 0], axis=1).astype(float)


def grids_of(rng, names):
    """Slides with background at one side, their codes random."""
    grids = []
    for name in names:
        encoded = np.ones((SIDE, SIDE), bool)
        encoded[:, -1] = False
        codes = rng.normal(size=(SIDE, SIDE, C)).astype(np.float32)
        grids.append(ArrayGrid(name, codes, encoded))
    return grids


def cohort(task='classification', *, parts=3, unlabelled=2, seed=0, **changes):
    """A Dataset of 12 cases, the first two of which have two slides, and some without a label.

    Of slide s0, s1, … the cases are c0, c1, …; those of the second slides of c0 and c1 come last.
    """
    rng = np.random.default_rng(seed)
    labelled = CASES + 2
    cases = [f'c{k % CASES}' for k in range(labelled)] + [f'new{k}' for k in range(unlabelled)]
    targets = targets_of(task, rng, CASES)[np.arange(labelled) % CASES]
    blank = np.zeros((unlabelled, *targets.shape[1:]), targets.dtype)
    fields = {
        'label_name': 'grade',
        'task': task,
        'grids': grids_of(rng, [f's{k}' for k in range(labelled + unlabelled)]),
        'case_ids': cases,
        'targets': np.concatenate([targets, blank]),
        'has_label': np.arange(labelled + unlabelled) < labelled,
        'class_names': ('low', 'high') if task == 'classification' else None,
        'folds': rotate_folds(
            cases[:labelled], targets, task=task, parts=parts, train_parts=1, seed=0
        ),
        'lesion_areas': None,
        'groups': {},
        'versions': tuple(range(8)),
        'identity': {'encoder': 'some'},
    }
    return Dataset(**fields | changes)


def one_fold():
    """Eight slides train, three validate and three test; second slides go with the first."""
    train = [0, 1, 2, 3, 4, 5, 12, 13]
    return Fold(np.array(train), np.array([6, 7, 8]), np.array([9, 10, 11]))
