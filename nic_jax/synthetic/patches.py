"""Training patches for the encoders of the synthetic images: single cells.

Shapes: N patches of `cell` x `cell` px, uint8 of 0 and 1.
"""

from collections.abc import Sequence

import numpy as np

from nic_jax.synthetic import rectangles
from nic_jax.synthetic.digits import DigitSet

# A patch with a white pixel is drawn this many times as often as an empty one (the TPAMI paper).
WHITE_WEIGHT = 2

# Keeps the patches' random numbers apart from the images', which are seeded by (seed, index).
_CELL_STREAM = b'cell patches'


def cell_patches(
    study: rectangles.RectangleStudy,
    digits: DigitSet,
    indices: Sequence[int],
    *,
    seed: int,
    count: int,
    workers: int = 1,
) -> tuple[np.ndarray, np.ndarray]:
    """Random cells of generated images, the same number from each (one more from the first few).

    A cell with a white pixel, be it of its own digit or of a neighbour's that sticks out, is twice
    as likely as an empty one. Cells are drawn with replacement; the order is that of the images.

    Args:
        study: the settings of the images.
        digits: what the images are made of.
        indices: of the images, as for `rectangles.draw`.
        seed: of the images, and of the draw from them.
        count: number of patches, N.
        workers: threads that draw images.

    Returns:
        Patches [N, cell, cell], and int8 labels [N]: the digit put into the cell, -1 where there is
        none (such a patch may still show a neighbour's edge).
    """
    if not len(indices):
        raise ValueError('no images to draw patches from; give at least one index')
    rng = np.random.default_rng((seed, *_CELL_STREAM))
    share, extra = divmod(count, len(indices))
    patches = np.empty((count, study.cell, study.cell), np.uint8)
    labels = np.empty(count, np.int8)
    start = 0
    images = rectangles.generate(study, digits, seed=seed, indices=indices, workers=workers)
    for number, image in enumerate(images):
        stop = start + share + (number < extra)
        grid = rectangles.cells(image.pixels, study.cell)  # [rows, columns, cell, cell]
        # Row by row first: along the pixels' order, several times faster than both axes at once.
        white = grid.swapaxes(1, 2).max(axis=1).max(axis=2)  # [rows, columns]
        weights = np.where(white.ravel(), WHITE_WEIGHT, 1)
        chosen = rng.choice(len(weights), stop - start, p=weights / weights.sum())
        patches[start:stop] = grid[np.divmod(chosen, study.cells)]
        labels[start:stop] = image.classes.ravel()[chosen]
        start = stop
    return patches, labels


def digit_patches(
    digits: DigitSet, *, seed: int, count: int, jitter: int = 4, cell: int = 9
) -> tuple[np.ndarray, np.ndarray]:
    """One digit a patch, moved and cut as in the images: the supervised oracle's training set.

    A patch shows what a cell shows of its own digit: moved by up to `jitter` px on each axis and
    cut at the cell's border. Neighbours that stick into the cell are not modelled. Classes are
    equally likely.

    Returns:
        Patches [N, cell, cell] and labels int64 [N].
    """
    rng = np.random.default_rng(seed)
    labels = rng.choice(np.unique(digits.labels), count)
    chosen = digits.pick(labels, rng)
    top, left = jitter - rng.integers(-jitter, jitter, (2, count), endpoint=True)
    height, width = digits.images.shape[1:]
    room = [(0, 0)] + [(jitter, jitter + max(0, cell - side)) for side in (height, width)]
    framed = np.pad(digits.images, room)
    rows = top[:, None, None] + np.arange(cell)[:, None]
    columns = left[:, None, None] + np.arange(cell)
    return framed[chosen[:, None, None], rows, columns], labels.astype(np.int64)
