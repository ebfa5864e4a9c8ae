"""How large annotated lesions are: their area, and the diameter that tells macro from micro.

A macro-metastasis is longer than 2 mm, a micro-metastasis is not (the rule of CAMELYON17's
evaluation, after the TNM). The longest diameter is that of the longest single outline: lesions
beside each other are not joined.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Sequence

import numpy as np
from scipy.spatial import ConvexHull, QhullError
from scipy.spatial.distance import pdist

from nic_jax.patches.annotations import Region, read_annotations
from nic_jax.patches.coverage import shares
from nic_jax.slides.slide import open_slide

MACRO_MM = 2.0
# What annotations call tumour, and what lies in it and is none (`_2` of CAMELYON16's training
# slides, `Exclusion` of its test slides). Outlines of other names count as tumour, which is told.
TUMOUR = frozenset(('_0', '_1', 'tumor', 'tumour', 'metastases', 'positive'))
NO_TUMOUR = frozenset(('_2', 'exclusion', 'normal', 'negative'))

_STRIPS = 64  # of an outline's height, of 32 lines each


@dataclasses.dataclass(frozen=True)
class Lesions:
    """The lesions of one slide.

    Attributes:
        area_mm2: Of all together; what overlaps counts once.
        longest_mm: Of the longest outline; 0 where there is none.
        unknown: Names that are neither in `TUMOUR` nor in `NO_TUMOUR`, counted as tumour.
    """

    area_mm2: float
    longest_mm: float
    unknown: tuple[str, ...]

    @property
    def size(self) -> str:
        """'macro' or 'micro'."""
        return 'macro' if self.longest_mm > MACRO_MM else 'micro'


def measure(regions: Sequence[Region], mpp: float) -> Lesions:
    """Measures annotated regions.

    Args:
        regions: Of one slide, level-0 px.
        mpp: µm/px of level 0.
    """
    tumour = [region for region in regions if region.name.lower() not in NO_TUMOUR]
    holes = tuple(region.outer for region in regions if region.name.lower() in NO_TUMOUR)
    cut = [Region(each.name, each.outer, each.holes + holes) for each in tumour]
    longest = max((_diameter(region.outer) for region in tumour), default=0.0)
    return Lesions(
        area_mm2=float(_area(cut) * mpp**2 / 1e6),
        longest_mm=float(longest * mpp / 1e3),
        unknown=tuple(sorted({each.name for each in tumour if each.name.lower() not in TUMOUR})),
    )


def measure_files(annotation: pathlib.Path, slide: pathlib.Path, mpp: float | None) -> Lesions:
    """Measures the lesions of a file of annotations; those of unchanged files once a process.

    Args:
        annotation: The file.
        slide: What it belongs to.
        mpp: µm/px of level 0; None: the slide's own.

    Raises:
        ValueError: The annotations or the slide cannot be read, or µm/px are not known.
    """
    stamps = tuple((path.stat().st_size, path.stat().st_mtime_ns) for path in (annotation, slide))
    return _measure_files(annotation, slide, mpp, stamps)


@functools.cache
def _measure_files(annotation, slide, mpp, stamps) -> Lesions:
    del stamps  # tells files that have changed
    regions = read_annotations(annotation).regions
    if mpp is None:
        opened = open_slide(slide)
        try:
            mpp = opened.mpp
        finally:
            opened.close()
    return measure(regions, mpp)


def _area(regions: Sequence[Region]) -> float:
    """What the regions cover, px²: exact along x, in `_STRIPS` · 32 lines or more along y."""
    if not regions:
        return 0.0
    left = min(region.outer[:, 0].min() for region in regions)
    right = max(region.outer[:, 0].max() for region in regions)
    total = 0.0
    for top, bottom in _stretches(regions):
        height = (bottom - top) / _STRIPS
        tops = top + height * np.arange(_STRIPS)
        positions = np.stack([np.full(_STRIPS, left), tops], axis=1)
        if right > left and height > 0:
            found = shares(regions, positions, (right - left, height))
            total += found.sum() * (right - left) * height
    return total


def _stretches(regions: Sequence[Region]) -> list[tuple[float, float]]:
    """The stretches of y in which there are outlines; small ones get lines as narrow as need be."""
    spans = sorted((region.outer[:, 1].min(), region.outer[:, 1].max()) for region in regions)
    joined = [spans[0]]
    for top, bottom in spans[1:]:
        if top > joined[-1][1]:
            joined.append((top, bottom))
        else:
            joined[-1] = (joined[-1][0], max(joined[-1][1], bottom))
    return joined


def _diameter(outline: np.ndarray) -> float:
    """The distance of the two vertices that are farthest apart, px."""
    try:
        corners = outline[ConvexHull(outline).vertices]
    except QhullError:  # all on one line
        corners = outline[[*outline.argmin(axis=0), *outline.argmax(axis=0)]]
    return pdist(corners).max()
