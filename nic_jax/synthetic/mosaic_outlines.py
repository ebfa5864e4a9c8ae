"""Outlines of lesions: read from real annotations, and written around a mosaic's tumour cells."""

import json
import math
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import scipy.ndimage

from nic_jax.patches import annotation_formats, archives
from nic_jax.patches.annotation_formats import FormatError
from nic_jax.patches.annotations import AnnotationError

_VERTICES = 96  # of an outline; of a lesion of 300 cells, less than one cell apart
# 4π · area / length²: 1 of a circle, .2 of a rectangle 1:14; less is a slip of the hand.
_ROUNDEST_SLIVER = 0.1


def read_outlines(path: str | os.PathLike) -> list[np.ndarray]:
    """The outlines of lesions in CAMELYON16's polygons as JSON (NCRF's; key 'positive').

    Args:
        path: A folder of them, or an archive (.tar.xz, …).

    Returns:
        Of each, (x, y) of at most 96 vertices, evenly spaced where the outline has more, float64
        `[n, 2]`, of area 1 around the origin. Slivers are left out.

    Raises:
        AnnotationError: A file is broken, or there is no outline.
    """
    path = pathlib.Path(path)
    names = sorted(name for name in archives.names(path) if name.lower().endswith('.json'))
    found = {}
    for name, read in archives.find(path, names):
        try:
            drawn = annotation_formats.ncrf(json.loads(read()))
            found[name] = [
                outline
                for each in drawn
                if each.name == 'positive'
                for outline in _normal(np.array(each.rings[0], np.float64).reshape(-1, 2))
            ]
        except (FormatError, ValueError, AttributeError) as error:
            raise AnnotationError(f'{path}, {name}: {error}') from error
    outlines = [outline for name in names for outline in found.get(name, ())]
    if not outlines:
        raise AnnotationError(
            f"{path} has no outline of a lesion under 'positive' in its {len(names)} JSON files; "
            'give others, or none to grow lesions at random'
        )
    return outlines


def lesion_features(lesion: np.ndarray, *, edges: np.ndarray, name: str) -> dict[str, Any]:
    """The outlines of cells as GeoJSON in QuPath's form, one feature for each connected piece.

    Args:
        lesion: bool `[cells, cells]`.
        edges: Where cells begin and end along either axis, in level-0 px, int `[cells + 1]`.
        name: Of the class.
    """
    features = []
    pieces, count = scipy.ndimage.label(lesion)  # joined by sides
    for piece in range(1, count + 1):
        # GeoJSON says the first vertex again, and the outer ring before the holes.
        rings = [
            [[int(edges[x]), int(edges[y])] for x, y in (*ring, ring[0])]
            for ring in sorted(_rings(pieces == piece), key=_signed_area, reverse=True)
        ]
        features.append(
            {
                'type': 'Feature',
                'geometry': {'type': 'Polygon', 'coordinates': rings},
                'properties': {'objectType': 'annotation', 'classification': {'name': name}},
            }
        )
    return {'type': 'FeatureCollection', 'features': features}


def _normal(ring: np.ndarray) -> Iterator[np.ndarray]:
    """An outline of area 1 around the origin, or nothing where it is a sliver."""
    steps = np.hypot(*(np.roll(ring, -1, axis=0) - ring).T)
    ring, steps = ring[steps > 0], steps[steps > 0]
    length = steps.sum()
    if len(ring) > _VERTICES:
        at = np.linspace(0, length, _VERTICES, endpoint=False)
        ends = np.concatenate([[0], np.cumsum(steps)])
        closed = np.concatenate([ring, ring[:1]])
        ring = np.stack([np.interp(at, ends, closed[:, axis]) for axis in (0, 1)], axis=1)
    area = abs(_signed_area(ring)) if len(ring) >= 3 else 0
    if area > 0 and 4 * math.pi * area / length**2 >= _ROUNDEST_SLIVER:
        middle = (ring.min(axis=0) + ring.max(axis=0)) / 2
        yield (ring - middle) / math.sqrt(area)


def _rings(cells: np.ndarray) -> Iterator[list[tuple[int, int]]]:
    """The rings around a piece of cells that are joined by sides, as corners (x, y).

    Clockwise on the screen around the piece, the other way around its holes; no ring touches
    itself, so that one which comes back to a corner is two.
    """
    inside = np.pad(cells, 1)
    leaving: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for (down, right), begin, end in (
        ((-1, 0), (0, 0), (1, 0)),  # the cell above is not of the piece: its top edge, to the right
        ((0, 1), (1, 0), (1, 1)),
        ((1, 0), (1, 1), (0, 1)),
        ((0, -1), (0, 1), (0, 0)),
    ):
        other = np.roll(inside, (-down, -right), axis=(0, 1))
        for y, x in np.argwhere(inside & ~other) - 1:
            corner = (int(x) + begin[0], int(y) + begin[1])
            leaving.setdefault(corner, []).append((int(x) + end[0], int(y) + end[1]))
    while leaving:
        path = [next(iter(leaving))]
        while leaving.get(path[-1]):
            corner = leaving[path[-1]].pop()
            if not leaving[path[-1]]:
                del leaving[path[-1]]
            if corner in path:
                start = path.index(corner)
                yield _corners(path[start:])
                path = path[: start + 1]
            else:
                path.append(corner)


def _corners(ring: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """A ring of unit steps without the vertices at which it goes straight on."""
    around = zip([ring[-1], *ring[:-1]], ring, [*ring[1:], ring[0]], strict=True)
    return [b for a, b, c in around if (b[0] - a[0], b[1] - a[1]) != (c[0] - b[0], c[1] - b[1])]


def _signed_area(ring: Sequence) -> float:
    """Positive where a ring (x, y) goes clockwise on the screen, where y points down."""
    x, y = np.asarray(ring).T
    return float(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2
