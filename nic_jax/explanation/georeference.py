"""Where the cells of a map lie on its slide, as the attributes of the slide's grid tell.

A cell is drawn as the square of one stride in the middle of its patch, so that cells lie beside
each other whatever the patches' overlap. Coordinates are level-0 pixels, (x, y).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

# Of a grid's attributes, what tells where its cells lie and how their pixels were read.
KEYS = (
    'slide_id',
    'level0_dimensions',
    'mpp_level0',
    'origin_level0',
    'stride_level0',
    'stride_level0_exact',
    'patch_level0',
    'patch_size',
    'stride',
    'mpp',
    'mpp_target',
    'mpp_tolerance',
    'edges',
    'allow_upsampling',
    'level',
    'resampled',
    'source',
)

Box = tuple[float, float, float, float]  # left, top, right, bottom


def georeference(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """What the attributes of a grid tell of places, and nothing else."""
    return {key: attributes[key] for key in KEYS if key in attributes}


def of_image(
    slide_id: str, dimensions: tuple[int, int], *, patch_size: int, stride: int
) -> dict[str, Any]:
    """The georeference of an image whose grid begins at its corner and whose µm/px mean nothing.

    Args:
        slide_id: Its name.
        dimensions: Its width and height, px.
        patch_size: Side of a patch, px.
        stride: Distance between patches, px.
    """
    return {
        'slide_id': slide_id,
        'level0_dimensions': list(dimensions),
        'mpp_level0': None,
        'origin_level0': [0.0, 0.0],
        'stride_level0': [float(stride)] * 2,
        'patch_level0': [float(patch_size)] * 2,
        'patch_size': patch_size,
        'stride': stride,
    }


def cell_edges(
    shape: tuple[int, int], attributes: Mapping[str, Any], *, clip: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """The lines between columns and between rows of cells.

    Args:
        shape: Rows and columns, H and W.
        attributes: Of the grid.
        clip: Cut what lies outside the slide.

    Returns:
        x, float64 `[W + 1]`, and y, float64 `[H + 1]`.
    """
    edges = []
    for axis, count in enumerate(reversed(shape)):
        origin, stride, patch = (
            float(attributes[key][axis])
            for key in ('origin_level0', 'stride_level0', 'patch_level0')
        )
        each = origin + (patch - stride) / 2 + stride * np.arange(count + 1)
        edges.append(np.clip(each, 0, attributes['level0_dimensions'][axis]) if clip else each)
    return edges[0], edges[1]
