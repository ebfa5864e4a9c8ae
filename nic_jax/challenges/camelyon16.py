"""CAMELYON16 as it is released: lymph nodes with and without metastases, and their outlines.

    FOLDER/training/normal/normal_001.tif …               159 slides
    FOLDER/training/tumor/tumor_001.tif …                 111
    FOLDER/training/lesion_annotations/tumor_001.xml …    unpack lesion_annotations.zip
    FOLDER/testing/images/test_001.tif …                  129
    FOLDER/testing/lesion_annotations/test_001.xml …      unpack lesion_annotations.zip
    FOLDER/testing/reference.csv                          test_001,Tumor,IDC,Macro

(https://camelyon17.grand-challenge.org/Data/). Files are known by their names, in any folder below
and in any case, so that the copy on AWS (`images/`, `annotations/`) and that of 2016 with its
capitals (`Train_Tumor/Tumor_001.tif`) do as well; folders of masks are passed over. NCRF's JSON
polygons (`Tumor_001.json`) count as annotations.

Needed: slides of both classes, and for the test slides there are, `reference.csv`: name, Normal or
Tumor, kind, and None, Micro or Macro; the last two may be missing. Slides or annotations that are
not there are told, and the others are taken. As the organisers say in their README, `normal_086`
was misclassified and renamed to `tumor_111`, and `test_049` is a duplicate: both are left out.
`test_114` is not annotated exhaustively: its lesion's area is not known.

Sizes of the test set's metastases are those of the reference, others come from the outlines (see
`lesions`). The release does not tell patients: every slide is a case of its own.
"""

import collections
import csv
import io
import pathlib
import re

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
from nic_jax.challenges.lesions import Lesions, measure_files
from nic_jax.cohort import SLIDE_SUFFIXES, CohortError, SlideEntry, read_text, visible_files

NAME = 'CAMELYON16'
LABEL = 'metastasis'  # the column, of 'normal' and 'tumor'
RELEASED = {'normal': 159, 'tumor': 111, 'test': 129}
WITHDRAWN = {
    'normal_086': 'misclassified, renamed to tumor_111 by the organisers',
    'test_049': 'a duplicate, removed by the organisers',
}
NOT_EXHAUSTIVE = frozenset(('test_114',))

_ANNOTATION_SUFFIXES = ('.xml', '.json')
_SIZES = ('none', 'micro', 'macro')
_LABELS = ('normal', 'tumor')


def read(folder: pathlib.Path, *, encoder_slides: int | None = None, seed: int = 0) -> Found:
    """Reads a release.

    Args:
        folder: Above `training` and `testing`.
        encoder_slides: Training slides that are for encoders alone; the others and the test slides
            are for classification. None: the paper's 60 of 270, or that share of fewer; it does not
            say which.
        seed: Of their draw.

    Returns:
        Slides in the order of their names. Columns: `metastasis` (normal, tumor), `size` (none,
        micro, macro, or '' where not known), `annotation`, `lesion_area_mm2` ('' where not known),
        `group_Test` (official test slides), `group_Macro` (macro-metastases and all normal slides)
        and `use` (encoder, classifier).

    Raises:
        CohortError: All that is wrong.
    """
    problems, notes = [], []
    slides, annotations, references = _files(folder, problems)
    if not slides:
        problems.append(
            'no slides normal_001.tif, tumor_001.tif, test_001.tif, … in it or in folders below; '
            'give the folder that holds training and testing'
        )
        refuse(NAME, folder, problems)
    withdrawn = sorted(WITHDRAWN.keys() & slides.keys())
    notes += [f'{slides.pop(name)} is left out: {WITHDRAWN[name]}' for name in withdrawn]
    reference = _reference(references, slides, problems, notes)
    labels = {name: reference.get(name, (_kind(name), ''))[0] for name in slides}
    for name in sorted(name for name in slides if labels[name] == 'test'):
        del slides[name], labels[name]  # told among the problems
    absent = [label for label in _LABELS if label not in labels.values()]
    problems += [f'no {label} slide; put some of training/{label} there' for label in absent]
    lesions = _lesions(slides, annotations, labels, problems, notes)
    training = [name for name in sorted(slides) if _kind(name) != 'test']
    strata = [labels[name] for name in training]
    drawn = set_aside(strata, encoder_slides, share=60 / 270, seed=seed, problems=problems)
    refuse(NAME, folder, problems)
    aside = {training[index] for index in drawn}

    entries = []
    for name in sorted(slides):
        size = _size(name, labels[name], reference, lesions.get(name))
        row = {
            LABEL: labels[name],
            'size': size,
            'annotation': str(annotations[name].absolute()) if name in annotations else '',
            'lesion_area_mm2': _area(name, labels[name], lesions.get(name)),
            'group_Test': str(int(_kind(name) == 'test')),
            'group_Macro': str(int(size in ('none', 'macro'))),
            USE: FOR_ENCODERS if name in aside else FOR_CLASSIFICATION,
        }
        entries.append(SlideEntry(name, slides[name], case_id=name, row=row))
    return Found(tuple(entries), (*_told(folder, entries), *notes))


def _kind(name: str) -> str:
    return name.split('_')[0]


def _files(folder: pathlib.Path, problems: list[str]):
    """Name to file of slides and of annotations, and the reference tables."""
    slides, annotations, references = {}, {}, []
    if not folder.is_dir():
        raise CohortError(f'{folder} is no folder; give the folder of the release of {NAME}')
    for file in visible_files(folder):
        if any(
            'mask' in part.lower() or 'background' in part.lower() for part in _above(file, folder)
        ):
            continue
        name, suffix = file.stem.lower(), file.suffix.lower()
        if file.name.lower() == 'reference.csv':
            references.append(file)
        if not re.fullmatch(r'(normal|tumor|test)_\d{3}', name):
            continue
        kinds = dict.fromkeys(_ANNOTATION_SUFFIXES, annotations)
        kinds |= dict.fromkeys(SLIDE_SUFFIXES, slides)
        if suffix in kinds and kinds[suffix].setdefault(name, file) != file:
            problems.append(
                f'{kinds[suffix][name]} and {file} are both called {name}; move one away'
            )
    return slides, annotations, references


def _above(file: pathlib.Path, folder: pathlib.Path) -> tuple[str, ...]:
    return file.relative_to(folder).parts[:-1]


def _reference(references, slides, problems, notes) -> dict[str, tuple[str, str]]:
    """Test slides to their label and the size of their metastasis, '' where it does not tell."""
    tests = sorted(name for name in slides if _kind(name) == 'test')
    if not tests and not references:
        return {}
    remedy = 'put the challenge’s testing/reference.csv beside testing/images'
    path = only(references, 'reference.csv', remedy, problems)
    if path is None:
        return {}
    found, absent = {}, []
    text = read_text(path)
    delimiter = ';' if ';' in text.partition('\n')[0] else ','
    reader = csv.reader(io.StringIO(text, newline=''), delimiter=delimiter)
    for cells in reader:
        cells = [cell.strip().lower() for cell in cells]
        name = cells[0].removesuffix('.tif') if cells else ''
        if not name or (reader.line_num == 1 and not name.startswith('test_')):
            continue  # an empty line, or a header
        label, size = (cells + [''])[1], (cells + [''] * 4)[3]
        place = f'{path}, line {reader.line_num}'
        if label not in _LABELS:
            problems.append(f'{place}: {name} is {label!r}; write Normal or Tumor')
        elif size not in ('', *_SIZES) or (size and (size == 'none') != (label == 'normal')):
            problems.append(
                f'{place}: the size of {name} ({label}) is {size!r}; write None for normal slides, '
                'Micro or Macro for others'
            )
        if name in found:
            problems.append(f'{place}: {name} stands there twice; delete one')
        found[name] = (label, size)
        if name not in slides and name not in WITHDRAWN:
            absent.append(name)
    if absent:
        notes.append(f'{path}: no slide for {len(absent)} of its rows: {shown(absent)}')
    if unknown := [name for name in tests if name not in found]:
        problems.append(
            f'{path} has no row for {len(unknown)} test slides: {shown(unknown)}; add them, or '
            'move the slides away'
        )
    return found


def _lesions(slides, annotations, labels, problems, notes) -> dict[str, Lesions]:
    """What is known of the lesions of tumour slides, by name."""
    tumours = [name for name in sorted(slides) if labels[name] == 'tumor']
    found, unknown = {}, collections.defaultdict(list)
    for name in (name for name in tumours if name in annotations):
        try:
            found[name] = measure_files(annotations[name], slides[name], None)
        except (ValueError, OSError) as error:
            problems.append(f'the lesions of {name} cannot be measured: {error}')
            continue
        for group in found[name].unknown:
            unknown[group].append(name)
        if not found[name].area_mm2 > 0:
            problems.append(
                f'{annotations[name]} outlines no tumour, and {name} is a tumour slide; put the '
                'right file there, or move this one away'
            )
    for group, names in unknown.items():
        notes.append(f'outlines of the group {group!r} count as tumour: {shown(names)}')
    if without := [name for name in tumours if name not in annotations]:
        notes.append(
            f'{len(without)} tumour slides have no annotation, so that the area of their lesions '
            f'is not known: {shown(without)}; were all lesion_annotations.zip unpacked?'
        )
    if alone := sorted(annotations.keys() - slides.keys() - WITHDRAWN.keys()):
        notes.append(f'{len(alone)} annotations are of slides that are not there: {shown(alone)}')
    return found


def _size(name: str, label: str, reference, lesions: Lesions | None) -> str:
    """Of the metastasis: the reference's, else the outlines'."""
    if label == 'normal':
        return 'none'
    return reference.get(name, ('', ''))[1] or (lesions.size if lesions else '')


def _area(name: str, label: str, lesions: Lesions | None) -> str:
    if label == 'normal':
        return '0'
    known = lesions is not None and name not in NOT_EXHAUSTIVE
    return f'{lesions.area_mm2:.6g}' if known else ''


def _told(folder: pathlib.Path, entries: list[SlideEntry]) -> list[str]:
    kinds = collections.Counter(_kind(entry.slide_id) for entry in entries)
    parts = [f'{kinds[kind]} of {count} {kind}' for kind, count in RELEASED.items()]
    used = [entry for entry in entries if entry.row[USE] == FOR_CLASSIFICATION]
    sizes = collections.Counter(entry.row['size'] or 'of unknown size' for entry in used)
    tests = sum(entry.row['group_Test'] == '1' for entry in used)
    listing = ', '.join(f'{count} {size}' for size, count in sorted(sizes.items()))
    return [
        f'{NAME} at {folder}: {", ".join(parts)} slides of the release',
        f'{len(entries) - len(used)} training slides are for encoders alone, {len(used)} slides '
        f'for classification (the paper had 60 and 340), of them {tests} of the test set; '
        f'metastases: {listing}',
    ]
