"""Cohorts of mosaics: slides of real tissue tiles whose lesions are known cell by cell.

    FOLDER/slides/LABEL/SUBSET_0000.tif       the slide
    FOLDER/slides/LABEL/SUBSET_0000_mask.png  its tissue, a pixel a cell
    FOLDER/slides/LABEL/SUBSET_0000.geojson   its lesion's outlines, where it has one
    FOLDER/slides.csv                         all slides and their labels; there once they all are

Training tiles are dealt into as many parts as the training slides, and a slide of one part is made
of tiles of this part alone: what validates has tiles that nothing was trained on. Test slides are
made of test tiles.
"""

import contextlib
import csv
import dataclasses
import io
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from nic_jax import prefetch, progress, workdir
from nic_jax.patches.store import PatchesError, PatchSet, open_set
from nic_jax.patches.subsets import share_out
from nic_jax.synthetic.mosaic_layout import (
    SUBSETS,
    VALUES,
    MosaicLayout,
    MosaicStudy,
    draw_layout,
    slide_id,
)
from nic_jax.synthetic.mosaic_outlines import read_outlines
from nic_jax.synthetic.mosaic_slides import files_of, write_slide

__all__ = ['MosaicLayout', 'MosaicStudy', 'deal_tiles', 'draw_layout', 'make_mosaics']

COLUMNS = ('slide_id', 'path', 'mask', 'annotation', *VALUES, 'lesion_area', 'fold')

# Tiles by part (None: test tiles) and by whether they are tumour: indices of the set, int [n].
Pools = Mapping[tuple[int | None, bool], np.ndarray]


def make_mosaics(
    study: MosaicStudy,
    tiles: pathlib.Path,
    folder: pathlib.Path,
    *,
    annotations: str | os.PathLike | None,
    tumour: str,
    seed: int,
    workers: int,
    overwrite: bool = False,
) -> pathlib.Path:
    """Writes the slides of a cohort and their table; slides that are there are kept.

    More slides of the same settings are added to those of an earlier call, which stay as they are.

    Args:
        study: The settings.
        tiles: Folder of a finished set of tiles of `study.pitch` px.
        folder: Of the cohort.
        annotations: Folder or archive whose outlines lesions have, see `read_outlines`; None to
            grow them at random.
        tumour: The class of the tiles that are tumour; all others are normal.
        seed: Of the cohort.
        workers: Threads that write slides.
        overwrite: Replace a cohort of other settings.

    Returns:
        The path of slides.csv, which `cohort.find_slides` reads.

    Raises:
        ValueError: The tiles do not fit, or the folder was made with other settings.
    """
    tile_set = open_set(tiles)
    pools = deal_tiles(tile_set, study, tumour=tumour, seed=seed)
    settings = dataclasses.asdict(study)
    del settings['train_slides'], settings['test_slides']
    settings |= {
        'tiles': workdir.made_with(tiles),
        'annotations': annotations and _identity(pathlib.Path(annotations)),
        'tumour': tumour,
        'seed': seed,
    }
    workdir.begin(folder, settings, overwrite=overwrite)
    table, slides = folder / 'slides.csv', list(_slides(study))
    if _is_complete(table, slides):
        progress.console.print(f'mosaics: {table} is complete')
        return table
    table.unlink(missing_ok=True)
    outlines = () if annotations is None else read_outlines(annotations)

    def write(slide: tuple[str, str, int]) -> dict[str, str]:
        label, subset, index = slide
        layout = draw_layout(
            study, label=label, subset=subset, index=index, seed=seed, outlines=outlines
        )
        files = files_of(folder, layout)
        if not all(file.exists() for file in files.values()):
            chosen = choose_tiles(layout, pools, seed=seed)
            write_slide(study, layout, tile_set.pixels[chosen], folder)
        return _row(layout, files, folder)

    found = prefetch.map_ahead(write, slides, workers=workers, ahead=2 * workers)
    rows = []
    with (
        contextlib.closing(found),  # no thread writes on when this one is interrupted
        progress.bar('mosaics', total=len(slides), unit='slides') as advance,
    ):
        for row in found:
            rows.append(row)
            advance(1)
    workdir.write_atomically(table, _as_csv(rows))
    progress.console.print(f'mosaics: {len(slides):,} slides → {table}')
    return table


def deal_tiles(tile_set: PatchSet, study: MosaicStudy, *, tumour: str, seed: int) -> Pools:
    """Deals the training and validation tiles into parts, by source and class; test tiles apart.

    Raises:
        PatchesError: Tiles of another size, or a part without normal or without tumour tiles.
    """
    if tile_set.pixels.shape[1:] != (study.pitch, study.pitch, 3):
        raise PatchesError(
            f'tiles are {tile_set.pixels.shape[1:]} and mosaics need {study.pitch}×{study.pitch} '
            f'px in colour; make them with patch_size={study.pitch}, or set pitch'
        )
    if tumour not in tile_set.classes:
        raise PatchesError(
            f'no class {tumour!r} among the tiles; tumour must be one of '
            f'{", ".join(tile_set.classes)}'
        )
    is_tumour = tile_set.labels == tile_set.classes.index(tumour)
    train = np.sort(
        np.concatenate([tile_set.indices(name, labelled=True) for name in ('train', 'valid')])
    )
    part = share_out(
        tile_set.columns['source'][train],
        np.where(is_tumour[train], 'tumour', 'normal'),
        shares={str(number): 1 / study.parts for number in range(study.parts)},
        seed=seed,
    )
    part = np.array(part, int)
    groups = {number: train[part == number] for number in range(study.parts)}
    groups |= {None: tile_set.indices('test', labelled=True)}
    pools = {
        (number, positive): indices[is_tumour[indices] == positive]
        for number, indices in groups.items()
        for positive in (False, True)
    }
    for (number, positive), indices in pools.items():
        if not len(indices):
            raise PatchesError(
                f'no {"tumour" if positive else "normal"} tile for '
                f'{"testing" if number is None else f"part {number} of the training slides"}; '
                'give more tiles, or fewer parts'
            )
    return pools


def choose_tiles(layout: MosaicLayout, pools: Pools, *, seed: int) -> np.ndarray:
    """Random tiles for a slide's cells of tissue, row by row, int `[n]`; once each if they last."""
    rng = np.random.default_rng((seed, *layout.slide_id.encode(), *b'tiles'))
    positive = layout.lesion[layout.tissue]  # [n]
    chosen = np.empty(len(positive), int)
    for kind in (False, True):
        pool, count = pools[layout.part, kind], np.count_nonzero(positive == kind)
        rounds = [rng.permutation(pool) for _ in range(-(-count // len(pool)))]
        chosen[positive == kind] = np.concatenate([*rounds, pool[:0]])[:count]
    return chosen


def _slides(study: MosaicStudy) -> Iterator[tuple[str, str, int]]:
    """Label, subset and index of all slides, in the table's order."""
    for label in VALUES:
        for subset in SUBSETS:
            count = study.train_slides if subset == 'train' else study.test_slides
            for index in range(count):
                yield label, subset, index


def _is_complete(table: pathlib.Path, slides: Sequence[tuple[str, str, int]]) -> bool:
    """Whether a table lists these slides and all files that it names are there."""
    if not table.exists():
        return False
    with table.open(newline='', encoding='utf-8') as file:
        rows = list(csv.DictReader(file))
    return [row['slide_id'] for row in rows] == [slide_id(*slide) for slide in slides] and all(
        (table.parent / row[name]).exists()
        for row in rows
        for name in ('path', 'mask', 'annotation')
        if row[name]
    )


def _identity(path: pathlib.Path) -> dict:
    """Tells annotations apart: by their file, or by what is in their folder."""
    if path.is_dir():
        return {file.name: file.stat().st_size for file in sorted(path.rglob('*.json'))}
    return workdir.fingerprint(path)


def _row(
    layout: MosaicLayout, files: Mapping[str, pathlib.Path], folder: pathlib.Path
) -> dict[str, str]:
    return {
        'slide_id': layout.slide_id,
        **{name: file.relative_to(folder).as_posix() for name, file in files.items()},
        layout.label: layout.value,
        'lesion_area': str(layout.lesion_area),
        'fold': 'test' if layout.part is None else str(layout.part),
    }


def _as_csv(rows: Sequence[Mapping[str, str]]) -> str:
    text = io.StringIO(newline='')
    writer = csv.DictWriter(text, COLUMNS, restval='', lineterminator='\n')
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
