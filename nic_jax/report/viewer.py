"""A slide to look into, with saliency and lesions over it: a folder that a browser opens from disk.

The folder holds `index.html`, the slide as JPEG tiles, a small PNG a method, and OpenSeadragon
(BSD-3-Clause, https://openseadragon.github.io), which shows them. Nothing is fetched over a
network.
"""

import importlib.resources
import os
import pathlib
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from nic_jax.patches.annotations import Region
from nic_jax.report import deep_zoom
from nic_jax.report.galleries import METHOD_NAMES, cells_box
from nic_jax.report.page_template import templates
from nic_jax.slides import open_slide
from nic_jax.workdir import remove

LIBRARY = 'openseadragon.min.js'
# Okabe and Ito's vermilion and blue, which the colour-blind tell apart.
FOR, AGAINST = (213, 94, 0), (0, 114, 178)
_STRONGEST = 99.5  # percentile of a map that has the full colour


class Viewer(NamedTuple):
    """What was written: the page, and how much there is to it."""

    page: pathlib.Path
    tiles: int
    megabytes: float


def write_viewer(
    folder: pathlib.Path,
    slide_path: str | os.PathLike,
    maps: Mapping[str, np.ndarray],
    attributes: Mapping[str, Mapping[str, Any]],
    *,
    slide_id: str,
    told: str = '',
    target: str = '',
    regions: Sequence[Region] = (),
    mpp: float | None = None,
    step: int | None = None,
    max_tiles: int = deep_zoom.MAX_TILES,
) -> Viewer:
    """Writes the viewer of a slide; an older one in the same folder is replaced.

    Args:
        folder: For the viewer alone, such as report/slides/SLIDE.
        slide_path: The slide's file.
        maps: Method, or any other name, to saliency, float `[H, W]`: above 0 for the target, below
            against it, NaN where nothing is encoded.
        attributes: Of the grid of each map.
        slide_id: The slide's name.
        told: A line beside it: label and prediction, say.
        target: What positive saliency speaks for.
        regions: Outlines of lesions, level-0 px.
        mpp: µm/px of level 0, instead of the file's own; without either there is no scale bar.
        step: Level-0 px per px of the finest tiles, a power of two: 1 for all there is. None for
            the finest that needs no more than `max_tiles`.
        max_tiles: Of all levels.

    Raises:
        SlideError: The slide cannot be opened or read.
        ValueError: `step` is not a power of two.
    """
    if step is not None and (step < 1 or step & (step - 1)):
        raise ValueError(f'{step=} must be a power of two: 1, 2, 4, …')
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix='.viewer.', dir=folder.parent) as aside,
        open_slide(slide_path, mpp=mpp) as slide,
    ):
        made = pathlib.Path(aside) / 'viewer'
        made.mkdir()
        step = step or deep_zoom.finest_step(slide.bounds[2:], max_tiles=max_tiles)
        pyramid = deep_zoom.write_pyramid(slide, made / 'tiles', step=step)
        layers = [
            _layer(made / f'saliency_{number}.png', name, maps[name], attributes[name])
            for number, name in enumerate(sorted(maps, key=_order))
        ]
        data = {
            'width': pyramid.width,
            'height': pyramid.height,
            'tile': deep_zoom.TILE,
            'origin': pyramid.origin,
            'step': pyramid.step,
            'mpp': slide.mpp if slide.mpp_source != 'default' else None,
            'layers': layers,
            'outlines': [
                [np.round(ring, 2).tolist() for ring in (region.outer, *region.holes)]
                for region in regions
            ],
        }
        text = (
            templates()
            .get_template('viewer.html')
            .render(
                slide_id=slide_id,
                told=told,
                target=target or 'the target',
                data=data,
                library=LIBRARY,
                size=f'{pyramid.tiles:,} tiles, {pyramid.megabytes:,.1f} MB',
                finest=pyramid.step,
            )
        )
        (made / 'index.html').write_text(text, encoding='utf-8')
        for source in importlib.resources.files('nic_jax.report').joinpath('vendor').iterdir():
            (made / source.name).write_bytes(source.read_bytes())
        remove(folder)
        os.replace(made, folder)
    return Viewer(folder / 'index.html', pyramid.tiles, pyramid.megabytes)


def saliency_image(saliency: np.ndarray) -> np.ndarray:
    """A map as uint8 `[H, W, 4]`: vermilion for, blue against, the stronger the less transparent.

    Args:
        saliency: Float `[H, W]`, NaN where nothing is encoded.
    """
    values = np.nan_to_num(np.asarray(saliency, np.float64))
    encoded = np.abs(values[~np.isnan(saliency)])
    strongest = np.percentile(encoded, _STRONGEST) if len(encoded) else 0
    strongest = strongest or encoded.max(initial=0) or 1.0
    image = np.empty((*values.shape, 4), np.uint8)
    image[..., :3] = np.where(values[..., None] >= 0, FOR, AGAINST)
    image[..., 3] = np.rint(255 * np.minimum(1, np.abs(values) / strongest))
    return image


def _order(name: str) -> int:
    """As methods are listed; other names in their own order behind."""
    names = list(METHOD_NAMES)
    return names.index(name) if name in names else len(names)


def _layer(
    path: pathlib.Path, name: str, saliency: np.ndarray, attributes: Mapping[str, Any]
) -> dict[str, Any]:
    """Writes a map's image; tells where it lies."""
    Image.fromarray(saliency_image(saliency)).save(path)
    box = cells_box(saliency.shape, attributes)
    return {'name': METHOD_NAMES.get(name, name), 'file': path.name, 'box': box}
