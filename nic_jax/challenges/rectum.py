"""Annotated slides of the rectum, of nine kinds of tissue: a table of our own.

    FOLDER/slides.csv: slide_id,path,case_id,annotation

The paper's 74 slides are not public, so this layout is ours. `annotation` is a file of polygons
(ASAP's XML or QuPath's GeoJSON) of the nine `CLASSES`; both paths are relative to the table's
folder. Outlines of other names label nothing, which is told. Needed: annotations that can be read,
of every class, of at least ten patients (`case_id`) for the paper's ten parts by patient.
"""

import collections
import pathlib
from collections.abc import Mapping, Sequence

from nic_jax.challenges.found import Found, annotation_path, refuse, shown
from nic_jax.cohort import SlideEntry, read_table, table_columns
from nic_jax.patches.annotations import AnnotationError, read_annotations

NAME = 'the rectum cohort'
CLASSES = (
    'blood cells',
    'fatty tissue',
    'epithelium',
    'lymphocytes',
    'mucus',
    'muscle',
    'necrosis',
    'stroma',
    'tumour',
)
PARTS = 10  # by patient: 5 train, 1 validates, 4 test

_SPELLINGS = {'tumor': 'tumour'}
# For `SlidePatches.classes`.
CLASS_SETTING = tuple(
    '+'.join([f'{name}={name}', *(other for other, of in _SPELLINGS.items() if of == name)])
    for name in CLASSES
)


def read(path: pathlib.Path) -> Found:
    """Reads a table, or the `slides.csv` of a folder, and the names in all annotations.

    Returns:
        The slides whose files are there and that have annotations.

    Raises:
        CohortError: All that is wrong.
    """
    table = path / 'slides.csv' if path.is_dir() else path
    entries = tuple(annotation_path(entry, table) for entry in read_table(table))
    problems, notes = [], []
    if 'annotation' not in table_columns(entries):
        problems.append('no column annotation; name each slide’s file of polygons there')
        refuse(NAME, table, problems)
    there = _usable(entries, problems, notes)
    regions = _regions(there, problems)
    others = {name: slides for name, slides in regions.items() if name not in CLASSES}
    for name, slides in sorted(others.items()):
        notes.append(f'outlines called {name!r} label nothing: {shown(slides)}')
    if absent := [name for name in CLASSES if name not in regions]:
        problems.append(
            f'no slide has outlines of {", ".join(absent)}; annotate some, or correct their names'
        )
    if len({entry.case_id for entry in there}) < PARTS:
        problems.append(
            f'{len({entry.case_id for entry in there})} patients cannot make {PARTS} parts by '
            'patient; add some, or tell patients apart in the column case_id'
        )
    refuse(NAME, table, problems)
    listing = ', '.join(f'{len(regions[name])} {name}' for name in CLASSES)
    told = (
        f'{NAME} of {table}: {len(there)} slides of {len({e.case_id for e in there})} patients '
        f'(the paper had 74 slides); slides with {listing}'
    )
    return Found(tuple(there), (told, *notes))


def _usable(
    entries: Sequence[SlideEntry], problems: list[str], notes: list[str]
) -> list[SlideEntry]:
    """The slides that are there and have annotations."""
    left_out = collections.defaultdict(list)
    kept = []
    for entry in entries:
        annotation = entry.row['annotation']
        if not entry.path.exists():
            left_out['there is no such file'].append(str(entry.path))
        elif not annotation:
            left_out['they have no annotation'].append(entry.slide_id)
        elif not pathlib.Path(annotation).exists():
            problems.append(
                f'{entry.slide_id}: there is no file {annotation}; correct the '
                'column annotation, or leave it empty'
            )
        else:
            kept.append(entry)
    for reason, names in left_out.items():
        notes.append(f'{len(names)} slides are left out, {reason}: {shown(names)}')
    if not kept and not problems:
        problems.append(f'none of its {len(entries)} slides is there with an annotation')
    return kept


def _regions(entries: Sequence[SlideEntry], problems: list[str]) -> Mapping[str, list[str]]:
    """Name of a class, or of other outlines, to the slides that have it."""
    found = collections.defaultdict(list)
    for entry in entries:
        try:
            regions = read_annotations(pathlib.Path(entry.row['annotation'])).regions
        except AnnotationError as error:
            problems.append(str(error))
            continue
        for name in sorted({_SPELLINGS.get(region.name, region.name) for region in regions}):
            found[name].append(entry.slide_id)
    return found
