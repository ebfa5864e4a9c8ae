"""The tiles that a table lists, or that lie in folders of classes; no image is opened."""

import csv
import dataclasses
import io
import pathlib
from collections.abc import Collection, Iterator, Sequence

from nic_jax import cohort
from nic_jax.patches import archives
from nic_jax.patches.store import SUBSETS, PatchesError

SUFFIXES = ('.jpg', '.jpeg', '.png', '.tif', '.tiff', '.bmp', '.webp')  # of images in folders

_SUBSET = {name: name for name in SUBSETS} | {
    'val': 'valid',
    'validation': 'valid',
    'training': 'train',
    'testing': 'test',
}


@dataclasses.dataclass(frozen=True)
class TileTable:
    """How one table of tiles is read.

    Attributes:
        tiles: A CSV; or a folder, or an archive of one (.tar, .tar.gz, .tar.xz, .zip), that holds a
            folder for each class, perhaps within folders train, valid and test.
        images: The folder or archive that a CSV's paths are in. None: the archive or folder of the
            CSV's name beside it, else the CSV's own folder.
        path: The CSV's column of paths.
        label: Its column of labels; empty, NA, N/A and NaN mean that there is none.
        subset: Its column of train, valid and test; without a column 'split' all are for training.
        group: Its column of the tiles' sources (slide, patient), which are never split; columns
            joined by '+' where one is not unique. '': each tile is a source of its own.
        patch_size: px of the patches made.
        crop: px of the tile's centre that becomes the patch. None: `patch_size`.
        mpp: µm/px of the patches, if known.
        valid_share: Of the training tiles, taken for validation where there is no 'valid'.
        test_share: Of the training tiles, taken for testing where there is no 'test'.
    """

    tiles: str
    images: str | None = None
    path: str = 'path'
    label: str = 'label'
    subset: str = 'split'
    group: str = ''
    patch_size: int = 64
    crop: int | None = None
    mpp: float | None = None
    valid_share: float = 0.2
    test_share: float = 0.2


@dataclasses.dataclass(frozen=True)
class Tile:
    """One tile: its path in the folder or archive, and '' for a label that is missing."""

    name: str
    label: str
    source: str
    subset: str


def listed(table: TileTable, path: pathlib.Path, notes: list[str]) -> Iterator[Tile]:
    """The tiles of a CSV; the subset is '' where it has no column of them."""
    groups = table.group.split('+') if table.group else []
    lines, without_label = {}, 0
    for line, row in _rows(path, [table.path, table.label, *groups]):
        place = f'{path}, line {line}: '
        name = _inside(row[table.path], place)
        if name in lines:
            raise PatchesError(f'{place}{name} is in line {lines[name]} already; delete one')
        lines[name] = line
        label = row[table.label]
        label = '' if label.lower() in cohort.MISSING else label
        without_label += not label
        empty = [column for column in groups if not row[column]]
        if empty:
            raise PatchesError(f'{place}no {empty[0]}; give each tile its source, or set group=')
        subset = row.get(table.subset, '')
        if table.subset in row and subset.lower() not in _SUBSET:
            raise PatchesError(
                f'{place}{table.subset} is {subset!r}, expected one of {", ".join(_SUBSET)}'
            )
        if table.subset not in row and table.subset not in ('split', ''):
            raise PatchesError(f'{path}: no column {table.subset!r} among {", ".join(row)}')
        source = '+'.join(row[column] for column in groups) or name
        yield Tile(name, label, source, _SUBSET.get(subset.lower(), ''))
    if not lines:
        raise PatchesError(f'{path} has a header but no tiles; add a line for each')
    if without_label:
        notes.append(f'{without_label} of {len(lines)} tiles in {path} have no label')


def _rows(path: pathlib.Path, needed: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Line number and stripped cells by column of every line that is not empty."""
    text = cohort.read_text(path)
    first = text.partition('\n')[0]
    reader = csv.reader(
        io.StringIO(text, newline=''), delimiter=';' if ';' in first and ',' not in first else ','
    )
    try:
        header = [cell.strip() for cell in next(reader, [])]
        for name in needed:
            if header.count(name) != 1:
                raise PatchesError(
                    f'{path}, line 1: {"two columns" if name in header else "no column"} {name!r} '
                    f'among {", ".join(header) or "none"}; set path, label and group to others'
                )
        for cells in reader:
            if not any(map(str.strip, cells)):
                continue
            if len(cells) != len(header):
                raise PatchesError(
                    f'{path}, line {reader.line_num}: {len(cells)} cells, the header has '
                    f'{len(header)}; put quotes around a cell that contains the separator'
                )
            yield reader.line_num, dict(zip(header, map(str.strip, cells), strict=True))
    except csv.Error as error:
        raise PatchesError(
            f'{path}, line {reader.line_num}: {error}; look for a quote that is not closed'
        ) from error


def _inside(path: str, place: str) -> str:
    """A path of a table, plainly written."""
    pure = pathlib.PurePosixPath(path)
    if not pure.name or pure.is_absolute() or '..' in pure.parts or '\\' in path or '\0' in path:
        raise PatchesError(
            f'{place}{path!r} is no path inside the folder or archive of the tiles; '
            "write it from there on, with '/' between folders"
        )
    return pure.as_posix()


def found(path: pathlib.Path, notes: list[str]) -> list[Tile]:
    """The tiles of a folder, or archive, of folders of classes."""
    names = archives.names(path)
    others = [name for name in names if not name.lower().endswith(SUFFIXES)]
    names = [name for name in names if name.lower().endswith(SUFFIXES)]
    if others:
        shown = ', '.join(others[:5]) + (' …' if len(others) > 5 else '')
        notes.append(f'{len(others)} files in {path} are no images: {shown}')
    if not names:
        raise PatchesError(f'{path} holds no images; known suffixes: {" ".join(SUFFIXES)}')
    folders = {name: name.split('/')[:-1] for name in names}
    while _wrapped(folders.values()):
        folders = {name: parts[1:] for name, parts in folders.items()}
    firsts = {parts[0] if parts else '' for parts in folders.values()}
    subsets = {first for first in firsts if first.lower() in _SUBSET}
    if subsets and subsets != firsts:
        raise PatchesError(
            f'{path} has folders of subsets ({", ".join(sorted(subsets))}) beside others '
            f'({", ".join(sorted(firsts - subsets)) or "images"}); put all images into subsets'
        )
    tiles = []
    for name, parts in folders.items():
        subset = _SUBSET[parts[0].lower()] if subsets else ''
        label = (parts[1:] if subsets else parts)[:1]
        tiles.append(Tile(name, label[0] if label else '', name, subset))
    without_label = sum(not tile.label for tile in tiles)
    if without_label:
        notes.append(f'{without_label} of {len(tiles)} images in {path} are in no class folder')
    return tiles


def _wrapped(folders: Collection[Sequence[str]]) -> bool:
    """Whether all lies in one folder that names neither a subset nor the only class."""
    firsts = {parts[0] if len(parts) > 1 else '' for parts in folders}
    first = next(iter(firsts))
    return len(firsts) == 1 and bool(first) and first.lower() not in _SUBSET
