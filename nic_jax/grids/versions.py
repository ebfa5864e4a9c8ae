"""The eight versions of a patch or a grid: four quarter turns, each plain and mirrored.

Version v = k + 4·m is mirrored left–right if m, then turned k·90° counter-clockwise (Tellez et al.
2019, section 3.2: every slide is compressed in its eight orientations).
"""

import numpy as np

VERSIONS = tuple(range(8))


def turn(array: np.ndarray, version: int, axes: tuple[int, int] = (0, 1)) -> np.ndarray:
    """Returns a view of `array` turned by `version` in the plane of `axes` (row axis, column axis).

    Raises:
        ValueError: `version` is not one of 0 … 7.
    """
    if version not in VERSIONS:
        raise ValueError(f'{version=} must be one of 0 … 7')
    mirrored = np.flip(array, axis=axes[1]) if version >= 4 else array
    return np.rot90(mirrored, k=version % 4, axes=axes)


def turn_back(array: np.ndarray, version: int, axes: tuple[int, int] = (0, 1)) -> np.ndarray:
    """Undoes `turn`: a view of what was turned by `version`, as it was."""
    turned = np.rot90(array, k=-(version % 4), axes=axes)
    return np.flip(turned, axis=axes[1]) if version >= 4 else turned
