"""Slides → a set of training patches, and pairs of them: a part a slide, resumable.

    FOLDER/parts, patches.csv, patches.json   see `store`
    FOLDER/slides/NAME.json                   what became of a slide; written last of it
    FOLDER/positions/SLIDE_ID.png             where its patches were taken
    FOLDER/pairs_SUBSET.npy                   see `pairs`

In the set's table, `source` is the case and `name` the slide.
"""

import contextlib
import dataclasses
import json
import logging
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

from nic_jax import prefetch, progress, workdir
from nic_jax.cohort import SlideEntry
from nic_jax.patches import pairs as pairs_
from nic_jax.patches import store
from nic_jax.patches.annotations import AnnotationError
from nic_jax.patches.slide_part import make_part
from nic_jax.patches.slide_plan import (
    Classes,
    check_cases,
    deal_quotas,
    deal_subsets,
    find_classes,
)
from nic_jax.patches.slide_settings import SlidePatches

_AT_ONCE = 2  # slides: the next one's overview is read beside this one's patches


@dataclasses.dataclass
class Summary:
    """What became of the slides (numbers of them), and of the set."""

    done: int = 0
    skipped: int = 0
    failed: int = 0
    short: int = 0
    left_out: int = 0
    patches: int = 0
    notes: list[str] = dataclasses.field(default_factory=list)
    seconds: float = 0.0


def annotation_files(
    entries: Sequence[SlideEntry], table: pathlib.Path
) -> dict[str, pathlib.Path | None]:
    """The column `annotation` of a table of slides: slide_id to a file, or None where empty.

    Args:
        entries: The slides.
        table: Their table; paths are relative to its folder.
    """
    cells = {entry.slide_id: entry.row.get('annotation', '') for entry in entries}
    return {name: table.parent / cell if cell else None for name, cell in cells.items()}


def make_slide_set(
    entries: Sequence[SlideEntry],
    annotations: Mapping[str, pathlib.Path | None],
    settings: SlidePatches,
    folder: pathlib.Path,
    *,
    home: pathlib.Path,
    seed: int,
    workers: int,
    overwrite: bool = False,
) -> Summary:
    """Makes what is not made yet. A slide that fails is noted in failures.csv; the others go on.

    A slide whose file, annotations, case, subset or classes have changed is made again.

    Args:
        entries: The slides. The column `split`, if they have it, says train, valid or test (empty:
            the slide is left out); else a share of the cases validates.
        annotations: slide_id to its file of annotations; None or nothing where there is none.
        settings: How they are cut and drawn from.
        folder: Of the set, within `home`.
        home: The workdir.
        seed: Of all draws.
        workers: Threads that read, for each slide.
        overwrite: Replace a set that was made with other settings.

    Raises:
        ValueError: The set was made with other settings, has no patches, or cannot have pairs.
    """
    start, summary = time.perf_counter(), Summary()
    subsets = deal_subsets(entries, settings, seed=seed)
    chosen = [entry for entry in entries if subsets[entry.slide_id]]
    summary.left_out = len(entries) - len(chosen)
    check_cases(chosen, subsets, settings)
    classes = find_classes(chosen, annotations, settings)
    quotas = deal_quotas(chosen, annotations, subsets, classes, settings)
    made_with = {'seed': seed, **dataclasses.asdict(settings)}

    def attempt(entry: SlideEntry) -> tuple[bool, dict[str, Any] | Exception]:
        """Whether the slide was made already, and its record or what went wrong."""
        try:
            annotation, subset = annotations.get(entry.slide_id), subsets[entry.slide_id]
            quota = quotas.get(entry.slide_id)
            asked = _asked(entry, annotation, subset, quota, classes)
            if record := _made(folder, entry, asked):
                return True, record
            _unfinish(folder)
            record = make_part(
                entry, annotation, settings, classes, folder,
                subset=subset, quota=quota, seed=seed, workers=workers,
            )  # fmt: skip
            record['asked'] = asked
            workdir.write_atomically(_record(folder, entry), json.dumps(record, indent=1))
            return False, record
        except Exception as error:
            return False, error

    with workdir.alone(home, folder.relative_to(home).as_posix()):
        workdir.begin(folder, made_with, overwrite=overwrite)
        records = {}
        slides = prefetch.map_ahead(attempt, chosen, workers=_AT_ONCE, ahead=_AT_ONCE + 1)
        with (
            contextlib.closing(slides),
            progress.bar('patches', total=len(chosen), unit='slides') as tell,
        ):
            for entry, (skipped, record) in zip(chosen, slides, strict=True):
                tell(1)
                if isinstance(record, Exception):
                    _fail(home, entry, record)
                    summary.failed += 1
                    continue
                workdir.clear_failure(home, stage='patches', slide_id=entry.slide_id)
                records[entry.slide_id] = record
                summary.skipped += skipped
                summary.done += not skipped
                summary.short += record['short']
                if not skipped:
                    _tell(entry, record)
        workdir.merge_failures(home)
        _finish(folder, records, settings, classes, seed, summary)
    summary.seconds = time.perf_counter() - start
    return summary


def _asked(entry, annotation, subset: str, quota, classes: Classes) -> dict[str, Any]:
    """What a slide's part is made of, beside the settings of the set."""
    if not entry.path.exists():
        raise ValueError(f'there is no file {entry.path}; correct its path in the table')
    if annotation is not None and not annotation.exists():
        raise AnnotationError(f'there is no file {annotation}; correct the column annotation')
    return {
        'slide': workdir.fingerprint(entry.path),
        'annotation': workdir.fingerprint(annotation) if annotation else None,
        'mask': workdir.fingerprint(entry.mask) if entry.mask else None,
        'mpp_given': entry.mpp,
        'case_id': entry.case_id,
        'subset': subset,
        'quota': None if quota is None else list(quota),
        'classes': [list(classes.names), dict(classes.of)],
    }


def _record(folder: pathlib.Path, entry: SlideEntry) -> pathlib.Path:
    return folder / 'slides' / f'{workdir.file_name(entry.slide_id)}.json'


def _made(folder: pathlib.Path, entry: SlideEntry, asked: Mapping) -> dict[str, Any] | None:
    """The record of a slide that is made, of what is asked."""
    path = _record(folder, entry)
    if not path.exists() or not store.has_part(folder, entry.slide_id):
        return None
    record = json.loads(path.read_text(encoding='utf-8'))
    return record if record['asked'] == asked else None


def _unfinish(folder: pathlib.Path) -> None:
    """Takes away what speaks of all parts, so that a kill leaves none that is of others."""
    for name in ('patches.json', *(f'pairs_{subset}.npy' for subset in store.SUBSETS)):
        (folder / name).unlink(missing_ok=True)


def _finish(folder, records, settings, classes: Classes, seed: int, summary: Summary) -> None:
    """Joins the parts and draws the pairs."""
    _unfinish(folder)
    found = store.finish_set(folder, names=list(records), classes=classes.names, mpp=settings.mpp)
    summary.patches = len(found)
    pitch = {name: tuple(record['pitch']) for name, record in records.items()}
    for subset, count in settings.pairs.items():
        if count:
            drawn = pairs_.draw_pairs(found, subset, count, seed=seed, pitch=pitch)
            pairs_.save_pairs(folder, subset, drawn)
            summary.notes += drawn.notes


def _fail(home: pathlib.Path, entry: SlideEntry, error: Exception) -> None:
    reason = str(error) or type(error).__name__
    workdir.record_failure(
        home, stage='patches', slide_id=entry.slide_id, path=entry.path, reason=reason
    )
    progress.console.print(f'failed: {entry.slide_id}: {reason}')
    if not isinstance(error, ValueError | OSError):  # not foreseen: say where it came from
        logging.error('while drawing patches from %s', entry.path, exc_info=error)


def _tell(entry: SlideEntry, record: Mapping[str, Any]) -> None:
    taken = ', '.join(f'{count:,} {name}' for name, count in record['taken'].items() if count)
    notes = ''.join(f'; {note}' for note in record['notes'])
    progress.console.print(
        f'patches {entry.slide_id}: {taken or "none"} of {record["tissue"]:,} cells with tissue'
        f'{notes}'
    )
