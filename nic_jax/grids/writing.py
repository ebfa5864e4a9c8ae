"""Writing a compressed slide shard by shard, so that a killed run goes on where it stopped."""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorstore as ts

from nic_jax.grids import arrays, schema


@dataclasses.dataclass(frozen=True)
class GridWriter:
    """A grid that is being written.

    Attributes:
        path: The zarr group.
        attributes: What the group will say of itself, `complete` aside.
        codes: The open array `[version, y, x, feature]`.
        missing: The shards (shard row, shard column) that are not on disk yet, in row-major order.
    """

    path: pathlib.Path
    attributes: Mapping[str, Any]
    codes: ts.TensorStore
    missing: tuple[tuple[int, int], ...]

    @property
    def versions(self) -> int:
        """How many versions are stored."""
        return self.codes.shape[0]

    @property
    def code_size(self) -> int:
        """C."""
        return self.codes.shape[3]

    def write(self, shard: tuple[int, int], codes: np.ndarray) -> ts.Future:
        """Starts writing one shard.

        Args:
            shard: Shard row and column.
            codes: float16 `[V, h, w, C]`, from `to_float16`; NaN where nothing is encoded.

        Returns:
            A future; its `result()` returns once the shard is on disk.
        """
        top, left = (index * schema.SHARD_CELLS for index in shard)
        _, height, width, _ = codes.shape
        return self.codes[:, top : top + height, left : left + width].write(codes)

    def finish(self) -> None:
        """Marks the grid complete. Call it when every shard's future has returned."""
        schema.write_attributes(self.path, {**self.attributes, 'complete': True})


def open_writer(
    path: pathlib.Path,
    *,
    attributes: Mapping[str, Any],
    tissue: np.ndarray,
    versions: int,
    code_size: int,
    overwrite: bool = False,
) -> GridWriter | None:
    """Starts a grid, or goes on with one that was interrupted.

    Args:
        path: Where the zarr group lies or shall lie.
        attributes: What tells this grid from another; JSON values.
        tissue: float `[H, W]`, share of tissue in each cell's patch.
        versions: How many versions are stored.
        code_size: C.
        overwrite: Replace a grid that was made with other settings.

    Returns:
        The writer, or None when the grid is complete already.

    Raises:
        GridError: A grid made with other settings is there and `overwrite` is false.
    """
    state = schema.begin(path, attributes, overwrite=overwrite)
    if state == 'complete':
        return None
    if state == 'new':
        _create(path, attributes, tissue, versions, code_size)
    height, width = tissue.shape
    side = schema.SHARD_CELLS
    missing = tuple(
        (row, column)
        for row in range(-(-height // side))
        for column in range(-(-width // side))
        if not arrays.shard_exists(path / 'codes', (0, row, column, 0))
    )
    codes = arrays.open_array(path / 'codes', writable=True)
    return GridWriter(path, attributes, codes, missing)


def to_float16(codes: np.ndarray, where: str) -> np.ndarray:
    """Rounds codes to float16 for storage.

    Raises:
        GridError: A code is not finite in float16; NaN is kept for 'not encoded' alone.
    """
    with np.errstate(over='ignore'):
        rounded = codes.astype(np.float16)
    if not np.isfinite(rounded).all():
        worst = codes[~np.isfinite(rounded)].flat[0]
        raise schema.GridError(
            f'{where}: the encoder gave {worst}, which float16 cannot hold (|code| < 65520); '
            'check its weights, or the scale of its codes'
        )
    return rounded


def _create(
    path: pathlib.Path,
    attributes: Mapping[str, Any],
    tissue: np.ndarray,
    versions: int,
    code_size: int,
) -> None:
    height, width = tissue.shape
    arrays.create(
        path / 'codes',
        shape=(versions, height, width, code_size),
        chunks=(1, schema.CHUNK_CELLS, schema.CHUNK_CELLS, code_size),
        shards=(versions, schema.SHARD_CELLS, schema.SHARD_CELLS, code_size),
        dimension_names=('version', 'y', 'x', 'feature'),
    )
    side = max(1, -(-max(height, width) // schema.SHARD_CELLS)) * schema.SHARD_CELLS
    array = arrays.create(
        path / 'tissue',
        shape=(height, width),
        chunks=(side, side),
        shards=(side, side),
        dimension_names=('y', 'x'),
    )
    if tissue.size:
        array.write(tissue.astype(np.float16)).result()
    schema.write_attributes(path, {**attributes, 'complete': False})
