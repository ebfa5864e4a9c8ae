"""The training loop of encoders: exact resuming, schedules, what stops it; and storage."""

import dataclasses
import itertools
import json
import os
import pathlib
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy_patches import NETWORK, bars, noisy, same, source

from nic_jax.encoders import batches, storage, training
from nic_jax.encoders.conv import conv_encoder
from nic_jax.encoders.encoder import EncoderError
from nic_jax.encoders.objective import Objective, initial_encoder
from nic_jax.encoders.supervised import supervised
from nic_jax.encoders.training import EncoderSettings, train

TINY = {**NETWORK, 'widths': (3,), 'dense': 0}
SETTINGS = EncoderSettings(batch=16, steps=25, epoch_steps=10, learning_rate=1e-2, patience=1)


class StopError(Exception):
    """What a kill is to a training."""


@pytest.fixture(scope='module', autouse=True)
def _quick_to_compile():
    jax.config.update('jax_disable_most_optimizations', True)
    yield
    jax.config.update('jax_disable_most_optimizations', False)


def ignore(record):
    del record


def train_supervised(folder, *, seed=0, report=ignore, objective=None, draw=None, **changes):
    feed = batches.labelled([source(200, 40)], batch=16, seed=seed, devices=1)
    return train(
        objective or supervised(TINY, 2, augment=noisy),
        batches=draw or feed.train,
        valid=feed.valid,
        settings=dataclasses.replace(SETTINGS, **changes),
        seed=seed,
        folder=folder,
        report=report,
    )


def history_of(folder):
    """The stored history without what a clock measured."""
    records = json.loads((folder / training.HISTORY).read_text())
    return [{k: v for k, v in record.items() if k != 'images_per_s'} for record in records]


def test_a_training_that_was_killed_ends_as_an_unbroken_one(tmp_path):
    reports = []
    whole = train_supervised(tmp_path / 'whole', report=reports.append)
    assert [record['step'] for record in reports] == [10, 20, 25]  # the last epoch is shorter
    assert {'loss', 'accuracy', 'valid_loss', 'valid_accuracy', 'learning_rate'} < set(reports[0])

    def kill(record):  # after the checkpoint of an epoch
        if record['step'] == 20:
            raise StopError

    with pytest.raises(StopError):
        train_supervised(tmp_path / 'broken', report=kill)
    later = []
    resumed = train_supervised(tmp_path / 'broken', report=later.append)
    assert [record['step'] for record in later] == [25]
    assert same(whole, resumed)
    assert history_of(tmp_path / 'broken') == history_of(tmp_path / 'whole')

    # What is finished is but read: no batch is drawn.
    assert same(whole, train_supervised(tmp_path / 'broken', draw=None, report=kill))


def test_a_kill_within_an_epoch_loses_that_epoch_alone(tmp_path):
    feed = batches.labelled([source(200, 40)], batch=16, seed=0, devices=1)
    whole = train_supervised(tmp_path / 'whole', steps=20)
    asked = []

    def draw(k):
        asked.append(k)
        if k == 15 and asked.count(15) == 1:
            raise StopError
        return feed.train(k)

    with pytest.raises(StopError):
        train_supervised(tmp_path / 'broken', draw=draw, steps=20)
    # As if it had been killed between writing the history and the checkpoint.
    path = tmp_path / 'broken' / training.HISTORY
    path.write_text(json.dumps([*json.loads(path.read_text()), {'step': 20}]))
    asked.remove(15)
    asked.append(15)
    first = len(asked)
    resumed = train_supervised(tmp_path / 'broken', draw=draw, steps=20)
    assert sorted(asked[first:]) == list(range(10, 20))
    assert same(whole, resumed)
    assert history_of(tmp_path / 'broken') == history_of(tmp_path / 'whole')


def test_the_seed_decides_and_nothing_is_compiled_twice(tmp_path):
    traced = itertools.count()
    objective = supervised(TINY, 2, augment=noisy)

    def step(*args):
        next(traced)
        return objective.step(*args)

    def validate(*args):
        next(traced)
        return objective.validate(*args)

    counting = dataclasses.replace(objective, step=step, validate=validate)
    first = train_supervised(tmp_path / 'a', objective=counting)
    assert next(traced) == 2  # one each, over three epochs of different lengths
    assert not same(first, train_supervised(tmp_path / 'b', objective=counting, seed=1))


def counter(validation=lambda w: 1.0 + 0 * w, *, loss=lambda w: w, **changes):
    """An objective whose one weight counts steps; what it makes of that is told."""

    def step(state, batch, key, rate):
        del key
        w = state['params']['w'] + 1 + 0 * batch['patches'].mean()
        state = {**state, 'params': {'w': w}}
        return state, {'loss': loss(w), 'rate': rate}

    return Objective(
        **{
            'name': 'counter',
            'network': {},
            'initial': lambda key: {
                'params': {'w': jnp.zeros(())},
                'batch_stats': {'s': jnp.zeros(1)},
                'optimizer': jnp.zeros(1),
            },
            'step': step,
            'validate': lambda variables, batch, key: {
                'loss': validation(variables['params']['w'])
            },
            'encoder': None,
            **changes,
        }
    )


def count(objective, folder, **changes):
    """Trains a counter: its variables, and the reports."""
    records, batch = [], {'patches': np.zeros((2, 1, 1, 1), np.float32)}
    settings = EncoderSettings(
        **{'batch': 2, 'steps': 40, 'epoch_steps': 1, 'patience': 2, **changes}
    )
    weights = train(
        objective,
        batches=lambda k: batch,
        valid=[lambda: batch],
        settings=settings,
        seed=0,
        folder=folder,
        report=records.append,
    )
    return {kind: float(each['params']['w']) for kind, each in weights.items()}, records


def test_learning_rate_falls_tenfold_on_plateaus_and_training_stops_at_the_minimum(tmp_path):
    weights, records = count(counter(), tmp_path, learning_rate=1e-3, min_learning_rate=1e-5)
    # The first validation is a gain; then every two without one divide the rate by ten.
    expected = [1e-3] * 3 + [1e-4] * 2 + [1e-5] * 2
    np.testing.assert_allclose([record['learning_rate'] for record in records], expected, rtol=1e-6)
    np.testing.assert_allclose([record['rate'] for record in records], expected, rtol=1e-6)
    assert weights == {'best': 7, 'last': 7}  # of equals the latest


def test_gains_keep_the_learning_rate(tmp_path):
    rises = counter(lambda w: w, watched='share', higher_is_better=True)
    rises = dataclasses.replace(
        rises, validate=lambda variables, batch, key: {'share': variables['params']['w']}
    )
    weights, records = count(rises, tmp_path / 'a', steps=8)
    assert {record['learning_rate'] for record in records} == {1e-3}
    assert weights == {'best': 8, 'last': 8}
    # The same is a loss where lower is better.
    falls = dataclasses.replace(rises, higher_is_better=False)
    weights, records = count(falls, tmp_path / 'b', steps=4)
    assert [record['learning_rate'] for record in records] == [1e-3] * 3 + [1e-4]
    assert weights == {'best': 1, 'last': 4}


def test_best_and_last_weights(tmp_path):
    objective = counter(lambda w: (w - 6) ** 2)
    settings = {'steps': 10, 'epoch_steps': 2, 'schedule': 'constant'}
    weights, records = count(objective, tmp_path / 'whole', **settings)
    assert weights == {'best': 6, 'last': 10}
    assert [record['valid_loss'] for record in records] == [16, 4, 0, 4, 16]
    assert [record['loss'] for record in records] == [1.5, 3.5, 5.5, 7.5, 9.5]  # of its steps

    stop = dataclasses.replace(objective, check=lambda history: 'enough' * (len(history) == 4))
    with pytest.raises(FloatingPointError, match='step 8: enough'):
        count(stop, tmp_path / 'broken', **settings)
    weights, _ = count(objective, tmp_path / 'broken', **settings)  # resumed past the best
    assert weights == {'best': 6, 'last': 10}


def test_the_best_weights_are_of_their_own_step(tmp_path):
    """No view of buffers that later steps write into."""
    reports = []
    weights = train_supervised(
        tmp_path / 'a', steps=40, learning_rate=1.0, schedule='constant', report=reports.append
    )
    accuracies = [record['valid_accuracy'] for record in reports]
    best = 10 * (1 + max(range(4), key=lambda epoch: (accuracies[epoch], epoch)))
    shorter = train_supervised(tmp_path / 'b', steps=best, learning_rate=1.0, schedule='constant')
    assert same(weights['best'], shorter['last'])


def test_cosine_and_constant_rates():
    settings = EncoderSettings(steps=100, schedule='cosine', learning_rate=0.5)
    rate = training._rates(settings, np.zeros(0))
    # 3 % of the steps rise, in even parts; the last step's rate is zero.
    expected = [0.5 / 3, 1 / 3, 0.5]
    expected += [0.25 * (1 + np.cos(np.pi * step / 96)) for step in range(97)]
    np.testing.assert_allclose([rate(step) for step in range(100)], expected, atol=1e-12)
    assert training._rates(dataclasses.replace(settings, steps=1), [])(0) == 0.5

    constant = training._rates(dataclasses.replace(settings, schedule='constant'), [1.0] * 50)
    assert constant(0) == constant(99) == 0.5


@pytest.mark.parametrize(
    ('objective', 'where'),
    [
        (counter(loss=lambda w: jnp.log(w - 3)), "encoder's loss between steps 0 and 2"),
        (counter(lambda w: w / 0.0), 'loss of the validation at step 2'),
    ],
)
def test_what_is_not_finite_stops_with_the_remedy(objective, where, tmp_path):
    message = f'{where} is not finite, at learning rate 0.001; lower the learning rate'
    with pytest.raises(FloatingPointError, match=message):
        count(objective, tmp_path, epoch_steps=2)
    assert not (tmp_path / training.HISTORY).exists()


def test_an_objective_may_stop_the_training_and_it_stays_stopped(tmp_path):
    seen = []

    def check(history):
        seen.append(history)
        return 'it has collapsed; lower the rate' if len(history) == 3 else ''

    objective = counter(lambda w: 2 * w, check=check)
    for _ in range(2):  # run again, it says the same and takes no step
        with pytest.raises(FloatingPointError, match='step 3: it has collapsed; lower the rate'):
            count(objective, tmp_path, steps=3, schedule='constant')
    assert seen[-1] == [{'loss': 2}, {'loss': 4}, {'loss': 6}]


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'batch': 0}, 'batch=0 must be at least 1'),
        ({'epoch_steps': 0}, 'epoch_steps=0'),
        ({'patience': 0}, 'patience=0'),
        ({'learning_rate': 1e-6}, 'min_learning_rate=1e-05 must be positive'),
        ({'min_learning_rate': 0.0}, 'must be positive'),
        ({'schedule': 'step'}, "schedule='step' must be one of plateau, cosine, constant"),
        ({'weight_decay': -1.0}, 'must not be negative'),
    ],
)
def test_settings_are_checked(change, message):
    with pytest.raises(ValueError, match=message):
        EncoderSettings(**change)


_ON_DEVICES = """
import pathlib, sys
import jax
jax.config.update('jax_num_cpu_devices', int(sys.argv[2]))
jax.config.update('jax_disable_most_optimizations', True)
import numpy as np
from toy_patches import NETWORK, noisy, source
from nic_jax import devices
from nic_jax.encoders import batches
from nic_jax.encoders.supervised import supervised
from nic_jax.encoders.training import EncoderSettings, train

folder, mesh = pathlib.Path(sys.argv[1]), devices.data_mesh()
feed = batches.labelled([source(100, 40)], batch=16, seed=0, devices=mesh.size)
objective = supervised({**NETWORK, 'widths': (3,), 'dense': 0}, 2, augment=noisy)
# So small a rate that Adam does not blow rounding up into the next step.
settings = EncoderSettings(batch=16, steps=4, epoch_steps=2, learning_rate=1e-4)
run = dict(
    batches=feed.train, valid=feed.valid, seed=0, folder=folder, report=lambda record: None)
weights = train(objective, settings=settings, **run)['last']
named = {
    '.'.join(key.key for key in path): leaf for path, leaf in jax.tree.leaves_with_path(weights)}
np.savez(folder / 'weights.npz', **named)
if mesh.size > 1:
    try:
        train(objective, settings=EncoderSettings(batch=15), **run)
    except ValueError as error:
        assert 'not a multiple of the 2 devices' in str(error), error
    else:
        raise AssertionError
    everywhere = devices.replicated(mesh)
    state = jax.device_put(jax.jit(objective.initial)(jax.random.key(0)), everywhere)
    batch = devices.put_batch(feed.train(0), mesh)
    step = jax.jit(objective.step, out_shardings=everywhere)
    print(step.lower(state, batch, jax.random.key(0), 1e-4).compile().as_text())
"""


def test_two_devices_give_what_one_gives_and_keep_their_patches(tmp_path):
    found, losses, home = [], [], pathlib.Path(__file__).parent
    for number in (1, 2):
        folder = tmp_path / str(number)
        folder.mkdir()
        done = subprocess.run(
            [sys.executable, '-c', _ON_DEVICES, str(folder), str(number)],
            check=True,
            capture_output=True,
            text=True,
            env=os.environ | {'PYTHONPATH': f'{home}:{home.parent}', 'JAX_PLATFORMS': 'cpu'},
        )
        found.append(dict(np.load(folder / 'weights.npz')))
        losses.append([record['loss'] for record in history_of(folder)])
    np.testing.assert_allclose(*losses, rtol=1e-5)
    # Biases that batch norm takes away again have no gradient but rounding, whose sign Adam
    # follows, and running means follow them. All else has moved by 4e-4 and agrees to 5e-7.
    free = ('conv_0.bias', 'code.bias', 'Dense_0.bias')
    assert set(found[0]) == set(found[1])
    for name, values in found[0].items():
        tolerance = 1e-3 if name.endswith(free) else 5e-5 if name.endswith('.mean') else 5e-7
        np.testing.assert_allclose(values, found[1][name], rtol=0, atol=tolerance, err_msg=name)
    assert 'num_partitions=2' in done.stdout
    assert re.search(r'all-reduce(-start)?\(', done.stdout)
    assert not re.search(r'(all-gather|all-to-all|collective-permute)(-start)?\(', done.stdout)


def some_encoder():
    variables = initial_encoder(TINY, jax.random.key(0))
    return conv_encoder('supervised', TINY, variables, mpp=0.5)


def test_a_stored_encoder_gives_the_same_codes(tmp_path):
    encoder = some_encoder()
    storage.write_encoder(tmp_path / 'supervised', encoder)
    loaded = storage.load_encoder(str(tmp_path))
    assert loaded.sha256() == encoder.sha256()
    assert (loaded.name, loaded.inputs, loaded.channels) == ('supervised', ((9, 0.5),), 1)
    patches = bars(20, 3)[0]
    codes = encoder.apply(encoder.variables, patches)
    np.testing.assert_array_equal(loaded.apply(loaded.variables, patches), codes)


def test_weights_of_another_training_are_refused(tmp_path):
    encoder = some_encoder()
    storage.write_encoder(tmp_path / 'a', encoder)
    record = tmp_path / 'a' / 'encoder' / 'encoder.json'
    record.write_text(record.read_text().replace(encoder.sha256(), '0' * 64))
    with pytest.raises(EncoderError, match='does not belong to the weights'):
        storage.read_encoder(tmp_path / 'a')


def test_a_missing_encoder_is_named_with_what_there_is(tmp_path):
    with pytest.raises(EncoderError, match='mean_rgb, nic_bigan, nic_multitask4'):
        storage.load_encoder('nonsense')
    with pytest.raises(EncoderError, match='no trained encoder'):
        storage.load_encoder(str(tmp_path))
    for name in 'ab':
        storage.write_encoder(tmp_path / name, some_encoder())
    with pytest.raises(EncoderError, match='several encoders; name one of'):
        storage.load_encoder(str(tmp_path))
    assert storage.load_encoder(str(tmp_path / 'b')).sha256() == some_encoder().sha256()
