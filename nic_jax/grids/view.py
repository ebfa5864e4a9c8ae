"""A grid seen through something: what stays as it is."""

import dataclasses

import numpy as np

from nic_jax.grids.reading import GridLike


@dataclasses.dataclass(frozen=True, eq=False)
class GridView:
    """All of `GridLike` but `crop`, as the grid behind it has it.

    Attributes:
        grid: What is looked at.
    """

    grid: GridLike

    @property
    def slide_id(self) -> str:
        """The slide's name in its cohort."""
        return self.grid.slide_id

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of cells."""
        return self.grid.shape

    @property
    def code_size(self) -> int:
        """C."""
        return self.grid.code_size

    @property
    def fingerprint(self) -> str:
        """A hash of all that the grid was made from and with."""
        return self.grid.fingerprint

    @property
    def encoded(self) -> np.ndarray:
        """Cells that hold a code, bool `[H, W]`."""
        return self.grid.encoded
