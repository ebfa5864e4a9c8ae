"""The mean and the standard deviation of codes, of training slides alone."""

from collections.abc import Sequence

import numpy as np

from nic_jax.grids import GridLike

_SLIDES = 200  # enough to know a mean by


def code_statistics(grids: Sequence[GridLike]) -> dict[str, np.ndarray]:
    """Returns `mean` and standard `deviation` of each feature over encoded cells, float32 [C].

    Features that never vary have a deviation of 1. At most `_SLIDES` slides are read, spread evenly
    over those given.

    Args:
        grids: Of the training slides.
    """
    C = grids[0].code_size
    count, total, squares = 0, np.zeros(C), np.zeros(C)
    for index in np.unique(np.linspace(0, len(grids) - 1, _SLIDES).astype(int)):
        grid = grids[index]
        height, width = grid.shape
        codes = grid.crop(0, 0, max(height, width), 0)[:height, :width][grid.encoded]
        codes = codes.astype(np.float64)
        count += len(codes)
        total += codes.sum(0)
        squares += (codes**2).sum(0)
    mean = total / max(count, 1)
    deviation = np.sqrt(np.maximum(squares / max(count, 1) - mean**2, 0))
    deviation[deviation < 1e-6] = 1
    return {'mean': mean.astype(np.float32), 'deviation': deviation.astype(np.float32)}
