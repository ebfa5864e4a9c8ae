"""Liver metastases, whose growth pattern and patients' survival are learned: a table of our own.

    FOLDER/slides.csv: slide_id,path,case_id,growth_pattern,os_days,os_event

The cohort of the multitask paper (Tellez et al., MIDL 2020) is not public, so this layout is ours.
A line is a slide; a patient (`case_id`) may have several, and all of them carry the same outcome.
`growth_pattern` is one of two words of your choice (as `desmoplastic` and `replacement`), or empty
where it is not known. `os_days` are the days from surgery to death or to the last visit, above 0,
and `os_event` is 1 for death and 0 for the end of observation; both or neither. `path` is relative
to the table's folder; further columns of tables of slides (`mpp`, `mask`, `annotation`, `fold`)
are kept.

Needed: the columns, two patterns, and slides that are there. Files that are missing are told, and
the others are taken.
"""

import collections
import math
import pathlib
from collections.abc import Sequence

from nic_jax.challenges.found import Found, annotation_path, refuse, shown
from nic_jax.cohort import MISSING, SlideEntry, read_table, table_columns

NAME = 'the liver cohort'
COLUMNS = ('growth_pattern', 'os_days', 'os_event')


def read(path: pathlib.Path) -> Found:
    """Reads a table, or the `slides.csv` of a folder.

    Raises:
        CohortError: All that is wrong.
    """
    table = path / 'slides.csv' if path.is_dir() else path
    entries = tuple(annotation_path(entry, table) for entry in read_table(table))
    problems, notes = [], []
    columns = table_columns(entries)
    if absent := [name for name in COLUMNS if name not in columns]:
        problems.append(
            f'no columns {", ".join(absent)} among {", ".join(columns) or "none"}; add them, with '
            'empty cells where an outcome is not known'
        )
    if all(entry.case_id == entry.slide_id for entry in entries):
        notes.append(f'{table} has no case_id of its own: every slide counts as a patient')
    if not absent:
        _check_outcomes(entries, problems)
    there = [entry for entry in entries if entry.path.exists()]
    if not there:
        problems.append(
            f'none of its {len(entries)} slides exist, as {entries[0].path}; correct the column '
            'path, which is relative to the table'
        )
    refuse(NAME, table, problems)
    if missing := [entry.slide_id for entry in entries if not entry.path.exists()]:
        notes.insert(0, f'{len(missing)} slides are left out, there is no file: {shown(missing)}')
    return Found(tuple(there), (_told(table, there), *notes))


def _check_outcomes(entries: Sequence[SlideEntry], problems: list[str]) -> None:
    patterns = {_cell(entry, 'growth_pattern') for entry in entries} - {''}
    if len(patterns) != 2:
        problems.append(
            f'growth_pattern has {len(patterns)} words ({shown(sorted(patterns)) or "none"}); '
            'write one of two for each slide, or nothing'
        )
    outcomes = collections.defaultdict(set)
    for entry in entries:
        days, event = _cell(entry, 'os_days'), _cell(entry, 'os_event')
        outcomes[entry.case_id].add(tuple(_cell(entry, name) for name in COLUMNS))
        if event not in ('', '0', '1'):
            problems.append(f'{entry.slide_id}: os_event is {event!r}; write 1 for death, else 0')
        elif bool(days) != bool(event):
            problems.append(
                f'{entry.slide_id}: os_days and os_event are given together, or neither'
            )
        elif days and not _positive(days):
            problems.append(f'{entry.slide_id}: os_days is {days!r}; write days, above 0')
    if not any(_cell(entry, 'os_event') == '1' for entry in entries):
        problems.append('os_event is never 1; survival cannot be learned where nobody has died')
    if torn := sorted(case for case, found in outcomes.items() if len(found) > 1):
        problems.append(
            f'the slides of {len(torn)} patients differ in growth_pattern, os_days or os_event: '
            f'{shown(torn)}; write the patient’s for all of them'
        )


def _cell(entry: SlideEntry, column: str) -> str:
    text = entry.row[column]
    return '' if text.lower() in MISSING else text


def _positive(text: str) -> bool:
    try:
        return 0 < float(text) < math.inf
    except ValueError:
        return False


def _told(table: pathlib.Path, entries: Sequence[SlideEntry]) -> str:
    patients = {entry.case_id: entry for entry in entries}.values()
    patterns = collections.Counter(
        _cell(entry, 'growth_pattern') or 'unknown' for entry in patients
    )
    dead = sum(_cell(entry, 'os_event') == '1' for entry in patients)
    followed = sum(_cell(entry, 'os_event') != '' for entry in patients)
    listing = ', '.join(f'{count} {word}' for word, count in sorted(patterns.items()))
    return (
        f'{NAME} of {table}: {len(entries)} slides of {len(patients)} patients; growth pattern: '
        f'{listing}; {dead} of {followed} patients died'
    )
