"""A small picture of a whole slide."""

import concurrent.futures
import math
from collections.abc import Iterator
from fractions import Fraction

import numpy as np
import scipy.sparse

from nic_jax.slides.resample import area_weights, to_uint8, weighted_sums
from nic_jax.slides.slide import Level, Slide

BLOCK = 2048  # px of the level read that a piece has about along each side
THREADS = 4


def thumbnail(slide: Slide, *, mpp: float) -> tuple[np.ndarray, float]:
    """An overview of the slide's `bounds`, averaged by area.

    Reads the coarsest level not coarser than the overview, in pieces of whole tiles, each of which
    is read once; so memory is bounded by the overview's size and a few pieces.

    Args:
        slide: the slide; its µm/px must be known.
        mpp: µm/px of the overview; never finer than level 0.

    Returns:
        The image, uint8 [ceil(height / step), ceil(width / step), 3] of `slide.bounds`, and step =
        max(1, mpp / slide.mpp): level-0 pixels per pixel of the image. Pixel (row, column) covers
        level-0 pixels from bounds_x + column*step and bounds_y + row*step on.

    Raises:
        SlideError: if µm/px is unknown or a region cannot be read.
        ValueError: if mpp is not above zero.
    """
    if not mpp > 0:
        raise ValueError(f'{mpp=} of a thumbnail must be > 0 µm/px')
    step = max(1.0, mpp / slide.mpp)
    x, y, width, height = slide.bounds
    level = _coarsest_level(slide, step)
    along_x = _weights(x, width, step, level.ratio_x, level.width)
    along_y = _weights(y, height, step, level.ratio_y, level.height)
    image = np.zeros((along_y.shape[0], along_x.shape[0], 3), np.float32)

    def read_piece(piece: tuple[slice, slice]) -> tuple[slice, slice, np.ndarray]:
        """One piece's share of the overview, and where it belongs."""
        rows, columns = piece
        pixels = slide.read(
            level.index,
            columns.start,
            rows.start,
            columns.stop - columns.start,
            rows.stop - rows.start,
        )
        into_rows, weights_y = _narrow(along_y[:, rows])
        into_columns, weights_x = _narrow(along_x[:, columns])
        return into_rows, into_columns, weighted_sums(pixels, weights_y, weights_x)

    with concurrent.futures.ThreadPoolExecutor(THREADS) as threads:
        pieces = _pieces(along_y, along_x, slide.tile_size(level.index))
        # In the pieces' order, whatever thread is first: sums of floats depend on it.
        for rows, columns, share in threads.map(read_piece, pieces):
            image[rows, columns] += share
    return to_uint8(image), step


def _coarsest_level(slide: Slide, step: float) -> Level:
    # A µm/px such as 0.5000001 must not cost a level.
    coarsest = 1.001 * step
    fine_enough = [level for level in slide.levels if max(level.ratio_x, level.ratio_y) <= coarsest]
    return max(fine_enough, key=lambda level: level.ratio_x, default=slide.levels[0])


def _weights(
    start: int, extent: int, step: float, ratio: Fraction, length: int
) -> scipy.sparse.csc_array:
    """The matrix [ceil(extent / step), length] that averages one axis of the level."""
    count = max(1, math.ceil(extent / step))
    return area_weights(start / ratio, Fraction(step) / ratio, count, length).tocsc()


def _pieces(
    along_y: scipy.sparse.csc_array, along_x: scipy.sparse.csc_array, tile: tuple[int, int]
) -> Iterator[tuple[slice, slice]]:
    """Rows and columns of the level's pixels that count, cut between tiles."""
    for rows in _cuts(along_y, tile[1]):
        for columns in _cuts(along_x, tile[0]):
            yield rows, columns


def _cuts(along: scipy.sparse.csc_array, tile: int) -> list[slice]:
    """The used pixels of one axis, cut at multiples of the tile into lengths of about BLOCK."""
    used = np.flatnonzero(np.diff(along.indptr))
    first, last = int(used[0]), int(used[-1])
    length = tile * max(1, BLOCK // tile) if tile <= 2 * BLOCK else BLOCK
    starts = range(first // length * length, last + 1, length)
    return [slice(max(start, first), min(start + length, last + 1)) for start in starts]


def _narrow(weights: scipy.sparse.csc_array) -> tuple[slice, scipy.sparse.csr_array]:
    """The rows of a matrix from the first to the last that hold anything, and what they hold."""
    used = np.unique(weights.indices)
    rows = slice(int(used[0]), int(used[-1]) + 1)
    return rows, weights.tocsr()[rows]
