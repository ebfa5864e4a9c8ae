"""Decoding tiles into the parts of a set, those that are not there yet."""

import collections
import functools
import itertools
import json
import pathlib
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from nic_jax import prefetch, progress, workdir
from nic_jax.patches import archives, store
from nic_jax.patches.images import TileError, decode_tile
from nic_jax.patches.tile_list import TileList
from nic_jax.patches.tile_table import TileTable

PART = 1000  # tiles; what a kill may lose, and what is held in memory


def make_parts(
    table: TileTable, tiles: TileList, folder: pathlib.Path, *, name: str, workers: int
) -> list[str]:
    """Decodes tiles in the order of their folder or archive, which is read once.

    Args:
        table: Says what is taken of each tile.
        tiles: All of them.
        folder: Of the set.
        name: Of the set, for the progress bar.
        workers: Threads that decode.

    Returns:
        The names of the set's parts.
    """
    crop = table.patch_size if table.crop is None else table.crop
    decode = functools.partial(_decode, crop=crop, patch_size=table.patch_size)
    members = archives.find(tiles.images, tiles.tiles)
    read_now = not tiles.images.is_dir()  # an archive is read front to back
    parts, count = [], PART
    with progress.bar(name, total=len(tiles.tiles), unit='tiles') as tell:
        while count == PART:
            part, chunk = f'{len(parts):05d}', itertools.islice(members, PART)
            if store.has_part(folder, part):
                count = sum(1 for _ in chunk)
                tell(count)
            else:
                jobs = ((tile, _attempt(read) if read_now else read) for tile, read in chunk)
                decoded = prefetch.map_ahead(decode, jobs, workers=workers, ahead=4 * workers)
                count = _make_part(folder, part, tiles, decoded, table.patch_size, tell)
            parts += [part] if count else []
    return parts


def read_notes(folder: pathlib.Path, part: str) -> dict[str, Any]:
    """What happened to the tiles of a part.

    Returns:
        'converted', a count by mode; 'skipped', by tile the shared and the full reason.
    """
    return json.loads(_notes(folder, part).read_text(encoding='utf-8'))


def _make_part(
    folder: pathlib.Path,
    part: str,
    tiles: TileList,
    decoded: Iterable[tuple[str, np.ndarray | TileError, str]],
    patch_size: int,
    tell: Callable[[int], None],
) -> int:
    """Writes one part and, before it, what happened to its tiles; returns how many there were."""
    pixels = np.empty((PART, patch_size, patch_size, 3), np.uint8)
    rows, skipped, converted = [], {}, collections.Counter()
    for name, patch, mode in decoded:
        if isinstance(patch, TileError):
            skipped[name] = [patch.kind, str(patch)]
        else:
            pixels[len(rows)] = patch
            tile = tiles.tiles[name]
            rows.append({key: getattr(tile, key) for key in ('source', 'name', 'subset', 'label')})
            converted.update([mode] if mode else [])
        tell(1)
    if rows or skipped:
        notes = {'converted': converted, 'skipped': skipped}
        workdir.write_atomically(_notes(folder, part), json.dumps(notes, indent=1))
        store.write_part(folder, part, pixels[: len(rows)], rows)
    return len(rows) + len(skipped)


def _decode(
    job: tuple[str, bytes | TileError | Callable[[], bytes]], *, crop: int, patch_size: int
) -> tuple[str, np.ndarray | TileError, str]:
    """Name, pixels or why there are none, and the mode that they were converted from."""
    name, data = job
    data = _attempt(data) if callable(data) else data
    if isinstance(data, TileError):
        return name, data, ''
    try:
        return name, *decode_tile(data, crop=crop, patch_size=patch_size)
    except TileError as error:
        return name, error, ''


def _attempt(read: Callable[[], bytes]) -> bytes | TileError:
    try:
        return read()
    except TileError as error:
        return error


def _notes(folder: pathlib.Path, part: str) -> pathlib.Path:
    return folder / 'notes' / f'{part}.json'
