"""Where the cells of a layer's activations lie on the grid that went in."""

import dataclasses

import flax.linen as nn
import numpy as np
import scipy.ndimage

from nic_jax.networks.depthwise import output_size, same_margin
from nic_jax.networks.gated_attention import AttentionMIL
from nic_jax.networks.grid_cnn import GridCNN
from nic_jax.networks.spatial_attention import SpatialAttention

EXPLAINED = (GridCNN, SpatialAttention, AttentionMIL)  # networks that can be cut after a layer


@dataclasses.dataclass(frozen=True)
class LayerCells:
    """The arithmetic of a layer: its cell i is centred on cell `offset + i · jump` of the input.

    Attributes:
        offset: Of the first cell's centre, in cells of the input.
        jump: Between the centres of neighbours.
        size: Cells along one axis.
    """

    offset: int
    jump: int
    size: int


def layer_cells(network: nn.Module, size: int, *, layer: int) -> LayerCells:
    """Follows offset, jump and size through the layers of a network.

    Args:
        network: One of `EXPLAINED`.
        size: Cells along one axis of the input.
        layer: Counted from 1.

    Raises:
        ValueError: A network or a layer that has no activations to explain.
    """
    strides = network.strides if isinstance(network, GridCNN) else (None,)
    if not isinstance(network, EXPLAINED):
        raise ValueError(
            f'{type(network).__name__} has no layer for Grad-CAM; explain it by '
            'integrated_gradients or occlusion'
        )
    if not 1 <= layer <= len(strides):
        raise ValueError(f'{layer=}: {type(network).__name__} has layers 1 … {len(strides)}')
    offset, jump = 0, 1
    if isinstance(network, GridCNN):
        for stride in strides[:layer]:
            before = same_margin(size, stride)[0] if network.padding == 'SAME' else 0
            offset += (1 - before) * jump  # the middle of the first 3×3
            jump *= stride
            size = output_size(size, stride, network.padding)
    return LayerCells(offset, jump, size)


def on_cells(features: np.ndarray, cells: LayerCells, size: int) -> np.ndarray:
    """Reads a map of a layer at every cell of the input, linearly between the layer's centres.

    Args:
        features: `[h, w]`, each axis as `cells` says; beyond the outermost centres their values go
            on.
        cells: Of the layer.
        size: Cells along both axes of the input.

    Returns:
        float32 `[size, size]`.
    """
    places = (np.arange(size) - cells.offset) / cells.jump
    rows, columns = np.meshgrid(places, places, indexing='ij')
    read = scipy.ndimage.map_coordinates(
        features.astype(np.float64), [rows, columns], order=1, mode='nearest'
    )
    return read.astype(np.float32)
