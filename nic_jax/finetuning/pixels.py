"""What fine-tuning asks of any image: the patches behind a crop of its grid."""

import math
import threading
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from nic_jax.classifiers.batches import Draw
from nic_jax.finetuning.gradients import Patches
from nic_jax.grids import turn
from nic_jax.grids.reading import overlap

Read = Callable[[int, int], np.ndarray]  # (start, stop) -> uint8 [n, P, P, channels]


class Pixels(Protocol):
    """An image whose patches can be read.

    Attributes:
        slide_id: Its name.
        source: Its file's fingerprint, whatever it is called; see `Encoder.learned_from`.
        encoded: Cells that are encoded, bool `[H, W]`.
        patch_shape: P, P, channels.
        turns_patches: Whether a version turns each patch with the layout, or the layout alone. A
            classifier of grids in one version has seen the layout turned alone; slides' patches
            are turned in its training from pixels all the same, as an augmentation.
    """

    slide_id: str
    source: str
    encoded: np.ndarray
    patch_shape: tuple[int, int, int]
    turns_patches: bool

    def check(self) -> None:
        """Makes sure, before anything long, that it can be read.

        Raises:
            ValueError: It cannot.
        """

    def keep(self) -> None:
        """Keeps in memory what is read of it from now on, where there is room for all of it."""

    def crop(self, draw: Draw, *, size: int) -> Patches:
        """The patches of a crop, and the places of their codes in it.

        Args:
            draw: Where the crop lies, and how it is turned.
            size: R, cells along the crop's side.
        """


class PixelCache:
    """Patches of whole images in memory, as far as a budget goes; others are read each time."""

    def __init__(self, budget: int):
        """Takes at most `budget` bytes."""
        self._left, self._kept, self._lock = budget, {}, threading.Lock()

    def keep(self, key: Any, shape: tuple[int, ...]) -> None:
        """Makes room for all patches of an image, `[N, P, P, channels]`, where there is some."""
        with self._lock:
            if key not in self._kept and math.prod(shape) <= self._left:
                self._left -= math.prod(shape)
                self._kept[key] = np.empty(shape, np.uint8), np.zeros(shape[0], bool)

    def reader(self, key: Any, numbers: np.ndarray, read: Read) -> Read:
        """What reads some patches of an image: from memory, once they were read, where it has room.

        Args:
            key: Of the image.
            numbers: Which of its patches, int `[n]`.
            read: From the image, by places in `numbers`.
        """
        if key not in self._kept:
            return read
        pixels, known = self._kept[key]

        def kept(start: int, stop: int) -> np.ndarray:
            wanted = numbers[start:stop]
            if known[wanted].all():
                return pixels[wanted]
            pixels[wanted] = found = read(start, stop)
            known[wanted] = True  # another thread may have read the same, and written the same
            return found

        return kept


def inside_crop(encoded: np.ndarray, draw: Draw, *, size: int) -> np.ndarray:
    """Encoded cells that a crop takes in, bool `[H, W]`."""
    rows, _ = overlap(draw.top, size, encoded.shape[0])
    columns, _ = overlap(draw.left, size, encoded.shape[1])
    inside = np.zeros_like(encoded)
    inside[rows, columns] = encoded[rows, columns]
    return inside


def crop_places(cells: np.ndarray, shape: tuple[int, int], draw: Draw, *, size: int) -> np.ndarray:
    """Where cells come to lie in a crop that is turned: y·R + x of each, int32 `[N]`.

    Args:
        cells: [N, 2], all inside the crop.
        shape: H and W of the grid.
        draw: Of the crop.
        size: R.
    """
    rows, into_rows = overlap(draw.top, size, shape[0])
    columns, into_columns = overlap(draw.left, size, shape[1])
    number = np.full(shape, -1)
    number[tuple(cells.T)] = np.arange(len(cells))
    placed = np.full((size, size), -1)
    placed[into_rows, into_columns] = number[rows, columns]
    turned = turn(placed, draw.version).ravel()  # [R²], which patch is where
    (where,) = np.nonzero(turned >= 0)
    places = np.empty(len(cells), np.int32)
    places[turned[where]] = where
    return places
