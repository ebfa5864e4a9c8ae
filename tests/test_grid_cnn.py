import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nic_jax.networks.grid_cnn import GridCNN, fit_strides, size_chain


def _shapes(network, size, code_size):
    return jax.eval_shape(
        network.init, jax.random.key(0), jnp.zeros((1, size, size, code_size), jnp.float32)
    )


def _count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def test_the_papers_network_has_the_published_number_of_values():
    variables = _shapes(GridCNN(outputs=2), 400, 128)
    assert _count(variables) == 162_690
    assert _count(variables['batch_stats']) == 2_304


@pytest.mark.parametrize(
    ('size', 'strides', 'chain'),
    [
        (400, (2,) * 6 + (1,) * 2, [400, 199, 99, 49, 24, 11, 5, 3, 1]),
        (781, (2,) * 6 + (1,) * 2, [781, 390, 194, 96, 47, 23, 11, 9, 7]),
        (255, (2,) * 6 + (1,), [255, 127, 63, 31, 15, 7, 3, 1]),
        (100, (2,) * 4 + (1,) * 2, [100, 49, 24, 11, 5, 3, 1]),
        (40, (2, 2, 2, 1), [40, 19, 9, 4, 2]),
        (3, (1,), [3, 1]),
    ],
)
def test_strides_follow_the_size(size, strides, chain):
    assert fit_strides(size) == strides
    assert size_chain(size, strides) == chain


@pytest.mark.parametrize('size', [1, 2, 3, 4, 5, 9, 16, 40, 77, 399])
@pytest.mark.parametrize('padding', ['VALID', 'SAME'])
def test_the_chain_is_what_the_network_does(size, padding):
    if padding == 'VALID' and size < 3:
        with pytest.raises(ValueError, match=f'{size} cells is too small'):
            fit_strides(size)
        return
    strides = fit_strides(size, padding=padding)
    network = GridCNN(1, widths=(4,) * len(strides), strides=strides, padding=padding, dense=0)
    kernel = _shapes(network, size, 2)['params']['output']['kernel']
    assert kernel.shape == (4 * size_chain(size, strides, padding=padding)[-1] ** 2, 1)


def test_a_grid_too_small_is_refused_with_the_remedy():
    with pytest.raises(ValueError, match=r'100 → 49 → 24 → 11 → 5 → 2 .*\(2, 2, 2, 2, 1, 1\)'):
        _shapes(GridCNN(2), 100, 3)
    with pytest.raises(ValueError, match='255'):
        size_chain(255, (2,) * 6 + (1,) * 2)
    with pytest.raises(ValueError, match='a larger crop'):
        size_chain(2, (1,))


def test_dropout_drops_whole_feature_maps():
    network = GridCNN(1, widths=(32,), strides=(1,), dropout=0.5)
    codes = jax.random.normal(jax.random.key(1), (4, 8, 8, 3))
    variables = network.init(jax.random.key(0), codes)
    features, _ = network.apply(
        variables,
        codes,
        train=True,
        method='features',
        rngs={'dropout': jax.random.key(2)},
        mutable=['batch_stats'],
    )
    dropped = np.asarray(features == 0).reshape(4, 36, 32)
    assert set(dropped.mean(1).ravel()) == {0.0, 1.0}
    assert 0.3 < dropped.mean() < 0.7


@pytest.mark.parametrize('pooling', ['flatten', 'attention'])
def test_the_two_halves_are_the_whole(pooling):
    network = GridCNN(
        3, widths=(6, 5), strides=(2, 1), padding='SAME', input_width=4, pooling=pooling
    )
    codes = jax.random.normal(jax.random.key(1), (2, 9, 9, 7))
    variables = network.init(jax.random.key(0), codes)
    features = network.apply(variables, codes, method='features')
    assert features.shape == (2, 5, 5, 6)
    whole = network.apply(variables, codes)
    halves = network.apply(variables, features, method='from_features')
    np.testing.assert_array_equal(whole, halves)
    assert whole.shape == (2, 3)


def test_settings_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match='must be as many'):
        _shapes(GridCNN(1, widths=(4,), strides=(1, 1)), 9, 2)
    with pytest.raises(ValueError, match='pooling'):
        _shapes(GridCNN(1, widths=(4,), strides=(1,), pooling='max'), 9, 2)
