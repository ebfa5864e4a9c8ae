"""Where to crop a grid: at random in training, spread over the tissue at test."""

import numpy as np
import scipy.ndimage
import sklearn.cluster

_CELLS_FOR_CLUSTERS = 10_000


def centre_weights(encoded: np.ndarray) -> np.ndarray:
    """Returns how likely each cell is to be the centre of a training crop.

    Proportional to (distance to the background / its maximum)², as the authors' code has it, so
    that crops hold tissue rather than its edge. What lies outside the grid is background.

    Args:
        encoded: bool [H, W], the cells that hold a code.

    Returns:
        float64 [H, W], summing to 1; uniform where nothing is encoded.
    """
    if not encoded.any():
        return np.full(encoded.shape, 1 / encoded.size)
    distance = scipy.ndimage.distance_transform_edt(np.pad(encoded, 1))[1:-1, 1:-1]
    weights = (distance / distance.max()) ** 2
    return weights / weights.sum()


def cumulative_centres(encoded: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns `centre_weights` in the form that is quick to draw from and small to keep.

    Returns:
        Flat indices int32 [N] of the cells that can be drawn, and the running sums of their
        weights, float32 [N], ending at 1.
    """
    weights = centre_weights(encoded).ravel()
    (cells,) = np.nonzero(weights)
    return cells.astype(np.int32), np.cumsum(weights[cells]).astype(np.float32)


def draw_crop(
    centres: tuple[np.ndarray, np.ndarray],
    shape: tuple[int, int],
    *,
    size: int,
    rng: np.random.Generator,
) -> tuple[int, int]:
    """Draws the top and left cell of a crop around a random centre.

    Along an axis that fits into the crop, the grid is centred in it instead.

    Args:
        centres: Of `cumulative_centres`.
        shape: Rows and columns of the grid.
        size: R, cells along the crop's side.
        rng: Draws once.
    """
    cells, cumulative = centres
    index = min(np.searchsorted(cumulative, rng.random(), side='right'), len(cells) - 1)
    return _corner(np.unravel_index(cells[index], shape), shape, size)


def fits(shape: tuple[int, int], size: int) -> bool:
    """Tells whether the whole grid fits into one crop."""
    return max(shape) <= size


def centred_crop(shape: tuple[int, int], size: int) -> tuple[int, int]:
    """Returns the top and left cell of the crop in the middle of the grid."""
    return _corner((shape[0] // 2, shape[1] // 2), shape, size)


def spread_crops(encoded: np.ndarray, *, size: int, count: int) -> np.ndarray:
    """Returns the tops and lefts of crops spread evenly over the tissue, always the same ones.

    Their centres are those of k-means clusters of the encoded cells, moved to the nearest of
    these. A grid that fits into one crop is centred in it, and that is its only crop.

    Args:
        encoded: bool [H, W].
        size: R, cells along a crop's side.
        count: T, how many crops are wanted; 10 in the paper.

    Returns:
        int64 [T', 2], T' ≤ `count`: crops that would be the same are given once.
    """
    shape = encoded.shape
    cells = np.argwhere(encoded)
    if fits(shape, size) or not len(cells):
        return np.array([centred_crop(shape, size)])
    thinned = cells[:: -(-len(cells) // _CELLS_FOR_CLUSTERS)]
    clusters = sklearn.cluster.KMeans(min(count, len(thinned)), n_init=1, random_state=0)
    centres = clusters.fit(thinned.astype(np.float64)).cluster_centers_
    nearest = [cells[np.argmin(((cells - centre) ** 2).sum(1))] for centre in centres]
    return np.unique([_corner(cell, shape, size) for cell in nearest], axis=0)


def _corner(centre: tuple[int, int], shape: tuple[int, int], size: int) -> tuple[int, int]:
    """Top and left of the crop around `centre`; centred along the axes that fit."""
    top, left = (
        (length - size) // 2 if length <= size else int(cell) - size // 2
        for cell, length in zip(centre, shape, strict=True)
    )
    return top, left
