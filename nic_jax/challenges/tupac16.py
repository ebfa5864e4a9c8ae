"""TUPAC16 as it is released: breast cancers and how fast they proliferate.

    FOLDER/…/TUPAC-TR-001.svs …            500 training cases, a slide each
    FOLDER/…/TUPAC-TE-001.svs …            321 test cases, whose scores are not public
    FOLDER/…/training_ground_truth.csv     line k is training case k

(https://tupac.grand-challenge.org/Dataset/). Slides and table are known by their names, in any
folder below; the auxiliary data sets are passed over. The table has no header and two columns: the
score by mitoses (1, 2 or 3) and the molecular proliferation score, a number (PAM50's). Needed:
training slides and the table with a line for each of them. Test slides are not needed; those there
are have no label, and are predicted.

The release tells one slide a case. The paper used 492 of the 500, and does not say which.
"""

import collections
import csv
import io
import math
import pathlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

from nic_jax import workdir
from nic_jax.challenges.found import (
    FOR_CLASSIFICATION,
    FOR_ENCODERS,
    USE,
    Found,
    only,
    refuse,
    set_aside,
    shown,
)
from nic_jax.cohort import SLIDE_SUFFIXES, CohortError, SlideEntry, read_text, visible_files

NAME = 'TUPAC16'
LABEL = 'proliferation'  # the column
RELEASED = {'TR': 500, 'TE': 321}
TABLES = ('training_ground_truth.csv', 'ground_truth.csv')

_SLIDE = re.compile(r'TUPAC-(TR|TE)-(\d{3})', re.IGNORECASE)


def read(folder: pathlib.Path, *, encoder_slides: int | None = None, seed: int = 0) -> Found:
    """Reads a release.

    Args:
        folder: With slides and table in it or below.
        encoder_slides: Training slides that are for encoders alone. None: the paper's 40 of 500, or
            that share of fewer; it does not say which.
        seed: Of their draw.

    Returns:
        Training slides, then test slides. Columns: `proliferation` and `mitosis_score`, '' for test
        slides, and `use` (encoder, classifier).

    Raises:
        CohortError: All that is wrong.
    """
    problems, notes = [], []
    slides, tables = _files(folder, problems)
    training = sorted(number for kind, number in slides if kind == 'TR')
    if not training:
        problems.append(
            'no training slides TUPAC-TR-001.svs, … in it or in folders below; give the folder '
            'that holds the release'
        )
    path = only(tables, TABLES[0], "put the challenge's table beside the slides", problems)
    scores = _scores(path, problems) if path else {}
    if path and (unknown := [number for number in training if number not in scores]):
        problems.append(
            f'{path} has {len(scores)} lines, none for {len(unknown)} training slides: '
            f'{shown(map(_training_id, unknown))}; its k-th line is case k'
        )
    absent = sorted(scores.keys() - set(training))
    if absent and training:
        notes.append(
            f'{path}: no slide for {len(absent)} of its cases: {shown(map(_training_id, absent))}'
        )
    drawn = set()
    if training:
        strata = [''] * len(training)
        drawn = set_aside(strata, encoder_slides, share=40 / 500, seed=seed, problems=problems)
    refuse(NAME, folder, problems)
    aside = {training[index] for index in drawn}

    entries = []
    for (kind, number), file in sorted(slides.items(), key=lambda item: (item[0][0] == 'TE', item)):
        mitoses, proliferation = scores[number] if kind == 'TR' else ('', '')
        for_encoders = kind == 'TR' and number in aside
        row = {
            LABEL: proliferation,
            'mitosis_score': mitoses,
            USE: FOR_ENCODERS if for_encoders else FOR_CLASSIFICATION,
        }
        slide_id = f'TUPAC-{kind}-{number:03d}'
        entries.append(SlideEntry(slide_id, file, case_id=slide_id, row=row))
    return Found(tuple(entries), (*_told(folder, entries), *notes))


def write_submission(rows: Iterable[Mapping[str, Any]], path: pathlib.Path) -> pathlib.Path:
    """Writes the file that the challenge takes: a line for each test case, in order, `-1,score`.

    The first column is task 1's, which is not answered: −1, as asked
    (https://tupac.grand-challenge.org/Submission-format/).

    Args:
        rows: Of predictions.csv; those of test slides count. Several of one slide (a seed each) are
            averaged.
        path: The file to write.

    Raises:
        ValueError: A test case is missing before the last: the line's number is the case's.
    """
    found = collections.defaultdict(list)
    for row in rows:
        match = _SLIDE.fullmatch(pathlib.PurePosixPath(row['slide_id']).name)
        if match and match[1].upper() == 'TE':
            found[int(match[2])].append(float(row['prediction']))
    missing = sorted(set(range(1, max(found, default=1) + 1)) - found.keys())
    if missing:
        names = shown(f'TUPAC-TE-{number:03d}' for number in missing)
        raise ValueError(
            f'{path}: no prediction of {names}; a line stands for each test case, so predict them '
            'all before the submission is written'
        )
    lines = [
        f'-1,{math.fsum(found[number]) / len(found[number]):.6f}\n' for number in sorted(found)
    ]
    workdir.write_atomically(path, ''.join(lines))
    return path


def _training_id(number: int) -> str:
    return f'TUPAC-TR-{number:03d}'


def _files(folder: pathlib.Path, problems: list[str]):
    """(TR or TE, case number) to slide, and the tables of scores."""
    slides, tables = {}, []
    if not folder.is_dir():
        raise CohortError(f'{folder} is no folder; give the folder of the release of {NAME}')
    for file in visible_files(folder):
        if file.name.lower() in TABLES:
            tables.append(file)
        match = _SLIDE.fullmatch(file.stem)
        if not match or file.suffix.lower() not in SLIDE_SUFFIXES:
            continue
        key = match[1].upper(), int(match[2])
        if slides.setdefault(key, file) != file:
            problems.append(f'{slides[key]} and {file} are the same case; move one away')
    return slides, tables


def _scores(path: pathlib.Path, problems: list[str]) -> dict[int, tuple[str, str]]:
    """Case number to the two scores, as written."""
    found = {}
    for cells in csv.reader(io.StringIO(read_text(path), newline='')):
        cells = [cell.strip() for cell in cells]
        if not any(cells) or (not found and len(cells) == 2 and _letters(cells)):
            continue  # an empty line, or a header
        number = len(found) + 1
        found[number] = ('', '')
        place = f'{path}, case {number}'
        if len(cells) != 2:
            problems.append(f'{place}: {len(cells)} cells; write two, score by mitoses and PAM50’s')
            continue
        if cells[0] not in ('1', '2', '3'):
            problems.append(f'{place}: the score by mitoses is {cells[0]!r}; write 1, 2 or 3')
        try:
            known = math.isfinite(float(cells[1]))
        except ValueError:
            known = False
        if not known:
            problems.append(f'{place}: the proliferation score is {cells[1]!r}; write a number')
        found[number] = (cells[0], cells[1])
    return found


def _letters(cells: list[str]) -> bool:
    return all(re.match(r'[A-Za-z_]{2,}', cell) and cell.lower() != 'nan' for cell in cells)


def _told(folder: pathlib.Path, entries: list[SlideEntry]) -> list[str]:
    kinds = collections.Counter(entry.slide_id.split('-')[1] for entry in entries)
    aside = sum(entry.row[USE] == FOR_ENCODERS for entry in entries)
    return [
        f'{NAME} at {folder}: {kinds["TR"]} of {RELEASED["TR"]} training and {kinds["TE"]} of '
        f'{RELEASED["TE"]} test slides of the release; {aside} training slides are for encoders '
        f'alone, {kinds["TR"] - aside} for classification (the paper had 40 and 452)'
    ]
