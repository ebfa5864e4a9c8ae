"""Grad-CAM against formulas in float64, differences, and windows one by one."""

import jax
import numpy as np
import pytest
from bags import variables

from nic_jax.explanation.grad_cam import grad_cam
from nic_jax.explanation.layers import layer_cells, on_cells
from nic_jax.explanation.scores import of_codes, score
from nic_jax.explanation.windows import cover
from nic_jax.networks.gated_attention import AttentionMIL
from nic_jax.networks.grid_cnn import GridCNN
from nic_jax.networks.spatial_attention import SpatialAttention

CNN = GridCNN(3, widths=(5, 4, 4), strides=(2, 1, 2), dense=6)
SAME = GridCNN(3, widths=(5, 4), strides=(1, 2), dense=0, padding='SAME', pooling='attention')
ASKED = {'task': 'classification', 'target': 1}


def _codes(size, *, code_size=4, seed=0):
    return np.random.default_rng(seed).normal(size=(size, size, code_size)).astype(np.float32)


def test_a_class_is_explained_by_its_log_odds():
    outputs = np.random.default_rng(0).normal(size=(5, 4))
    odds = np.exp(outputs) / np.exp(outputs).sum(-1, keepdims=True)
    expected = np.log(odds[:, 2] / (1 - odds[:, 2]))
    np.testing.assert_allclose(score(outputs, 'classification', 2), expected, rtol=1e-5)
    two = outputs[:, :2]  # with two classes it is the logit of a sigmoid
    np.testing.assert_allclose(score(two, 'classification', 1), two[:, 1] - two[:, 0], rtol=1e-5)
    np.testing.assert_array_equal(score(outputs, 'survival', 0), outputs[:, 0])


def test_one_layer_and_a_linear_output_are_a_formula():
    """f = leaky(norm(pointwise(depthwise(x)))), γ = mean of the output's weights, h = γ·f."""
    network = GridCNN(2, widths=(3,), strides=(2,), dense=0)
    codes = _codes(11)
    weights = variables(network, codes[None])
    layer, norm = (
        {name: np.float64(each) for name, each in jax.tree.map(np.asarray, tree).items()}
        for tree in (
            {
                'depthwise': weights['params']['layers_0']['depthwise_kernel'],
                **weights['params']['layers_0']['pointwise'],
            },
            {
                **weights['params']['layers_0']['norm'],
                **weights['batch_stats']['layers_0']['norm'],
            },
        )
    )
    deep = np.zeros((5, 5, 4))
    for y, x in np.ndindex(3, 3):
        deep += codes[y : y + 9 : 2, x : x + 9 : 2].astype(np.float64) * layer['depthwise'][y, x]
    z = deep @ layer['kernel'] + layer['bias']
    z = (z - norm['mean']) / np.sqrt(norm['var'] + 1e-3) * norm['scale'] + norm['bias']
    features = np.where(z > 0, z, 0.2 * z)
    output = np.float64(np.asarray(weights['params']['output']['kernel'])).reshape(5, 5, 3, 2)
    gamma = (output[..., 1] - output[..., 0]).mean((0, 1))  # of the log-odds of class 1
    expected = features @ gamma

    found = grad_cam(network, weights, codes, cover((11, 11), window=11, jump=2), **ASKED)
    # float32 against float64
    np.testing.assert_allclose(found[1:10:2, 1:10:2], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('layer', [1, 2, 3])
def test_weights_are_derivatives_by_differences(layer):
    """γ of a feature is what the score gains when all of its cells rise together, over cells."""
    codes = _codes(17)
    weights = jax.tree.map(np.float64, variables(CNN, codes[None]))
    with jax.enable_x64(True):
        features = CNN.apply(
            weights, codes[None].astype(np.float64), layer=layer, method='features'
        )

        def at(features):
            outputs = CNN.apply(weights, features, layer=layer, method='from_features')
            return float(score(outputs, **ASKED)[0])

        step, gamma = 1e-5, []
        for channel in range(features.shape[-1]):
            moved = step * (np.arange(features.shape[-1]) == channel)
            rise = (at(features + moved) - at(features - moved)) / (2 * step)
            gamma.append(rise / np.prod(features.shape[1:3]))
        expected = np.asarray(features[0] @ np.array(gamma))
    square = cover((17, 17), window=17, jump=layer_cells(CNN, 17, layer=layer).jump)
    found = grad_cam(CNN, jax.tree.map(np.float32, weights), codes, square, layer=layer, **ASKED)
    cells = layer_cells(CNN, 17, layer=layer)
    scale = np.abs(expected).max()
    # float32 against float64, on maps whose sums nearly cancel somewhere
    np.testing.assert_allclose(found, on_cells(expected, cells, 17), rtol=1e-3, atol=1e-4 * scale)


@pytest.mark.parametrize('network', [CNN, AttentionMIL(3, width=5), SpatialAttention(3, width=4)])
def test_a_whole_slide_is_all_its_windows_together(network):
    """Each window by itself: the gradient of its own score with respect to its own activations."""
    codes = _codes(30)
    codes[:17, :17] = 0  # a window without tissue counts for nothing
    weights = variables(network, codes[None, :17, :17])
    jump = layer_cells(network, 17, layer=1).jump
    square = cover((30, 30), window=17, jump=jump)
    whole = np.zeros((square.size, square.size, 4), np.float32)
    whole[:30, :30] = codes
    gammas = []
    for top, left in square.corners():
        part = whole[None, top : top + 17, left : left + 17]
        if not part.any():
            continue
        features = network.apply(weights, part, method='features')

        def of(features, part=part):
            present = () if isinstance(network, GridCNN) else (part.any(-1),)
            outputs = network.apply(weights, features, *present, method='from_features')
            return score(outputs, **ASKED)[0]

        gammas.append(jax.grad(of)(features)[0].mean((0, 1)))
    assert len(gammas) == 8  # of nine
    features = network.apply(weights, whole[None], method='features')[0]
    expected = np.asarray(features @ np.mean(gammas, axis=0))
    found = grad_cam(network, weights, whole, square, **ASKED)
    cells = layer_cells(network, square.size, layer=1)
    if isinstance(network, SpatialAttention):  # its windows reach over the edges of a crop
        assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.99
    else:
        expected = on_cells(expected, cells, square.size)
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)  # other order of sums


def test_there_are_no_seams():
    """What repeats over the slide has the same map everywhere, across all windows' edges."""
    tile = _codes(4)
    codes = np.tile(tile, (20, 20, 1))  # [80, 80, C]
    weights = variables(CNN, codes[None, :17, :17])
    square = cover((80, 80), window=17, jump=2)
    padded = np.pad(codes, ((0, square.size - 80), (0, square.size - 80), (0, 0)), mode='wrap')
    found = grad_cam(CNN, weights, padded, square, **ASKED)[2:-6, 2:-6]
    np.testing.assert_allclose(found[4:], found[:-4], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found[:, 4:], found[:, :-4], rtol=1e-4, atol=1e-5)


def test_same_padding_keeps_windows_and_whole_in_step():
    codes = _codes(26)
    weights = variables(SAME, codes[None])
    square = cover((26, 26), window=16, jump=layer_cells(SAME, 16, layer=2).jump)
    padded = np.pad(codes, ((0, square.size - 26),) * 2 + ((0, 0),))
    found = grad_cam(SAME, weights, padded, square, layer=2, **ASKED)
    whole = SAME.apply(weights, padded[None], layer=2, method='features')[0]
    for top, left in square.corners():
        part = padded[None, top : top + 16, left : left + 16]
        own = SAME.apply(weights, part, layer=2, method='features')[0]
        seen = whole[top // 2 : top // 2 + 8, left // 2 : left // 2 + 8]
        np.testing.assert_allclose(own[2:-2, 2:-2], seen[2:-2, 2:-2], rtol=1e-4, atol=1e-5)
    assert np.isfinite(found).all()
    assert found.std() > 0


def test_the_score_is_that_of_the_whole_network():
    codes = _codes(17)[None]
    weights = variables(CNN, codes)
    features = CNN.apply(weights, codes, layer=2, method='features')
    cut = score(CNN.apply(weights, features, layer=2, method='from_features'), **ASKED)
    np.testing.assert_allclose(of_codes(CNN, weights, codes, 'classification', 1), cut, rtol=1e-5)
