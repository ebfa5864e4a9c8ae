"""One slide → its part of a set of training patches: opened, labelled, drawn from, read."""

import contextlib
import dataclasses
import pathlib
from collections.abc import Sequence
from itertools import starmap
from typing import Any

import numpy as np

from nic_jax import prefetch, workdir
from nic_jax.cohort import SlideEntry
from nic_jax.patches import store
from nic_jax.patches.annotations import Annotations, Region, read_annotations
from nic_jax.patches.labels import label_positions
from nic_jax.patches.locations import choose_cells
from nic_jax.patches.position_picture import position_picture
from nic_jax.patches.slide_plan import Classes, case_of
from nic_jax.patches.slide_settings import SlidePatches
from nic_jax.slides import stream, tiling
from nic_jax.slides.cells import find_tissue
from nic_jax.slides.slide import Slide, open_slide

_DENSE = 1 / 4  # share of the cells of a rectangle from which on it is read at once


def make_part(
    entry: SlideEntry,
    annotation: pathlib.Path | None,
    settings: SlidePatches,
    classes: Classes,
    folder: pathlib.Path,
    *,
    subset: str,
    quota: Sequence[int] | None = None,
    seed: int,
    workers: int,
) -> dict[str, Any]:
    """Writes a slide's patches, and the picture of where they were.

    Args:
        entry: The slide.
        annotation: Its file of annotations, or None.
        settings: How it is cut and drawn from.
        classes: Of the set.
        folder: Of the set.
        subset: The slide's.
        quota: How many of each class; None: `per_slide` of all together.
        seed: Of the set; each slide's draw depends on it and the slide's id alone.
        workers: Threads that read.

    Returns:
        What became of it: `pitch`, the distance of neighbouring cells along x and y, level-0 px;
        `cells` of the grid and `tissue` among them; `taken` of each class; whether it is `short`
        of what was asked; and `notes`.

    Raises:
        ValueError: The slide, its mask or its annotations cannot be read, or do not fit.
    """
    drawn = read_annotations(annotation) if annotation else None
    slide = open_slide(entry.path, mpp=entry.mpp, default_mpp=settings.default_mpp)
    with contextlib.closing(slide):
        plan = tiling.plan_grid(
            slide.levels,
            bounds=slide.bounds,
            mpp_level0=slide.mpp,
            mpp=settings.mpp,
            patch_size=settings.patch_size,
            stride=settings.patch_size,
            tolerance=settings.mpp_tolerance,
            allow_upsampling=settings.allow_upsampling,
        )
        found = find_tissue(slide, plan, mpp=settings.tissue_mpp, mask=entry.mask)
        tissue = found.share.astype(np.float32) > settings.tissue_threshold
        regions = _regions(drawn, slide.bounds[:2], settings, classes)
        labels = _labels(plan, tissue, regions, settings, classes)
        cells = _choose(tissue, labels, quota, settings, classes, (seed, *entry.slide_id.encode()))
        pixels = read_patches(slide, plan, cells, workers=workers)
    own = np.full(len(cells), -1) if labels is None else labels[tuple(cells.T)]
    rows = [
        {
            'source': case_of(entry),
            'name': entry.slide_id,
            'subset': subset,
            'label': classes.names[label] if label >= 0 else '',
            'x': float(x),
            'y': float(y),
        }
        for label, (x, y) in zip(own, starmap(plan.position, cells.tolist()), strict=True)
    ]
    store.write_part(folder, entry.slide_id, pixels, rows)
    picture = position_picture(found, plan, cells, own, regions or (), classes.names)
    place = folder / 'positions' / f'{entry.slide_id}.png'
    with workdir.replacing(place) as partial:
        picture.save(partial, format='png', compress_level=1)
    wanted = _wanted(labels, quota, settings, classes)
    notes, short = _shortage(tissue, labels, own, wanted, classes)
    return {
        'pitch': [float(value) for value in plan.stride_level0],
        'cells': int(tissue.size),
        'tissue': int(tissue.sum()),
        'taken': {name or 'without label': int((own == number).sum())
                  for number, name in [*enumerate(classes.names), (-1, '')]},
        'short': short,
        'notes': [*(drawn.notes() if drawn else ()), *notes],
    }  # fmt: skip


def read_patches(slide: Slide, plan: tiling.Plan, cells: np.ndarray, *, workers: int) -> np.ndarray:
    """Reads the patches of any cells, uint8 `[n, P, P, 3]`, in their order.

    Threads go from block to block of neighbours, so that the slide's cache of tiles serves all
    patches of a tile. Where cells are dense, the rectangle they span is read at once; what lies
    between scattered ones is not read.

    Args:
        slide: Open.
        plan: Its grid.
        cells: Rows and columns, int `[n, 2]`, each once.
        workers: Threads.
    """
    number = np.full(plan.shape, -1)
    number[tuple(cells.T)] = np.arange(len(cells))
    side = max(1, *plan.shape)
    blocks = tiling.blocks(plan, number >= 0, (0, 0), side)
    patches = np.empty((len(cells), plan.patch_size, plan.patch_size, 3), np.uint8)

    def read(block: np.ndarray) -> None:
        rectangle = np.prod(np.ptp(block, axis=0) + 1)
        for cells in [block] if len(block) > _DENSE * rectangle else block[:, None]:
            patches[number[tuple(cells.T)]] = stream.read_cells(slide, plan, cells)

    with contextlib.closing(
        prefetch.map_ahead(read, blocks, workers=workers, ahead=2 * workers)
    ) as done:
        for _ in done:
            pass
    return patches


def _regions(
    drawn: Annotations | None, corner: tuple[int, int], settings: SlidePatches, classes: Classes
) -> tuple[Region, ...] | None:
    """The regions in level-0 px by the names of their classes; those of no class keep theirs."""
    if drawn is None:
        return None
    from_bounds = {'auto': drawn.from_bounds, 'level0': False, 'bounds': True}
    offset = corner if from_bounds[settings.annotation_origin] else (0, 0)
    return tuple(
        dataclasses.replace(region, name=classes.of.get(region.name, region.name)).moved(offset)
        for region in drawn.regions
    )


def _labels(
    plan: tiling.Plan,
    tissue: np.ndarray,
    regions: Sequence[Region] | None,
    settings: SlidePatches,
    classes: Classes,
) -> np.ndarray | None:
    """The class of each cell with tissue, int32 `[H, W]`; None where nothing is known of any."""
    if not classes.names or (regions is None and not settings.unannotated):
        return None
    labels = np.full(tissue.shape, -1, np.int32)
    if regions is None:
        labels[tissue] = classes.names.index(settings.unannotated)
    else:
        # Of millions of cells, rounded; what is stored is exact.
        steps = np.argwhere(tissue)[:, ::-1] * np.array(plan.stride_level0, float)
        labels[tissue] = label_positions(
            regions,
            np.array(plan.origin_level0, float) + steps,
            tuple(float(length) for length in plan.patch_level0),
            classes=classes.names,
            rule=settings.label_rule,
            threshold=settings.label_threshold,
            background=settings.background or None,
        )
    return labels


def _wanted(
    labels: np.ndarray | None,
    quota: Sequence[int] | None,
    settings: SlidePatches,
    classes: Classes,
) -> list[int]:
    """How many patches of each class are asked for; of a slide without labels, of all."""
    if labels is None:
        return [settings.per_slide if quota is None else 0]
    if quota is not None:
        return list(quota)
    share, extra = divmod(settings.per_slide, len(classes.names))
    return [share + (number < extra) for number in range(len(classes.names))]


def _choose(
    tissue: np.ndarray,
    labels: np.ndarray | None,
    quota: Sequence[int] | None,
    settings: SlidePatches,
    classes: Classes,
    seed: Sequence[int],
) -> np.ndarray:
    """Draws cells, int `[n, 2]` in row-major order: of each class its quota, or `per_slide`."""
    neighbours = any(settings.pairs.values())
    if quota is None:
        return choose_cells(
            tissue,
            quota=settings.per_slide,
            seed=seed,
            labels=labels,
            classes=len(classes.names),
            neighbours=neighbours,
        )
    chosen = np.zeros(tissue.shape, bool)
    for number, count in enumerate(quota if labels is not None else ()):
        own = tissue & (labels == number)
        cells = choose_cells(own, quota=count, seed=(*seed, number), neighbours=neighbours)
        chosen[tuple(cells.T)] = True
    return np.argwhere(chosen)


def _shortage(
    tissue: np.ndarray,
    labels: np.ndarray | None,
    own: np.ndarray,
    wanted: Sequence[int],
    classes: Classes,
) -> tuple[list[str], bool]:
    """What a slide has less of than was asked; that it has none of a class is no news."""
    if not tissue.any():
        return ['no tissue'], True
    if labels is None:
        short = len(own) < sum(wanted)
        return [f'no more than {len(own):,} cells have tissue'] * short, short
    notes = [
        f'no more than {count:,} cells of {name}'
        for number, name in enumerate(classes.names)
        if 0 < (count := int((own == number).sum())) < wanted[number]
    ]
    return notes or ['no cell has a label'] * (not len(own)), bool(notes) or not len(own)
