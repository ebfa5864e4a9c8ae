"""Grad-CAM on a whole slide without seams (Selvaraju et al. 2017; Tellez et al. 2019, section 3.4).

A layer's activations are computed once over the whole grid. Each is weighted by the gradient of
the score with respect to it, averaged over space and over windows of the network's input size,
and their sum is read at every cell by the layer's own arithmetic. One set of weights serves the
whole slide, so that windows leave no trace.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from nic_jax.explanation.layers import layer_cells, on_cells
from nic_jax.explanation.scores import score
from nic_jax.explanation.windows import Square
from nic_jax.networks.code_scaling import is_encoded
from nic_jax.networks.grid_cnn import GridCNN


def grad_cam(
    network: nn.Module,
    variables: Any,
    codes: np.ndarray,
    square: Square,
    *,
    task: str,
    target: int,
    layer: int = 1,
) -> np.ndarray:
    """The signed map of one version of a slide.

    With 'SAME' padding a window sees the activations beyond its edge, where training had zeros.

    Args:
        network: One of `layers.EXPLAINED`.
        variables: Its weights.
        codes: float32 `[size, size, C]`, the grid in its square.
        square: With windows at multiples of the layer's jump.
        task: One of `classifiers.trained.TASKS`.
        target: Number of the class whose score is explained.
        layer: Of the activations, counted from 1.

    Returns:
        float32 `[size, size]`: evidence for the target, and below 0 against it.

    Raises:
        ValueError: A network or a layer that cannot be explained.
    """
    whole = layer_cells(network, square.size, layer=layer)
    window = layer_cells(network, square.window, layer=layer)
    codes = jnp.asarray(codes)
    features = _features(network, variables, codes[None], layer)[0]  # [h, w, F]
    present = is_encoded(codes)
    total, count = jnp.zeros(features.shape[-1]), 0
    for top, left in square.corners():
        seen = present[top : top + square.window, left : left + square.window]
        if not seen.any():
            continue
        row, column = top // whole.jump, left // whole.jump
        part = features[row : row + window.size, column : column + window.size]
        total = total + _weights(network, variables, part[None], seen[None], task, target, layer)
        count += 1
    combined = features @ (total / max(count, 1))  # [h, w]
    return on_cells(np.asarray(combined), whole, square.size)


@functools.partial(jax.jit, static_argnames=('network', 'layer'))
def _features(network: nn.Module, variables: Any, codes: jax.Array, layer: int) -> jax.Array:
    """[1, size, size, C] -> [1, h, w, F], after the activation."""
    if isinstance(network, GridCNN):
        return network.apply(variables, codes, layer=layer, method='features')
    return network.apply(variables, codes, method='features')


@functools.partial(jax.jit, static_argnames=('network', 'task', 'target', 'layer'))
def _weights(network, variables, features, present, task, target, layer) -> jax.Array:
    """The gradient of the score in one window, averaged over space: [1, h, w, F] -> [F]."""

    def of_features(features):
        if isinstance(network, GridCNN):
            outputs = network.apply(variables, features, layer=layer, method='from_features')
        else:
            outputs = network.apply(variables, features, present, method='from_features')
        return score(outputs, task, target)[0]

    return jax.grad(of_features)(features)[0].mean((0, 1))
