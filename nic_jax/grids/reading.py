"""Reading compressed slides: whole, by version, or crop by crop."""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import tensorstore as ts

from nic_jax.grids import arrays, schema
from nic_jax.grids.versions import VERSIONS, turn


class GridLike(Protocol):
    """What networks on grids need of one: a compressed slide, or an image of a stack."""

    slide_id: str
    shape: tuple[int, int]
    code_size: int

    fingerprint: str

    @property
    def encoded(self) -> np.ndarray:
        """Cells that hold a code, bool `[H, W]`."""

    def crop(self, top: int, left: int, size: int, version: int) -> np.ndarray:
        """float32 `[size, size, C]`, cut in the slide's own orientation and turned by `version`."""


@dataclasses.dataclass(frozen=True, eq=False)
class Grid:
    """A complete compressed slide, open for reading.

    Attributes:
        path: The zarr group.
        attributes: All that the group says of itself.
        stored_codes: The array `[version, y, x, feature]`.
        tissue: float16 `[H, W]`, share of tissue in each cell's patch.
        layout_only: Versions turn the layout and leave the codes as those of version 0.
    """

    path: pathlib.Path
    attributes: Mapping[str, Any]
    stored_codes: ts.TensorStore
    tissue: np.ndarray
    layout_only: bool = False

    @property
    def slide_id(self) -> str:
        """The slide's name in its cohort."""
        return self.attributes['slide_id']

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of cells in the slide's own orientation."""
        return self.tissue.shape

    @property
    def code_size(self) -> int:
        """C."""
        return self.stored_codes.shape[3]

    @functools.cached_property
    def fingerprint(self) -> str:
        """A hash of all that the grid was made from and with."""
        return schema.fingerprint(self.attributes)

    @functools.cached_property
    def encoded(self) -> np.ndarray:
        """Cells that hold a code, bool `[H, W]`."""
        if self.attributes['encode_all']:
            return np.ones(self.shape, bool)
        return self.tissue.astype(np.float32) > self.attributes['tissue']['threshold']

    def codes(self, version: int = 0) -> np.ndarray:
        """The grid turned by `version`, float32 `[H, W, C]` (`[W, H, C]` for odd quarter turns)."""
        return turn(self.layer(self.layer_of(version)).astype(np.float32), version)

    def layer(self, number: int) -> np.ndarray:
        """The codes stored as `number` on the version axis, float16 `[H, W, C]`, zeros for none."""
        stored = self.stored_codes[number].read().result()
        stored[np.isnan(stored)] = 0
        return stored

    def crop(self, top: int, left: int, size: int, version: int) -> np.ndarray:
        """Cuts a square of cells, zeros outside the grid and where nothing is encoded.

        Args:
            top: First row, in the slide's own orientation; may be negative.
            left: First column, likewise.
            size: Rows and columns to cut.
            version: The version whose codes to read; the square is turned by it.

        Returns:
            float32 `[size, size, C]`.
        """
        rows, into_rows = overlap(top, size, self.shape[0])
        columns, into_columns = overlap(left, size, self.shape[1])
        square = np.zeros((size, size, self.code_size), np.float32)
        part = self.stored_codes[self.layer_of(version), rows, columns].read().result()
        part[np.isnan(part)] = 0
        square[into_rows, into_columns] = part
        return turn(square, version)

    def positions(self) -> np.ndarray:
        """Level-0 pixels (x, y) of every patch's top-left corner, float64 `[H, W, 2]`."""
        x0, y0 = self.attributes['origin_level0']
        step_x, step_y = self.attributes['stride_level0']
        height, width = self.shape
        x, y = x0 + step_x * np.arange(width), y0 + step_y * np.arange(height)
        return np.stack(np.meshgrid(x, y), axis=-1)

    def layer_of(self, version: int) -> int:
        """The place on the version axis: codes that turning does not change are stored once."""
        if version not in VERSIONS:
            raise ValueError(f'{version=} must be one of 0 … 7')
        if self.layout_only or self.attributes['encoder']['turn_invariant']:
            return 0
        stored = self.stored_codes.shape[0]
        if version >= stored:
            raise schema.GridError(
                f'{self.path} holds {stored} version(s), not version {version}; '
                'compress with --config.compress.versions=8'
            )
        return version


def open_grid(path: str | os.PathLike, *, layout_only: bool = False) -> Grid:
    """Opens a compressed slide.

    Args:
        path: The zarr group.
        layout_only: Let versions turn the layout alone, with the codes of version 0: for grids that
            were compressed in one version.

    Raises:
        GridError: There is no grid, or it is not complete, or of an unknown schema.
    """
    path = pathlib.Path(path)
    attributes = schema.read_complete(path)
    tissue = arrays.open_array(path / 'tissue').read().result()
    return Grid(path, attributes, arrays.open_array(path / 'codes'), tissue, layout_only)


def overlap(start: int, size: int, length: int) -> tuple[slice, slice]:
    """Returns the part of [start, start + size) inside [0, length), there and in the square."""
    low = min(max(start, 0), length)
    high = max(min(start + size, length), low)
    return slice(low, high), slice(low - start, high - start)
