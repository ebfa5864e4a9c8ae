"""A map of saliency over the slide that it explains, as a picture.

Colours fade where the map is weak, so that tissue stays visible; where nothing is encoded there are
none. They end at a percentile of the map, which the colour bar tells: a cell alone must not dim the
rest.
"""

import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib
import matplotlib.figure
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.patches import PathPatch
from matplotlib.path import Path
from matplotlib.patheffects import Normal, Stroke

from nic_jax.explanation.georeference import Box, cell_edges
from nic_jax.patches.annotations import Region
from nic_jax.slides import Slide, thumbnail
from nic_jax.workdir import replacing

PERCENTILE = 99.5
_OPAQUE = 0.75  # of the strongest cells
_BLANK_CELL = '0.85'  # grey
# Black in white is seen on stains and maps alike, by everybody.
_LINE, _AROUND = 'black', 'white'
_SIDE = 1600  # px of a thumbnail's longer side, at most
_INCHES = 9.0  # of the picture's longer side
_DPI = 120


class Thumbnail(NamedTuple):
    """A small picture of a slide.

    Attributes:
        pixels: uint8 `[h, w, 3]`.
        box: What it shows, level-0 px.
    """

    pixels: np.ndarray
    box: Box


def read_thumbnail(slide: Slide, *, side: int = _SIDE) -> Thumbnail:
    """Reads a small picture of what was scanned of a slide.

    Args:
        slide: Open; its µm/px must be known.
        side: Of its longer side, px, at most.
    """
    x, y, width, height = slide.bounds
    pixels, step = thumbnail(slide, mpp=slide.mpp * max(1.0, max(width, height) / side))
    return Thumbnail(pixels, (x, y, x + pixels.shape[1] * step, y + pixels.shape[0] * step))


def draw_overlay(
    axis: Axes,
    saliency: np.ndarray,
    *,
    attributes: Mapping[str, Any],
    thumbnail: Thumbnail | None = None,
    outlines: Sequence[Region] = (),
    signed: bool = False,
    title: str | None = None,
) -> None:
    """Draws a map over its slide, with a scale bar and a colour bar.

    Args:
        axis: Drawn into.
        saliency: Float `[H, W]`, NaN where no cell is encoded.
        attributes: Of the grid.
        thumbnail: Of the slide; without it, encoded cells are grey, and the picture says so.
        outlines: What the map should find, level-0 px.
        signed: Show what speaks against the target too.
        title: Over the picture.
    """
    x, y = cell_edges(saliency.shape, attributes, clip=False)
    place = {'extent': (x[0], x[-1], y[-1], y[0]), 'interpolation': 'nearest'}
    if thumbnail is None:
        x, y = cell_edges(saliency.shape, attributes)
        box = float(x[0]), float(y[0]), float(x[-1]), float(y[-1])
        encoded = np.ma.masked_invalid(np.where(np.isnan(saliency), np.nan, 0))
        axis.imshow(encoded, cmap=ListedColormap([_BLANK_CELL]), **place)
    else:
        box = left, top, right, bottom = thumbnail.box
        extent = (left, right, bottom, top)
        axis.imshow(_paler(thumbnail.pixels), extent=extent, interpolation='antialiased')
    shown = np.ma.masked_invalid(saliency if signed else np.maximum(saliency, 0))
    strengths = np.abs(shown.compressed())
    limit, told = _limit(strengths, signed)
    norm = Normalize(-limit if signed else 0, limit)
    image = axis.imshow(shown, cmap=_fading(signed), norm=norm, **place)
    beyond = strengths.max(initial=0) > limit
    extend = ('both' if signed else 'max') if beyond else 'neither'
    bar = axis.figure.colorbar(image, ax=axis, extend=extend, shrink=0.7, pad=0.02)
    bar.set_label(told, fontsize=9)
    draw_outlines(axis, outlines)
    _draw_scale(axis, box, attributes['mpp_level0'])
    notes = [] if thumbnail else ["without the slide's pixels; grey: encoded cells"]
    notes += ['outlined: the reference'] if outlines else []
    axis.set(xticks=[], yticks=[], xlabel='; '.join(notes))
    axis.grid(visible=False)
    axis.set(xlim=(box[0], box[2]), ylim=(box[3], box[1]), aspect='equal')
    if title:
        axis.set_title(title, parse_math=False)  # a dollar in a name is a dollar


def draw_outlines(
    axis: Axes, regions: Sequence[Region], *, colour: str = _LINE, around: str = _AROUND
) -> None:
    """Draws the outlines of lesions and of their holes, edged so that they are seen on anything."""
    rings = [ring for region in regions for ring in (region.outer, *region.holes)]
    if rings:
        path = Path.make_compound_path(*(Path([*ring, ring[0]], closed=True) for ring in rings))
        line = PathPatch(path, fill=False, edgecolor=colour, linewidth=1.5)
        line.set_path_effects([Stroke(linewidth=3.5, foreground=around), Normal()])
        axis.add_patch(line)


def write_overlay(
    path: pathlib.Path, saliency: np.ndarray, *, attributes: Mapping[str, Any], **options: Any
) -> None:
    """Writes a PNG of a map over its slide.

    Args:
        path: The file.
        saliency: Float `[H, W]`, NaN where no cell is encoded.
        attributes: Of the grid.
        **options: As for `draw_overlay`.
    """
    seen = options.get('thumbnail')
    height, width = saliency.shape if seen is None else seen.pixels.shape[:2]
    scale = _INCHES / max(1, height, width)
    size = max(5.0, width * scale + 1.3), max(4.0, height * scale + 0.7)  # with room for the bar
    figure = matplotlib.figure.Figure(figsize=size, layout='constrained')
    FigureCanvasAgg(figure)
    draw_overlay(figure.subplots(), saliency, attributes=attributes, **options)
    with replacing(path) as partial:
        figure.savefig(partial, format='png', dpi=_DPI)


def scale_bar(width: float) -> float:
    """The longest of 1, 2, 5, 10, 20, 50 … that is at most a quarter of a picture's width."""
    power = 10.0 ** math.floor(math.log10(width / 4))
    return max(factor * power for factor in (1, 2, 5) if factor * power <= width / 4)


def _limit(values: np.ndarray, signed: bool) -> tuple[float, str]:
    """Where colours end, and what the colour bar says."""
    values = values[values > 0]
    what = 'saliency: for the target > 0, against it < 0' if signed else 'saliency'
    if not len(values):
        return 1.0, f'{what}\nnothing speaks for the target'
    limit = float(np.percentile(values, PERCENTILE))
    kind = 'absolute' if signed else 'positive'
    return limit, (
        f'{what}\ncolours end at {limit:.3g} (maximum {values.max():.3g}):\n'
        f'percentile {PERCENTILE:g} of its {kind} values'
    )


def _fading(signed: bool) -> ListedColormap:
    """Colours that the colour-blind tell apart, the clearer the weaker."""
    if signed:
        blue, orange = matplotlib.colors.to_rgb('#0072B2'), matplotlib.colors.to_rgb('#D55E00')
        strength = np.abs(np.linspace(-1, 1, 256))
        colours = np.repeat([blue, orange], 128, axis=0)
    else:
        strength = np.linspace(0, 1, 256)
        # From blue on: viridis begins in the purple of haematoxylin.
        colours = matplotlib.colormaps['viridis'](np.linspace(0.25, 1, 256))[:, :3]
    return ListedColormap(np.column_stack([colours, _OPAQUE * np.sqrt(strength)]))


def _paler(pixels: np.ndarray) -> np.ndarray:
    """Half the colour, so that stains are not taken for saliency."""
    grey = pixels.mean(axis=-1, keepdims=True)
    return np.rint((pixels + grey) / 2).astype(np.uint8)


def _draw_scale(axis: Axes, box: Box, mpp: float | None) -> None:
    """A bar of a round length in the lower left corner."""
    left, _, right, bottom = box
    unit = mpp or 1.0
    length = scale_bar((right - left) * unit)
    told = f'{length:g} px' if mpp is None else f'{length:g} µm'
    if mpp is not None and length >= 1000:
        told = f'{length / 1000:g} mm'
    margin = 0.03 * (right - left)
    x, y = left + margin, bottom - margin
    (bar,) = axis.plot(
        [x, x + length / unit], [y, y], color=_LINE, linewidth=4, solid_capstyle='butt'
    )
    bar.set_path_effects([Stroke(linewidth=7, foreground=_AROUND), Normal()])
    text = axis.annotate(
        told,
        (x + length / unit / 2, y),
        xytext=(0, 5),
        textcoords='offset points',
        ha='center',
        va='bottom',
        color=_LINE,
    )
    text.set_path_effects([Stroke(linewidth=3, foreground=_AROUND), Normal()])
