"""Training patches for the encoders of the synthetic images: single cells, and pairs of them.

Shapes: N patches of `cell` x `cell` px, uint8 of 0 and 1.
"""

import dataclasses
import pathlib
from collections.abc import Sequence

import numpy as np

from nic_jax.encoders.batches import Source
from nic_jax.patches import pairs as pairs_
from nic_jax.patches.store import Parts
from nic_jax.synthetic import rectangles
from nic_jax.synthetic.digits import DigitSet

SUBSETS = ('train', 'valid')
# A patch with a white pixel is drawn this many times as often as an empty one (the TPAMI paper).
WHITE_WEIGHT = 2

_AROUND = np.array([(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0)])

# Keeps the patches' random numbers apart from the images', which are seeded by (seed, index).
_CELL_STREAM = b'cell patches'


@dataclasses.dataclass(frozen=True, eq=False)
class Cells:
    """Cells drawn from images, in the images' order.

    Attributes:
        patches: [N, cell, cell].
        neighbours: One of the (up to eight) cells beside each, likewise.
        labels: int8 [N]: the digit put into the cell, -1 where there is none (such a patch may
            still show a neighbour's edge).
        images: int [N]: the image of each.
    """

    patches: np.ndarray
    neighbours: np.ndarray
    labels: np.ndarray
    images: np.ndarray


def cell_patches(
    study: rectangles.RectangleStudy,
    digits: DigitSet,
    indices: Sequence[int],
    *,
    seed: int,
    count: int,
    workers: int = 1,
) -> Cells:
    """Random cells of generated images, the same number from each (one more from the first few).

    A cell with a white pixel, be it of its own digit or of a neighbour's that sticks out, is twice
    as likely as an empty one. Cells are drawn with replacement.

    Args:
        study: the settings of the images.
        digits: what the images are made of.
        indices: of the images, as for `rectangles.draw`.
        seed: of the images, and of the draw from them.
        count: number of patches, N.
        workers: threads that draw images.
    """
    if not len(indices):
        raise ValueError('no images to draw patches from; give at least one index')
    rng = np.random.default_rng((seed, *_CELL_STREAM))
    share, extra = divmod(count, len(indices))
    found = Cells(
        patches=np.empty((count, study.cell, study.cell), np.uint8),
        neighbours=np.empty((count, study.cell, study.cell), np.uint8),
        labels=np.empty(count, np.int8),
        images=np.empty(count, np.int64),
    )
    start = 0
    images = rectangles.generate(study, digits, seed=seed, indices=indices, workers=workers)
    for number, image in enumerate(images):
        stop = start + share + (number < extra)
        grid = rectangles.cells(image.pixels, study.cell)  # [rows, columns, cell, cell]
        # Row by row first: along the pixels' order, several times faster than both axes at once.
        white = grid.swapaxes(1, 2).max(axis=1).max(axis=2)  # [rows, columns]
        weights = np.where(white.ravel(), WHITE_WEIGHT, 1)
        chosen = rng.choice(len(weights), stop - start, p=weights / weights.sum())
        places = np.stack(np.divmod(chosen, study.cells))  # [2, n]
        step = rng.choice(_AROUND, stop - start).T
        inside = (places + step >= 0) & (places + step < study.cells)
        beside = np.where(inside, places + step, places - step)  # at the edge, the other way
        found.patches[start:stop] = grid[tuple(places)]
        found.neighbours[start:stop] = grid[tuple(beside)]
        found.labels[start:stop] = image.classes[tuple(places)]
        found.images[start:stop] = number
        start = stop
    return found


def cell_pairs(drawn: Cells, subset: str, *, seed: int) -> np.ndarray:
    """As many pairs as cells, int32 `[N, 3]`, by the shares of `patches.pairs`.

    Indices are of the cells, and from N on of their neighbours.
    """
    N = len(drawn.patches)
    rng = np.random.default_rng((seed, *subset.encode(), *b'pairs'))
    counts = pairs_.count_kinds(N)
    order = rng.permutation(N)
    same, beside = order[: counts.same], order[counts.same : counts.same + counts.adjacent]
    apart = pairs_.different_sources(rng, drawn.images, counts.apart, subset)
    pairs = [
        np.stack([same, same, np.ones_like(same)], axis=1),
        np.stack([beside, beside + N, np.zeros_like(beside)], axis=1),
        np.column_stack([apart, np.zeros(len(apart), int)]),
    ]
    return rng.permutation(np.concatenate(pairs)).astype(np.int32)


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


def source_of(folder: pathlib.Path, kind: str, classes: int) -> Source:
    """The patches of one kind, 'cells' (with pairs) or 'digits' (with labels)."""
    arrays = {
        (name, subset): np.load(folder / f'{name}_{subset}.npy', mmap_mode='r')
        for name in ((kind, 'neighbours') if kind == 'cells' else (kind,))
        for subset in SUBSETS
    }
    count, valid_count = (len(arrays[kind, subset]) for subset in SUBSETS)
    train, valid = np.arange(count), np.arange(count, count + valid_count)
    if kind == 'digits':
        labels = [np.load(folder / f'labels_{subset}.npy') for subset in SUBSETS]
        names = tuple(str(digit) for digit in range(classes))
        return Source(Parts(arrays.values()), train, valid, np.concatenate(labels), names)
    pairs = {}
    # The arrays' order is training, validation, and their neighbours in the same order.
    for subset, first in (('train', 0), ('valid', count)):
        found = np.load(folder / f'pairs_{subset}.npy')
        beside = found[:, :2] >= len(arrays[kind, subset])
        other = count + valid_count - len(arrays[kind, subset])  # of the other subset, in between
        found[:, :2] += first + np.where(beside, other, 0).astype(np.int32)
        pairs[subset] = found
    return Source(Parts(arrays.values()), train, valid, pairs=pairs)
