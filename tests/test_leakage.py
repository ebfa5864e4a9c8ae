"""Test slides decide nothing: with other labels and other codes, every trained weight is the same.

Bit for bit, so that no share of them, however small, is in weights, in the scaling of codes, in the
plateau, or in the choice of the best epoch.
"""

import dataclasses

import jax
import numpy as np
import pytest
from bags import BAGS, SMALL, compile_quickly
from small_cohort import SETTINGS, C, cohort, grids_of, one_fold, targets_of

from nic_jax.classifiers.cross_validation import cross_validate
from nic_jax.classifiers.models import NETWORKS
from nic_jax.classifiers.trained import load_trained

EPOCHS = 4
TRAINING = dataclasses.replace(SETTINGS, epochs=EPOCHS, patience=1, checkpoint_every=EPOCHS)


@pytest.fixture(scope='module', autouse=True)
def quick_compilation():
    yield from compile_quickly()


def _with_others(dataset, indices):
    """The same cohort, but for the labels and codes of some slides."""
    rng = np.random.default_rng(1)
    grids, targets = list(dataset.grids), dataset.targets.copy()
    others = grids_of(rng, [grids[index].slide_id for index in indices])
    for index, other in zip(indices, others, strict=True):
        other.codes = 5 + 100 * other.codes
        grids[index] = other
    if dataset.task == 'classification':
        targets[indices] = 1 - targets[indices]
    else:
        targets[indices] = 3 * targets_of(dataset.task, rng, len(indices))
    return dataclasses.replace(dataset, grids=grids, targets=targets)


def _train(dataset, model, folder):
    rows = cross_validate(
        dataset,
        model=model,
        fields=SMALL[model],
        settings=TRAINING,
        seeds=(0,),
        folder=folder,
        report=lambda *record: None,
        predict_unlabelled=False,
    )
    return load_trained(folder / 'seed_0' / 'fold_0'), rows


def _leaves(trained):
    return {
        jax.tree_util.keystr(path): np.asarray(leaf)
        for path, leaf in jax.tree.leaves_with_path(trained.variables)
    }


@pytest.mark.parametrize('task', ['classification', 'regression', 'survival'])
@pytest.mark.parametrize('model', NETWORKS)
def test_test_slides_decide_nothing(tmp_path, model, task):
    fold = one_fold()
    dataset = cohort(task, folds=(fold,), unlabelled=0)
    first, rows = _train(dataset, model, tmp_path / 'first')
    other, other_rows = _train(_with_others(dataset, fold.test), model, tmp_path / 'other')
    expected = _leaves(first)
    assert expected
    for name, leaf in _leaves(other).items():
        np.testing.assert_array_equal(leaf, expected.pop(name), err_msg=name)
    assert not expected
    if model in BAGS:
        assert first.variables['scaling']['scaling']['mean'].shape == (C,)
    for field in ('best_epoch', 'offset', 'scale'):
        assert getattr(first, field) == getattr(other, field)
    for before, now in zip(first.history, other.history, strict=True):
        assert before | {'steps_per_s': 0} == now | {'steps_per_s': 0}
    # That they differ shows in what is predicted of them, and there alone.
    target = 'time' if task == 'survival' else 'label'
    for before, now in zip(rows, other_rows, strict=True):
        assert before[target] != now[target]
        score = 'score_low' if task == 'classification' else 'prediction'
        assert before[score] != now[score]


@pytest.mark.parametrize('role', ['train', 'valid'])
def test_other_slides_do_decide(tmp_path, role):
    """What is compared above can differ: the same change to slides that train or validate."""
    fold = one_fold()
    dataset = cohort('regression', folds=(fold,), unlabelled=0)
    first, _ = _train(dataset, 'mean', tmp_path / 'first')
    changed = _with_others(dataset, getattr(fold, role))
    other, _ = _train(changed, 'mean', tmp_path / 'other')
    losses = [[row['valid_loss'] for row in trained.history] for trained in (first, other)]
    assert losses[0] != losses[1]
