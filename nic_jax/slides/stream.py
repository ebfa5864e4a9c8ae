"""From a plan to batches of patches: threads read blocks of neighbouring cells ahead, in order.

What a batch holds is a pure function of the plan: the cells to encode of one shard, block by block
in row-major order, cut into batches of one size. Memory is bounded by the blocks that wait, however
large the slide.
"""

import contextlib
import dataclasses
import math
from collections.abc import Iterator, Sequence

import numpy as np

from nic_jax import prefetch
from nic_jax.slides import tiling
from nic_jax.slides.resample import area_resample
from nic_jax.slides.slide import Slide


@dataclasses.dataclass(frozen=True)
class Batch:
    """Patches of one shard.

    Attributes:
        shard: Shard row and column.
        cells: Rows and columns of the cells, int `[n, 2]`, n ≤ B.
        patches: uint8 `[B, P, P, 3]`; those from n on are padding.
        last: Whether it is its shard's last.
    """

    shard: tuple[int, int]
    cells: np.ndarray
    patches: np.ndarray
    last: bool


def stream(
    slide: Slide,
    plan: tiling.Plan,
    encode: np.ndarray,
    *,
    shards: Sequence[tuple[int, int]],
    shard_side: int,
    batch: int,
    workers: int,
) -> Iterator[Batch]:
    """Yields the patches of the cells to encode, shard by shard.

    A shard without such cells yields one batch without cells, so that it gets written too.

    Args:
        slide: An open slide.
        plan: Its grid.
        encode: Cells to encode, bool `[H, W]`.
        shards: The shards wanted, in order.
        shard_side: Cells along a shard's side.
        batch: B.
        workers: Threads that read.

    Raises:
        SlideError: A region cannot be read.
    """
    tasks = [
        (shard, cells)
        for shard in shards
        for cells in tiling.blocks(plan, encode, shard, shard_side) or [np.zeros((0, 2), int)]
    ]
    ends = {shard: index for index, (shard, _) in enumerate(tasks)}
    read = prefetch.map_ahead(
        lambda task: read_cells(slide, plan, task[1]), tasks, workers=workers, ahead=workers + 2
    )
    size = plan.patch_size
    waiting = np.zeros((batch, size, size, 3), np.uint8)
    cells_waiting: list[np.ndarray] = []
    filled = 0
    with contextlib.closing(read):  # no thread reads on when the caller stops early
        for index, patches in enumerate(read):
            shard, cells = tasks[index]
            while True:
                taken = min(batch - filled, len(cells))
                waiting[filled : filled + taken] = patches[:taken]
                cells_waiting.append(cells[:taken])
                cells, patches, filled = cells[taken:], patches[taken:], filled + taken
                last = index == ends[shard] and not len(cells)
                if filled == batch or last:
                    yield Batch(shard, np.concatenate(cells_waiting), waiting, last)
                    waiting = np.zeros_like(waiting)
                    cells_waiting, filled = [], 0
                if not len(cells):
                    break


def read_cells(slide: Slide, plan: tiling.Plan, cells: np.ndarray) -> np.ndarray:
    """Reads the patches of some neighbouring cells with one read of the rectangle they span.

    Args:
        slide: An open slide.
        plan: Its grid.
        cells: Rows and columns, int `[n, 2]`.

    Returns:
        uint8 `[n, P, P, 3]`.
    """
    size, stride = plan.patch_size, plan.stride
    if not len(cells):
        return np.zeros((0, size, size, 3), np.uint8)
    first, last = cells.min(axis=0), cells.max(axis=0)
    rows, columns = last - first + 1
    height, width = (rows - 1) * stride + size, (columns - 1) * stride + size
    region = _read_grid_pixels(
        slide, plan, int(first[1]) * stride, int(first[0]) * stride, int(width), int(height)
    )
    # [h, w, 3] -> a view [rows, columns, P, P, 3] of overlapping patches -> [n, P, P, 3]
    line, pixel, channel = region.strides
    patches = np.lib.stride_tricks.as_strided(
        region,
        shape=(rows, columns, size, size, 3),
        strides=(stride * line, stride * pixel, line, pixel, channel),
        writeable=False,
    )
    inside = cells - first
    return patches[inside[:, 0], inside[:, 1]]


def _read_grid_pixels(
    slide: Slide, plan: tiling.Plan, x: int, y: int, width: int, height: int
) -> np.ndarray:
    """Reads a rectangle of grid pixels, uint8 `[height, width, 3]`."""
    start_x = plan.x.origin + x * plan.x.step
    start_y = plan.y.origin + y * plan.y.step
    if not plan.resampled:
        return slide.read(plan.level, int(start_x), int(start_y), width, height)
    low_x, low_y = math.floor(start_x), math.floor(start_y)
    high_x = math.ceil(start_x + width * plan.x.step)
    high_y = math.ceil(start_y + height * plan.y.step)
    pixels = slide.read(plan.level, low_x, low_y, high_x - low_x, high_y - low_y)
    return area_resample(
        pixels,
        start_y=start_y - low_y,
        start_x=start_x - low_x,
        step_y=plan.y.step,
        step_x=plan.x.step,
        rows=height,
        columns=width,
    )
