"""A whole slide as windows of a network's input size that cover it."""

import dataclasses
import itertools
from collections.abc import Callable, Iterator

import numpy as np

from nic_jax.grids import GridLike
from nic_jax.grids.versions import turn_back


@dataclasses.dataclass(frozen=True)
class Square:
    """A square of cells around a grid, in which windows of R cells lie half over each other.

    Attributes:
        top: Row of the grid at its upper edge, at most 0.
        left: Column of the grid at its left edge, at most 0.
        size: Cells along its side: R and a whole number of steps.
        window: R, cells along the side of a window.
        step: Cells from window to window.
    """

    top: int
    left: int
    size: int
    window: int
    step: int

    def corners(self) -> Iterator[tuple[int, int]]:
        """Top and left of every window, from the square's own."""
        starts = range(0, self.size - self.window + 1, self.step)
        return itertools.product(starts, starts)


def cover(shape: tuple[int, int], *, window: int, jump: int = 1) -> Square:
    """The square in which windows cover a grid; one no larger than a window is padded to it.

    Its sizes are few, so that slides of all shapes share a few compiled programs.

    Args:
        shape: Rows and columns of the grid.
        window: R.
        jump: Windows lie at its multiples, so that a layer has the same cells in all of them.
    """
    step = max(window // 2 // jump, 1) * jump
    steps = max(0, -(-(max(shape) - window) // step))
    size = window + steps * step
    return Square((shape[0] - size) // 2, (shape[1] - size) // 2, size, window, step)


def read(grid: GridLike, square: Square, version: int) -> np.ndarray:
    """A grid's codes turned by `version`, float32 `[size, size, C]`, zeros around."""
    return grid.crop(square.top, square.left, square.size, version)


def on_grid(found: np.ndarray, grid: GridLike, square: Square, version: int) -> np.ndarray:
    """A map of a turned square, `[size, size]`, on the grid as it lies: `[H, W]`."""
    height, width = grid.shape
    turned = turn_back(found, version)
    return turned[-square.top :, -square.left :][:height, :width]


def averaged(
    codes: np.ndarray, square: Square, of_window: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """A map of a square from maps of its windows: their mean where they lie over each other.

    Args:
        codes: float32 `[size, size, C]`.
        square: Of the windows; those without a code are passed over.
        of_window: `[R, R, C]` -> `[R, R]`.

    Returns:
        float32 `[size, size]`.
    """
    total, count = (np.zeros(codes.shape[:2], np.float32) for _ in range(2))
    for top, left in square.corners():
        place = slice(top, top + square.window), slice(left, left + square.window)
        if codes[place].any():
            total[place] += of_window(codes[place])
            count[place] += 1
    return total / np.maximum(count, 1)
