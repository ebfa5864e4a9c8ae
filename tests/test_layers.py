"""Offsets and jumps, against where a network itself looks."""

import jax
import numpy as np
import pytest
from bags import variables

from nic_jax.explanation.layers import LayerCells, layer_cells, on_cells
from nic_jax.networks.gated_attention import AttentionMIL
from nic_jax.networks.grid_cnn import PAPER_STRIDES, GridCNN
from nic_jax.networks.mean_pooling import MeanPooling


@pytest.mark.parametrize('padding', ['VALID', 'SAME'])
@pytest.mark.parametrize('size', [23, 24])
@pytest.mark.parametrize('layer', [1, 2, 3])
def test_a_cell_of_a_layer_is_centred_on_what_it_sees(padding, size, layer):
    network = GridCNN(
        1, widths=(3,) * 3, strides=(2, 1, 2), dense=0, padding=padding, pooling='attention'
    )
    codes = np.random.default_rng(0).normal(size=(1, size, size, 2)).astype(np.float32)
    weights = variables(network, codes)
    cells = layer_cells(network, size, layer=layer)
    middle = cells.size // 2

    def at_the_middle(codes):
        features = network.apply(weights, codes, layer=layer, method='features')
        assert features.shape[1] == cells.size
        return (features[0, middle, middle] ** 2).sum()

    seen = np.asarray(jax.grad(at_the_middle)(codes))[0].any(-1)
    for axis in (0, 1):
        (places,) = np.nonzero(seen.any(axis))
        assert (places[0] + places[-1]) / 2 == cells.offset + middle * cells.jump


def test_the_papers_network_has_jumps_of_powers_of_two():
    network = GridCNN(2)
    assert network.strides == PAPER_STRIDES
    assert layer_cells(network, 400, layer=1) == LayerCells(offset=1, jump=2, size=199)
    assert layer_cells(network, 400, layer=8) == LayerCells(offset=191, jump=64, size=1)


def test_a_layer_without_strides_lies_on_the_cells_themselves():
    assert layer_cells(AttentionMIL(2), 17, layer=1) == LayerCells(0, 1, 17)


def test_a_layer_or_a_network_that_cannot_be_explained_is_refused():
    with pytest.raises(ValueError, match='layers 1 … 8'):
        layer_cells(GridCNN(2), 400, layer=9)
    with pytest.raises(ValueError, match='MeanPooling has no layer'):
        layer_cells(MeanPooling(2), 17, layer=1)


def test_a_layers_map_is_read_at_its_centres_and_linearly_between():
    cells = LayerCells(offset=1, jump=2, size=4)
    features = np.random.default_rng(0).normal(size=(4, 4)).astype(np.float32)
    read = on_cells(features, cells, 10)
    np.testing.assert_array_equal(read[1:8:2, 1:8:2], features)
    np.testing.assert_allclose(read[2, 1:8:2], (features[0] + features[1]) / 2, rtol=1e-6)
    np.testing.assert_array_equal(read[0], read[1])  # beyond the outermost centres
    np.testing.assert_array_equal(read[8:], read[[7, 7]])
