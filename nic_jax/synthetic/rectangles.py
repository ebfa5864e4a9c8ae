"""The synthetic images of the TPAMI paper: thousands of digits, and two rectangles that sort them.

The image's label is the digit that fills the tilted rectangle; the upright rectangle is filled with
another digit, so that neither a digit nor a rectangle alone tells the label.
"""

import dataclasses
import functools
import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from nic_jax import prefetch
from nic_jax.synthetic.digits import DigitSet


@dataclasses.dataclass(frozen=True)
class RectangleStudy:
    """The settings of a set of images; the defaults are the paper's.

    Attributes:
        size: side of the image in px, a multiple of `cell`.
        cell: side of a cell in px; a cell gets one digit at most. Encoders see patches as large.
        stride: px between neighbouring patches of the grid of codes; None for `cell`. A smaller one
            makes patches overlap, a larger one leaves pixels out. The image is the same with any.
        fill: digits per pixel of the image. .002 gives 25,920 digits, 16.2 % of the cells.
        jitter: a digit is moved by up to this many px on each axis.
        lesion_min: shortest long side of the rectangles in px (the short side is half of it).
        lesion_max: longest long side in px, at most half of `size`.
        classes: number of digits in use.
    """

    size: int = 3600
    cell: int = 9
    stride: int | None = None
    fill: float = 0.002
    jitter: int = 4
    lesion_min: int = 36
    lesion_max: int = 1800
    classes: int = 10

    def __post_init__(self):
        if self.size % self.cell:
            raise ValueError(f'{self.size=} must be a multiple of {self.cell=}')
        if self.stride is not None and not 0 < self.stride <= self.size - self.cell:
            raise ValueError(
                f'{self.stride=} must be from 1 to {self.size - self.cell}, or None for the cell'
            )
        if not 0 < self.digits <= self.cells**2:
            raise ValueError(f'{self.fill=} means {self.digits} digits in {self.cells**2} cells')
        if not 0 < self.lesion_min <= self.lesion_max <= self.size // 2:
            raise ValueError(
                f'{self.lesion_min=} and {self.lesion_max=} must be from 1 to half of {self.size=}'
            )
        if self.classes < 3:
            raise ValueError(f'{self.classes=} must be at least 3')

    @property
    def cells(self) -> int:
        """Cells along one side of the image."""
        return self.size // self.cell

    @property
    def step(self) -> int:
        """Pixels between neighbouring patches of the grid."""
        return self.stride or self.cell

    @property
    def grid_cells(self) -> int:
        """Patches along one side of the grid of codes, whole ones only."""
        return (self.size - self.cell) // self.step + 1

    @property
    def digits(self) -> int:
        """Digits in one image."""
        return round(self.fill * self.size**2)


@dataclasses.dataclass(frozen=True, eq=False)
class RectangleImage:
    """One image.

    Attributes:
        pixels: uint8 of 0 and 1, [size, size].
        mask: bool, [cells, cells]; cells whose centre lies in the tilted rectangle.
        other_mask: the same for the upright one.
        grid_mask: bool, [grid_cells, grid_cells]; patches of the grid whose centre lies in the
            tilted rectangle. The same as `mask` unless the study has a stride.
        classes: int8, [cells, cells]; the digit put into each cell, -1 where there is none.
        label: the tilted rectangle's digit.
        other_label: the upright one's.
        lesion: long side of both rectangles in px.
        lesion_share: `lesion` over the image's side.
    """

    pixels: np.ndarray
    mask: np.ndarray
    other_mask: np.ndarray
    grid_mask: np.ndarray
    classes: np.ndarray
    label: int
    other_label: int
    lesion: int
    lesion_share: float


def draw(
    study: RectangleStudy, digits: DigitSet, *, seed: int, index: int, label: int | None = None
) -> RectangleImage:
    """The image `index` of the set `seed`: a pure function of its arguments.

    The layout depends on (seed, index) alone, whatever digits fill it. Training and test images
    therefore want different seeds or indices, as well as different digits.

    Args:
        study: the settings.
        digits: what the image is made of.
        seed: of the set, not negative.
        index: of the image, not negative.
        label: the tilted rectangle's digit; drawn at random where None.

    Raises:
        ValueError: a label that is none of the study's classes, or a class without digits.
    """
    if label is not None and not 0 <= label < study.classes:
        raise ValueError(f'{label=} must be one of the {study.classes} classes')
    rng = np.random.default_rng((seed, index))
    drawn_label, step, layout = _begin(study, rng)
    label = int(drawn_label if label is None else label)
    other_label = int(label + step) % study.classes  # (label + 1..8) mod 10
    centres = np.arange(study.cells) * study.cell + study.cell / 2
    mask, other_mask = _masks(layout, centres)
    grid_mask = mask
    if study.step != study.cell:
        grid_mask, _ = _masks(layout, _grid_centres(study))

    taken = rng.choice(study.cells**2, study.digits, replace=False, shuffle=False)
    chosen = rng.integers(study.classes, size=study.digits, dtype=np.int8)
    chosen[mask.ravel()[taken]] = label
    chosen[other_mask.ravel()[taken]] = other_label
    classes = np.full(study.cells**2, -1, np.int8)
    classes[taken] = chosen
    return RectangleImage(
        pixels=_paint(study, digits, taken, digits.pick(chosen, rng), rng),
        mask=mask,
        other_mask=other_mask,
        grid_mask=grid_mask,
        classes=classes.reshape(study.cells, study.cells),
        label=label,
        other_label=other_label,
        lesion=layout.lesion,
        lesion_share=layout.lesion / study.size,
    )


def grid_masks(study: RectangleStudy, *, seed: int, index: int) -> tuple[np.ndarray, np.ndarray]:
    """Patches of an image's grid whose centre lies in its tilted, and in its upright rectangle.

    Returns:
        bool [grid_cells, grid_cells] each, without drawing the image.
    """
    *_, layout = _begin(study, np.random.default_rng((seed, index)))
    return _masks(layout, _grid_centres(study))


def generate(
    study: RectangleStudy,
    digits: DigitSet,
    *,
    seed: int,
    indices: Iterable[int],
    workers: int = 1,
) -> Iterator[RectangleImage]:
    """The images of `indices`, in that order, drawn by `workers` threads a few images ahead."""
    return prefetch.map_ahead(
        lambda index: draw(study, digits, seed=seed, index=index),
        indices,
        workers=workers,
        ahead=workers + 1,
    )


def cells(pixels: np.ndarray, cell: int, stride: int | None = None) -> np.ndarray:
    """The patches of an image, without a copy: [size, size] -> [rows, columns, cell, cell].

    Args:
        pixels: of the image.
        cell: side of a patch in px.
        stride: px from one patch to the next; None for `cell`, patches side by side.
    """
    step = stride or cell
    return np.lib.stride_tricks.sliding_window_view(pixels, (cell, cell))[::step, ::step]


class _Layout(NamedTuple):
    """Where the rectangles lie, px; before the square's symmetry (turns, mirrored) moves both."""

    size: int
    lesion: int
    tilted: tuple[float, float]  # y, x of the centre
    upright: tuple[float, float]
    turns: int
    mirrored: bool


def _begin(study: RectangleStudy, rng: np.random.Generator) -> tuple[int, int, _Layout]:
    """What is drawn first of an image: its label, how far the other is from it, the layout."""
    label, step = rng.integers((0, 1), (study.classes, study.classes - 1))
    lesion = int(rng.integers(study.lesion_min, study.lesion_max, endpoint=True))
    return int(label), int(step), _draw_layout(study.size, lesion, rng)


def _grid_centres(study: RectangleStudy) -> np.ndarray:
    """Of the grid's patches along either axis, px."""
    return np.arange(study.grid_cells) * study.step + study.cell / 2


def _draw_layout(size: int, lesion: int, rng: np.random.Generator) -> _Layout:
    """Draws where the two rectangles of long side `lesion` lie.

    Drawn with the tilted rectangle on the left at 45 degrees and the upright one on the right, its
    long side vertical; one of the square's eight symmetries then turns both, which gives every half
    and both tilts. Both rectangles lie wholly inside the image and never overlap. Each lies in its
    own half; only a tilted one longer than 47 % of the image (1697 of 3600 px), whose bounding box
    is wider than a half, reaches over the middle (by 109 px at most); the upright one then keeps
    off that box.
    """
    long, short = lesion / 2, lesion / 4  # half sides of the rectangles
    box = (long + short) / math.sqrt(2)  # half side of the tilted one's bounding box
    tilted_x = rng.uniform(box, max(box, size / 2 - box))
    tilted_y, upright_y = rng.uniform((box, long), (size - box, size - long))
    upright_x = rng.uniform(max(size / 2, tilted_x + box) + short, size - short)
    turns, mirrored = rng.integers(4), rng.integers(2)
    return _Layout(
        size, lesion, (tilted_y, tilted_x), (upright_y, upright_x), int(turns), bool(mirrored)
    )


def _masks(layout: _Layout, centres: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which of n × n patches have their centre in the tilted, and in the upright rectangle.

    Args:
        layout: the rectangles.
        centres: of the patches along either axis, px, [n].
    """
    y, x = centres[:, None], centres[None, :]
    # From the image back to the layout as it was drawn: mirrored first and then turned
    # counter-clockwise, so the other way round here. Not the masks are turned, since the patches'
    # centres need not lie symmetrically in the image.
    for _ in range(layout.turns):
        y, x = x, layout.size - y
    if layout.mirrored:
        x = layout.size - x
    long, short = layout.lesion / 2, layout.lesion / 4
    (tilted_y, tilted_x), (upright_y, upright_x) = layout.tilted, layout.upright
    along = (x - tilted_x + y - tilted_y) / math.sqrt(2)
    across = (x - tilted_x - y + tilted_y) / math.sqrt(2)
    tilted = (np.abs(along) <= long) & (np.abs(across) <= short)
    upright = (np.abs(x - upright_x) <= short) & (np.abs(y - upright_y) <= long)
    return tilted, upright


def _paint(
    study: RectangleStudy,
    digits: DigitSet,
    taken: np.ndarray,
    chosen: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    """Pixels uint8 [size, size] with the digits `chosen` [n] in the cells `taken` [n]."""
    # A frame as wide as a digit can stick out takes what the image's border clips.
    frame = study.jitter + max(digits.images.shape[1:])
    side = study.size + 2 * frame
    canvas = np.zeros((side, side), np.uint8)
    shift = rng.integers(-study.jitter, study.jitter, (2, len(taken)), endpoint=True)
    top, left = np.stack(np.divmod(taken, study.cells)) * study.cell + frame + shift
    white = _white_pixels(digits, side)[chosen]  # [n, K]
    canvas.ravel()[(top * side + left)[:, None] + white] = 1
    return canvas[frame:-frame, frame:-frame].copy()


@functools.lru_cache(maxsize=4)
def _white_pixels(digits: DigitSet, side: int) -> np.ndarray:
    """Where each digit is white, as offsets in an image of that side; int32 [N, K].

    K is the largest number of white pixels; a digit with fewer repeats its first.
    """
    flat = digits.images.reshape(len(digits.images), -1)
    counts = flat.sum(axis=1, dtype=np.int64)
    order = np.argsort(1 - flat, axis=1, kind='stable')[:, : counts.max()]
    order = np.where(np.arange(order.shape[1]) < counts[:, None], order, order[:, :1])
    rows, columns = np.divmod(order, digits.images.shape[2])
    return (rows * side + columns).astype(np.int32)
