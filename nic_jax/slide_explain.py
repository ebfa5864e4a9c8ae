"""Saliency of slides: a folder each, with what opens in xarray, QuPath and a browser."""

import contextlib
import dataclasses
import functools
import json
import pathlib
import time
from collections.abc import Callable

import ml_collections
import numpy as np

from nic_jax import cohort, explain_stage, options, prefetch, progress, workdir
from nic_jax.compression.compress import grid_path
from nic_jax.explain_measures import localise
from nic_jax.explain_stage import Explained, Reference, Unit
from nic_jax.explanation.overlay import read_thumbnail
from nic_jax.explanation.references import lesion_cells, read_regions
from nic_jax.explanation.slide_exports import export
from nic_jax.explanation.stored import open_saliency, write_saliency
from nic_jax.grids import Grid
from nic_jax.grids import open as open_grid
from nic_jax.patches.annotations import Region
from nic_jax.patches.slide_patches import annotation_files
from nic_jax.report.galleries import Known
from nic_jax.slide_datasets import entries
from nic_jax.slides.slide import Slide, open_slide

Config = ml_collections.ConfigDict

RECORD = 'explained.json'  # written last: the slide is done
MAPS = 'saliency.zarr'
_THUMBNAIL = 600  # px along the longer side of a slide in the report
_AT_ONCE = 2  # slides: the pictures of one are drawn while the next one is explained


def references(config: Config, home: pathlib.Path, name: str) -> Callable[[str], Reference | None]:
    """slide_id -> the cells of a slide's annotated lesions; None where the table tells of none.

    A slide with nothing in the column `annotation` has no lesion.
    """
    found = {entry.slide_id: entry for entry in entries(config)}
    if 'annotation' not in cohort.table_columns(list(found.values())):
        return lambda slide_id: None
    files = annotation_files(list(found.values()), pathlib.Path(config.slides))

    @functools.cache
    def reference(slide_id: str) -> Reference | None:
        grid = open_grid(grid_path(home / name, slide_id))
        if files[slide_id] is None:
            return Reference(np.zeros(grid.shape, bool))
        return Reference(lesion_cells(_regions(files[slide_id], grid), grid))

    return reference


def known(config: Config, home: pathlib.Path) -> Callable[[str], Known | None]:
    """slide_id -> a slide's thumbnail and the outlines of its lesions, as far as they are there."""
    del home
    found = {entry.slide_id: entry for entry in entries(config)}
    files = annotation_files(list(found.values()), pathlib.Path(config.slides))

    def of_slide(slide_id: str) -> Known | None:
        entry = found.get(slide_id)
        if entry is None or not entry.path.exists():
            return None
        default = config.tiling.default_mpp
        with contextlib.closing(
            open_slide(entry.path, mpp=entry.mpp, default_mpp=default)
        ) as slide:
            regions = files[slide_id] and read_regions(files[slide_id], slide.bounds[:2])
            return Known(
                thumbnail=read_thumbnail(slide, side=_THUMBNAIL),
                regions=regions or (),
                path=entry.path,
                mpp=entry.mpp,
            )

    return of_slide


def explain_all(config: Config, explained: Explained) -> bool:
    """Explains what is not explained yet; a slide that fails is noted, the others go on."""
    found = {entry.slide_id: entry for entry in entries(config)}
    files = annotation_files(list(found.values()), pathlib.Path(config.slides))

    def attempt(unit: Unit) -> Exception | None:
        slide_id = explained.dataset.grids[unit.index].slide_id
        try:
            _explain_slide(config, explained, unit, found[slide_id], files[slide_id])
        except Exception as error:
            return error
        return None

    failed, began = {}, time.perf_counter()
    done = prefetch.map_ahead(attempt, explained.units, workers=_AT_ONCE, ahead=_AT_ONCE + 1)
    with (
        contextlib.closing(done),
        progress.bar(
            f'explain {explained.title}', total=len(explained.units), unit='slides'
        ) as advance,
    ):
        for unit, error in zip(explained.units, done, strict=True):
            advance(1)
            entry = found[explained.dataset.grids[unit.index].slide_id]
            note = {'stage': 'explain', 'slide_id': entry.slide_id, 'encoder': explained.encoder}
            if error is None:
                workdir.clear_failure(explained.home, **note)
            else:
                failed[unit] = error
                workdir.record_failure(
                    explained.home, path=entry.path, reason=str(error) or repr(error), **note
                )
                progress.console.print(f'explain: {entry.slide_id}: {error}')
    kept = [unit for unit in explained.units if unit not in failed]
    explained = dataclasses.replace(explained, units=kept)
    path = localise(
        explained,
        lambda unit: open_saliency(_folder(explained, unit) / MAPS)[0],
        lesion_class=options.explained_class(config, explained.dataset.class_names or ()),
    )
    progress.console.print(
        f'explain: {explained.title}: {len(kept)} slides, {len(failed)} failed, in '
        f'{time.perf_counter() - began:.0f} s → {explained.folder}'
        + (f', {path.name}' if path else '')
    )
    return not failed


def _explain_slide(
    config: Config,
    explained: Explained,
    unit: Unit,
    entry: cohort.SlideEntry,
    annotation: pathlib.Path | None,
) -> None:
    """Maps and, but for slides that validate, all files of one slide; nothing where they are."""
    folder, grid = _folder(explained, unit), explained.dataset.grids[unit.index]
    with workdir.lock(explained.home, f'explain/{folder.relative_to(explained.home)}') as free:
        if not free or _is_done(folder, grid.fingerprint):
            return
        began = time.perf_counter()
        maps = explained.maps(unit)
        stored = open_grid(grid_path(explained.grids, entry.slide_id))
        record = explain_stage.record(explained, unit)
        write_saliency(folder / MAPS, maps, attributes=stored.attributes, details=record)
        if unit.subset != 'valid':
            regions = _regions(annotation, stored) if annotation else ()
            with contextlib.ExitStack() as opened:
                slide = _open(entry, stored, opened)
                export(
                    folder,
                    maps,
                    stored,
                    slide=slide,
                    outlines=regions,
                    patches=config.explain.patches,
                    signed=explained.dataset.task != 'classification',
                    heat_map=config.explain.heat_map,
                    title=f'{entry.slide_id}: {record["target"]}',
                )
            record['pixels'] = slide is not None
        record |= {'grid': grid.fingerprint, 'seconds': round(time.perf_counter() - began, 2)}
        workdir.write_atomically(folder / RECORD, json.dumps(record, indent=1))


def _open(entry: cohort.SlideEntry, grid: Grid, opened: contextlib.ExitStack) -> Slide | None:
    """The slide, or None where its file is not at hand."""
    if not entry.path.exists():
        return None
    mpp = grid.attributes['mpp_level0']
    return opened.enter_context(contextlib.closing(open_slide(entry.path, mpp=mpp)))


def _regions(path: pathlib.Path, grid: Grid) -> tuple[Region, ...]:
    # A grid begins at the corner of its slide's bounds.
    return read_regions(path, tuple(grid.attributes['origin_level0']))


def _folder(explained: Explained, unit: Unit) -> pathlib.Path:
    name = workdir.file_name(explained.dataset.grids[unit.index].slide_id)
    if unit.subset == 'valid':
        return explained.folder / 'validation' / f'fold_{unit.fold}' / name
    return explained.folder / name


def _is_done(folder: pathlib.Path, fingerprint: str) -> bool:
    """Whether a slide was explained on this very grid."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding='utf-8'))
    except FileNotFoundError:
        return False
    return record['grid'] == fingerprint
