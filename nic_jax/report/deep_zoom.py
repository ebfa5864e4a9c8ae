"""A slide as a pyramid of small JPEG files (Deep Zoom's layout), which a browser can look into."""

import math
import pathlib
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from PIL import Image

from nic_jax.slides import Level, Slide
from nic_jax.slides.resample import area_resample

TILE = 512  # px
MAX_TILES = 4000
_QUALITY = 80
_NEARLY = 1.01  # a level this much coarser than asked for will do


class Pyramid(NamedTuple):
    """Where the tiles of a slide are, and what they cover.

    Level l has tiles `l/COLUMN_ROW.jpg`; the finest is ceil(log2(max(width, height))), and every
    level has half the pixels of the next, rounded up.
    """

    width: int  # px of the finest level
    height: int
    origin: tuple[int, int]  # of its corner, level-0 px
    step: int  # level-0 px per px of the finest level
    tiles: int
    megabytes: float


def finest_step(size: tuple[int, int], *, max_tiles: int = MAX_TILES) -> int:
    """The smallest power of two by which a slide must be shrunk to have at most so many tiles.

    Args:
        size: (width, height) of what is shown, level-0 px.
        max_tiles: Of all levels.
    """
    step = 1
    while count_tiles(size, step=step) > max_tiles:
        step *= 2
    return step


def count_tiles(size: tuple[int, int], *, step: int) -> int:
    """How many tiles the pyramid of a slide has that is shrunk by `step`."""
    return sum(
        math.ceil(width / TILE) * math.ceil(height / TILE) for width, height in _sizes(size, step)
    )


def write_pyramid(slide: Slide, folder: pathlib.Path, *, step: int) -> Pyramid:
    """Writes the tiles of a slide's bounds.

    Each region of the slide is read once; coarser tiles are made of finer ones, branch by branch,
    so that no more than four tiles a level are held.

    Args:
        slide: Open.
        folder: For the levels; must not hold any.
        step: Level-0 px per px of the finest level, a power of two.

    Raises:
        SlideError: A region cannot be read.
    """
    sizes = _sizes(slide.bounds[2:], step)
    finest = len(sizes) - 1
    source = _source(slide, step)
    for level in range(len(sizes)):
        (folder / str(level)).mkdir(parents=True)
    counts = {'tiles': 0, 'bytes': 0}

    def build(level: int, column: int, row: int) -> np.ndarray:
        """Writes a tile and all finer ones below it; returns its pixels."""
        width, height = (
            min(TILE, side - TILE * at)
            for side, at in zip(sizes[level], (column, row), strict=True)
        )
        if level == finest:
            pixels = _read(slide, source, step, TILE * column, TILE * row, width, height)
        else:
            pixels = _joined(level, column, row, (width, height))
        path = folder / str(level) / f'{column}_{row}.jpg'
        Image.fromarray(pixels).save(path, quality=_QUALITY)
        counts['tiles'] += 1
        counts['bytes'] += path.stat().st_size
        return pixels

    def _joined(level: int, column: int, row: int, size: tuple[int, int]) -> np.ndarray:
        """A tile out of the up to four below it, halved."""
        wide, high = sizes[level + 1]
        rows = []
        for y in (2 * row, 2 * row + 1):
            below = [
                build(level + 1, x, y)
                for x in (2 * column, 2 * column + 1)
                if TILE * x < wide and TILE * y < high
            ]
            if below:
                rows.append(np.concatenate(below, axis=1))
        return _halved(np.concatenate(rows))[: size[1], : size[0]]

    build(0, 0, 0)
    x, y = slide.bounds[:2]
    return Pyramid(*sizes[finest], (x, y), step, counts['tiles'], counts['bytes'] / 1e6)


def _sizes(size: tuple[int, int], step: int) -> list[tuple[int, int]]:
    """(width, height) of every level, the coarsest, of one pixel, first."""
    width, height = (math.ceil(side / step) for side in size)
    sizes = [(width, height)]
    while max(sizes[-1]) > 1:
        sizes.append(tuple(math.ceil(side / 2) for side in sizes[-1]))
    return sizes[::-1]


def _source(slide: Slide, step: int) -> Level:
    """The coarsest stored level that is fine enough."""
    fine = [level for level in slide.levels if max(level.ratio_x, level.ratio_y) <= _NEARLY * step]
    return max(fine, key=lambda level: level.ratio_x, default=slide.levels[0])


def _read(
    slide: Slide, source: Level, step: int, left: int, top: int, width: int, height: int
) -> np.ndarray:
    """Pixels of the finest level, averaged by area of a stored one."""
    spans = []
    for start, first, count, ratio in (
        (slide.bounds[0], left, width, source.ratio_x),
        (slide.bounds[1], top, height, source.ratio_y),
    ):
        begin, each = Fraction(start + first * step) / ratio, Fraction(step) / ratio
        low, high = math.floor(begin), math.ceil(begin + count * each)
        spans.append((low, high - low, begin - low, each))
    (x, across, start_x, step_x), (y, down, start_y, step_y) = spans
    pixels = slide.read(source.index, x, y, across, down)
    if step_x == step_y == 1 and start_x == start_y == 0:
        return pixels
    return area_resample(
        pixels,
        start_y=start_y,
        start_x=start_x,
        step_y=step_y,
        step_x=step_x,
        rows=height,
        columns=width,
    )


def _halved(pixels: np.ndarray) -> np.ndarray:
    """Means of 2×2 px; the last row and column are repeated where they are alone."""
    height, width = pixels.shape[:2]
    padded = np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode='edge').astype(
        np.uint16
    )
    sums = padded[::2, ::2] + padded[1::2, ::2] + padded[::2, 1::2] + padded[1::2, 1::2]
    return ((sums + 2) // 4).astype(np.uint8)
