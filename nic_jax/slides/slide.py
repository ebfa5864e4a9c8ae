"""A slide: its geometry, its resolution and its stored pixels."""

import dataclasses
import math
import os
import pathlib
from fractions import Fraction

import numpy as np
import openslide

from nic_jax.slides.tiff_tiles import TiffTiles, TileError

WHITE = (255, 255, 255)
CLOSED = 'the slide was closed'


class SlideError(ValueError):
    """A slide that cannot be opened, understood or read; the message names the file."""


@dataclasses.dataclass(frozen=True)
class Level:
    """One resolution of a slide."""

    index: int
    width: int  # px of this level
    height: int
    ratio_x: Fraction  # level-0 px per px of this level
    ratio_y: Fraction


class Slide:
    """An opened slide; see `open_slide`. A context manager; reading is thread-safe.

    Attributes:
        path: the file.
        dimensions: (width, height) of level 0.
        levels: the levels, finest first.
        bounds: (x, y, width, height), in level-0 px, of the part that was scanned.
        background: (r, g, b) of what was not scanned or is not stored.
        mpp_source: where its µm/px is from: 'given', 'file', or 'default'.
    """

    path: pathlib.Path
    dimensions: tuple[int, int]
    levels: tuple[Level, ...]
    bounds: tuple[int, int, int, int]
    background: tuple[int, int, int]
    mpp_source: str

    def __init__(
        self,
        path: str | os.PathLike,
        *,
        mpp: float | None = None,
        default_mpp: float | None = None,
    ):
        self.path = pathlib.Path(path)
        for given in (mpp, default_mpp):
            if given is not None and not (math.isfinite(given) and given > 0):
                raise SlideError(f'{self.path}: the given {given} µm/px must be > 0')
        self._openslide = _open(self.path)
        properties = self._openslide.properties
        try:
            self._mpp = _stored_mpp(self.path, properties) if mpp is None else float(mpp)
            self.mpp_source = 'file' if mpp is None else 'given'
            if self._mpp is None:
                self._mpp, self.mpp_source = default_mpp, 'default'
        except SlideError:
            self._openslide.close()
            raise
        self._tile_sizes = [
            (
                int(properties.get(f'openslide.level[{level}].tile-width', 256)),
                int(properties.get(f'openslide.level[{level}].tile-height', 256)),
            )
            for level in range(self._openslide.level_count)
        ]
        self.dimensions = self._openslide.dimensions
        self.levels = tuple(
            Level(index, *size, *level_ratio(self.dimensions, size))
            for index, size in enumerate(self._openslide.level_dimensions)
        )
        self.bounds = _bounds(properties, self.dimensions)
        self.background = _background(properties)
        self._tiles = TiffTiles(self.path, self._openslide, background=self.background)
        self._failure: str | None = None  # why nothing more can be read

    @property
    def mpp(self) -> float:
        """µm/px of level 0.

        Raises:
            SlideError: if the file stores none and none was given.
        """
        if self._mpp is None:
            raise SlideError(
                f'{self.path}: the file does not tell its µm/px; give it in the column `mpp` of '
                'the table of slides, or for all slides by --config.tiling.default_mpp'
            )
        return self._mpp

    def tile_size(self, level: int) -> tuple[int, int]:
        """(width, height) of the level's stored tiles, (256, 256) where it is not known."""
        return self._tile_sizes[level]

    def decodes_tiles(self, level: int) -> bool:
        """Whether a level is read by decoding whole TIFF tiles (fast) or by OpenSlide."""
        return self._tiles.serves(level)

    def read(self, level: int, x: int, y: int, width: int, height: int) -> np.ndarray:
        """The stored pixels of a region.

        Where tiles are decoded directly, they are the stored pixels exactly. So are OpenSlide's
        where its ratio of the level is an integer. Elsewhere OpenSlide places and blends
        neighbouring pixels: the region is taken at the nearest level-0 pixel, that is within half
        a level-0 pixel of where the level has it (exactly there if it begins at (0, 0)).

        Args:
            level: index into `levels`.
            x: left edge, in that level's pixels; may lie outside the level.
            y: top edge.
            width: in that level's pixels, > 0.
            height: in that level's pixels, > 0.

        Returns:
            uint8 [height, width, 3]; outside the level, and where nothing is stored, the
            background's colour.

        Raises:
            SlideError: if the region cannot be read. If the error is OpenSlide's, nothing more
                can be read by OpenSlide from this slide, and every later read raises.
        """
        region = f'level {level}, region x={x} y={y} {width}x{height}'
        if not 0 <= level < len(self.levels) or width <= 0 or height <= 0:
            raise SlideError(
                f'{self.path}: no such region: {region}; the slide has levels 0 to '
                f'{len(self.levels) - 1}, and sizes must be > 0'
            )
        if self._failure is not None:
            raise SlideError(f'{self.path}: cannot read {region}: {self._failure}')
        left, top = max(x, 0), max(y, 0)
        right = min(x + width, self.levels[level].width)
        bottom = min(y + height, self.levels[level].height)
        inside = (left, top, right - left, bottom - top)
        if right <= left or bottom <= top:
            return self._blank(width, height)
        try:
            if self._tiles.serves(level):
                pixels = self._tiles.read(level, *inside)
            else:
                pixels = self._read_openslide(level, *inside)
        except TileError as error:
            raise SlideError(f'{self.path}: cannot read {region}: {error}') from error
        except openslide.OpenSlideError as error:
            self._failure = f'an earlier read failed: {error}'
            raise SlideError(f'{self.path}: cannot read {region}: {error}') from error
        if inside == (x, y, width, height):
            return pixels
        padded = self._blank(width, height)
        padded[top - y : bottom - y, left - x : right - x] = pixels
        return padded

    def close(self) -> None:
        """Closes the file; reading afterwards raises."""
        if self._failure != CLOSED:
            self._failure = CLOSED
            self._tiles.close()
            self._openslide.close()

    def __enter__(self) -> 'Slide':
        return self

    def __exit__(self, *exception) -> None:
        self.close()

    def _blank(self, width: int, height: int) -> np.ndarray:
        return np.full((height, width, 3), self.background, np.uint8)

    def _read_openslide(self, level: int, x: int, y: int, width: int, height: int) -> np.ndarray:
        """A region inside a level, by OpenSlide; transparent pixels over the background."""
        ratio = self._openslide.level_downsamples[level]  # not ours: read_region divides by it
        location = round(x * ratio), round(y * ratio)
        rgba = np.asarray(self._openslide.read_region(location, level, (width, height)))
        pixels, alpha = np.ascontiguousarray(rgba[..., :3]), rgba[..., 3]
        clear = alpha < 255
        if clear.any():
            share = alpha[clear, None] / 255.0
            over = share * pixels[clear] + (1 - share) * np.array(self.background)
            pixels[clear] = np.rint(over).astype(np.uint8)
        return pixels


def open_slide(
    path: str | os.PathLike, *, mpp: float | None = None, default_mpp: float | None = None
) -> Slide:
    """Opens a slide of any format that OpenSlide reads.

    Args:
        path: the file.
        mpp: µm/px of level 0; overrides what the file says.
        default_mpp: µm/px of level 0 where neither `mpp` nor the file tells it.

    Raises:
        SlideError: if the file cannot be opened, or if its µm/px along x and y differ by more than
            1 % and none is given.
    """
    return Slide(path, mpp=mpp, default_mpp=default_mpp)


def level_ratio(full: tuple[int, int], size: tuple[int, int]) -> tuple[Fraction, Fraction]:
    """How many level-0 pixels a level's pixel covers, along x and y.

    The integer by which floor division (else division rounded up) of level 0's size gives the
    level's size on both axes; of several such, a power of two, else the nearest to the quotient of
    the longer sides. If there is none, the quotient of the sizes, axis by axis.

    Args:
        full: (width, height) of level 0.
        size: (width, height) of the level.
    """
    quotients = [Fraction(a, b) for a, b in zip(full, size, strict=True)]
    floored = _integers_between(
        max(a // (b + 1) + 1 for a, b in zip(full, size, strict=True)),
        min(a // b for a, b in zip(full, size, strict=True)),
    )
    rounded_up = _integers_between(
        max(-(-a // b) for a, b in zip(full, size, strict=True)),
        min(-(-a // (b - 1)) - 1 if b > 1 else a for a, b in zip(full, size, strict=True)),
    )
    candidates = floored or rounded_up
    if not candidates:
        return quotients[0], quotients[1]
    powers = [n for n in candidates if n & (n - 1) == 0]
    longer = quotients[0] if size[0] >= size[1] else quotients[1]
    ratio = Fraction(min(powers or candidates, key=lambda n: abs(n - longer)))
    return ratio, ratio


def _integers_between(first: int, last: int) -> range:
    return range(max(first, 1), last + 1)


def _open(path: pathlib.Path) -> openslide.OpenSlide:
    if not path.exists():
        raise SlideError(f'{path}: no such file')
    try:
        return openslide.OpenSlide(path)
    except openslide.OpenSlideError as error:
        raise SlideError(f'{path}: OpenSlide cannot open it: {error}') from error


def _stored_mpp(path: pathlib.Path, properties) -> float | None:
    """The mean of the file's µm/px along x and y; None if it tells neither."""
    stored = {
        name: value
        for name in (openslide.PROPERTY_NAME_MPP_X, openslide.PROPERTY_NAME_MPP_Y)
        if (value := _positive(properties.get(name))) is not None
    }
    if not stored:
        return None
    if max(stored.values()) > 1.01 * min(stored.values()):
        values = ', '.join(f'{name} = {value}' for name, value in stored.items())
        raise SlideError(
            f'{path}: its µm/px along x and y differ by more than 1 % ({values}); if one of them '
            'holds for both, give it in the column `mpp` of the table of slides'
        )
    return sum(stored.values()) / len(stored)


def _positive(text: str | None) -> float | None:
    """The number a property holds, None if it holds no finite number above zero."""
    try:
        value = float(text or 'nan')
    except ValueError:
        return None
    return value if math.isfinite(value) and value > 0 else None


def _bounds(properties, dimensions: tuple[int, int]) -> tuple[int, int, int, int]:
    """The scanned part (x, y, width, height), inside level 0; the whole where it is not told."""
    names = ('x', 'y', 'width', 'height')
    stored = [properties.get(f'openslide.bounds-{name}') for name in names]
    if None in stored:
        return 0, 0, *dimensions
    x, y, width, height = map(int, stored)
    left, top = max(x, 0), max(y, 0)
    right, bottom = min(x + width, dimensions[0]), min(y + height, dimensions[1])
    if right <= left or bottom <= top:
        return 0, 0, *dimensions
    return left, top, right - left, bottom - top


def _background(properties) -> tuple[int, int, int]:
    """The colour behind the scanned parts; white where it is not told."""
    code = properties.get(openslide.PROPERTY_NAME_BACKGROUND_COLOR)
    return tuple(bytes.fromhex(code)) if code else WHITE
