"""Many small grids of one shape in one zarr group: the synthetic images' codes.

Arrays: `codes` float16 `[image, y, x, feature]`, `label` int32 `[image]`, `mask` bool
`[image, y, x]` (the cells that the label is about). Turning such an image turns its layout and not
its digits, so one code a cell serves all eight versions.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorstore as ts

from nic_jax.grids import arrays, schema
from nic_jax.grids.reading import overlap
from nic_jax.grids.versions import turn

_SHARD_BYTES = 32 << 20
# Codes up to this size are read into memory at once.
MEMORY_BYTES = 2 << 30


@dataclasses.dataclass(frozen=True)
class StackWriter:
    """A stack that is being written.

    Attributes:
        path: The zarr group.
        attributes: What the group will say of itself, `complete` aside.
        arrays: `codes`, `label` and `mask`, open.
        missing: (first, last + 1) image of the shards that are not on disk yet.
    """

    path: pathlib.Path
    attributes: Mapping[str, Any]
    arrays: Mapping[str, ts.TensorStore]
    missing: tuple[tuple[int, int], ...]

    def write(
        self, images: tuple[int, int], *, codes: np.ndarray, label: np.ndarray, mask: np.ndarray
    ) -> None:
        """Writes one shard; `codes` comes last, and tells that the shard is there."""
        part = slice(*images)
        self.arrays['label'][part].write(label).result()
        self.arrays['mask'][part].write(mask).result()
        self.arrays['codes'][part].write(codes).result()

    def finish(self) -> None:
        """Marks the stack complete."""
        schema.write_attributes(self.path, {**self.attributes, 'complete': True})


def open_stack_writer(
    path: pathlib.Path,
    *,
    attributes: Mapping[str, Any],
    images: int,
    shape: tuple[int, int],
    code_size: int,
    overwrite: bool = False,
) -> StackWriter | None:
    """Starts a stack, or goes on with one that was interrupted; None when it is complete.

    Raises:
        GridError: A stack made with other settings is there and `overwrite` is false.
    """
    state = schema.begin(path, attributes, overwrite=overwrite)
    if state == 'complete':
        return None
    height, width = shape
    shard = max(1, min(images, _SHARD_BYTES // (2 * height * width * code_size)))
    if state == 'new':
        sizes = {
            'codes': (
                (images, height, width, code_size),
                ('image', 'y', 'x', 'feature'),
                'float16',
            ),
            'mask': ((images, height, width), ('image', 'y', 'x'), 'bool'),
            'label': ((images,), ('image',), 'int32'),
        }
        for name, (size, names, dtype) in sizes.items():
            chunk, file = (1, *size[1:]), (shard, *size[1:])
            if name == 'label':
                chunk = file
            arrays.create(
                path / name,
                shape=size,
                chunks=chunk,
                shards=file,
                dimension_names=names,
                dtype=dtype,
            )
        schema.write_attributes(path, {**attributes, 'complete': False})
    missing = tuple(
        (first, min(first + shard, images))
        for first in range(0, images, shard)
        if not arrays.shard_exists(path / 'codes', (first // shard, 0, 0, 0))
    )
    opened = {
        name: arrays.open_array(path / name, writable=True) for name in ('codes', 'label', 'mask')
    }
    return StackWriter(path, attributes, opened, missing)


@dataclasses.dataclass(frozen=True, eq=False)
class Stack:
    """A complete stack, open for reading.

    Attributes:
        attributes: All that the group says of itself.
        codes: float16 `[N, H, W, C]`, in memory or, where large, on disk.
        labels: int32 `[N]`.
        stored_masks: bool `[N, H, W]`, on disk.
    """

    attributes: Mapping[str, Any]
    codes: np.ndarray | ts.TensorStore
    labels: np.ndarray
    stored_masks: ts.TensorStore

    @functools.cached_property
    def masks(self) -> np.ndarray:
        """The cells that each image's label is about, bool `[N, H, W]`, read at first use."""
        return self.stored_masks.read().result()

    @functools.cached_property
    def fingerprint(self) -> str:
        """A hash of all that the stack was made from and with."""
        return schema.fingerprint(self.attributes)

    def __len__(self) -> int:
        return len(self.labels)

    def grids(self) -> list['StackedGrid']:
        """One grid an image."""
        return [StackedGrid(self, index) for index in range(len(self))]

    def lesion_areas(self) -> np.ndarray:
        """Cells of each image that its label is about, int `[N]`."""
        return self.masks.sum(axis=(1, 2))


@dataclasses.dataclass(frozen=True, eq=False)
class StackedGrid:
    """One image of a stack, as `GridLike`."""

    stack: Stack
    index: int

    @property
    def slide_id(self) -> str:
        """The image's name: the stack's and its number."""
        return f'{self.stack.attributes["name"]}/{self.index:06d}'

    @property
    def fingerprint(self) -> str:
        """A hash of all that the image's grid was made from and with."""
        return f'{self.stack.fingerprint}/{self.index}'

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of cells."""
        return tuple(self.stack.codes.shape[1:3])

    @property
    def code_size(self) -> int:
        """C."""
        return self.stack.codes.shape[3]

    @property
    def encoded(self) -> np.ndarray:
        """Every cell holds a code, bool `[H, W]`."""
        return np.ones(self.shape, bool)

    def crop(self, top: int, left: int, size: int, version: int) -> np.ndarray:
        """float32 `[size, size, C]`, zeros outside the image, its layout turned by `version`."""
        rows, into_rows = overlap(top, size, self.shape[0])
        columns, into_columns = overlap(left, size, self.shape[1])
        square = np.zeros((size, size, self.code_size), np.float32)
        square[into_rows, into_columns] = np.asarray(self.stack.codes[self.index, rows, columns])
        return turn(square, version)


def open_stack(path: pathlib.Path) -> Stack:
    """Opens a stack, in memory where it is small enough.

    Raises:
        GridError: There is none, or it is not complete.
    """
    attributes = schema.read_complete(path)
    stored = {name: arrays.open_array(path / name) for name in ('codes', 'label', 'mask')}
    codes = stored['codes']
    if 2 * codes.size <= MEMORY_BYTES:
        codes = codes.read().result()
    return Stack(attributes, codes, stored['label'].read().result(), stored['mask'])
