"""Training of encoders: losses against formulas, exact resuming, plateaus, storage."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nic_jax.encoders import storage
from nic_jax.encoders.encoder import EncoderError
from nic_jax.encoders.supervised import train_supervised
from nic_jax.encoders.training import EncoderSettings, train
from nic_jax.encoders.vae import kl_divergence, train_vae

NETWORK = {
    'kind': 'conv',
    'widths': (4, 8),
    'code_size': 3,
    'dense': 8,
    'padding': 'SAME',
    'norm_after': False,
    'slope': 0.2,
    'epsilon': 1e-3,
    'input_size': 9,
    'averaged': False,
    'channels': 1,
}
SETTINGS = EncoderSettings(batch=16, steps=30, epoch_steps=10, learning_rate=1e-2)


def bars(count, seed):
    """Patches with a horizontal (0) or vertical (1) bar on noise, uint8 `[N, 9, 9, 1]`."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(2, size=count)
    patches = rng.integers(0, 60, (count, 9, 9, 1), np.uint8)
    for patch, label in zip(patches, labels, strict=True):
        place = rng.integers(2, 7)
        patch[(slice(None), place) if label else (place, slice(None))] = 255
    return {'patches': patches, 'labels': labels.astype(np.int32)}


def supervised(folder, *, report=lambda record: None, settings=SETTINGS, seed=0):
    return train_supervised(
        NETWORK,
        data=bars(400, 1),
        valid=bars(100, 2),
        classes=2,
        head=8,
        settings=settings,
        seed=seed,
        mpp=None,
        folder=folder,
        report=report,
    )


def same(left, right):
    return all(
        np.array_equal(a, b)
        for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True)
    )


def test_kl_is_the_divergence_of_normals():
    rng = np.random.default_rng(0)
    mean, log_variance = rng.normal(size=(2, 5, 7))
    # ∫ p (log p − log q) of two normals, coordinate by coordinate, in float64 on a fine grid.
    x = np.linspace(-30, 30, 200_001)
    expected = np.zeros(5)
    for row, column in np.ndindex(5, 7):
        m, v = mean[row, column], np.exp(log_variance[row, column])
        log_p = -0.5 * ((x - m) ** 2 / v + np.log(2 * np.pi * v))
        log_q = -0.5 * (x**2 + np.log(2 * np.pi))
        expected[row] += np.trapezoid(np.exp(log_p) * (log_p - log_q), x)
    got = kl_divergence(jnp.asarray(mean, jnp.float32), jnp.asarray(log_variance, jnp.float32))
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_supervised_learns_and_its_encoder_is_stored(tmp_path):
    records = []
    settings = EncoderSettings(batch=16, steps=150, epoch_steps=50, learning_rate=1e-2)
    encoder = supervised(tmp_path / 'checkpoint', settings=settings, report=records.append)
    assert [record['step'] for record in records] == [50, 100, 150]
    assert records[-1]['valid_accuracy'] > 0.95
    assert encoder.code_size == 3

    storage.write_encoder(tmp_path / 'supervised', encoder)
    loaded = storage.load_encoder(str(tmp_path))
    assert loaded.sha256() == encoder.sha256()
    patches = bars(20, 3)['patches']
    codes = encoder.apply(encoder.variables, patches)
    np.testing.assert_array_equal(loaded.apply(loaded.variables, patches), codes)


def test_resuming_gives_the_same_weights(tmp_path):
    class StopError(Exception):
        pass

    def stop(record):
        if record['step'] == 20:
            raise StopError

    whole = supervised(tmp_path / 'whole')
    with pytest.raises(StopError):
        supervised(tmp_path / 'broken', report=stop)
    resumed = supervised(tmp_path / 'broken')
    assert same(whole.variables, resumed.variables)
    assert not same(whole.variables, supervised(tmp_path / 'other', seed=1).variables)


def test_vae_reconstructs_better_than_the_mean_patch(tmp_path):
    data, valid = ({'patches': bars(count, count)['patches']} for count in (400, 100))
    encoder, decode = train_vae(
        {**NETWORK, 'widths': (16, 32), 'dense': 32, 'code_size': 8},
        decoder={'start': 16, 'widths': (16, 8)},
        data=data,
        valid=valid,
        settings=EncoderSettings(batch=32, steps=400, epoch_steps=100, learning_rate=3e-3),
        seed=0,
        mpp=None,
        folder=tmp_path,
        report=lambda record: None,
    )
    codes = encoder.apply(encoder.variables, valid['patches'])
    assert codes.shape == (100, 8)
    scaled = valid['patches'] / 127.5 - 1
    error = np.mean((np.asarray(decode(codes)) - scaled) ** 2)
    assert error < 0.5 * np.mean((scaled.mean(0) - scaled) ** 2)


def quadratic(rate_of_change):
    """A loss whose validation value falls or not as told, for the schedule's sake."""
    calls = []

    def loss(variables, batch, key, *, train):
        del key
        value = jnp.sum(variables['params']['w'] ** 2) + 0 * batch['x'].mean()
        if not train:
            calls.append(1)
            value = value * 0 + rate_of_change
        return value, (variables['batch_stats'], {'part': value})

    return loss


def run(loss, folder, **changes):
    records = []
    settings = EncoderSettings(
        **{'batch': 2, 'steps': 1000, 'epoch_steps': 1, 'patience': 2, **changes}
    )
    start = {'params': {'w': jnp.ones(2)}, 'batch_stats': {'s': jnp.zeros(1)}}
    data = {'x': np.zeros((4, 1), np.float32)}
    train(
        loss,
        start,
        data=data,
        valid=data,
        settings=settings,
        seed=0,
        folder=folder,
        report=records.append,
    )
    return records


def test_learning_rate_falls_tenfold_on_plateaus_and_training_stops_at_the_minimum(tmp_path):
    records = run(quadratic(1.0), tmp_path, learning_rate=1e-3, min_learning_rate=1e-5)
    # The first validation is a gain; then every two without one divide the rate by ten.
    rates = [record['learning_rate'] for record in records]
    np.testing.assert_allclose(rates, [1e-3] * 3 + [1e-4] * 2 + [1e-5] * 2, rtol=1e-5)


def test_a_loss_that_is_not_finite_stops_with_the_remedy(tmp_path):
    def loss(variables, batch, key, *, train):
        del batch, key, train
        value = jnp.log(variables['params']['w'].sum() - 2)  # log 0
        return value, (variables['batch_stats'], {'part': value})

    with pytest.raises(FloatingPointError, match='lower the learning rate'):
        run(loss, tmp_path)


def test_weights_of_another_training_are_refused(tmp_path):
    encoder = supervised(tmp_path / 'checkpoint')
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
