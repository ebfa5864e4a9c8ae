"""Gated attention against its formula in float64."""

import jax
import jax.numpy as jnp
import numpy as np
from bags import outputs, tissue, variables

from nic_jax.networks.gated_attention import AttentionMIL, GatedAttention

RTOL = 2e-5  # float32 beside float64


def dense(params, x):
    return x @ np.asarray(params['kernel'], np.float64) + np.asarray(params['bias'], np.float64)


def attention(params, features, present):
    """Equation 9 of Ilse, Tomczak and Welling (2018), bag by bag; float64 [B, N]."""
    weights = np.zeros(present.shape)
    for bag, (x, there) in enumerate(zip(features.astype(np.float64), present, strict=True)):
        gate = 1 / (1 + np.exp(-dense(params['gate'], x[there])))
        scores = dense(params['score'], np.tanh(dense(params['content'], x[there])) * gate)[:, 0]
        weights[bag, there] = np.exp(scores) / np.exp(scores).sum()
    return weights


def test_weights_are_the_formulas():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(3, 20, 4)).astype(np.float32)
    present = rng.random((3, 20)) < 0.6
    layer = GatedAttention(units=5)
    made = layer.init(jax.random.key(0), features, present)
    made = jax.tree.map(lambda value: value + 0.3, made)  # biases too
    weights = np.asarray(layer.apply(made, features, present))
    np.testing.assert_allclose(weights, attention(made['params'], features, present), rtol=RTOL)
    np.testing.assert_allclose(weights.sum(1), 1, rtol=1e-6)
    assert (weights[~present] == 0).all()


def test_where_nothing_is_present_all_weigh_the_same():
    layer = GatedAttention(units=3)
    features = jax.random.normal(jax.random.key(1), (1, 8, 4))
    nothing = jnp.zeros((1, 8), bool)
    made = layer.init(jax.random.key(0), features, nothing)
    np.testing.assert_allclose(layer.apply(made, features, nothing), 1 / 8, rtol=1e-6)


def test_weights_that_differ_by_orders_of_magnitude_are_finite():
    layer = GatedAttention(units=3)
    features = 1e4 * jax.random.normal(jax.random.key(1), (2, 8, 4))
    present = jnp.ones((2, 8), bool).at[:, 5:].set(False)
    made = layer.init(jax.random.key(0), features, present)
    made = jax.tree.map(lambda value: 100 * value, made)
    weights = np.asarray(layer.apply(made, features, present))
    np.testing.assert_allclose(weights.sum(1), 1, rtol=1e-6)
    assert (weights[:, 5:] == 0).all()


def test_the_classifier_of_bags_is_the_formulas():
    network, codes = AttentionMIL(outputs=3, width=6, units=5), tissue()
    made = variables(network, codes)
    params, scaling = made['params'], made['scaling']['scaling']
    present = (codes != 0).any(-1).reshape(2, -1)
    scaled = (codes.astype(np.float64) - scaling['mean']) / scaling['deviation']
    x = np.maximum(dense(params['embed'], scaled.reshape(2, -1, 5)), 0)
    weights = attention(params['attention'], x, present)
    expected = dense(params['output'], np.einsum('bn,bnf->bf', weights, x))
    # Sums of terms of about 1, some of which are near 0.
    np.testing.assert_allclose(outputs(network, made, codes), expected, rtol=1e-4, atol=1e-5)


def test_dropout_is_for_training_alone():
    network, codes = AttentionMIL(outputs=1, width=6, dropout=0.5), tissue()
    made = variables(network, codes)
    still = AttentionMIL(outputs=1, width=6, dropout=0.0)
    np.testing.assert_array_equal(outputs(network, made, codes), outputs(still, made, codes))
    dropped = [
        network.apply(made, codes, train=True, rngs={'dropout': jax.random.key(k)}) for k in (0, 1)
    ]
    assert (np.asarray(dropped[0]) != np.asarray(dropped[1])).all()
