"""Which cells of a slide's grid become training patches. Pure: no reading."""

from collections.abc import Sequence

import numpy as np

_NEIGHBOURS = np.array([(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0)])


def choose_cells(
    tissue: np.ndarray,
    *,
    quota: int,
    seed: Sequence[int],
    labels: np.ndarray | None = None,
    classes: int = 0,
    neighbours: bool = False,
) -> np.ndarray:
    """Draws cells of a grid of patches that do not overlap, without replacement.

    Without labels, uniformly. With them, the same number of each class (one more of the first few),
    as far as a class has that many; the others do not make up for it, and cells without a label are
    not drawn.

    Args:
        tissue: Cells to draw from, bool `[H, W]`.
        quota: Cells wanted.
        seed: The draw depends on it, and on the other arguments, alone.
        labels: Class of each cell, int `[H, W]`; −1 for none.
        classes: How many classes there are.
        neighbours: Draw a random cell, one of its eight neighbours (of the same class), and so
            on, so that half of the cells have another beside them for contrastive pairs. Cells
            without a neighbour come last.

    Returns:
        Rows and columns, int `[n, 2]`, n ≤ quota, in row-major order.
    """
    rng = np.random.default_rng(seed)
    if labels is None:
        candidates, quotas = [tissue], [quota]
    else:
        candidates = [tissue & (labels == number) for number in range(classes)]
        share, extra = divmod(quota, max(1, classes))
        quotas = [share + (number < extra) for number in range(classes)]
    chosen = np.zeros(tissue.shape, bool)
    for cells, count in zip(candidates, quotas, strict=True):
        order = rng.permutation(np.argwhere(cells))
        if neighbours and count < len(order):
            order = _beside_each_other(order, cells, count, rng)
        chosen[tuple(order[:count].T)] = True
    return np.argwhere(chosen)


def _beside_each_other(
    order: np.ndarray, cells: np.ndarray, count: int, rng: np.random.Generator
) -> np.ndarray:
    """The first `count` of: each cell that has neighbours, followed by one of these."""
    room = np.pad(cells, 1)  # a neighbour may lie outside the grid
    taken: dict[tuple[int, int], None] = {}
    alone = []
    for cell in order:
        beside = [(y, x) for y, x in (cell + _NEIGHBOURS).tolist() if room[y + 1, x + 1]]
        if not beside:
            alone.append(tuple(cell.tolist()))
            continue
        taken[tuple(cell.tolist())] = None
        taken[beside[rng.integers(len(beside))]] = None
        if len(taken) >= count:
            break
    return np.array([*taken, *alone])[:count]
