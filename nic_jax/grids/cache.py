"""Grids kept in memory once they are read, within a budget."""

import dataclasses
import threading
from collections.abc import Sequence

import numpy as np

from nic_jax.grids.reading import Grid, overlap
from nic_jax.grids.versions import turn
from nic_jax.grids.view import GridView


@dataclasses.dataclass(eq=False)
class _Memory:
    """Layers of grids, by grid and place on the version axis.

    Training draws grids at random, each as likely as any: none that is kept is better dropped for
    another, so what is kept stays until the end, and what does not fit any more is read each time.
    """

    left: int  # bytes
    layers: dict[tuple[int, int], np.ndarray] = dataclasses.field(default_factory=dict)
    begun: set[tuple[int, int]] = dataclasses.field(default_factory=set)
    lock: threading.Lock = dataclasses.field(default_factory=threading.Lock)

    def layer(self, key: tuple[int, int], grid: Grid) -> np.ndarray | None:
        """float16 `[H, W, C]`, read at its first use; None where there is no room for it.

        None, too, while another thread reads it.
        """
        if key in self.layers:
            return self.layers[key]
        size = 2 * grid.shape[0] * grid.shape[1] * grid.code_size
        with self.lock:
            if key in self.begun or size > self.left:
                return self.layers.get(key)
            self.begun.add(key)
            self.left -= size
        self.layers[key] = grid.layer(key[1])
        return self.layers[key]


@dataclasses.dataclass(frozen=True, eq=False)
class CachedGrid(GridView):
    """A compressed slide whose codes stay in memory, as `GridLike`."""

    number: int
    memory: _Memory

    def crop(self, top: int, left: int, size: int, version: int) -> np.ndarray:
        """`Grid.crop`, from memory where there is room."""
        layer = self.memory.layer((self.number, self.grid.layer_of(version)), self.grid)
        if layer is None:
            return self.grid.crop(top, left, size, version)
        rows, into_rows = overlap(top, size, self.shape[0])
        columns, into_columns = overlap(left, size, self.shape[1])
        square = np.zeros((size, size, self.code_size), np.float32)
        square[into_rows, into_columns] = layer[rows, columns]
        return turn(square, version)


def cached(grids: Sequence[Grid], *, budget: int) -> list[CachedGrid]:
    """Keeps what is read of some grids in memory, up to `budget` bytes for all of them."""
    memory = _Memory(budget)
    return [CachedGrid(grid, number, memory) for number, grid in enumerate(grids)]
