"""Objectives: losses against formulas, the BiGAN's step against a plain one, and what is learnt."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.metrics import log_loss
from toy_patches import DECODER, NETWORK, bars, noisy, source, unchanged

from nic_jax.encoders import batches, conv
from nic_jax.encoders.bigan import bigan, collapse
from nic_jax.encoders.contrastive import contrastive
from nic_jax.encoders.multitask import multitask
from nic_jax.encoders.objective import network_input, own, pixels
from nic_jax.encoders.supervised import supervised
from nic_jax.encoders.vae import GAMMA, kl_divergence, vae
from nic_jax.encoders.vicreg import vicreg, vicreg_terms
from nic_jax.networks.decoder import ConvDecoder
from nic_jax.networks.heads import DropoutHead, Expander, JointCritic, NormHead

TINY = {**NETWORK, 'input_size': 8, 'widths': (3,), 'dense': 0}
GENERATOR = {'start': 2, 'widths': (3,)}
FEED = {'batch': 32, 'seed': 0, 'devices': 1}
MAKE = {
    'supervised': lambda network, augment: supervised(network, 2, augment=augment),
    'multitask': lambda network, augment: multitask(network, {'a': 2, 'b': 2}, augment=augment),
    'vae': lambda network, augment: vae(network, decoder=DECODER, augment=augment),
    'contrastive': lambda network, augment: contrastive(network, augment=augment),
    'vicreg': lambda network, augment: vicreg(network, augment=augment),
    'bigan': lambda network, augment: bigan(
        network, generator=DECODER, critic_units=16, augment=augment
    ),
}
RATES = {'bigan': 2e-3}  # of the others 1e-2
CLOSE = {'rtol': 2e-5, 'atol': 1e-6}


@pytest.fixture(scope='module', autouse=True)
def _quick_to_compile():
    jax.config.update('jax_disable_most_optimizations', True)
    yield
    jax.config.update('jax_disable_most_optimizations', False)


def feed_of(name):
    if name in ('supervised', 'multitask'):
        sets = [source(seed=seed) for seed in (1, 2)[: 1 + (name == 'multitask')]]
        return batches.labelled(sets, **FEED)
    return (batches.paired if name == 'contrastive' else batches.plain)(source(), **FEED)


def variables_of(state):
    return {kind: state[kind] for kind in ('params', 'batch_stats')}


@functools.partial(jax.jit, static_argnums=0)
def run(module, variables, x):
    """What a network gives in use."""
    return module.apply(variables, x, train=False)


def codes_of(variables, patches, code_size=3):
    x = patches.astype(np.float32) / 127.5 - 1
    return run(conv.module({**NETWORK, 'code_size': code_size}), own(variables), x)


@functools.cache
def learnt(name, steps=100):
    """An objective, its variables after some steps, and its validation before and after them."""
    objective, feed, key = MAKE[name](NETWORK, noisy), feed_of(name), jax.random.key(0)
    step, validate = jax.jit(objective.step), jax.jit(objective.validate)
    state, found = jax.jit(objective.initial)(key), []
    for k in range(steps + 1):
        if k in (0, steps):
            found.append(jax.device_get(validate(variables_of(state), feed.valid[0](), key)))
        state, _ = step(state, feed.train(k), jax.random.fold_in(key, k), RATES.get(name, 1e-2))
    return objective, jax.device_get(variables_of(state)), *found


def test_supervised_learns():
    _, _, before, after = learnt('supervised')
    assert before['accuracy'] < 0.8
    assert after['accuracy'] > 0.95
    assert set(after) == {'loss', 'accuracy'}


def test_multitask_learns_every_task():
    objective, _, _, after = learnt('multitask')
    assert after['accuracy_a'] > 0.95
    assert after['accuracy_b'] > 0.95
    np.testing.assert_allclose(after['accuracy'], (after['accuracy_a'] + after['accuracy_b']) / 2)
    assert (objective.watched, objective.higher_is_better) == ('accuracy', True)


def test_vae_gives_patches_back_better_than_their_mean_does():
    _, _, before, after = learnt('vae')
    scaled = feed_of('vae').valid[0]()['patches'] / 127.5 - 1
    assert after['error'] < 0.5 * np.mean((scaled.mean(0) - scaled) ** 2) < before['error']


def test_contrastive_tells_pairs_apart():
    objective, _, before, after = learnt('contrastive')
    assert before['accuracy'] < 0.7
    assert after['accuracy'] > 0.9
    assert (objective.watched, objective.higher_is_better) == ('accuracy', True)


def test_vicreg_does_not_collapse():
    _, _, before, after = learnt('vicreg')
    assert after['loss'] < 0.9 * before['loss']
    assert after['variance'] < before['variance']


def test_bigan_generates_varied_patches():
    objective, _, before, after = learnt('bigan')
    assert after['diversity'] > before['diversity']
    assert after['accuracy_critic'] < 0.95
    assert objective.keep == 'last'


@pytest.mark.parametrize('size', [9, 18])
@pytest.mark.parametrize('name', MAKE)
def test_the_encoder_gives_the_network_s_codes(name, size):
    _, variables, *_ = learnt(name)
    network = {**NETWORK, 'averaged': size == 18}
    objective = MAKE[name](network, unchanged)
    patches = np.random.default_rng(0).integers(0, 256, (5, size, size, 1), np.uint8)
    halves = 2 if name == 'vae' else 1  # the mean's and the log variance's
    module = conv.module({**network, 'code_size': halves * network['code_size']})
    expected = run(module, own(variables), network_input(network, pixels(patches)))[:, :3]

    encoder = objective.encoder(variables, 0.5)
    assert (encoder.name, encoder.code_size, encoder.channels) == (name, 3, 1)
    assert encoder.inputs == (((18, 0.5), (9, 1.0)) if size == 18 else ((9, 0.5),))
    codes = jax.jit(encoder.apply)(encoder.variables, patches)
    np.testing.assert_allclose(codes, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    # Batch statistics have moved and count.
    assert np.abs(own(variables)['batch_stats']['norm_0']['mean']).max() > 1e-3


def test_kl_is_the_divergence_of_normals():
    rng = np.random.default_rng(0)
    mean, log_variance = rng.normal(size=(2, 2, 5))
    # ∫ p (log p − log q) of two normals, coordinate by coordinate, in float64 on a fine grid.
    x = np.linspace(-30, 30, 100_001)
    expected = np.zeros(2)
    for row, column in np.ndindex(2, 5):
        m, v = mean[row, column], np.exp(log_variance[row, column])
        log_p = -0.5 * ((x - m) ** 2 / v + np.log(2 * np.pi * v))
        log_q = -0.5 * (x**2 + np.log(2 * np.pi))
        expected[row] += np.trapezoid(np.exp(log_p) * (log_p - log_q), x)
    got = kl_divergence(jnp.asarray(mean, jnp.float32), jnp.asarray(log_variance, jnp.float32))
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_the_vae_s_loss_is_error_and_weighted_divergence():
    objective, variables, *_ = learnt('vae')
    patches = bars(6, 5)[0]
    found = jax.jit(objective.validate)(variables, {'patches': patches}, jax.random.key(0))
    np.testing.assert_allclose(found['loss'], found['error'] + GAMMA * found['kl'], rtol=1e-6)
    pictures = jax.jit(objective.pictures)(variables, patches)
    shown, decoded = pictures['patches'], pictures['decoded from their codes']
    np.testing.assert_allclose(shown, patches, atol=1e-3)
    assert pictures['decoded from random codes'].shape == decoded.shape == (6, 9, 9, 1)
    # Nothing is drawn at random in validation: what comes back is decoded from the mean.
    error = np.mean((np.asarray(decoded) / 127.5 - patches / 127.5) ** 2)
    np.testing.assert_allclose(found['error'], error, rtol=1e-4)
    moments = np.asarray(codes_of(variables, patches, code_size=6))
    kl = -0.5 * (1 + moments[:, 3:] - moments[:, :3] ** 2 - np.exp(moments[:, 3:]))
    np.testing.assert_allclose(found['kl'], kl.sum(1).mean(), rtol=1e-4)


def test_vicreg_s_terms_are_the_paper_s():
    rng = np.random.default_rng(0)
    mix = rng.normal(size=(6, 6)) * np.array([0.1, 0.2, 0.3, 0.5, 1, 2])
    left, right = rng.normal(size=(2, 20, 6)) @ mix
    variance = covariance = 0.0
    for z in (left, right):
        deviation = np.sqrt(z.var(axis=0, ddof=1) + 1e-4)
        variance += np.maximum(0, 1 - deviation).mean() / 2
        matrix = np.cov(z.T, ddof=1)
        covariance += (matrix[~np.eye(6, dtype=bool)] ** 2).sum() / 6
    found = vicreg_terms(jnp.asarray(left, jnp.float32), jnp.asarray(right, jnp.float32))
    assert 0.1 < variance < 1  # some features are below the hinge, some above it
    np.testing.assert_allclose(found['invariance'], np.mean((left - right) ** 2), **CLOSE)
    np.testing.assert_allclose(found['variance'], variance, **CLOSE)
    np.testing.assert_allclose(found['covariance'], covariance, **CLOSE)


def test_vicreg_compares_two_views_of_a_patch():
    _, variables, *_ = learnt('vicreg')
    patches, key = bars(16, 5)[0], jax.random.key(1)
    alike, unlike = (
        jax.jit(MAKE['vicreg'](NETWORK, augment).validate)(variables, {'patches': patches}, key)
        for augment in (unchanged, noisy)
    )
    assert alike['invariance'] == 0
    assert unlike['invariance'] > 0
    weighted = 25 * unlike['invariance'] + 25 * unlike['variance'] + unlike['covariance']
    np.testing.assert_allclose(unlike['loss'], weighted, rtol=1e-6)

    z = run(Expander(), own(variables, 'expander'), codes_of(variables, patches))
    np.testing.assert_allclose(alike['variance'], vicreg_terms(z, z)['variance'], rtol=1e-4)


def test_the_contrastive_loss_is_binary_cross_entropy():
    _, variables, *_ = learnt('contrastive')
    batch = feed_of('contrastive').train(3)
    assert 0 < batch['same'].mean() < 1
    objective = MAKE['contrastive'](NETWORK, unchanged)
    found = jax.jit(objective.validate)(variables, batch, jax.random.key(0))
    joined = np.hstack([codes_of(variables, batch['pairs'][:, side]) for side in (0, 1)])
    logits = run(NormHead(1), own(variables, 'head'), joined)[:, 0]
    scores = np.asarray(jax.nn.sigmoid(logits), np.float64)
    np.testing.assert_allclose(found['loss'], log_loss(batch['same'], scores), rtol=1e-3)
    np.testing.assert_allclose(found['accuracy'], ((scores > 0.5) == batch['same']).mean())


def test_the_multitask_loss_is_the_mean_over_tasks():
    _, variables, *_ = learnt('multitask')
    batch = feed_of('multitask').train(3)
    objective = MAKE['multitask'](NETWORK, unchanged)
    found = jax.jit(objective.validate)(variables, batch, jax.random.key(0))
    losses = []
    for index, task in enumerate('ab'):
        codes = codes_of(variables, batch['patches'][:, index])
        logits = run(DropoutHead(2), own(variables, f'head_{task}'), codes)
        scores = np.asarray(jax.nn.softmax(logits), np.float64)
        scores /= scores.sum(1, keepdims=True)
        losses.append(log_loss(batch['labels'][:, index], scores, labels=[0, 1]))
        np.testing.assert_allclose(found[f'loss_{task}'], losses[-1], rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(found['loss'], np.mean(losses), rtol=1e-3, atol=1e-6)


def test_a_head_learns_from_its_own_task_alone():
    _, variables, *_ = learnt('multitask')
    batch = feed_of('multitask').train(3)
    objective = MAKE['multitask'](NETWORK, unchanged)

    @functools.partial(jax.jit, static_argnums=0)
    def gradient(part, params):
        return jax.grad(
            lambda params: objective.validate(
                {**variables, 'params': params}, batch, jax.random.key(0)
            )[part]
        )(params)

    for own_task, other in ('ab', 'ba'):
        found = gradient(f'loss_{own_task}', variables['params'])
        largest = {
            name: max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(tree))
            for name, tree in found.items()
        }
        assert largest[f'head_{other}'] == 0
        assert largest[f'head_{own_task}'] > 0
        assert largest['encoder'] > 0


def test_training_draws_dropout_and_codes_at_random():
    sets = {'multitask': multitask(TINY, {'a': 2, 'b': 2}, augment=unchanged)}
    sets['vae'] = vae(TINY, decoder=GENERATOR, augment=unchanged)
    for name, objective in sets.items():
        state, step = jax.jit(objective.initial)(jax.random.key(0)), jax.jit(objective.step)
        batch = feed_of(name).train(0)
        batch = {**batch, 'patches': batch['patches'][..., :8, :8, :]}
        losses = [float(step(state, batch, jax.random.key(k), 1e-3)[1]['loss']) for k in (1, 1, 2)]
        assert losses[0] == losses[1] != losses[2], name


# The BiGAN, plainly: both losses over a whole forward pass, Adam by hand.


def _plain_logits(params, stats, x, z, dropout):
    encode, look = conv.module(TINY), conv.module(TINY)
    generate, judge = ConvDecoder(size=8, channels=1, **GENERATOR), JointCritic(6)

    def run(module, name, *inputs, **kwargs):
        variables = {'params': params[name], 'batch_stats': stats[name]}
        output, updated = module.apply(
            variables, *inputs, train=True, mutable=['batch_stats'], **kwargs
        )
        updates[name] = updated.get('batch_stats', {})
        return output

    updates = {}
    codes, made = run(encode, 'encoder', x), run(generate, 'generator', z)
    order = np.arange(2 * len(x)).reshape(2, -1).T.ravel()  # real, made, real, made …
    features = run(look, 'critic_image', jnp.concatenate([x, made])[order])
    all_codes = jnp.concatenate([codes, z])[order]
    logits = run(judge, 'critic', features, all_codes, rngs={'dropout': dropout})
    return logits, updates


@jax.jit
def _plain_gradient(params, stats, x, z, dropout, sides):
    """Gradient of cross-entropy with the sides [1, 0] or exchanged, [0, 1]."""

    def loss(params):
        logits, updates = _plain_logits(params, stats, x, z, dropout)
        labels = jnp.tile(sides, len(x))
        return optax.sigmoid_binary_cross_entropy(logits, labels).mean(), (logits, updates)

    return jax.value_and_grad(loss, has_aux=True)(params)


class _PlainAdam:
    def __init__(self):
        self.steps, self.first, self.second = 0, 0.0, 0.0

    def descend(self, params, gradient, rate):
        self.steps += 1
        first = jax.tree.map(lambda g: 0.5 * g, gradient)
        second = jax.tree.map(lambda g: 0.001 * g**2, gradient)
        if self.steps > 1:
            first = jax.tree.map(lambda old, new: 0.5 * old + new, self.first, first)
            second = jax.tree.map(lambda old, new: 0.999 * old + new, self.second, second)
        self.first, self.second = first, second
        unbias = 1 - 0.5**self.steps, 1 - 0.999**self.steps
        return jax.tree.map(
            lambda p, m, v: p - rate * (m / unbias[0]) / (np.sqrt(v / unbias[1]) + 1e-8),
            params,
            first,
            second,
        )


def _plain_step(state, adams, patches, key, rate, *, against_new=True):
    _, code_key, key_1, key_2 = jax.random.split(key, 4)
    x = 2 * (patches.astype(np.float32) / np.float32(255)).astype(float) - 1
    z = jax.random.normal(code_key, (len(x), TINY['code_size']))
    params, stats = state['params'], state['batch_stats']
    (loss_d, (logits, updates)), gradient = jax.device_get(
        _plain_gradient(params, stats, x, z, key_1, np.array([1.0, 0.0]))
    )
    critics = {
        name: adams[name].descend(params[name], gradient[name], rate)
        for name in ('critic_image', 'critic')
    }
    opponent = {**params, **critics} if against_new else params
    (loss, _), gradient = jax.device_get(
        _plain_gradient(opponent, stats, x, z, key_2, np.array([0.0, 1.0]))
    )
    makers = {
        name: adams[name].descend(params[name], gradient[name], rate)
        for name in ('encoder', 'generator')
    }
    right = np.mean((logits > 0) == np.tile([True, False], len(x)))
    parts = {'loss': loss, 'loss_critic': loss_d, 'accuracy_critic': right}
    return {'params': {**makers, **critics}, 'batch_stats': updates}, parts


def test_a_step_of_the_bigan_is_the_critic_s_and_then_the_makers_against_the_new_critic():
    def largest_difference(left, right):
        return max(
            float(np.abs(np.asarray(a) - np.asarray(b)).max())
            for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True)
        )

    # float64: Adam makes a step of full length of a gradient that is nothing but rounding.
    with jax.enable_x64(True):
        augment = lambda key, x: x.astype(float)  # noqa: E731
        objective = bigan(TINY, generator=GENERATOR, critic_units=6, augment=augment)
        state = jax.jit(objective.initial)(jax.random.key(0))
        state = jax.tree.map(
            lambda leaf: leaf.astype(float) if leaf.dtype == np.float32 else leaf, state
        )
        plain, step = jax.device_get(variables_of(state)), jax.jit(objective.step)
        stale = plain
        adams, others = ({name: _PlainAdam() for name in plain['params']} for _ in range(2))
        for k in range(2):
            patches = bars(8, k)[0][:, :8, :8]
            key = jax.random.fold_in(jax.random.key(3), k)
            state, parts = step(state, {'patches': patches}, key, 0.01)
            plain, expected = _plain_step(plain, adams, patches, key, 0.01)
            stale, _ = _plain_step(stale, others, patches, key, 0.01, against_new=False)
            for name, value in expected.items():
                np.testing.assert_allclose(parts[name], value, rtol=1e-6)
        assert state['params']['encoder']['code']['kernel'].dtype == np.float64
        assert largest_difference(variables_of(state), plain) < 1e-7
        assert largest_difference(plain, stale) > 1e-4  # so that the order would have shown


def test_the_bigan_s_validation():
    objective, variables, *_ = learnt('bigan')
    patches = bars(20, 5)[0]
    found = jax.jit(objective.validate)(variables, {'patches': patches}, jax.random.key(0))
    pictures = jax.jit(objective.pictures)(variables, patches)
    decoded = pictures['generated from their codes']
    drawn = pictures['generated from random codes']
    error = np.mean((np.asarray(decoded) / 127.5 - patches / 127.5) ** 2)
    np.testing.assert_allclose(found['reconstruction'], error, rtol=1e-4)
    varied = np.asarray(drawn).std(axis=0).mean() / patches.std(axis=0).mean()
    np.testing.assert_allclose(found['diversity'], varied, rtol=1e-4)  # drawn with the same key
    assert 0 <= found['accuracy_critic'] <= 1


def test_collapse_is_named_with_its_remedy():
    def history(**values):
        count = max(map(len, values.values()))
        rows = {'diversity': [1.0] * count, 'accuracy_critic': [0.5] * count} | values
        return [dict(zip(rows, row, strict=True)) for row in zip(*rows.values(), strict=True)]

    assert collapse([]) == ''
    assert collapse(history(diversity=[0.01, 0.01])) == ''
    assert collapse(history(diversity=[0.01, 0.01, 0.2, 0.01])) == ''
    assert 'vary 0.020 times' in collapse(history(diversity=[0.9, 0.01, 0.01, 0.02]))
    assert 'lower the learning rate' in collapse(history(diversity=[0.01] * 3))
    assert collapse(history(accuracy_critic=[1.0] * 4)) == ''
    assert collapse(history(accuracy_critic=[1.0] * 3 + [0.99, 1.0])) == ''
    assert 'tells all pairs apart' in collapse(history(accuracy_critic=[0.5] + [1.0] * 5))
