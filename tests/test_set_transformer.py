"""Attention among instances, against its formula in float64."""

import jax
import numpy as np
import pytest
from bags import outputs, tissue, variables

from nic_jax.networks.set_transformer import AttentionBlock, SetTransformer


def _dense(params, x):
    return x @ params['kernel'] + params['bias']


def _norm(params, x):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt(x.var(-1, keepdims=True) + 1e-6) * params['scale'] + params['bias']


def _block(params, queries, keys, present):
    """One bag: [M, F] asks [N, F] where `present`, bool [N]; head by head."""
    asked, asking = _norm(params['LayerNorm_0'], keys), _norm(params['LayerNorm_1'], queries)
    heads = params['attention']
    attended = np.zeros_like(queries)
    for head in range(heads['query']['kernel'].shape[1]):
        query, key, value = (
            x @ heads[name]['kernel'][:, head] + heads[name]['bias'][head]
            for name, x in (('query', asking), ('key', asked), ('value', asked))
        )
        scores = np.exp(query @ key[present].T / np.sqrt(query.shape[1]))
        mixed = scores / scores.sum(1, keepdims=True) @ value[present]
        attended += mixed @ heads['out']['kernel'][head]
    x = queries + attended + heads['out']['bias']
    hidden = np.maximum(_dense(params['Dense_1'], _norm(params['LayerNorm_2'], x)), 0)
    return x + _dense(params['Dense_0'], hidden)


@pytest.mark.parametrize('masked', [True, False])
def test_a_block_is_its_formula(masked):
    rng = np.random.default_rng(0)
    queries = rng.normal(size=(2, 3, 8)).astype(np.float32)
    keys = rng.normal(size=(2, 11, 8)).astype(np.float32)
    present = rng.random((2, 11)) < 0.5 if masked else np.ones((2, 11), bool)
    block = AttentionBlock(heads=2, dropout=0.0)
    given = (queries, keys, present if masked else None)
    made = block.init(jax.random.key(0), *given, train=False)
    made = jax.tree.map(lambda value: value + 0.2 * rng.normal(size=value.shape), made)
    got = block.apply(jax.tree.map(np.float32, made), *given, train=False)
    exact = jax.tree.map(lambda value: np.asarray(value, np.float64), made['params'])
    expected = [_block(exact, *each) for each in zip(queries, keys, present, strict=True)]
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)  # float32, three layers deep


def test_cells_influence_each_other():
    # A change of one instance reaches the answer beyond its own share of a sum: its effect depends
    # on another instance, as it does not in a mean.
    network, codes = SetTransformer(outputs=1, width=8, points=3, heads=2), tissue(1)
    made = variables(network, codes)
    (one, other) = np.argwhere(codes[0].any(-1))[[0, -1]]

    def changed(*cells):
        copy = codes.copy()
        for y, x in cells:
            copy[0, y, x] += 2
        return outputs(network, made, copy)[0, 0]

    both = changed(one, other) - changed(other)
    alone = changed(one) - changed()
    assert abs(both - alone) > 1e-3 * abs(alone)


def test_layers_and_points_make_the_weights_that_they_say():
    codes = tissue(1)
    shapes = {
        layers: jax.eval_shape(
            SetTransformer(outputs=2, layers=layers, points=7).init, jax.random.key(0), codes
        )['params']
        for layers in (1, 2)
    }
    assert shapes[1]['points_0'].shape == (7, 32)
    assert shapes[2].keys() - shapes[1].keys() == {'points_1', 'gather_1', 'spread_1'}


def test_dropout_is_for_training_alone():
    network, codes = SetTransformer(outputs=1, width=8, points=3, heads=2, dropout=0.5), tissue()
    made = variables(network, codes)
    plain = outputs(network, made, codes)
    still = SetTransformer(outputs=1, width=8, points=3, heads=2, dropout=0.0)
    np.testing.assert_array_equal(outputs(still, made, codes), plain)
    dropped = jax.jit(network.apply, static_argnames='train')(
        made, codes, train=True, rngs={'dropout': jax.random.key(0)}
    )
    assert (np.asarray(dropped) != plain).all()
