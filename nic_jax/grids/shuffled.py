"""The control for arrangement: the same codes in other places."""

import dataclasses
import functools

import numpy as np

from nic_jax.grids.reading import overlap
from nic_jax.grids.versions import turn
from nic_jax.grids.view import GridView


@dataclasses.dataclass(frozen=True, eq=False)
class ShuffledGrid(GridView):
    """A grid whose encoded cells have changed places with each other, at random, once for all.

    Attributes:
        seed: Of its permutation.
    """

    seed: tuple[int, ...]

    @property
    def fingerprint(self) -> str:
        """A hash of all that the grid was made from and with, and of its permutation."""
        return f'{self.grid.fingerprint}/shuffled-{"-".join(map(str, self.seed))}'

    @functools.cached_property
    def _order(self) -> tuple[np.ndarray, np.ndarray]:
        """Flat indices of the encoded cells, and of the cell whose code each one gets."""
        (cells,) = np.nonzero(self.encoded.ravel())
        return cells, np.random.default_rng(self.seed).permutation(cells)

    def crop(self, top: int, left: int, size: int, version: int) -> np.ndarray:
        """float32 `[size, size, C]` of the shuffled grid; it is read whole."""
        side = max(self.shape)
        whole = turn(self.grid.crop(0, 0, side, version), _BACK[version])
        flat = whole[: self.shape[0], : self.shape[1]].reshape(-1, self.code_size)
        cells, sources = self._order
        shuffled = np.zeros_like(flat)
        shuffled[cells] = flat[sources]
        rows, into_rows = overlap(top, size, self.shape[0])
        columns, into_columns = overlap(left, size, self.shape[1])
        square = np.zeros((size, size, self.code_size), np.float32)
        square[into_rows, into_columns] = shuffled.reshape(*self.shape, -1)[rows, columns]
        return turn(square, version)


# The version that turns each one back: quarter turns by the rest, mirrored ones by themselves.
_BACK = (0, 3, 2, 1, 4, 5, 6, 7)
