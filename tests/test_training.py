import dataclasses
import json

import jax
import numpy as np
import pytest
from array_grid import ArrayGrid, random_grids

from nic_jax import devices, schedules
from nic_jax.classifiers.batches import Examples
from nic_jax.classifiers.losses import kernel_penalty, kernels, validation
from nic_jax.classifiers.models import build_network
from nic_jax.classifiers.prediction import compile_forward, predict
from nic_jax.classifiers.steps import compile_step
from nic_jax.classifiers.trained import TrainSettings, initial_variables, load_trained
from nic_jax.classifiers.training import train
from nic_jax.evaluation.survival import concordance

SETTINGS = TrainSettings(crop=9, batch=8, epochs=4, versions=(0, 5))
CNN = {'widths': (8,), 'strides': (2,), 'dense': 8, 'momentum': 0.9, 'dropout': 0.1}


def _examples(grids, targets):
    return Examples(grids, targets, [grid.slide_id for grid in grids])


def _spotted(count, *, prefix, seed):
    """Class 1 has three cells of another kind somewhere; the target is their number, jittered."""
    grids = random_grids(count, prefix=prefix, seed=seed)
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    for grid, label in zip(grids, labels, strict=True):
        grid.codes *= 0.1
        for y, x in rng.integers(2, 7, (3 * label, 2)):
            grid.codes[y, x] = 2
    return grids, labels


def _classification(count=32, prefix='train', seed=0):
    return _examples(*_spotted(count, prefix=prefix, seed=seed))


def _regression(count=32, prefix='train', seed=0):
    grids, labels = _spotted(count, prefix=prefix, seed=seed)
    return _examples(grids, 1000 + 50.0 * labels)


def _survival(count=32, prefix='train', seed=0):
    """Cases of two slides each; those with the spots die ten times as soon, every fourth lives."""
    grids, labels = _spotted(count, prefix=prefix, seed=seed)
    rng = np.random.default_rng(seed)
    first = np.arange(count) // 4 * 4 + np.arange(count) % 2  # of the four, 0 and 2 are one case
    times = (np.where(labels, 3.0, 30.0) * rng.uniform(0.9, 1.1, count))[first]
    events = (first % 8 > 0).astype(float)
    return Examples(grids, np.stack([times, events], 1), [f'{prefix}_case_{k}' for k in first])


def _no_deaths(count, prefix='train'):
    examples = _survival(count, prefix)
    return dataclasses.replace(examples, targets=examples.targets * [1, 0])


MAKE = {'classification': _classification, 'regression': _regression, 'survival': _survival}


def _train(folder, *, task='classification', seed=0, settings=SETTINGS, **kwargs):
    make = MAKE.get(task, _classification)
    return train(
        **{
            'train': make(),
            'valid': make(12, 'valid', 1),
            'task': task,
            'classes': 2 if task == 'classification' else 1,
            'model': 'cnn',
            'fields': CNN,
            'settings': settings,
            'seed': seed,
            'folder': folder,
            **kwargs,
        }
    )


def _same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)
    return True


def test_a_toy_classification_is_learnt(tmp_path):
    trained = _train(
        tmp_path, settings=dataclasses.replace(SETTINGS, epochs=12, checkpoint_every=12)
    )
    test = _classification(40, 'test', 2)
    probabilities = predict(trained, test.grids)
    assert (probabilities.argmax(1) == test.targets).mean() > 0.9
    best = trained.history[trained.best_epoch]
    assert best['valid_loss'] == min(row['valid_loss'] for row in trained.history)
    assert best['valid_accuracy'] > 0.9


def test_a_toy_regression_is_learnt_in_its_own_units(tmp_path):
    trained = _train(
        tmp_path,
        task='regression',
        settings=dataclasses.replace(SETTINGS, epochs=12, checkpoint_every=12),
    )
    test = _regression(40, 'test', 2)
    values = predict(trained, test.grids)[:, 0]
    assert np.abs(values - test.targets).mean() < 12
    assert trained.offset == 1025
    assert trained.scale == 25


def test_a_toy_survival_is_learnt(tmp_path):
    trained = _train(
        tmp_path,
        task='survival',
        settings=dataclasses.replace(SETTINGS, epochs=12, checkpoint_every=12),
    )
    assert (trained.offset, trained.scale, trained.classes) == (0, 1, 1)
    test = _survival(40, 'test', 2)
    risks = predict(trained, test.grids)[:, 0]
    # Higher dies sooner.
    assert concordance(*test.targets.T, risks).value > 0.7
    assert trained.history[trained.best_epoch]['valid_concordance'] > 0.7


def test_standardisation_knows_the_training_targets_only(tmp_path):
    valid = _regression(12, 'valid', 1)
    valid = _examples(valid.grids, valid.targets * 7)
    settings = dataclasses.replace(SETTINGS, epochs=1)
    trained = _train(tmp_path, task='regression', valid=valid, settings=settings)
    assert (trained.offset, trained.scale) == (1025, 25)


class Stop(Exception):  # noqa: N818 - not an error: what a user's interrupt does
    pass


@pytest.mark.parametrize('schedule', ['plateau', 'cosine'])
@pytest.mark.parametrize('checkpoint_every', [1, 2])
def test_an_interrupted_training_ends_as_an_unbroken_one(tmp_path, schedule, checkpoint_every):
    settings = dataclasses.replace(
        SETTINGS, epochs=6, schedule=schedule, patience=1, checkpoint_every=checkpoint_every
    )
    reports = []
    unbroken = _train(tmp_path / 'a', settings=settings, report=reports.append)

    def stop(record):
        if record['epoch'] == 2:
            raise Stop

    with pytest.raises(Stop):
        _train(tmp_path / 'b', settings=settings, report=stop)
    assert not (tmp_path / 'b' / 'classifier.json').exists()
    later = []
    resumed = _train(tmp_path / 'b', settings=settings, report=later.append)
    assert [record['epoch'] for record in later] == [2, 3, 4, 5][checkpoint_every == 1 :]
    assert _same(resumed.variables, unbroken.variables)
    for a, b in zip(resumed.history, unbroken.history, strict=True):
        assert {**a, 'steps_per_s': 0} == {**b, 'steps_per_s': 0}
    assert [{**r} for r in unbroken.history] == reports
    assert sorted(path.name for path in (tmp_path / 'b').iterdir()) == [
        'classifier.json',
        'weights',
    ]


def test_an_interrupted_training_of_scaled_codes_goes_on_too(tmp_path):
    options = {'task': 'survival', 'model': 'mean', 'fields': {'dropout': 0.1}}

    def stop(record):
        if record['epoch'] == 1:
            raise Stop

    unbroken = _train(tmp_path / 'a', **options)
    with pytest.raises(Stop):
        _train(tmp_path / 'b', **options, report=stop)
    resumed = _train(tmp_path / 'b', **options)
    assert _same(resumed.variables, unbroken.variables)
    assert _same(load_trained(tmp_path / 'b').variables, unbroken.variables)


def test_the_seed_decides_the_weights(tmp_path):
    settings = dataclasses.replace(SETTINGS, epochs=1)
    first, again, other = (
        _train(tmp_path / name, seed=seed, settings=settings)
        for name, seed in (('a', 1), ('b', 1), ('c', 2))
    )
    assert _same(first.variables, again.variables)
    kernel = first.variables['params']['output']['kernel']
    assert (kernel != other.variables['params']['output']['kernel']).any()


def test_a_finished_folder_is_loaded_and_others_settings_refused(tmp_path):
    settings = dataclasses.replace(SETTINGS, epochs=1)
    first = _train(tmp_path, settings=settings, identity={'fold': 0})

    def fail(record):
        raise AssertionError('trained again')

    again = _train(tmp_path, settings=settings, identity={'fold': 0}, report=fail)
    loaded = load_trained(tmp_path)
    for other in (again, loaded):
        assert _same(first.variables, other.variables)
        for field in ('settings', 'history', 'offset', 'scale', 'identity', 'best_epoch'):
            assert getattr(other, field) == getattr(first, field)
    changed = dataclasses.replace(settings, l2=0.5)
    with pytest.raises(ValueError, match=r'identity.fold \(there 0, now 1\), settings.l2') as error:
        _train(tmp_path, settings=changed, identity={'fold': 1})
    assert 'seed' not in str(error.value)
    with pytest.raises(ValueError, match=r'examples\.train'):
        _train(tmp_path, settings=settings, identity={'fold': 0}, train=_classification(30))


def test_an_unfinished_folder_of_other_settings_is_refused(tmp_path):
    def stop(record):
        raise Stop

    with pytest.raises(Stop):
        _train(tmp_path, report=stop)
    with pytest.raises(ValueError, match='seed'):
        _train(tmp_path, report=stop, seed=5)
    with pytest.raises(ValueError, match='no finished classifier'):
        load_trained(tmp_path)


def test_one_program_each_for_training_and_prediction(tmp_path):
    compile_forward.cache_clear()
    settings = dataclasses.replace(SETTINGS, epochs=3, schedule='cosine')
    trained = _train(tmp_path / 'a', settings=settings)
    _train(tmp_path / 'b', settings=settings, seed=1)  # Another fold or seed compiles nothing.
    predict(trained, random_grids(5), batch=8)
    mesh = devices.data_mesh()
    step = compile_step(trained.network, 'classification', settings.l2, 0.0, mesh)
    assert step._cache_size() == 1
    assert compile_forward(trained.network, 'classification', mesh)._cache_size() == 1


def test_the_penalty_is_on_kernels_only():
    fields = CNN | {'input_width': 2, 'pooling': 'attention'}
    network = build_network('cnn', fields, outputs=2, crop=9)
    params = initial_variables(network, jax.random.key(0), crop=9, code_size=3)['params']
    marked = {
        '.'.join(key.key for key in path)
        for path, value in jax.tree.leaves_with_path(kernels(params))
        if value
    }
    assert marked == {
        'projection.kernel',
        'layers_0.depthwise_kernel',
        'layers_0.pointwise.kernel',
        'attention.kernel',
        'hidden.kernel',
        'output.kernel',
    }
    by_hand = sum(float((value**2).sum()) for value in jax.tree.leaves(params) if value.ndim > 1)
    np.testing.assert_allclose(kernel_penalty(params), by_hand, rtol=1e-5)


@pytest.mark.parametrize('setting', ['l2', 'weight_decay'])
def test_regularisation_shrinks_the_kernels(tmp_path, setting):
    free, held = (
        _train(tmp_path / str(value), settings=dataclasses.replace(SETTINGS, **{setting: value}))
        for value in (getattr(SETTINGS, setting), 1.0)
    )
    norms = [float(kernel_penalty(trained.variables['params'])) for trained in (free, held)]
    assert norms[1] < 0.9 * norms[0]


@pytest.mark.parametrize(
    ('losses', 'rate'),
    [
        ([], 1e-2),
        ([3, 2, 1], 1e-2),
        ([3, 2, 2, 2], 1e-3),  # Two epochs that are not better than the best.
        ([3, 2, 2, 2, 2, 1, 1], 1e-3),
        ([1, 1, 1, 1, 1, 1, 1], 1e-5),
        ([1, 1, 1, 1, 1, 1, 1, 1, 1], None),
    ],
)
def test_the_plateau_divides_by_ten_and_ends(losses, rate):
    got = schedules.plateau(losses, initial=1e-2, patience=2, minimum=1e-5)
    assert got == rate or np.isclose(got, rate, rtol=1e-9)


def test_a_plateau_stops_the_training_early(tmp_path):
    valid = _classification(12, 'valid', 1)
    valid = _examples(valid.grids, 1 - valid.targets)  # What is learnt makes it worse.
    settings = dataclasses.replace(SETTINGS, epochs=50, patience=1, min_learning_rate=1e-3)
    trained = _train(tmp_path, settings=settings, valid=valid)
    assert len(trained.history) < 50
    rates = [row['learning_rate'] for row in trained.history]
    assert min(rates) == pytest.approx(1e-3)


def test_the_cosine_ends_at_the_minimum():
    rates = [schedules.cosine(step, steps=5, initial=1.0, minimum=0.2) for step in range(5)]
    np.testing.assert_allclose(rates[::2], [1, 0.6, 0.2])
    assert rates == sorted(rates, reverse=True)


def test_validation_is_balanced_over_classes():
    outputs = np.array([[0.9, 0.1], [0.8, 0.2], [0.6, 0.4], [0.7, 0.3]])
    loss, accuracy = validation(
        outputs, np.array([0, 0, 0, 1]), 'classification', case_ids=list('abcd')
    )
    assert accuracy == 0.5
    expected = (-np.log([0.9, 0.8, 0.6]).mean() - np.log(0.3)) / 2
    np.testing.assert_allclose(loss, expected)
    regression = validation(np.ones((3, 1)), np.arange(3.0), 'regression', case_ids=list('abc'))
    assert regression == pytest.approx((2 / 3, 0))


def test_validation_of_survival_is_over_patients():
    targets = np.array([[1.0, 1], [2, 1], [1, 1], [3, 0]])
    risks = np.array([[4.0], [1], [-2], [0]])  # patient a: 4 and -2, the mean 1
    loss, index = validation(risks, targets, 'survival', case_ids=list('abac'))
    at_risk = np.exp([1.0, 1, 0])  # a, b, c
    expected = np.mean([np.log(at_risk.sum()) - 1, np.log(at_risk[1:].sum()) - 1])
    np.testing.assert_allclose(loss, expected, rtol=1e-6)  # float32
    assert index == pytest.approx((0.5 + 1 + 1) / 3)  # a and b have the same risk


def test_a_loss_that_is_not_finite_stops_with_its_step(tmp_path):
    grids, labels = _spotted(32, prefix='train', seed=0)
    for grid in grids:
        grid.codes[:] = np.nan
    with pytest.raises(FloatingPointError, match=r'nan at step 0, learning rate 0\.01: lower'):
        _train(tmp_path, train=_examples(grids, labels))


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'task': 'ranking', 'classes': 2}, 'task='),
        ({'task': 'regression', 'classes': 2}, 'must be 1'),
        ({'classes': 3}, r'no training slide of classes \[2\]'),
        ({'train': _examples(random_grids(2), np.array([0, 5]))}, 'from 0 to 1'),
        ({'train': _examples(random_grids(2), np.array([0.0, 1.0]))}, 'must be integers'),
        ({'valid': _classification(2)}, 'both training and validation: train_0, train_1'),
        ({'valid': _examples(random_grids(2, code_size=5), np.arange(2))}, 'of 5'),
        ({'settings': dataclasses.replace(SETTINGS, crop=2)}, 'too small'),
        ({'model': 'svm'}, "no model 'svm'; there are spatial, cnn"),
        ({'fields': {'heads': 2}}, 'cnn has no heads; it has widths'),
        ({'task': 'survival', 'classes': 2}, 'must be 1 for survival'),
        ({'task': 'survival', 'train': _survival(12)}, '6 training cases are fewer than the batch'),
        ({'task': 'survival', 'train': _no_deaths(32)}, 'no training case has died'),
        ({'task': 'survival', 'valid': _no_deaths(12, 'valid')}, 'no validation case has died'),
    ],
)
def test_what_does_not_go_together_is_refused(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        _train(tmp_path, **change)


def test_constant_targets_are_refused(tmp_path):
    constant = _examples(random_grids(4), np.full(4, 3.0))
    with pytest.raises(ValueError, match=r'all 4 training targets are 3\.0'):
        _train(tmp_path, task='regression', train=constant)


def test_settings_are_checked():
    for change in ({'schedule': 'step'}, {'batch': 0}, {'versions': ()}, {'versions': (8,)}):
        with pytest.raises(ValueError, match=next(iter(change))):
            dataclasses.replace(SETTINGS, **change)


def test_the_record_is_plain_json(tmp_path):
    _train(tmp_path, settings=dataclasses.replace(SETTINGS, epochs=1))
    record = json.loads((tmp_path / 'classifier.json').read_text())
    assert record['settings']['versions'] == [0, 5]
    assert record['network']['widths'] == [8]
    assert record['result']['history'][0]['epoch'] == 0


def test_grids_of_tissue_are_cropped_at_the_tissue(tmp_path):
    encoded = np.zeros((30, 30), bool)
    encoded[15:25, 3:13] = True
    rng = np.random.default_rng(0)

    def grids(prefix, count):
        return [
            ArrayGrid(f'{prefix}{i}', rng.normal(i % 2, 1, (30, 30, 3)), encoded)
            for i in range(count)
        ]

    trained = _train(
        tmp_path,
        train=_examples(grids('a', 16), np.arange(16) % 2),
        valid=_examples(grids('b', 8), np.arange(8) % 2),
        settings=dataclasses.replace(SETTINGS, epochs=8),
    )
    probabilities = predict(trained, grids('c', 10), crops=3)
    assert (probabilities.argmax(1) == np.arange(10) % 2).mean() >= 0.8
