"""The pixels behind a crop of a synthetic image's grid: drawn again, never stored."""

import dataclasses
import functools
from typing import ClassVar

import numpy as np

from nic_jax.classifiers.batches import Draw
from nic_jax.finetuning.gradients import Patches
from nic_jax.finetuning.pixels import crop_places, inside_crop
from nic_jax.synthetic import rectangles
from nic_jax.synthetic.digits import DigitSet
from nic_jax.synthetic.rectangles import RectangleStudy


@dataclasses.dataclass(frozen=True, eq=False)
class ImagePixels:
    """A synthetic image, as `Pixels`; every cell is encoded, the blank ones too.

    Attributes:
        slide_id: Its name.
        study: What images are like.
        digits: What they are made of.
        seed: Of the set.
        index: Of the image.
    """

    turns_patches: ClassVar[bool] = False  # digits stay upright: see `grids.stack`

    slide_id: str
    study: RectangleStudy
    digits: DigitSet
    seed: int
    index: int

    @property
    def source(self) -> str:
        """There is no file: the numbers that it is drawn from, in a study with these digits."""
        return f'{self.seed}/{self.index}'

    @property
    def patch_shape(self) -> tuple[int, int, int]:
        """P, P, 1."""
        return self.study.cell, self.study.cell, 1

    @property
    def encoded(self) -> np.ndarray:
        """Every cell, bool `[H, W]`."""
        return np.ones((self.study.grid_cells,) * 2, bool)

    def check(self) -> None:
        """Nothing can be missing: an image is drawn."""

    def keep(self) -> None:
        """Keeps nothing: drawing is quick."""

    def crop(self, draw: Draw, *, size: int) -> Patches:
        """The patches of a crop, upright, and the places of their codes in it."""
        cells = np.argwhere(inside_crop(self.encoded, draw, size=size))

        @functools.cache  # an image is drawn once a crop, or by each thread that begins with it
        def patches() -> np.ndarray:
            image = rectangles.draw(self.study, self.digits, seed=self.seed, index=self.index)
            return rectangles.cells(image.pixels, self.study.cell, self.study.step)

        def read(start: int, stop: int) -> np.ndarray:
            return patches()[tuple(cells[start:stop].T)][..., None] * np.uint8(255)

        return Patches(crop_places(cells, self.encoded.shape, draw, size=size), read)
