"""How much of a rectangle lies in polygons: along horizontal lines, exactly, all lines at once.

A region is anything with an `outer` outline and `holes`, vertices (x, y) float64 `[n, 2]`. A point
is inside where the outline winds around it, in whatever sense and however often, and no hole does.
Where regions overlap, the overlap counts once.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

# Lines in a rectangle. Along x areas are exact; along y an edge that runs level is placed to the
# nearest line, so each such edge may be off by 1/64 of the height, and slanting ones by far less.
LINES = 32
_ROWS_AT_ONCE = 256  # bounds memory where every rectangle has a y of its own
_PAIRS_AT_ONCE = 1 << 20


class _Stretches(NamedTuple):
    """Disjoint intervals [start, end) of lines, sorted by line and start: arrays `[K]`."""

    line: np.ndarray
    start: np.ndarray
    end: np.ndarray


def shares(regions: Sequence, positions: np.ndarray, size: tuple[float, float]) -> np.ndarray:
    """The share of each rectangle that is inside any of the regions.

    Args:
        regions: Of any number.
        positions: (x, y) of the rectangles' top-left corners, float64 `[N, 2]`.
        size: Width and height of all of them, in the same unit.

    Returns:
        float64 `[N]` in [0, 1], within 1/64 for each level edge that crosses a rectangle.
    """
    found = np.zeros(len(positions))
    if not regions:
        return found
    width, height = size
    offsets = (np.arange(LINES) + 0.5) * (height / LINES)
    for chosen, tops, row in _by_rows(positions):
        heights, number = np.unique(tops[:, None] + offsets, return_inverse=True)
        stretches = _covered(regions, heights)
        lines = number.reshape(len(tops), LINES)[row]  # [n, LINES]
        left = positions[chosen, 0, None]
        lengths = _length_until(stretches, lines, left + width)
        lengths -= _length_until(stretches, lines, left)
        found[chosen] = lengths.mean(axis=1) / width
    return np.clip(found, 0, 1)


def inside(regions: Sequence, points: np.ndarray) -> np.ndarray:
    """Whether each point (x, y), float64 `[N, 2]`, is inside any of the regions, bool `[N]`."""
    found = np.zeros(len(points), bool)
    if not regions:
        return found
    for chosen, lines, row in _by_rows(points):
        stretches = _covered(regions, lines)
        if len(stretches.line):
            x = points[chosen, 0]
            last = _last_started(stretches, row, x)
            found[chosen] = (stretches.line[last] == row) & (
                (stretches.start[last] <= x) & (x < stretches.end[last])
            )
    return found


def crosses_itself(ring: np.ndarray) -> bool:
    """Whether two edges of an outline, float64 `[n, 2]`, cross; touching is no crossing."""
    begin, end = ring, np.roll(ring, -1, axis=0)
    order = np.argsort(np.minimum(begin[:, 0], end[:, 0]), kind='stable')
    begin, end = begin[order], end[order]
    low, high = np.minimum(begin, end), np.maximum(begin, end)
    # Edge i is compared with those after it that begin, along x, before it ends.
    count = np.searchsorted(low[:, 0], high[:, 0], side='right') - np.arange(len(ring)) - 1
    cuts = np.searchsorted(np.cumsum(count), np.arange(0, max(1, count.sum()), _PAIRS_AT_ONCE))
    for first, last in zip(cuts, [*cuts[1:], len(ring)], strict=True):
        one = np.repeat(np.arange(first, last), count[first:last])
        other = one + 1 + _count_up(count[first:last])
        near = (low[one, 1] <= high[other, 1]) & (low[other, 1] <= high[one, 1])
        a, b, c, d = begin[one[near]], end[one[near]], begin[other[near]], end[other[near]]
        parted = _side(a, b, c) * _side(a, b, d) < 0
        if (parted & (_side(c, d, a) * _side(c, d, b) < 0)).any():
            return True
    return False


def _by_rows(positions: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Some rows of positions at a time: their indices, the rows' y, and the row of each."""
    ys, row = np.unique(positions[:, 1], return_inverse=True)
    order = np.argsort(row, kind='stable')
    firsts = np.arange(0, len(ys), _ROWS_AT_ONCE)
    for first, chosen in zip(
        firsts, np.split(order, np.searchsorted(row[order], firsts[1:])), strict=False
    ):
        yield chosen, ys[first : first + _ROWS_AT_ONCE], row[chosen] - first


def _covered(regions: Sequence, lines: np.ndarray) -> _Stretches:
    """What the regions cover of horizontal lines at ascending y, float64 `[L]`."""
    rings = [ring for region in regions for ring in (region.outer, *region.holes)]
    region = np.repeat(np.arange(len(regions)), [1 + len(region.holes) for region in regions])
    hole = np.array([index > 0 for region in regions for index in range(1 + len(region.holes))])

    # Rings: where their winding number is not zero.
    ring, line, x, turn = _crossings(rings, lines)
    ring_line, start, end = _stretches(line * len(rings) + ring, x, turn, lambda depth: depth != 0)
    line, ring = np.divmod(ring_line, len(rings))
    # Regions: in the outline and in no hole.
    weight = np.where(hole[ring], -1, 1)
    found = _join(line * len(regions) + region[ring], start, end, weight)
    # All regions: in any.
    return _join(found.line // len(regions), found.start, found.end, np.ones(len(found.line), int))


def _crossings(rings: Sequence[np.ndarray], lines: np.ndarray):
    """Where edges cross lines: of which ring, which line, at which x, upwards (−1) or down (1)."""
    begin = np.concatenate(rings)
    end = np.concatenate([np.roll(ring, -1, axis=0) for ring in rings])
    ring = np.repeat(np.arange(len(rings)), list(map(len, rings)))
    # Half open, so that a vertex on a line is crossed once.
    first = np.searchsorted(lines, np.minimum(begin[:, 1], end[:, 1]))
    count = np.searchsorted(lines, np.maximum(begin[:, 1], end[:, 1])) - first
    edge = np.repeat(np.arange(len(begin)), count)
    line = first[edge] + _count_up(count)
    (x0, y0), (x1, y1) = begin[edge].T, end[edge].T
    x = x0 + (lines[line] - y0) / (y1 - y0) * (x1 - x0)
    return ring[edge], line, x, np.where(y1 > y0, 1, -1)


def _join(group: np.ndarray, start: np.ndarray, end: np.ndarray, weight: np.ndarray) -> _Stretches:
    """Where the weights of a group's stretches sum to more than nothing."""
    return _stretches(
        np.concatenate([group, group]),
        np.concatenate([start, end]),
        np.concatenate([weight, -weight]),
        lambda depth: depth > 0,
    )


def _stretches(group: np.ndarray, x: np.ndarray, step: np.ndarray, kept) -> _Stretches:
    """Between neighbouring x of a group, where the sum of the steps so far is one to keep.

    The steps of each group sum to zero, so that one running sum serves them all.
    """
    order = np.lexsort((x, group))
    group, x = group[order], x[order]
    here = np.flatnonzero(kept(np.cumsum(step[order])))
    here = here[x[here] < x[here + 1]]
    return _Stretches(group[here], x[here], x[here + 1])


def _length_until(stretches: _Stretches, line: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Covered length of all lines before, and of this one up to x, broadcast."""
    line, x = np.broadcast_arrays(line, x)
    if not len(stretches.line):
        return np.zeros(x.shape)
    lengths = stretches.end - stretches.start
    before = np.cumsum(lengths) - lengths
    last = _last_started(stretches, line, x)
    own = np.clip(x - stretches.start[last], 0, lengths[last])
    own = np.where(stretches.line[last] < line, lengths[last], own)
    return np.where(stretches.line[last] > line, 0, before[last] + own)


def _last_started(stretches: _Stretches, line: np.ndarray, x: np.ndarray) -> np.ndarray:
    """The last stretch that begins at or before each (line, x); the first one where none does."""
    low, high = stretches.start.min(), stretches.end.max()
    span = 2 * (high - low) + 1
    flat = stretches.line * span + (stretches.start - low)
    sought = line * span + np.clip(x - low, 0, high - low)
    return np.maximum(np.searchsorted(flat, sought, side='right') - 1, 0)


def _count_up(count: np.ndarray) -> np.ndarray:
    """0 … count − 1 for each count, one after another."""
    return np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)


def _side(a: np.ndarray, b: np.ndarray, point: np.ndarray) -> np.ndarray:
    """On which side of the lines a → b points lie: its sign."""
    u, v = b - a, point - a
    return np.sign(u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0])
