"""The plan of a grid: which pixels of which level make which cell. Pure, exact, no reading.

Positions are rationals per axis, never rounded per step: the float that metadata gives for µm/px is
read as the decimal it prints, so a grid of 100,000 cells ends where it should.

Three lattices are in play. *Level-0 pixels* tell positions to the world. *Level pixels* are those
of the level that is read. *Grid pixels* are the pixels that patches consist of: the level's own
where it lies within the tolerance of the target µm/px, else a lattice at exactly the target onto
which the level is resampled by area.
"""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from fractions import Fraction

import numpy as np

EDGES = ('floor', 'pad')
# A block is what one thread reads at once: large enough to decode few tiles twice, and small
# enough that a queue of them stays within a few hundred MB.
BLOCK_PIXELS = 2048


class TilingError(ValueError):
    """A grid that cannot be laid over a slide as asked."""


@dataclasses.dataclass(frozen=True)
class Axis:
    """One axis of a plan.

    Attributes:
        origin: First grid pixel's edge, in level pixels.
        step: Level pixels per grid pixel.
        ratio: Level-0 pixels per level pixel.
        cells: Number of cells.
    """

    origin: Fraction
    step: Fraction
    ratio: Fraction
    cells: int


@dataclasses.dataclass(frozen=True)
class Plan:
    """Where every cell of a grid takes its pixels.

    Attributes:
        level: The level that is read.
        resampled: Whether grid pixels differ from the level's pixels.
        patch_size: P, in grid pixels.
        stride: S, in grid pixels.
        mpp_target: µm/px asked for.
        mpp: µm/px of the grid pixels.
        x: Columns.
        y: Rows.
    """

    level: int
    resampled: bool
    patch_size: int
    stride: int
    mpp_target: float
    mpp: float
    x: Axis
    y: Axis

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of cells."""
        return self.y.cells, self.x.cells

    @property
    def magnified(self) -> bool:
        """Whether grid pixels are smaller than the level's."""
        return self.x.step < 1 or self.y.step < 1

    @property
    def origin_level0(self) -> tuple[Fraction, Fraction]:
        """(x, y) of the first cell's top-left corner, level-0 pixels."""
        return self.x.origin * self.x.ratio, self.y.origin * self.y.ratio

    @property
    def stride_level0(self) -> tuple[Fraction, Fraction]:
        """(x, y) distance between cells, level-0 pixels."""
        return (
            self.stride * self.x.step * self.x.ratio,
            self.stride * self.y.step * self.y.ratio,
        )

    @property
    def patch_level0(self) -> tuple[Fraction, Fraction]:
        """(width, height) of a patch, level-0 pixels."""
        return (
            self.patch_size * self.x.step * self.x.ratio,
            self.patch_size * self.y.step * self.y.ratio,
        )

    def position(self, row: int, column: int) -> tuple[Fraction, Fraction]:
        """(x, y) of a patch's top-left corner in level-0 pixels, exactly."""
        (x0, y0), (dx, dy) = self.origin_level0, self.stride_level0
        return x0 + column * dx, y0 + row * dy

    def cell_at(self, x: Fraction | float, y: Fraction | float) -> tuple[int, int]:
        """(row, column) of the cell that covers a level-0 point; may lie outside the grid."""
        (x0, y0), (dx, dy) = self.origin_level0, self.stride_level0
        return math.floor((Fraction(y) - y0) / dy), math.floor((Fraction(x) - x0) / dx)


def plan_grid(
    levels: Sequence,
    *,
    bounds: tuple[int, int, int, int],
    mpp_level0: float,
    mpp: float,
    patch_size: int,
    stride: int,
    tolerance: float = 0.05,
    edges: str = 'floor',
    allow_upsampling: bool = False,
) -> Plan:
    """Lays a grid over a slide.

    Reads at the coarsest level whose µm/px is at most (1 + tolerance) × `mpp`. Within the tolerance
    its pixels are taken as they are, else they are resampled by area.

    Args:
        levels: The slide's `Level`s, finest first.
        bounds: (x, y, width, height) of the scanned area in level-0 pixels.
        mpp_level0: µm/px of level 0.
        mpp: µm/px that patches shall have.
        patch_size: P, pixels at `mpp`.
        stride: S, pixels at `mpp`.
        tolerance: Relative deviation of µm/px that is let pass.
        edges: 'floor' keeps whole patches only; 'pad' adds cells until every pixel is covered,
            whose patches reach over the edge (background colour there).
        allow_upsampling: Let a slide coarser than `mpp` be magnified.

    Raises:
        TilingError: Sizes that are not positive, or a slide coarser than asked.
    """
    for name, value in (('patch_size', patch_size), ('stride', stride)):
        if int(value) != value or value < 1:
            raise TilingError(f'{name}={value} must be a whole number of pixels, 1 or more')
    if not (mpp > 0 and mpp_level0 > 0 and math.isfinite(mpp) and math.isfinite(mpp_level0)):
        raise TilingError(f'{mpp=} and {mpp_level0=} must be positive numbers of µm/px')
    if edges not in EDGES:
        raise TilingError(f'{edges=} must be one of {", ".join(EDGES)}')

    target, finest = exact(mpp), exact(mpp_level0)
    limit = target * (1 + exact(tolerance))
    fine_enough = [level for level in levels if finest * _mean_ratio(level) <= limit]
    if not fine_enough and not allow_upsampling:
        raise TilingError(
            f'its finest level has {mpp_level0:g} µm/px, coarser than the {mpp:g} µm/px asked for; '
            'set --config.tiling.mpp to a coarser value that the encoder was made for, or '
            '--config.tiling.allow_upsampling=True to magnify it'
        )
    level = fine_enough[-1] if fine_enough else levels[0]
    level_mpp = finest * _mean_ratio(level)
    resampled = level_mpp < target * (1 - exact(tolerance)) or level_mpp > limit

    axes = []
    for start, extent, ratio, length in (
        (bounds[0], bounds[2], level.ratio_x, level.width),
        (bounds[1], bounds[3], level.ratio_y, level.height),
    ):
        step = target / (finest * ratio) if resampled else Fraction(1)
        low = Fraction(start) / ratio
        high = min(Fraction(start + extent) / ratio, Fraction(length))
        if not resampled:  # whole pixels of the level, inside the bounds
            low = Fraction(math.ceil(low))
        pixels = (high - low) / step
        if edges == 'floor':
            cells = max(0, (math.floor(pixels) - patch_size) // stride + 1)
        else:
            # What lies between patches that do not touch needs no cell more.
            cells = max(0, math.ceil((pixels - max(patch_size, stride)) / stride)) + 1
        axes.append(Axis(origin=low, step=step, ratio=Fraction(ratio), cells=cells))
    return Plan(
        level=level.index,
        resampled=resampled,
        patch_size=int(patch_size),
        stride=int(stride),
        mpp_target=float(mpp),
        mpp=float(target if resampled else level_mpp),
        x=axes[0],
        y=axes[1],
    )


def tissue_share(
    plan: Plan, mask: np.ndarray, *, origin: tuple[float, float], step: tuple[float, float]
) -> np.ndarray:
    """Share of each patch's area that is tissue.

    Args:
        plan: The grid.
        mask: Tissue, bool `[h, w]`.
        origin: (x, y) of the mask's top-left corner, level-0 pixels.
        step: (x, y) level-0 pixels per mask pixel.

    Returns:
        float16 `[H, W]`, rounded as it is stored, so that thresholds decide alike ever after.
    """
    if 0 in plan.shape:
        return np.zeros(plan.shape, np.float16)
    weights = []
    for axis in (0, 1):  # x, y
        first = float(plan.origin_level0[axis]) - origin[axis]
        lows = first + np.arange(plan.shape[1 - axis]) * float(plan.stride_level0[axis])
        extent = float(plan.patch_level0[axis])
        length = mask.shape[1 - axis]
        weights.append(_interval_weights(lows / step[axis], extent / step[axis], length))
    share = weights[1] @ mask.astype(np.float32) @ weights[0].T
    return np.clip(share, 0, 1).astype(np.float16)


def shards(plan: Plan, side: int) -> Iterator[tuple[int, int]]:
    """Shard (row, column) of squares of `side` cells, in row-major order."""
    rows, columns = (-(-cells // side) for cells in plan.shape)
    return ((row, column) for row in range(rows) for column in range(columns))


def blocks(plan: Plan, encode: np.ndarray, shard: tuple[int, int], side: int) -> list[np.ndarray]:
    """The cells to encode in one shard, by the block of neighbours that is read at once.

    Args:
        plan: The grid.
        encode: Cells to encode, bool `[H, W]`.
        shard: Shard row and column.
        side: Cells along a shard's side.

    Returns:
        int `[n, 2]` rows and columns of cells, n ≥ 1, a block an array, in row-major order.
    """
    # Patches that overlap hold more pixels than the rectangle they are cut from.
    span = max(max(plan.x.step, plan.y.step) * plan.stride, plan.patch_size)
    block = 1 << max(0, int(math.log2(max(1, BLOCK_PIXELS / span))))
    block = min(block, side)
    top, left = shard[0] * side, shard[1] * side
    found = []
    for row in range(top, min(top + side, plan.y.cells), block):
        for column in range(left, min(left + side, plan.x.cells), block):
            part = encode[
                row : min(row + block, top + side), column : min(column + block, left + side)
            ]
            cells = np.argwhere(part)
            if len(cells):
                found.append(cells + (row, column))
    return found


def exact(value: float) -> Fraction:
    """The decimal that a float prints, as a rational: 0.499 is 499/1000."""
    return Fraction(repr(float(value)))


def _mean_ratio(level) -> Fraction:
    return (Fraction(level.ratio_x) + Fraction(level.ratio_y)) / 2


def _interval_weights(lows: np.ndarray, extent: float, length: int) -> np.ndarray:
    """Row i averages [lows[i], lows[i] + extent), float64 `[n, length]`, dense."""
    edges = np.arange(length + 1, dtype=np.float64)
    covered = np.clip(edges[None, :], lows[:, None], lows[:, None] + extent)
    return np.diff(covered, axis=1) / extent
