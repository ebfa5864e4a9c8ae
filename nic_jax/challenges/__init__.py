"""The cohorts of challenges and papers: readers of their own folders, and miniatures of them."""

import pathlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from nic_jax.challenges import camelyon16, liver, miniature_cohorts, rectum, tupac16
from nic_jax.challenges.found import FOR_CLASSIFICATION, FOR_ENCODERS, Found, used_for
from nic_jax.cohort import CohortError, SlideEntry
from nic_jax.workdir import file_name

__all__ = [
    'FOR_CLASSIFICATION',
    'FOR_ENCODERS',
    'LAYOUTS',
    'read',
    'used_for',
    'write_miniature',
    'write_submissions',
]

LAYOUTS: Mapping[str, Callable[..., Found]] = {
    'camelyon16': camelyon16.read,
    'tupac16': tupac16.read,
    'liver': liver.read,
    'rectum': rectum.read,
}
_SET_ASIDE = ('camelyon16', 'tupac16')  # where the papers keep slides for encoders alone


def read(
    layout: str,
    path: pathlib.Path,
    *,
    encoder_slides: int | None = None,
    seed: int = 0,
    tell: Callable[[str], None] | None = None,
) -> tuple[SlideEntry, ...]:
    """The slides of a cohort, with what the layout tells of them as further columns.

    Args:
        layout: One of `LAYOUTS`; its module says what the files must look like.
        path: The cohort's folder, or the table of a layout that has one.
        encoder_slides: How many slides are for encoders alone; None: as many as in the paper.
        seed: Of their draw.
        tell: Called with what a user should hear of.

    Raises:
        CohortError: All that is wrong with the files, each with its remedy.
    """
    if layout not in LAYOUTS:
        raise CohortError(f'no layout {layout!r}; there are {", ".join(LAYOUTS)}')
    options = {'encoder_slides': encoder_slides, 'seed': seed} if layout in _SET_ASIDE else {}
    if encoder_slides and not options:
        raise CohortError(
            f'the layout {layout} has no slides for encoders alone, and {encoder_slides=}; give 0'
        )
    found = LAYOUTS[layout](path, **options)
    for note in found.notes if tell else ():
        tell(note)
    return found.entries


def write_miniature(layout: str, folder: pathlib.Path, *, seed: int) -> None:
    """Writes a miniature cohort in a layout of its own; one that is there is left as it is.

    Args:
        layout: One of `LAYOUTS`.
        folder: Its own, within a workdir.
        seed: The same one, the same files.
    """
    if layout not in LAYOUTS:
        raise CohortError(f'no layout {layout!r}; there are {", ".join(LAYOUTS)}')
    miniature_cohorts.write(layout, folder, seed=seed)


def write_submissions(
    layout: str, rows: Iterable[Mapping[str, Any]], folder: pathlib.Path
) -> list[pathlib.Path]:
    """Writes the files that a challenge takes: one an encoder, model and point of a sweep.

    Args:
        layout: Where it is no challenge's with a hidden test set, nothing is written.
        rows: Of predictions.csv, each with its `encoder`, and perhaps a `point`.
        folder: For the files.

    Returns:
        What was written.
    """
    if layout != 'tupac16':
        return []
    tests = {}
    for row in rows:
        if row['subset'] == 'new':
            names = [str(row[key]) for key in ('encoder', 'model', 'point') if key in row]
            tests.setdefault('_'.join(['submission', *names]), []).append(row)
    return [
        tupac16.write_submission(own, folder / f'{file_name(name)}.csv')
        for name, own in tests.items()
    ]
