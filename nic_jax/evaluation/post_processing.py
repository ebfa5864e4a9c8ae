"""From a saliency map to the cells that it points out: noise removed, spurious activity rejected.

The paper asks for 'a simple general-purpose post-processing routine to denoise the heat maps and
reject spurious activity' before it compares them with masks (Tellez et al., IEEE TPAMI 2021), and
says no more. Ours: a Gaussian's mean over encoded cells, of evidence for and against; what is left
for the target; where that reaches a share of its maximum; of the connected parts, those that carry
a share of what the strongest one does. Nothing depends on the unit of the map, which methods and
networks differ in.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from scipy import ndimage

TOUCHING = np.ones((3, 3), bool)  # cells are neighbours over corners as well


@dataclasses.dataclass(frozen=True)
class PostProcessing:
    """How cells are chosen from a map.

    Attributes:
        sigma: Of the Gaussian, in cells; 0 for none.
        threshold: Share of the smooth map's maximum that a cell must reach.
        min_share: Share of the strongest part's sum that a part must reach; 0 keeps all parts, 1
            the strongest alone.
        fill: Whether holes in parts belong to them.
    """

    sigma: float = 1.0
    threshold: float = 0.3
    min_share: float = 0.5
    fill: bool = True

    def __post_init__(self):
        if not 0 <= self.sigma < math.inf:
            raise ValueError(f'sigma={self.sigma} must be 0 or more')
        for name in ('threshold', 'min_share'):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f'{name}={getattr(self, name)} must be from 0 to 1')


# What `choose` tries, the gentlest first.
GRID = tuple(
    PostProcessing(sigma, threshold, min_share, fill)
    for sigma, threshold, min_share, fill in itertools.product(
        (0.0, 0.5, 1.0, 2.0, 3.0),
        (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6),
        (0.0, 0.1, 0.5, 1.0),
        (False, True),
    )
)


class _Parts(NamedTuple):
    """Connected parts of a thresholded map, n of them.

    Attributes:
        labels: int `[H, W]`, from 1; 0 outside.
        sums: Of the smooth map in each, `[n]`.
    """

    labels: np.ndarray
    sums: np.ndarray

    def kept(self, min_share: float) -> np.ndarray:
        """Which parts are strong enough, bool `[n]`."""
        return self.sums >= min_share * self.sums.max(initial=0)


def apply(saliency: np.ndarray, settings: PostProcessing) -> np.ndarray:
    """The cells that a map points out, bool `[H, W]`; none where nothing in it is positive.

    Args:
        saliency: `[H, W]`, NaN where no cell is encoded.
        settings: How.
    """
    found = _parts(smooth(saliency, sigma=settings.sigma), ~np.isnan(saliency), settings)
    return np.concatenate([[False], found.kept(settings.min_share)])[found.labels]


def smooth(saliency: np.ndarray, *, sigma: float) -> np.ndarray:
    """What is positive of a map under a Gaussian, float64 `[H, W]`; 0 where no cell is encoded.

    Encoded cells alone are averaged, so that a map does not fade towards the edge of the tissue.
    Noise of both signs cancels out, which it would not if its negative part were cut off first.

    Args:
        saliency: `[H, W]`, NaN where no cell is encoded.
        sigma: In cells; 0 for none.
    """
    encoded = ~np.isnan(saliency)
    values = np.where(encoded, saliency, 0).astype(np.float64)
    if sigma > 0:
        weights = ndimage.gaussian_filter(encoded.astype(np.float64), sigma, mode='constant')
        sums = ndimage.gaussian_filter(values, sigma, mode='constant')
        values = np.divide(sums, weights, out=np.zeros_like(sums), where=encoded)
    return np.maximum(values, 0)


def choose(
    saliencies: Sequence[np.ndarray],
    masks: Sequence[np.ndarray],
    *,
    grid: Sequence[PostProcessing] = GRID,
) -> tuple[PostProcessing, float]:
    """The settings whose mean Jaccard index is best; of equals, the first.

    Validation images only: what is chosen on images flatters their own figures.

    Args:
        saliencies: Maps `[H, W]`, of any shapes.
        masks: The cells of each that should be pointed out, bool `[H, W]`; maps without any are
            passed over.
        grid: The settings to try, in order of preference.

    Returns:
        The settings and their mean Jaccard index.

    Raises:
        ValueError: No mask has a cell.
    """
    indices = [
        list(_jaccard_of_each(saliency, mask & ~np.isnan(saliency), grid))
        for saliency, mask in zip(saliencies, masks, strict=True)
        if (mask & ~np.isnan(saliency)).any()
    ]
    if not indices:
        raise ValueError(
            f'none of {len(masks)} masks has a cell: settings are chosen on images with lesions'
        )
    means = np.mean(indices, axis=0)
    best = int(np.argmax(means))
    return grid[best], float(means[best])


def _jaccard_of_each(
    saliency: np.ndarray, mask: np.ndarray, grid: Sequence[PostProcessing]
) -> Iterator[float]:
    """The Jaccard index under each of the settings; steps that some share are done once."""
    encoded, smooths, parts = ~np.isnan(saliency), {}, {}
    for settings in grid:
        if settings.sigma not in smooths:
            smooths[settings.sigma] = smooth(saliency, sigma=settings.sigma)
        key = settings.sigma, settings.threshold, settings.fill
        if key not in parts:
            found = _parts(smooths[settings.sigma], encoded, settings)
            cells = np.bincount(found.labels.ravel(), minlength=len(found.sums) + 1)[1:]
            hits = np.bincount(found.labels[mask], minlength=len(found.sums) + 1)[1:]
            parts[key] = found, cells, hits
        found, cells, hits = parts[key]
        kept = found.kept(settings.min_share)
        both = hits[kept].sum()
        yield both / (cells[kept].sum() + mask.sum() - both)


def _parts(values: np.ndarray, encoded: np.ndarray, settings: PostProcessing) -> _Parts:
    """The connected parts of what is high in a smooth map."""
    high = (values > 0) & (values >= settings.threshold * values.max(initial=0))
    if settings.fill:
        high = _filled(high) & encoded
    labels, count = ndimage.label(high, TOUCHING)
    sums = np.bincount(labels.ravel(), values.ravel(), minlength=count + 1)[1:]
    return _Parts(labels, sums)


def _filled(cells: np.ndarray) -> np.ndarray:
    """With what no path over edges of cells outside leads to the border from."""
    outside, count = ndimage.label(~cells)
    border = np.concatenate([outside[0], outside[-1], outside[:, 0], outside[:, -1]])
    open_ = np.zeros(count + 1, bool)
    open_[border] = True
    return cells | ~open_[outside]
