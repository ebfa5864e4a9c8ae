"""The weights of networks that pool by attention, on the grid's cells."""

import functools
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from nic_jax.explanation.layers import layer_cells, on_cells
from nic_jax.explanation.windows import Square, averaged
from nic_jax.networks.gated_attention import AttentionMIL
from nic_jax.networks.grid_cnn import GridCNN
from nic_jax.networks.spatial_attention import SpatialAttention


def has_attention(network: nn.Module) -> bool:
    """Whether it pools by attention over places."""
    if isinstance(network, GridCNN):
        return network.pooling == 'attention'
    return isinstance(network, (SpatialAttention, AttentionMIL))


def attention(network: nn.Module, variables: Any, codes: np.ndarray, square: Square) -> np.ndarray:
    """The map of one version of a slide, averaged where windows lie over each other.

    It says where a network looks, not for which answer: weights are never negative.

    Args:
        network: One that `has_attention`.
        variables: Its weights.
        codes: float32 `[size, size, C]`, the grid in its square.
        square: Its windows.

    Returns:
        float32 `[size, size]`: a cell's weight over the mean cell's.
    """

    def of_window(part: np.ndarray) -> np.ndarray:
        weights = np.asarray(_weights(network, variables, part[None])[0])
        if isinstance(network, GridCNN):
            cells = layer_cells(network, square.window, layer=len(network.strides))
            weights = on_cells(weights, cells, square.window)
        return weights / weights[part.any(-1)].mean()

    return averaged(codes, square, of_window)


@functools.partial(jax.jit, static_argnames='network')
def _weights(network: nn.Module, variables: Any, codes: jax.Array) -> jax.Array:
    return network.apply(variables, codes, method='attention_weights')
