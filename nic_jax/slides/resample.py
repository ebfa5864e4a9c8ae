"""Resampling by area: every output pixel is the mean of the source pixels that it covers."""

import math
from fractions import Fraction

import numpy as np
import scipy.sparse

Number = int | float | Fraction
CHUNK = 16  # output rows at a time: what is transposed stays in the processor's cache


def area_overlaps(start: Number, step: Number, count: int, length: int) -> scipy.sparse.csr_array:
    """How much of every source pixel lies in every output interval.

    Row i is the interval [start + i*step, start + (i+1)*step) of a line of `length` source pixels,
    of which pixel k covers [k, k+1). The edges are exact where start and step are Fractions.

    Args:
        start: where interval 0 begins, in source pixels; may be negative.
        step: the intervals' length in source pixels, > 0; below 1 is upsampling.
        count: number of intervals.
        length: number of source pixels; what lies outside [0, length) is not counted.

    Returns:
        float64 [count, length].

    Raises:
        ValueError: if step is not positive.
    """
    if not step > 0:
        raise ValueError(f'{step=} must be > 0 source pixels')
    start, step = Fraction(start), Fraction(step)
    unit = math.lcm(start.denominator, step.denominator)
    first, each = int(start * unit), int(step * unit)
    edges = np.array([(first + i * each) / unit for i in range(count + 1)])
    edges = np.clip(edges, 0, length)
    left, right = edges[:-1, None], edges[1:, None]  # [count, 1]
    reach = math.ceil(step) + 1  # no interval touches more pixels than this
    pixels = np.floor(left).astype(np.int64) + np.arange(reach)  # [count, reach]
    overlaps = np.minimum(right, pixels + 1) - np.maximum(left, pixels)
    row, at = np.nonzero((overlaps > 0) & (pixels < length))
    return scipy.sparse.csr_array(
        (overlaps[row, at], (row, pixels[row, at])), shape=(count, length)
    )


def area_weights(start: Number, step: Number, count: int, length: int) -> scipy.sparse.csr_array:
    """The matrix that averages a line of pixels over intervals: `area_weights(...) @ line`.

    Args as for `area_overlaps`. Every row sums to 1 over the pixels inside [0, length); a row
    wholly outside is all zero.

    Returns:
        float64 [count, length].
    """
    overlaps = area_overlaps(start, step, count, length)
    return scipy.sparse.diags_array(_reciprocal(overlaps.sum(axis=1))).tocsr() @ overlaps


def area_resample(
    pixels: np.ndarray,
    *,
    start_y: Number,
    start_x: Number,
    step_y: Number,
    step_x: Number,
    rows: int,
    columns: int,
) -> np.ndarray:
    """Resamples an image by area, rounding half to even.

    Args:
        pixels: uint8 [h, w, C].
        start_y: where output row 0 begins, in rows of `pixels`; may be negative.
        start_x: where output column 0 begins, in columns of `pixels`.
        step_y: rows of `pixels` an output row covers, > 0.
        step_x: columns of `pixels` an output column covers, > 0.
        rows: number of output rows.
        columns: number of output columns.

    Returns:
        uint8 [rows, columns, C]. Pixels outside the image are not counted; an output pixel wholly
        outside is 0.
    """
    height, width, _ = pixels.shape
    along_y = area_overlaps(start_y, step_y, rows, height)
    along_x = area_overlaps(start_x, step_x, columns, width)
    # Dividing at the end keeps whole steps exact in float32, ties of rounding included.
    image = weighted_sums(pixels, along_y, along_x)
    areas = np.outer(along_y.sum(axis=1), along_x.sum(axis=1))
    image *= _reciprocal(areas).astype(np.float32)[..., None]
    return to_uint8(image)


def weighted_sums(
    pixels: np.ndarray, along_y: scipy.sparse.csr_array, along_x: scipy.sparse.csr_array
) -> np.ndarray:
    """Applies a matrix [rows, h] to the rows and one [columns, w] to the columns of an image.

    Args:
        pixels: [h, w, C].
        along_y: [rows, h].
        along_x: [columns, w].

    Returns:
        float32 [rows, columns, C].
    """
    _, width, channels = pixels.shape
    rows, columns = along_y.shape[0], along_x.shape[0]
    along_y, along_x = along_y.astype(np.float32), along_x.astype(np.float32)
    image = np.zeros((rows, columns, channels), np.float32)
    for top in range(0, rows, CHUNK):
        chunk = along_y[top : top + CHUNK]  # [r, h]
        if chunk.nnz == 0:
            continue
        first, last = chunk.indices.min(), chunk.indices.max() + 1
        lines = pixels[first:last].astype(np.float32).reshape(last - first, width * channels)
        lines = (chunk[:, first:last] @ lines).reshape(-1, width, channels)  # [r, w, C]
        lines = lines.swapaxes(0, 1).reshape(width, -1)  # [w, r*C]
        lines = (along_x @ lines).reshape(columns, -1, channels)  # [columns, r, C]
        image[top : top + CHUNK] = lines.swapaxes(0, 1)
    return image


def to_uint8(image: np.ndarray) -> np.ndarray:
    """Rounds (half to even) an image of means of uint8 values, in place, and converts it."""
    return np.rint(image, out=image).astype(np.uint8)


def _reciprocal(sums: np.ndarray) -> np.ndarray:
    """1 / sums, and 0 where there is nothing to divide by."""
    return np.divide(1, sums, out=np.zeros_like(sums), where=sums > 0)
