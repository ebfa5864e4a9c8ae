"""Annotations of a slide: polygons with a class, from the files that pathologists' tools write."""

import codecs
import collections
import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from nic_jax.patches import annotation_formats as formats
from nic_jax.patches.coverage import crosses_itself

_FLAT = 'outlines of fewer than 3 vertices'


class AnnotationError(ValueError):
    """An annotation file that is not what it should be; the message names file and annotation."""


@dataclasses.dataclass(frozen=True, eq=False)
class Region:
    """An annotated area: all that its outline winds around, less its holes.

    An outline may cross itself, as hand-drawn ones do by a hair (193 of the 4,132 of CAMELYON16):
    both sides of the crossing count (the non-zero rule).

    Attributes:
        name: Of the class.
        outer: Vertices (x, y), level-0 px, float64 `[n, 2]`, n ≥ 3; the last is joined to the
            first.
        holes: Outlines of what is not part of it.
    """

    name: str
    outer: np.ndarray
    holes: tuple[np.ndarray, ...] = ()

    def moved(self, offset: tuple[float, float]) -> 'Region':
        """The region (x, y) further."""
        outer, *holes = (ring + offset for ring in (self.outer, *self.holes))
        return Region(self.name, outer, tuple(holes))


@dataclasses.dataclass(frozen=True, eq=False)
class Annotations:
    """What a file holds.

    Attributes:
        regions: In the file's order.
        passed_over: Kinds of annotation that have no area (points, lines, outlines of one or two
            vertices, as a slip of the hand leaves), and how many of each.
        crossing: How many regions have an outline that crosses itself.
        from_bounds: Whether the tool counts pixels from the corner of the slide's bounds, not of
            level 0: QuPath does (https://github.com/qupath/qupath/issues/1278), unless slides were
            opened with --no-crop. It matters for MRXS, SCN and others that tell their bounds.
    """

    regions: tuple[Region, ...]
    passed_over: Mapping[str, int]
    crossing: int
    from_bounds: bool

    def notes(self) -> tuple[str, ...]:
        """What a user should hear of."""
        told = [f'{count} {kind} passed over' for kind, count in self.passed_over.items()]
        if self.crossing:
            told.append(f'{self.crossing} outlines cross themselves')
        return tuple(told)


def read_annotations(path: pathlib.Path) -> Annotations:
    """Reads the annotations of one slide; the format is told by the content.

    - XML of ASAP: polygons, splines (their control points joined by lines) and rectangles. The
      class is the group, or the annotation's own name where it is in none. Decimal commas will do.
    - GeoJSON of QuPath: polygons and multipolygons of a collection, a list or one feature. The
      class is the classification, else the object's name, else 'unnamed'.
    - JSON of CAMELYON16's polygons (NCRF's): the classes are 'positive' and 'negative'.

    Raises:
        AnnotationError: The file is not there or not one of these, or a vertex is not a pair of
            finite numbers.
    """
    try:
        data = path.read_bytes().removeprefix(codecs.BOM_UTF8)
    except OSError as error:
        raise AnnotationError(f'{path}: cannot be read: {error.strerror}') from error
    try:
        drawn, from_bounds = _drawn(data)
        regions = [_region(each) for each in drawn if each.rings]
        kinds = [each.kind for each in drawn if not each.rings]
    except formats.FormatError as error:
        raise AnnotationError(f'{path}: {error}') from error
    kinds += [_FLAT for region in regions for ring in (region.outer, *region.holes) if _flat(ring)]
    regions = [
        dataclasses.replace(region, holes=tuple(hole for hole in region.holes if not _flat(hole)))
        for region in regions
        if not _flat(region.outer)
    ]
    return Annotations(
        regions=tuple(regions),
        passed_over=collections.Counter(kinds),
        crossing=sum(any(map(crosses_itself, (r.outer, *r.holes))) for r in regions),
        from_bounds=from_bounds,
    )


def _flat(ring: np.ndarray) -> bool:
    return len(ring) < 3


def _drawn(data: bytes) -> tuple[list[formats.Drawn], bool]:
    """What is drawn, and whether its coordinates begin at the slide's bounds."""
    if data.lstrip()[:1] == b'<' or data[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        return formats.asap(data), False
    try:
        content = json.loads(data)
    except ValueError as error:
        raise formats.FormatError(f'neither XML nor JSON: {error}') from error
    if isinstance(content, dict) and ('positive' in content or 'negative' in content):
        return formats.ncrf(content), False
    return formats.geojson(content), True


def _region(drawn: formats.Drawn) -> Region:
    outer, *holes = (_outline(ring, drawn.place) for ring in drawn.rings)
    return Region(drawn.name, outer, tuple(holes))


def _outline(ring: Sequence, place: str) -> np.ndarray:
    """One outline, float64 `[n, 2]`, without the first vertex said again at the end."""
    try:
        vertices = np.array([(x, y) for x, y, *_ in ring], np.float64).reshape(-1, 2)
    except (TypeError, ValueError) as error:
        raise formats.FormatError(f'{place}: a vertex is not a pair of numbers: {error}') from error
    if not np.isfinite(vertices).all():
        raise formats.FormatError(f'{place}: a vertex is not finite; correct or delete it')
    if len(vertices) > 1 and (vertices[0] == vertices[-1]).all():
        vertices = vertices[:-1]
    return vertices
