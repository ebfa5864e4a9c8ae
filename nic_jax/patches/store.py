"""Training patches on disk: parts of raw pixels that are mapped into memory, and one table.

    FOLDER/parts/NAME.npy   uint8 [n, P, P, channels]
    FOLDER/parts/NAME.csv   a line a patch; written after the pixels, so that it marks a whole part
    FOLDER/patches.csv      the lines of all parts, in their order
    FOLDER/patches.json     classes, µm/px, counts; written last

A part is what a kill may lose: a slide, or a thousand tiles. Raw pixels are read at the speed of
memory; a location is stored once, however many pairs it is in.
"""

import csv
import dataclasses
import io
import json
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from nic_jax import workdir

COLUMNS = ('source', 'name', 'subset', 'label', 'x', 'y')
SUBSETS = ('train', 'valid', 'test')


class PatchesError(ValueError):
    """Training patches that are not what they should be; the message names file and remedy."""


class Parts:
    """Arrays `[n, P, P, channels]` that are indexed as if they were one, `[N, P, P, channels]`."""

    def __init__(self, arrays: Iterable[np.ndarray]):
        self._arrays = tuple(arrays)
        self._ends = np.cumsum([len(array) for array in self._arrays])
        self.shape = (int(self._ends[-1]), *self._arrays[0].shape[1:])
        self.dtype = self._arrays[0].dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, indices: np.ndarray | slice) -> np.ndarray:
        """Copies the patches of some indices, in their order."""
        if isinstance(indices, slice):
            indices = np.arange(*indices.indices(len(self)))
        indices = np.asarray(indices)
        part = np.searchsorted(self._ends, indices, side='right')
        found = np.empty((*indices.shape, *self.shape[1:]), self.dtype)
        for number in np.unique(part):
            here = part == number
            array = self._arrays[number]
            found[here] = array[indices[here] - (self._ends[number] - len(array))]
        return found


@dataclasses.dataclass(frozen=True, eq=False)
class PatchSet:
    """A finished set of patches.

    Attributes:
        pixels: `[N, P, P, channels]`, indexed by arrays of indices.
        columns: `COLUMNS` as arrays of text `[N]`.
        labels: Indices into `classes`, int32 `[N]`; −1 where there is no label.
        classes: Names.
        mpp: µm/px of the patches; None where it is not known.
    """

    pixels: Parts
    columns: Mapping[str, np.ndarray]
    labels: np.ndarray
    classes: tuple[str, ...]
    mpp: float | None

    def __len__(self) -> int:
        return len(self.pixels)

    def indices(self, subset: str, *, labelled: bool = False) -> np.ndarray:
        """The patches of 'train', 'valid' or 'test', int `[n]`; those with a label if asked."""
        chosen = self.columns['subset'] == subset
        return np.flatnonzero(chosen & (self.labels >= 0) if labelled else chosen)


def has_part(folder: pathlib.Path, name: str) -> bool:
    """Whether a part is there, whole."""
    return _part(folder, name, '.csv').exists()


def write_part(
    folder: pathlib.Path, name: str, pixels: np.ndarray, rows: Iterable[Mapping[str, Any]]
) -> None:
    """Writes a part, which may be empty.

    Args:
        folder: Of the set.
        name: Of the part, different for different parts.
        pixels: uint8 `[n, P, P, channels]`.
        rows: `COLUMNS` of each patch; those that are missing stay empty.
    """
    rows = list(rows)
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or len(rows) != len(pixels):
        raise ValueError(
            f'{name}: {len(rows)} rows for {pixels.dtype} {pixels.shape}, not uint8 [n, P, P, C]'
        )
    workdir.save_array(_part(folder, name, '.npy'), pixels)
    workdir.write_atomically(_part(folder, name, '.csv'), _as_csv(rows))


def part_rows(folder: pathlib.Path, name: str) -> list[dict[str, str]]:
    """The table of one part."""
    with _part(folder, name, '.csv').open(newline='', encoding='utf-8') as file:
        return list(csv.DictReader(file))


def finish_set(
    folder: pathlib.Path, *, names: Sequence[str], classes: Sequence[str], mpp: float | None
) -> PatchSet:
    """Joins the parts; the set can be opened afterwards.

    Args:
        folder: Of the set.
        names: Of its parts, in order; empty ones may be among them.
        classes: Of the labels.
        mpp: µm/px of the patches.

    Raises:
        PatchesError: There is no patch in any part.
    """
    rows = {name: part_rows(folder, name) for name in names}
    if not any(rows.values()):
        raise PatchesError(f'{folder}: no patches; see failures.csv and the settings of the stage')
    workdir.write_atomically(
        folder / 'patches.csv', _as_csv([row for part in rows.values() for row in part])
    )
    record = {
        'parts': [name for name in names if rows[name]],
        'classes': list(classes),
        'mpp': mpp,
        'patches': sum(map(len, rows.values())),
    }
    workdir.write_atomically(folder / 'patches.json', json.dumps(record, indent=1))
    return open_set(folder)


def open_set(folder: pathlib.Path) -> PatchSet:
    """Opens a finished set; pixels are read when they are indexed.

    Raises:
        PatchesError: It is not there or not finished.
    """
    path = folder / 'patches.json'
    if not path.exists():
        raise PatchesError(f'{folder} holds no finished patches; run the stage patches first')
    record = json.loads(path.read_text(encoding='utf-8'))
    with (folder / 'patches.csv').open(newline='', encoding='utf-8') as file:
        rows = list(csv.DictReader(file))
    arrays = [np.load(_part(folder, name, '.npy'), mmap_mode='r') for name in record['parts']]
    number = {name: index for index, name in enumerate(record['classes'])}
    columns = {name: np.array([row[name] for row in rows]) for name in COLUMNS}
    return PatchSet(
        pixels=Parts(arrays),
        columns=columns,
        labels=np.array([number.get(label, -1) for label in columns['label']], np.int32),
        classes=tuple(record['classes']),
        mpp=record['mpp'],
    )


def _part(folder: pathlib.Path, name: str, suffix: str) -> pathlib.Path:
    return folder / 'parts' / (workdir.file_name(name) + suffix)


def _as_csv(rows: Iterable[Mapping[str, Any]]) -> str:
    text = io.StringIO(newline='')
    writer = csv.DictWriter(text, COLUMNS, restval='', lineterminator='\n')
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
