"""Slides beside what encoders' networks looked at (Tellez et al., IEEE TPAMI 2021, Figs. 10, 11).

A line is a slide: its thumbnail, the outlines of its lesions, a map an encoder. `draw_line` draws
one into axes, for a notebook; the parts of a line can be drawn alone.
"""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap

from nic_jax.explanation.georeference import Box, cell_edges
from nic_jax.explanation.overlay import Thumbnail, draw_outlines
from nic_jax.patches.annotations import Region

METHOD_NAMES = {
    'grad_cam': 'Grad-CAM',
    'integrated_gradients': 'Integrated gradients',
    'occlusion': 'Occlusion',
    'attention': 'Attention',
    'grad_cam_random': 'Grad-CAM, random weights',
}
COLOUR_MAP = 'viridis'
_NOT_ENCODED = '0.93'
_LESION = '#D55E00'
_BRIGHTEST = 99.5  # percentile of a map that is drawn brightest: a cell alone must not dim the rest


@dataclasses.dataclass(frozen=True, eq=False)
class Known:
    """What is known of a slide beside its maps, where that is.

    Attributes:
        thumbnail: Of the slide; of a synthetic image, its box counts cells.
        regions: Outlines of lesions, level-0 px.
        mask: Cells of lesions, bool `[H, W]`; drawn where there are no outlines.
        path: The slide's file, for its viewer.
        mpp: µm/px of level 0, instead of the file's own.
    """

    thumbnail: Thumbnail | None = None
    regions: Sequence[Region] = ()
    mask: np.ndarray | None = None
    path: pathlib.Path | None = None
    mpp: float | None = None


def choose(scores: Mapping[str, float], *, count: int, seed: int) -> dict[str, list[str]]:
    """Picks the best, the worst and some slides at random; none is in two of them.

    Args:
        scores: Of each slide, the higher the better; those that are NaN can be none of the three.
        count: Slides of each.
        seed: Of the choice at random.

    Returns:
        'best', 'worst' (the worst first) and 'random', as far as there are enough slides.
    """
    names = sorted(name for name, score in scores.items() if not np.isnan(score))
    ranked = sorted(names, key=lambda name: -scores[name])
    best = ranked[: min(count, (len(ranked) + 1) // 2)]
    worst = ranked[::-1][: min(count, len(ranked) - len(best))]
    rest = [name for name in names if name not in {*best, *worst}]
    drawn = np.random.default_rng(seed).permutation(len(rest))[:count]
    return {'best': best, 'worst': worst, 'random': [rest[index] for index in sorted(drawn)]}


def cells_box(shape: tuple[int, int], attributes: Mapping[str, Any]) -> Box:
    """What the cells of a map cover.

    Args:
        shape: Rows and columns.
        attributes: Of the grid.
    """
    x, y = cell_edges(shape, attributes, clip=False)
    return float(x[0]), float(y[0]), float(x[-1]), float(y[-1])


def draw_line(
    axes: Sequence[Axes],
    known: Known,
    maps: Mapping[str, np.ndarray],
    attributes: Mapping[str, Mapping[str, Any]],
) -> None:
    """Draws a slide, its lesions and a map an encoder.

    Args:
        axes: Two more than there are maps.
        known: Of the slide.
        maps: Encoder to its saliency, float `[H, W]`, NaN where nothing is encoded.
        attributes: Encoder to the attributes of its grid.
    """
    grid = next(iter(attributes.values()))
    draw_picture(axes[0], known)
    axes[0].set_title('slide')
    draw_reference(axes[1], known, grid)
    axes[1].set_title('lesions')
    for axis, (name, saliency) in zip(axes[2:], maps.items(), strict=True):
        draw_map(axis, saliency, attributes[name], known=known)
        axis.set_title(name)


def draw_picture(axis: Axes, known: Known) -> None:
    """Draws the slide; nothing where it has no pixels."""
    axis.set_axis_off()
    if known.thumbnail is not None:
        left, top, right, bottom = known.thumbnail.box
        place = {'extent': (left, right, bottom, top), 'interpolation': 'antialiased'}
        axis.imshow(known.thumbnail.pixels, cmap='gray', **place)


def draw_reference(axis: Axes, known: Known, attributes: Mapping[str, Any]) -> None:
    """Draws the outlines of lesions over the slide, or the cells of the mask.

    Args:
        axis: Drawn into.
        known: Of the slide.
        attributes: Of a grid, which tell where the cells of the mask lie.
    """
    draw_picture(axis, known)
    if known.mask is not None and not known.regions:
        left, top, right, bottom = cells_box(known.mask.shape, attributes)
        shown = np.ma.masked_where(~known.mask, known.mask)
        place = {'extent': (left, right, bottom, top), 'interpolation': 'nearest'}
        axis.imshow(shown, cmap=ListedColormap([_LESION]), alpha=0.7, **place)
        axis.set(xlim=(left, right), ylim=(bottom, top))
    draw_outlines(axis, known.regions)
    _see(axis, known)


def draw_map(
    axis: Axes, saliency: np.ndarray, attributes: Mapping[str, Any], *, known: Known | None = None
) -> None:
    """Draws what speaks for the target: dark where nothing does, grey where nothing is encoded.

    Args:
        axis: Drawn into.
        saliency: Float `[H, W]`, NaN where nothing is encoded.
        attributes: Of the grid.
        known: Of the slide; the outlines of its lesions are drawn over, and what is shown is what
            its picture shows.
    """
    left, top, right, bottom = cells_box(saliency.shape, attributes)
    shown = np.ma.masked_invalid(np.maximum(saliency, 0))
    values = shown.compressed()
    highest = float(np.percentile(values, _BRIGHTEST)) if len(values) else 1.0
    highest = highest or float(values.max(initial=0)) or 1.0
    axis.set_facecolor(_NOT_ENCODED)
    axis.imshow(
        shown,
        cmap=COLOUR_MAP,
        vmin=0,
        vmax=highest,
        extent=(left, right, bottom, top),
        interpolation='nearest',
    )
    axis.set(xticks=[], yticks=[])
    axis.grid(visible=False)
    axis.spines[:].set_visible(False)
    axis.set(xlim=(left, right), ylim=(bottom, top))
    if known is not None:
        draw_outlines(axis, known.regions, colour='white', around='black')
        if known.mask is not None and not known.regions:
            axis.contour(
                *np.meshgrid(*_centres(known.mask.shape, attributes)),
                known.mask,
                levels=[0.5],
                colors='white',
                linewidths=1.2,
            )
        _see(axis, known)


def _see(axis: Axes, known: Known) -> None:
    """Shows what the slide's picture shows, so that panels lie beside each other."""
    if known.thumbnail is not None:
        left, top, right, bottom = known.thumbnail.box
        axis.set(xlim=(left, right), ylim=(bottom, top), aspect='equal')


def _centres(shape: tuple[int, int], attributes: Mapping[str, Any]) -> list[np.ndarray]:
    """The middles of columns, x `[W]`, and of rows, y `[H]`."""
    return [(e[1:] + e[:-1]) / 2 for e in cell_edges(shape, attributes, clip=False)]
