"""The galleries of the page: what networks looked at, where the stage explain has left maps."""

import collections
import functools
import math
import pathlib
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from PIL import Image

from nic_jax.explanation.georeference import Box
from nic_jax.report import galleries, page_seen, viewer
from nic_jax.report.galleries import METHOD_NAMES, Known
from nic_jax.report.page_inputs import read_csv
from nic_jax.report.page_parts import Gallery, Line, Panel
from nic_jax.report.page_pictures import of_pixels
from nic_jax.report.page_seen import Seen
from nic_jax.report.pictures import new_figure
from nic_jax.workdir import file_name

COUNT = 3  # slides of each kind
_PIXELS = 340  # of a panel's longer side
_MEASURES = {'jaccard': 'Jaccard index', 'average_precision': 'average precision'}
_TITLES = {
    'best': 'Best: highest {measure}',
    'worst': 'Worst: lowest {measure}',
    'random': 'At random, of {count} slides',
}


Slides = Mapping[str, Mapping[str, Seen]]  # by slide and encoder


def galleries_of(
    home: pathlib.Path,
    *,
    rows: Sequence[Mapping[str, Any]],
    known_of: Callable[[str], Known | None],
    seed: int,
    viewer_tiles: int = 0,
) -> dict[tuple[str, str], list[Gallery]]:
    """The galleries of every label and model whose hold-outs were explained.

    Args:
        home: The workdir.
        rows: Of predictions.csv, which tell the labels of synthetic images.
        known_of: What is known of a slide beside its maps; asked for the slides that are shown.
        seed: Of the choice at random.
        viewer_tiles: Of the viewer of each slide that is shown, at most; 0 for no viewers.
    """
    found = collections.defaultdict(lambda: collections.defaultdict(dict))
    for seen in (*page_seen.slides(home), *page_seen.images(home, rows)):
        names = tuple(urllib.parse.unquote(part) for part in seen.folder.parts[-2:])
        if seen.told['subset'] == 'test':
            found[names][seen.told['slide_id']][seen.encoder] = seen
    return {
        names: _of_model(home, slides, known_of=known_of, seed=seed, viewer_tiles=viewer_tiles)
        for names, slides in found.items()
    }


def _of_model(
    home: pathlib.Path, slides: Slides, *, known_of, seed: int, viewer_tiles: int
) -> list[Gallery]:
    method = _method(slides)
    measure, scores = _scores(slides, method)
    each = {name: float(np.mean(list(of_slide.values()))) for name, of_slide in scores.items()}
    made = []
    for kind, names in galleries.choose(each, count=COUNT, seed=seed).items():
        lines = []
        for name in names:
            known = known_of(name)
            if viewer_tiles and known is not None and known.path is not None:
                _write_viewer(home, name, slides[name], known, max_tiles=viewer_tiles)
            lines.append(_line(home, name, slides[name], scores[name], measure, method, known))
        if lines:
            title = _TITLES[kind].format(measure=measure, count=len(each))
            made.append(Gallery(title, _caption(lines, method), lines))
    return made


def _method(slides: Slides) -> str:
    """The first of the methods that all slides have, else of any."""
    made = [set(seen.told['methods']) for each in slides.values() for seen in each.values()]
    ranked = [*METHOD_NAMES, *sorted(set.union(*made) - set(METHOD_NAMES))]
    common = set.intersection(*made) or set.union(*made)
    return next(name for name in ranked if name in common)


def _scores(slides: Slides, method: str) -> tuple[str, dict[str, dict[str, float]]]:
    """What slides are put in order by, and that of each slide under each encoder."""
    folders = {seen.folder for each in slides.values() for seen in each.values()}
    tables = {
        folder: [
            row
            for row in read_csv(folder / 'localisation.csv')
            if row['method'] == method and row['subset'] == 'test'
        ]
        for folder in folders
    }
    for measure, name in _MEASURES.items():
        measured = {
            (folder, row['slide_id']): float(row[measure])
            for folder, rows in tables.items()
            for row in rows
            if row[measure] and not math.isnan(float(row[measure]))
        }
        if measured:
            return name, {
                slide_id: found
                for slide_id, each in slides.items()
                if (
                    found := {
                        encoder: measured[seen.folder, slide_id]
                        for encoder, seen in each.items()
                        if (seen.folder, slide_id) in measured
                    }
                )
            }
    return 'score of the target', {
        slide_id: {encoder: float(seen.told['score']) for encoder, seen in each.items()}
        for slide_id, each in slides.items()
    }


def _line(
    home: pathlib.Path,
    slide_id: str,
    each: Mapping[str, Seen],
    scores: Mapping[str, float],
    measure: str,
    method: str,
    known: Known | None,
) -> Line:
    shown = {encoder: seen for encoder, seen in each.items() if method in seen.told['methods']}
    first = next(iter(shown.values()))
    panels = _known_panels(known, *first.read(method)) if known else []
    for encoder, seen in shown.items():
        score = f'{measure} {scores[encoder]:.2f}' if encoder in scores else ''
        panels.append(Panel(_map(seen, method, known), encoder, score))
    page = _viewer_folder(home, slide_id) / 'index.html'
    parts = page.relative_to(home / 'report').parts if page.exists() else ()
    link = '/'.join(map(urllib.parse.quote, parts))
    return Line(slide_id, _predicted(first.told), panels, link)


def _write_viewer(
    home: pathlib.Path, slide_id: str, each: Mapping[str, Seen], known: Known, *, max_tiles: int
) -> None:
    """A slide with all maps of all encoders over it."""
    maps, attributes = {}, {}
    for encoder, seen in each.items():
        for method in sorted(seen.told['methods'], key=list(METHOD_NAMES).index):
            name = f'{METHOD_NAMES[method]}, {encoder}' if len(each) > 1 else method
            maps[name], attributes[name] = seen.read(method)
    told = next(iter(each.values())).told
    viewer.write_viewer(
        _viewer_folder(home, slide_id),
        known.path,
        maps,
        attributes,
        slide_id=slide_id,
        told=_predicted(told),
        target=told['target'],
        regions=known.regions,
        mpp=known.mpp,
        max_tiles=max_tiles,
    )


def _viewer_folder(home: pathlib.Path, slide_id: str) -> pathlib.Path:
    return home / 'report' / 'slides' / file_name(slide_id)


def _map(seen: Seen, method: str, known: Known | None) -> str:
    """A panel of a map; over the slide's pixels where they are known from nowhere else."""
    if known is None and seen.overlay(method).exists():
        with Image.open(seen.overlay(method)) as image:
            image = image.convert('RGB')
            image.thumbnail((2 * _PIXELS, 2 * _PIXELS))  # with its colour bar
            return of_pixels(np.asarray(image))
    saliency, attributes = seen.read(method)
    draw = functools.partial(
        galleries.draw_map, saliency=saliency, attributes=attributes, known=known
    )
    return _drawn(draw, _box(known, saliency.shape, attributes))


def _known_panels(known: Known, saliency: np.ndarray, attributes: Mapping[str, Any]) -> list[Panel]:
    box, panels = _box(known, saliency.shape, attributes), []
    if known.thumbnail is not None:
        draw = functools.partial(galleries.draw_picture, known=known)
        panels.append(Panel(_drawn(draw, box), 'slide'))
    if known.regions or known.mask is not None:
        draw = functools.partial(galleries.draw_reference, known=known, attributes=attributes)
        panels.append(Panel(_drawn(draw, box), 'lesions'))
    return panels


def _box(known: Known | None, shape: tuple[int, int], attributes: Mapping[str, Any]) -> Box:
    if known is not None and known.thumbnail is not None:
        return known.thumbnail.box
    return galleries.cells_box(shape, attributes)


def _drawn(draw: Callable[[Axes], None], box: Box) -> str:
    """A panel without margins, as a data URI."""
    width, height = box[2] - box[0], box[3] - box[1]
    scale = _PIXELS / 100 / max(width, height)
    figure = new_figure(1, 1, size=(max(0.2, width * scale), max(0.2, height * scale)))
    (axis,) = figure.axes
    figure.set_layout_engine('none')
    axis.set_position((0, 0, 1, 1))
    draw(axis)
    figure.canvas.draw()
    return of_pixels(np.asarray(figure.canvas.buffer_rgba())[..., :3])


def _caption(lines: Sequence[Line], method: str) -> str:
    names = {panel.name for line in lines for panel in line.panels}
    told = (
        f'{METHOD_NAMES.get(method, method)} of the networks on each encoder’s codes: bright cells '
        'speak for the target; where it is grey, nothing is encoded'
    )
    return f'{told}. Lesions are outlined.' if 'lesions' in names else f'{told}.'


def _predicted(told: Mapping[str, Any]) -> str:
    parts = [f'is {_short(told["label"])}' if told.get('label', '') != '' else '']
    parts.append(f'predicted {_short(told["prediction"])}' if told.get('prediction') else '')
    parts.append(f'map: for {told["target"]}' if told.get('target') else '')
    return ', '.join(filter(None, parts))


def _short(value: Any) -> str:
    return f'{value:.3g}' if isinstance(value, float) else str(value)
