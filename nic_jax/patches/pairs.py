"""The pairs of contrastive training (Tellez et al., TPAMI 2019).

Half of the pairs are one location twice, to be augmented differently. Of the others, 75 % are two
locations beside each other in one slide, which do not overlap, and 25 % are of different slides.
"""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from nic_jax import workdir
from nic_jax.patches.store import PatchesError, PatchSet

SAME_SHARE = 0.5
ADJACENT_SHARE = 0.75  # of the pairs that are not the same location


class Counts(NamedTuple):
    """How many pairs of each kind."""

    same: int
    adjacent: int
    apart: int


@dataclasses.dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs of one subset.

    Attributes:
        indices: Indices of two patches of the set, and 1 where they are the same location, 0 where
            not: int32 `[N, 3]`, in a random order.
        counts: Of each kind.
        notes: What a user should be told.
    """

    indices: np.ndarray
    counts: Counts
    notes: tuple[str, ...]


def count_kinds(count: int, *, adjacent: bool = True) -> Counts:
    """The paper's shares of a number of pairs, rounded."""
    same = round(SAME_SHARE * count)
    beside = round(ADJACENT_SHARE * (count - same)) if adjacent else 0
    return Counts(same, beside, count - same - beside)


def draw_pairs(
    patches: PatchSet,
    subset: str,
    count: int,
    *,
    seed: int,
    pitch: Mapping[str, tuple[float, float]] | None = None,
) -> Pairs:
    """Draws pairs within one subset.

    Patches of one `source` (the case of a slide, the group of a tile) are never taken for those of
    different slides. Every location is used as often as any other, to one; so is every two beside
    each other.

    Args:
        patches: The set.
        subset: 'train', 'valid' or 'test'.
        count: N.
        seed: Of the draw, which depends on it and the set alone.
        pitch: The distance of neighbouring cells along x and y, level-0 px, of each slide (the
            column `name`). None for tiles, whose neighbours are not known: all different pairs are
            of different sources then.

    Raises:
        PatchesError: There are no patches, no two beside each other, or but one source.
    """
    members = patches.indices(subset)
    sources = patches.columns['source'][members]
    if not len(members):
        raise PatchesError(f'no patches for {subset}: no pairs of them; ask for 0 of them')
    rng = np.random.default_rng((seed, *subset.encode()))
    counts = count_kinds(count, adjacent=pitch is not None)
    notes = []
    if pitch is None:
        notes.append('positions are not known: all different pairs are of different sources')

    location = _evenly(rng, len(members), counts.same)
    same = np.stack([location, location], axis=1)
    beside = np.zeros((0, 2), int)
    if counts.adjacent:
        found = adjacent_pairs(patches, members, pitch)
        if not len(found):
            raise PatchesError(
                f'no two patches for {subset} lie beside each other; raise per_slide, or lower the '
                'threshold of tissue'
            )
        if len(found) < counts.adjacent:
            notes.append(
                f'{subset}: {counts.adjacent:,} pairs beside each other are drawn from '
                f'{len(found):,} different ones'
            )
        beside = found[_evenly(rng, len(found), counts.adjacent)]
    apart = different_sources(rng, sources, counts.apart, subset)

    drawn = np.concatenate([same, beside, apart])
    drawn = np.where(rng.random((len(drawn), 1)) < 0.5, drawn, drawn[:, ::-1])
    is_same = np.arange(len(drawn)) < counts.same
    indices = np.column_stack([members[drawn], is_same]).astype(np.int32)
    return Pairs(rng.permutation(indices), counts, tuple(notes))


def adjacent_pairs(
    patches: PatchSet, members: np.ndarray, pitch: Mapping[str, tuple[float, float]]
) -> np.ndarray:
    """All pairs of neighbouring cells (of eight) in one slide, each once.

    Args:
        patches: The set.
        members: Indices into it, int `[n]`.
        pitch: Of each slide, see `draw_pairs`.

    Returns:
        Indices into `members`, int `[K, 2]`.
    """
    names = patches.columns['name'][members]
    found = [np.zeros((0, 2), int)]
    for name in np.unique(names):
        here = np.flatnonzero(names == name)
        cells = [
            np.rint((at - at.min()) / step).astype(int)
            for at, step in zip(
                (patches.columns[axis][members[here]].astype(float) for axis in 'xy'),
                pitch[str(name)],
                strict=True,
            )
        ]
        at = np.full((cells[1].max() + 3, cells[0].max() + 3), -1)  # a margin for neighbours
        row, column = cells[1] + 1, cells[0] + 1
        at[row, column] = here
        for down, right in ((0, 1), (1, -1), (1, 0), (1, 1)):
            other = at[row + down, column + right]
            found.append(np.stack([here, other], axis=1)[other >= 0])
    return np.concatenate(found)


def save_pairs(folder: pathlib.Path, subset: str, pairs: Pairs) -> None:
    """Writes FOLDER/pairs_SUBSET.npy, int32 `[N, 3]`."""
    workdir.save_array(_path(folder, subset), pairs.indices)


def has_pairs(folder: pathlib.Path, subset: str) -> bool:
    """Whether there are pairs of a subset."""
    return _path(folder, subset).exists()


def load_pairs(folder: pathlib.Path, subset: str) -> np.ndarray:
    """The pairs of a subset, int32 `[N, 3]`, as `Pairs.indices` has them."""
    return np.load(_path(folder, subset))


def _path(folder: pathlib.Path, subset: str) -> pathlib.Path:
    return folder / f'pairs_{subset}.npy'


def _evenly(rng: np.random.Generator, available: int, count: int) -> np.ndarray:
    """Draws `count` of the first numbers so that each is drawn as often as any other, to one."""
    rounds = -(-count // available)
    order = [rng.permutation(available) for _ in range(rounds)]
    return np.concatenate([np.zeros(0, int), *order])[:count]


def different_sources(
    rng: np.random.Generator, sources: np.ndarray, count: int, subset: str
) -> np.ndarray:
    """Draws pairs of different sources: any patch, and one of all that are not of its source.

    Args:
        rng: Of the draw.
        sources: The source of each patch, `[n]`.
        count: Of pairs, N.
        subset: Its name, for the message.

    Returns:
        Indices of patches, int `[N, 2]`.

    Raises:
        PatchesError: There is but one source.
    """
    if not count:
        return np.zeros((0, 2), int)
    names, source, sizes = np.unique(sources, return_inverse=True, return_counts=True)
    if len(names) < 2:
        raise PatchesError(
            f'all patches for {subset} are of {str(names[0])!r}: no pairs of different slides; let '
            'train and valid have two cases (or sources of tiles) or more each, or ask for 0 pairs'
        )
    order = np.argsort(source, kind='stable')  # the patches of a source, one after another
    first = np.cumsum(sizes) - sizes
    one = _evenly(rng, len(sources), count)
    own = source[one]
    place = rng.integers(len(sources) - sizes[own])
    other = order[np.where(place < first[own], place, place + sizes[own])]
    return np.stack([one, other], axis=1)
