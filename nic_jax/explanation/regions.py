"""The parts of a slide that a map points out, as GeoJSON that QuPath opens.

Regions follow the edges of cells exactly. Cells belong together where they share an edge, not
where only their corners touch; a region may touch itself at a corner, and is a valid polygon then
too: its outline and the holes in it are simple rings.
"""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from scipy import ndimage

from nic_jax.explanation.georeference import cell_edges
from nic_jax.workdir import write_atomically

QUANTILES = (0.9, 0.97, 0.995)
_STEPS = np.array([(0, 1), (1, 0), (0, -1), (-1, 0)])  # right, down, left, up: (row, column)


class Outline(NamedTuple):
    """A ring along edges of cells.

    Attributes:
        label: Number of its region, from 1.
        corners: Rows and columns of its corners, int `[n, 2]`; cell (r, c) reaches from corner
            (r, c) to (r + 1, c + 1).
        hole: Whether it is one of the region's holes.
    """

    label: int
    corners: np.ndarray
    hole: bool


def regions(
    saliency: np.ndarray,
    *,
    attributes: Mapping[str, Any],
    quantiles: Sequence[float] = QUANTILES,
    method: str = 'saliency',
    corner: tuple[float, float] | None = None,
) -> dict[str, Any]:
    """The connected regions of cells at or above quantiles of a map's positive values.

    Args:
        saliency: Float `[H, W]`, NaN where no cell is encoded.
        attributes: Of the grid.
        quantiles: In [0, 1); each is a class of its own in QuPath, and its regions hold those of
            the higher ones.
        method: Begins the names of the classes.
        corner: (x, y) of the slide's bounds, where QuPath counts from (unless slides are opened
            with --no-crop): `Slide.bounds[:2]`. By default where the grid begins, which is that
            corner to the pixel of the level that was read.

    Returns:
        A GeoJSON FeatureCollection of polygons in level-0 px from that corner.

    Raises:
        ValueError: A quantile outside [0, 1).
    """
    for quantile in quantiles:
        if not 0 <= quantile < 1:
            raise ValueError(f'a quantile of {quantile} must be in [0, 1)')
    x, y = cell_edges(saliency.shape, attributes)
    areas = np.diff(y)[:, None] * np.diff(x)  # [H, W], px²
    known = np.where(np.isnan(saliency) | (areas <= 0), 0, saliency).astype(np.float64)
    positive = known[known > 0]
    left, top = attributes['origin_level0'] if corner is None else corner
    colours = matplotlib.colormaps['viridis'](np.linspace(0.35, 1, len(quantiles)))[:, :3]
    features = []
    for quantile, colour in zip(sorted(quantiles) if len(positive) else (), colours, strict=False):
        chosen = (known > 0) & (known >= np.quantile(positive, quantile))
        labels, count = ndimage.label(chosen)  # over edges alone
        rings = [[] for _ in range(count)]
        for outline in sorted(outlines(labels), key=lambda each: each.hole):  # holes come last
            row, column = np.concatenate([outline.corners, outline.corners[:1]]).T
            rings[outline.label - 1].append(np.stack([x[column] - left, y[row] - top], 1).tolist())
        classification = {
            'name': f'{method} top {100 * (1 - quantile):.3g} %',
            'color': np.rint(255 * colour).astype(int).tolist(),
        }
        features += [
            {
                'type': 'Feature',
                'geometry': {'type': 'Polygon', 'coordinates': coordinates},
                'properties': {
                    'objectType': 'annotation',
                    'classification': classification,
                    'measurements': measured,
                },
            }
            for coordinates, measured in zip(
                rings, _measurements(known, labels, areas, attributes['mpp_level0']), strict=True
            )
        ]
    return {'type': 'FeatureCollection', 'features': features}


def write_regions(
    path: pathlib.Path, saliency: np.ndarray, *, attributes: Mapping[str, Any], **options: Any
) -> None:
    """Writes a GeoJSON file for QuPath (File › Import objects).

    Args:
        path: The file.
        saliency: Float `[H, W]`, NaN where no cell is encoded.
        attributes: Of the grid.
        **options: As for `regions`.
    """
    found = regions(saliency, attributes=attributes, **options)
    write_atomically(path, json.dumps(found, ensure_ascii=False, allow_nan=False))


def outlines(labels: np.ndarray) -> list[Outline]:
    """The simple rings around regions and around the holes in them.

    Args:
        labels: Number of each cell's region, int `[H, W]`, 0 for none; regions that share an edge
            have one number.
    """
    padded = np.pad(labels, 1)
    here, above, before = padded[1:, 1:], padded[:-1, 1:], padded[1:, :-1]
    # An edge is walked with its region on the one side always: [direction, row, column] of the
    # corner where it begins.
    height, width = here.shape
    leaving = np.zeros((4, height + 1, width + 1), labels.dtype)
    leaving[0, :-1, :-1] = here * (above == 0)
    leaving[1, :-1, :-1] = before * (here == 0)
    leaving[2, :-1, 1:] = above * (here == 0)
    leaving[3, 1:, :-1] = here * (before == 0)
    direction, row, column = np.nonzero(leaving)
    label = leaving[direction, row, column]
    number = np.zeros(leaving.shape, np.int64)
    number[direction, row, column] = np.arange(len(label))
    # Where two cells of a region meet at a corner, the way leads over to the other one: so the ring
    # keeps to what it surrounds, and never comes to a corner twice.
    to_row, to_column = np.stack([row, column]) + _STEPS[direction].T
    after = np.zeros(len(label), np.int64)
    for turn in (1, 0, 3):  # the first that is possible is set last
        turned = (direction + turn) % 4
        possible = leaving[turned, to_row, to_column] == label
        after[possible] = number[turned, to_row, to_column][possible]
    found = []
    bends = direction != direction[np.argsort(after)]  # from the edge before it
    for ring in _cycles(after.tolist()):
        corners = np.stack([row[ring], column[ring]], axis=1)
        (y0, x0), (y1, x1) = corners.T, np.roll(corners, -1, axis=0).T
        hole = int((x0 * y1 - x1 * y0).sum()) < 0
        found.append(Outline(int(label[ring[0]]), corners[bends[ring]], hole))
    return found


def _cycles(after: list[int]) -> list[list[int]]:
    """The cycles of a permutation."""
    seen, found = [False] * len(after), []
    for start in range(len(after)):
        ring, at = [], start
        while not seen[at]:
            seen[at] = True
            ring.append(at)
            at = after[at]
        if ring:
            found.append(ring)
    return found


def _measurements(
    saliency: np.ndarray, labels: np.ndarray, areas: np.ndarray, mpp: float | None
) -> list[dict[str, float]]:
    """What QuPath shows of each region, in the labels' order."""
    numbers = np.arange(1, labels.max(initial=0) + 1)
    cells = np.bincount(labels.ravel(), minlength=len(numbers) + 1)[1:]
    found = {
        'Saliency mean': ndimage.mean(saliency, labels, numbers),
        'Saliency max': ndimage.maximum(saliency, labels, numbers),
        'Cells': cells,
    }
    if mpp is not None:
        found['Area mm^2'] = ndimage.sum(areas, labels, numbers) * (mpp / 1000) ** 2
    values = np.stack(list(found.values()), axis=1).astype(np.float64)  # [n, measurements]
    return [dict(zip(found, each, strict=True)) for each in values.tolist()]
