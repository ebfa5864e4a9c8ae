"""The pixels behind a crop of a grid: its encoded cells' patches, turned as the crop is."""

import collections
import dataclasses
import functools
import itertools
import threading
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np

from nic_jax.classifiers.batches import Draw
from nic_jax.finetuning.gradients import Patches
from nic_jax.finetuning.pixels import PixelCache, crop_places, inside_crop
from nic_jax.grids import turn
from nic_jax.slides import stream, tiling
from nic_jax.slides.grid_plan import plan_of_grid
from nic_jax.slides.slide import Slide

_OPEN = 16  # slides at a time: a crop or two are read at once, and files are not without number


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


@dataclasses.dataclass(frozen=True, eq=False)
class SlidePixels:
    """A slide, as `Pixels`.

    Attributes:
        slide_id: Its name.
        open: Gives the slide, open.
        encoded: Cells that are encoded, bool `[H, W]`.
        attributes: Of its grid.
        cache: Of pixels, shared by slides.
    """

    turns_patches: ClassVar[bool] = True

    slide_id: str
    open: Callable[[], Slide]
    encoded: np.ndarray
    attributes: Mapping[str, Any]
    cache: PixelCache

    @property
    def source(self) -> str:
        """Of the slide's file, when its grid was made."""
        return self.attributes['source']['fingerprint']

    @property
    def patch_shape(self) -> tuple[int, int, int]:
        """P, P, 3."""
        return self.attributes['patch_size'], self.attributes['patch_size'], 3

    @functools.cached_property
    def plan(self) -> tiling.Plan:
        """Of the grid."""
        return plan_of_grid(self.open(), self.encoded.shape, self.attributes)

    def check(self) -> None:
        """Opens the slide, and makes sure that its grid is of it.

        Raises:
            ValueError: It is not there, cannot be opened, or is not what its grid was made of.
        """
        try:
            _ = self.plan
        except ValueError as error:
            raise ValueError(
                f'{error}; fine-tuning reads the pixels of every slide: leave {self.slide_id} out '
                'of the table, or bring its file back'
            ) from error

    def keep(self) -> None:
        """Makes room for its pixels in the cache."""
        self.cache.keep(self.slide_id, (int(self.encoded.sum()), *self.patch_shape))

    def crop(self, draw: Draw, *, size: int) -> Patches:
        """The patches of a crop, and the places of their codes in it; both are turned alike."""
        inside = inside_crop(self.encoded, draw, size=size)
        # Neighbours are read together, so they come one after the other.
        blocks = tiling.blocks(self.plan, inside, (0, 0), max(1, *inside.shape))
        cells = np.concatenate(blocks) if blocks else np.zeros((0, 2), int)
        numbers = self.encoded.cumsum().reshape(self.encoded.shape) - 1
        pixels = self.cache.reader(
            self.slide_id,
            numbers[tuple(cells.T)],
            lambda start, stop: self._read(cells[start:stop]),
        )

        def read(start: int, stop: int) -> np.ndarray:
            return np.ascontiguousarray(turn(pixels(start, stop), draw.version, axes=(1, 2)))

        return Patches(crop_places(cells, inside.shape, draw, size=size), read)

    def _read(self, cells: np.ndarray) -> np.ndarray:
        """The patches of cells, uint8 `[n, P, P, 3]`; those of a row that touch, at once."""
        slide = self.open()
        patches = np.empty((len(cells), *self.patch_shape), np.uint8)
        steps = np.diff(cells, axis=0)
        (breaks,) = np.nonzero((steps[:, 0] != 0) | (steps[:, 1] != 1))
        edges = [0, *(breaks + 1), len(cells)] if len(cells) else []
        for start, stop in itertools.pairwise(edges):
            patches[start:stop] = stream.read_cells(slide, self.plan, cells[start:stop])
        return patches
