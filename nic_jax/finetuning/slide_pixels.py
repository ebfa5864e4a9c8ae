"""The pixels behind a crop of a grid: its encoded cells' patches, turned as the crop is."""

import collections
import dataclasses
import functools
import itertools
import threading
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from nic_jax.classifiers.batches import Draw
from nic_jax.finetuning.gradients import Patches
from nic_jax.grids import turn
from nic_jax.grids.reading import overlap
from nic_jax.slides import stream, tiling
from nic_jax.slides.grid_plan import plan_of_grid
from nic_jax.slides.slide import Slide

_OPEN = 16  # slides at a time: a crop or two are read at once, and files are not without number
Read = Callable[[int, int], np.ndarray]  # (start, stop) -> uint8 [n, P, P, 3]


class OpenSlides:
    """The slides that were read last, open; `get` opens others and closes the oldest."""

    def __init__(self):
        """Opens nothing yet."""
        self._open, self._lock = collections.OrderedDict(), threading.Lock()

    def get(self, name: str, opener: Callable[[], Slide]) -> Slide:
        """The slide of a name."""
        with self._lock:
            if name not in self._open:
                self._open[name] = opener()
                if len(self._open) > _OPEN:
                    self._open.popitem(last=False)[1].close()
            self._open.move_to_end(name)
            return self._open[name]

    def close(self) -> None:
        """Closes all."""
        with self._lock:
            while self._open:
                self._open.popitem()[1].close()


class PixelCache:
    """Patches of whole crops in memory, as far as a budget goes; others are read each time."""

    def __init__(self, budget: int):
        """Takes at most `budget` bytes."""
        self._left, self._kept, self._lock = budget, {}, threading.Lock()

    def reader(self, key: Any, count: int, nbytes: int, read: Read) -> Read:
        """What reads the patches of a crop, from memory where they fit.

        Args:
            key: Of the crop.
            count: Its patches.
            nbytes: Of one patch.
            read: From the slide.
        """
        with self._lock:
            kept = self._kept.get(key)
            if kept is None:
                if count * nbytes > self._left:
                    return read
                self._left -= count * nbytes
        if kept is None:
            kept = read(0, count)
            with self._lock:
                kept = self._kept.setdefault(key, kept)
        return lambda start, stop: kept[start:stop]


@dataclasses.dataclass(frozen=True, eq=False)
class SlidePixels:
    """A slide whose patches can be read.

    Attributes:
        slide_id: Its name.
        open: Gives the slide, open.
        encoded: Cells that are encoded, bool `[H, W]`.
        attributes: Of its grid.
        cache: Of pixels, shared by slides.
    """

    slide_id: str
    open: Callable[[], Slide]
    encoded: np.ndarray
    attributes: Mapping[str, Any]
    cache: PixelCache

    @property
    def patch_size(self) -> int:
        """P, px."""
        return self.attributes['patch_size']

    @functools.cached_property
    def plan(self) -> tiling.Plan:
        """Of the grid."""
        return plan_of_grid(self.open(), self.encoded.shape, self.attributes)

    def crop(self, draw: Draw, *, size: int) -> Patches:
        """The patches of a crop, and the places of their codes in it.

        Args:
            draw: Where the crop lies, and how it is turned: each patch and the layout alike.
            size: R, cells along the crop's side.
        """
        rows, into_rows = overlap(draw.top, size, self.encoded.shape[0])
        columns, into_columns = overlap(draw.left, size, self.encoded.shape[1])
        inside = np.zeros_like(self.encoded)
        inside[rows, columns] = self.encoded[rows, columns]
        # Neighbours are read together, so they come one after the other.
        blocks = tiling.blocks(self.plan, inside, (0, 0), max(1, *inside.shape))
        cells = np.concatenate(blocks) if blocks else np.zeros((0, 2), int)
        number = np.full(inside.shape, -1)
        number[tuple(cells.T)] = np.arange(len(cells))
        placed = np.full((size, size), -1)
        placed[into_rows, into_columns] = number[rows, columns]
        turned = turn(placed, draw.version).ravel()  # [R²], which patch is where
        (where,) = np.nonzero(turned >= 0)
        places = np.empty(len(cells), np.int32)
        places[turned[where]] = where
        pixels = self.cache.reader(
            (self.slide_id, draw.top, draw.left),
            len(cells),
            3 * self.patch_size**2,
            lambda start, stop: self._read(cells[start:stop]),
        )

        def read(start: int, stop: int) -> np.ndarray:
            return np.ascontiguousarray(turn(pixels(start, stop), draw.version, axes=(1, 2)))

        return Patches(places, read)

    def _read(self, cells: np.ndarray) -> np.ndarray:
        """The patches of cells, uint8 `[n, P, P, 3]`; those of a row that touch, at once."""
        slide = self.open()
        patches = np.empty((len(cells), self.patch_size, self.patch_size, 3), np.uint8)
        steps = np.diff(cells, axis=0)
        (breaks,) = np.nonzero((steps[:, 0] != 0) | (steps[:, 1] != 1))
        edges = [0, *(breaks + 1), len(cells)] if len(cells) else []
        for start, stop in itertools.pairwise(edges):
            patches[start:stop] = stream.read_cells(slide, self.plan, cells[start:stop])
        return patches
