"""Lesions as cells of a grid: what saliency is measured against."""

import pathlib
from collections.abc import Sequence

import numpy as np

from nic_jax.grids import Grid
from nic_jax.patches.annotations import Region, read_annotations
from nic_jax.patches.coverage import shares


def read_regions(path: pathlib.Path, bounds: tuple[float, float]) -> tuple[Region, ...]:
    """The polygons of an annotation file in level-0 px, whatever corner its tool counts from.

    Args:
        path: The file.
        bounds: (x, y) of the corner of the slide's bounds.

    Raises:
        AnnotationError: The file cannot be read.
    """
    drawn = read_annotations(path)
    if not drawn.from_bounds:
        return drawn.regions
    return tuple(region.moved(bounds) for region in drawn.regions)


def lesion_cells(regions: Sequence[Region], grid: Grid) -> np.ndarray:
    """The cells half of whose patch, or more, lies in a region, bool `[H, W]`.

    A region that covers half of no patch is the one patch of which it covers most.
    """
    positions = grid.positions().reshape(-1, 2)
    size = tuple(grid.attributes['patch_level0'])
    mask = np.zeros(len(positions), bool)
    for region in regions:
        share = shares([region], positions, size)
        covered = share >= 0.5
        if not covered.any() and share.any():
            covered[share.argmax()] = True
        mask |= covered
    return mask.reshape(grid.shape)
