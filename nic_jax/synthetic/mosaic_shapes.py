"""Shapes made of exactly so many cells of a grid: tissue, a lesion in one mass, scattered cells."""

import heapq
import math
from collections.abc import Sequence

import numpy as np
import scipy.ndimage

from nic_jax.patches.annotations import Region
from nic_jax.patches.coverage import inside

_PLACES = 16  # tried for an outline; the one with most of it in the tissue is taken
_NEIGHBOURS = ((-1, 0), (1, 0), (0, -1), (0, 1))


def grow(wish: np.ndarray, allowed: np.ndarray, count: int) -> np.ndarray:
    """A connected set of exactly `count` cells, bool `[h, w]`.

    Begins where the wish is greatest, and adds the most wished of the cells that share a side with
    it, one at a time.

    Args:
        wish: float `[h, w]`.
        allowed: Cells that may be taken, bool `[h, w]`.
        count: At most as many as are allowed and connected.
    """
    taken, seen = np.zeros_like(allowed), ~allowed
    first = np.unravel_index(np.argmax(np.where(allowed, wish, -np.inf)), wish.shape)
    queue = [(-wish[first], *first)]
    seen[first] = True
    for _ in range(count):
        _, row, column = heapq.heappop(queue)
        taken[row, column] = True
        for down, right in _NEIGHBOURS:
            y, x = row + down, column + right
            if 0 <= y < wish.shape[0] and 0 <= x < wish.shape[1] and not seen[y, x]:
                seen[y, x] = True
                heapq.heappush(queue, (-wish[y, x], y, x))
    return taken


def draw_tissue(cells: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """An irregular, connected piece of tissue, bool `[cells, cells]`: an ellipse with noise."""
    wish = 0.7 * _noise(cells, cells / 8, rng) + 0.25 * _noise(cells, cells / 25, rng)
    angle, stretch = rng.uniform(0, np.pi), rng.uniform(1, 1.35)
    centre_x, centre_y = rng.uniform(-0.12, 0.12, 2)
    x, y = _centres(cells).T.reshape(2, cells, cells) * 2 / cells - 1  # in (−1, 1)
    x, y = x - centre_x, y - centre_y
    along = (math.cos(angle) * x + math.sin(angle) * y) / stretch
    across = (math.cos(angle) * y - math.sin(angle) * x) * stretch
    wish -= 3 * (along**2 + across**2)
    return grow(wish, np.ones((cells, cells), bool), count)


def draw_mass(
    tissue: np.ndarray, area: int, outlines: Sequence[np.ndarray], rng: np.random.Generator
) -> np.ndarray:
    """One connected lesion of `area` cells in the tissue, bool `[cells, cells]`."""
    cells = len(tissue)
    centres = _centres(cells)
    places = np.argwhere(tissue)[:, ::-1] + 0.5  # (x, y)
    if not len(outlines):
        middle = places[rng.integers(len(places))]
        distance = np.hypot(*(centres - middle).T).reshape(cells, cells)
        radius = math.sqrt(area / np.pi)
        return grow(0.35 * radius * _noise(cells, 1.2, rng) - distance, tissue, area)
    outline = outlines[rng.integers(len(outlines))] * math.sqrt(area)
    angle = rng.uniform(0, 2 * np.pi)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    outline = outline @ turn * (rng.choice((-1, 1)), 1)
    tried = places[rng.integers(len(places), size=_PLACES)] + rng.uniform(-0.5, 0.5, (_PLACES, 2))
    shapes = [outline + place for place in tried]
    covered = [inside([Region('', shape)], centres) & tissue.ravel() for shape in shapes]
    best = int(np.argmax([np.count_nonzero(each) for each in covered]))
    depth = _depth(shapes[best], centres).reshape(cells, cells)
    return grow(depth, tissue, area)


def draw_scattered(tissue: np.ndarray, area: int, rng: np.random.Generator) -> np.ndarray:
    """Random cells of the tissue, no two side by side while that is possible."""
    lesion, beside = np.zeros_like(tissue), np.zeros(np.array(tissue.shape) + 2, bool)
    cells = rng.permutation(np.argwhere(tissue))
    left = area
    for apart in (True, False):
        for row, column in cells:
            if not left:
                break
            if not lesion[row, column] and not (apart and beside[row + 1, column + 1]):
                lesion[row, column] = True
                left -= 1
                for down, right in _NEIGHBOURS:
                    beside[row + 1 + down, column + 1 + right] = True
    return lesion


def _noise(cells: int, sigma: float, rng: np.random.Generator) -> np.ndarray:
    """Smooth noise of standard deviation 1, float64 `[cells, cells]`."""
    noise = scipy.ndimage.gaussian_filter(rng.standard_normal((cells, cells)), sigma)
    return noise / max(noise.std(), 1e-9)


def _centres(cells: int) -> np.ndarray:
    """(x, y) of all cells' centres in cells, row by row, float64 `[cells², 2]`."""
    y, x = np.mgrid[:cells, :cells] + 0.5
    return np.stack([x.ravel(), y.ravel()], axis=1)


def _depth(outline: np.ndarray, points: np.ndarray) -> np.ndarray:
    """How far inside an outline points (x, y) are, float64 `[N]`; negative outside."""
    edges = np.roll(outline, -1, axis=0) - outline  # [n, 2]
    from_start = points[:, None] - outline  # [N, n, 2]
    length = np.maximum((edges**2).sum(axis=1), 1e-12)
    along = np.clip((from_start * edges).sum(axis=2) / length, 0, 1)
    distance = np.hypot(*np.moveaxis(from_start - along[..., None] * edges, 2, 0)).min(axis=1)
    return np.where(inside([Region('', outline)], points), distance, -distance)
