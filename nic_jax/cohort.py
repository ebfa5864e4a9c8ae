"""The table of slides: which there are, where they lie, and whose they are."""

import codecs
import csv
import dataclasses
import io
import math
import os
import pathlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

import openslide

from nic_jax import dicom

DICOM_SUFFIXES = frozenset(('.dcm', '.dicom'))
SLIDE_SUFFIXES = DICOM_SUFFIXES.union(
    ('.bif', '.czi', '.mrxs', '.ndpi', '.scn', '.svs', '.svslide', '.tif', '.tiff', '.vms', '.vmu')
)
# What a table may write where a label is missing, in any case.
MISSING = frozenset(('', 'na', 'n/a', 'nan'))

_KNOWN_COLUMNS = ('slide_id', 'path', 'mpp', 'mask', 'case_id')


class CohortError(ValueError):
    """The slides or their table are not what they should be; the message names place and remedy."""


@dataclasses.dataclass(frozen=True)
class SlideEntry:
    """One slide of a cohort.

    Attributes:
        slide_id: unique in the cohort; parts separated by '/'.
        path: the slide's file (of a DICOM series, its first); it need not exist.
        mpp: µm/px of level 0, to be used instead of the file's own, or None.
        mask: a tissue mask's file, or None.
        case_id: the patient, whose slides are never split; the slide itself where none is given.
        row: the table's further columns, as written.
    """

    slide_id: str
    path: pathlib.Path
    mpp: float | None = None
    mask: pathlib.Path | None = None
    case_id: str = ''
    row: Mapping[str, str] = dataclasses.field(default_factory=dict)


def find_slides(
    path: str | os.PathLike,
) -> tuple[tuple[SlideEntry, ...], tuple[pathlib.Path, ...]]:
    """The slides that a path stands for, in a fixed order, and the files that are none.

    Args:
        path: a table (.csv, see `read_table`); a slide's file, which always counts; or a folder,
            searched with all its subfolders for known slide suffixes and for other files that
            OpenSlide detects. The slides of a folder are called by their path in it, without the
            last suffix. The files of one DICOM series in one folder are one slide, called by the
            first of them.

    Returns:
        The slides, and the folder's other files (hidden ones are passed over).

    Raises:
        CohortError: nothing there, no slides, or two files that would have one id.
    """
    path = pathlib.Path(path)
    if path.suffix.lower() == '.csv':
        return read_table(path), ()
    if not path.is_dir():
        if not path.exists():
            raise CohortError(f'{path} does not exist; give a slide, a folder of slides or a .csv')
        return (_entry(path, path.parent),), ()
    slides, others = [], []
    for file in visible_files(path):
        known = file.suffix.lower() in SLIDE_SUFFIXES
        (slides if known or openslide.OpenSlide.detect_format(file) else others).append(file)
    if not slides:
        names = ', '.join(str(other.relative_to(path)) for other in others[:3])
        raise CohortError(
            f'{path} holds no slides'
            + (f' among its {len(others)} files ({names}, …)' if others else ', it is empty')
            + f'; known suffixes: {" ".join(sorted(SLIDE_SUFFIXES))}'
        )
    entries = {}
    for file in _one_per_series(slides):
        entry = _entry(file, path)
        if entry.slide_id in entries:
            raise CohortError(
                f'{entries[entry.slide_id].path} and {file} would both be called '
                f'{entry.slide_id!r}; rename one, or list both in a table with a slide_id column'
            )
        entries[entry.slide_id] = entry
    return tuple(entries.values()), tuple(others)


def read_table(path: str | os.PathLike) -> tuple[SlideEntry, ...]:
    """The slides of a CSV file, in its order.

    Columns: `path` (required; relative to the table's folder), `slide_id` (default: the path in the
    table's folder, or the bare name of a file elsewhere, without the last suffix), `mpp` (µm/px),
    `mask`, `case_id` or `patient` (default: the slide_id), and any others. UTF-8 with or without a
    byte order mark; separated by commas, or by semicolons where the header has those. Whether the
    files exist is not looked at: that is for whoever opens them.

    Raises:
        CohortError: naming file, line, value and remedy.
    """
    path = pathlib.Path(path)
    entries = {}
    for line, row in _rows(path):
        entry = _listed_entry(path, line, row)
        if entry.slide_id in entries:
            raise CohortError(
                f'{path}, line {line}: slide_id {entry.slide_id!r} is taken by line '
                f'{entries[entry.slide_id][0]}; give each slide its own'
            )
        entries[entry.slide_id] = (line, entry)
    if not entries:
        raise CohortError(f'{path} has a header but no slides; add a line for each')
    return tuple(entry for _, entry in entries.values())


def shard(entries: Sequence[SlideEntry], part: str) -> tuple[SlideEntry, ...]:
    """Part 'i/n' of the slides, 0 <= i < n: every n-th from the i-th on."""
    match = re.fullmatch(r'(\d+)/(\d+)', part)
    if not match or int(match[1]) >= int(match[2]):
        raise CohortError(f'{part!r} is no part of a table; write i/n with 0 <= i < n, such as 0/4')
    return tuple(entries[int(match[1]) :: int(match[2])])


def table_columns(entries: Iterable[SlideEntry]) -> tuple[str, ...]:
    """The names of the further columns, in the table's order."""
    return tuple(dict.fromkeys(name for entry in entries for name in entry.row))


def read_number(text: str) -> float | None:
    """The finite number that a cell holds, or None."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def visible_files(
    folder: pathlib.Path, above: frozenset[pathlib.Path] = frozenset()
) -> Iterator[pathlib.Path]:
    """All files below a folder but the hidden ones, sorted; links to folders are followed."""
    here = folder.resolve()
    if here in above:  # A link to a folder above would be followed for ever.
        return
    for child in sorted(folder.iterdir()):
        if child.name.startswith('.'):
            continue
        if child.is_dir():
            yield from visible_files(child, above | {here})
        else:
            yield child


def _one_per_series(files: Sequence[pathlib.Path]) -> list[pathlib.Path]:
    """The files without those of a DICOM series, in one folder, that has come before."""
    kept, seen = [], set()
    for file in files:
        known = SLIDE_SUFFIXES - DICOM_SUFFIXES
        series = None if file.suffix.lower() in known else dicom.series(file)
        if series is None or (file.parent, series) not in seen:
            kept.append(file)
        seen.add((file.parent, series))
    return kept


def _entry(file: pathlib.Path, folder: pathlib.Path) -> SlideEntry:
    slide_id = file.relative_to(folder).with_suffix('').as_posix()
    _check_id(
        slide_id, f'{file}: ', 'rename the file, or list it in a table with a slide_id column'
    )
    return SlideEntry(slide_id, file, case_id=slide_id)


def _check_id(slide_id: str, place: str, remedy: str):
    """Refuses an id that could not name a grid's folder inside the workdir."""
    parts = slide_id.split('/')
    if '' in parts or '.' in parts or '..' in parts or re.match(r'[A-Za-z]:|.*\\', slide_id):
        problem = 'would leave its folder'
    elif not slide_id.isprintable():
        problem = 'has a control character'
    elif any(part.endswith('.zarr') for part in parts):
        problem = 'ends in .zarr, which names the stored grids'
    else:
        return
    raise CohortError(f'{place}slide_id {slide_id!r} {problem}; {remedy}')


def _rows(path: pathlib.Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Line number and stripped cells by column of every line that is not empty."""
    text = read_text(path)
    header_line = text.partition('\n')[0]
    delimiter = ';' if ';' in header_line and ',' not in header_line else ','
    reader = csv.reader(io.StringIO(text, newline=''), delimiter=delimiter)
    try:
        header = _header(path, next(reader, []))
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) != len(header):
                raise CohortError(
                    f'{path}, line {reader.line_num}: {len(cells)} cells, the header has '
                    f'{len(header)}; put quotes around a cell that contains the separator'
                )
            row = dict(zip(header, map(str.strip, cells), strict=True))
            row.pop('', None)  # Spreadsheets leave columns without a name.
            yield reader.line_num, row
    except csv.Error as error:
        raise CohortError(
            f'{path}, line {reader.line_num}: {error}; look for a quote that is not closed'
        ) from error


def read_text(path: pathlib.Path) -> str:
    """The text of a table, UTF-8 with or without a byte order mark.

    Raises:
        CohortError: It does not exist, or is not UTF-8.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise CohortError(f'table {path} does not exist') from error
    try:
        return data.removeprefix(codecs.BOM_UTF8).decode('utf-8')
    except UnicodeDecodeError as error:
        line = data.count(b'\n', 0, error.start) + 1
        raise CohortError(f'{path}, line {line}: not UTF-8; save the table as CSV UTF-8') from error


def _header(path: pathlib.Path, cells: Sequence[str]) -> list[str]:
    header = [cell.strip() for cell in cells]
    if 'patient' in header and 'case_id' not in header:
        header[header.index('patient')] = 'case_id'
    twice = [name for name in header if name and header.count(name) > 1]
    if twice:
        raise CohortError(f'{path}, line 1: column {twice[0]!r} stands there twice; rename one')
    if 'path' not in header:
        raise CohortError(
            f"{path}, line 1: no column 'path' among {', '.join(header) or 'none'}; the first line "
            'names the columns, separated by commas: slide_id,path,mpp,mask,case_id,…'
        )
    return header


def _listed_entry(table: pathlib.Path, line: int, row: dict[str, str]) -> SlideEntry:
    place = f'{table}, line {line}: '
    if not row['path']:
        raise CohortError(f"{place}the path is empty; write the slide's file or delete the line")
    file = table.parent / row['path']
    slide_id = row.get('slide_id') or _default_id(file, table.parent)
    _check_id(slide_id, place, "give it a plain name in the column 'slide_id'")
    if row.get('case_id') == '':
        raise CohortError(f'{place}no case_id; give each slide its patient, or drop the column')
    return SlideEntry(
        slide_id=slide_id,
        path=file,
        mpp=_mpp(row['mpp'], place) if row.get('mpp') else None,
        mask=table.parent / row['mask'] if row.get('mask') else None,
        case_id=row.get('case_id', slide_id),
        row={name: cell for name, cell in row.items() if name not in _KNOWN_COLUMNS},
    )


def _default_id(file: pathlib.Path, folder: pathlib.Path) -> str:
    inside = file.is_relative_to(folder) and '..' not in file.relative_to(folder).parts
    return (
        (file.relative_to(folder) if inside else pathlib.Path(file.name)).with_suffix('').as_posix()
    )


def _mpp(text: str, place: str) -> float:
    value = read_number(text)
    if value is None or value <= 0:
        raise CohortError(
            f'{place}mpp is {text!r}, expected a positive number of µm/px such as 0.25, or nothing'
        )
    return value
