"""Batches of training patches: the k-th is a pure function of (seed, k)."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from nic_jax.patches.store import Parts

VALID_BATCH = 512
Make = Callable[[], dict[str, np.ndarray]]


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """What an encoder may learn from: one set of patches.

    Attributes:
        pixels: uint8 `[N, P, P, channels]`, indexed by arrays of indices.
        train: Indices of the patches that train, int `[n]`.
        valid: Of those that validate.
        labels: int32 `[N]`, −1 where there is none; None for a set without.
        classes: Names of the classes.
        pairs: For each of 'train' and 'valid' two indices and whether they are one place,
            int32 `[n, 3]`; None for a set without.
    """

    pixels: np.ndarray | Parts
    train: np.ndarray
    valid: np.ndarray
    labels: np.ndarray | None = None
    classes: tuple[str, ...] = ()
    pairs: dict[str, np.ndarray] | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Batches:
    """Attributes: `train`, k -> the k-th batch; `valid`, the batches of the validation."""

    train: Callable[[int], dict[str, np.ndarray]]
    valid: Sequence[Make]


def join(sources: Sequence[Source]) -> Source:
    """Several sets as one without labels, for objectives that need none.

    Raises:
        ValueError: Their patches differ in size, or some have pairs and others none.
    """
    if len(sources) == 1:
        return sources[0]
    shapes = {source.pixels.shape[1:] for source in sources}
    if len(shapes) > 1:
        raise ValueError(f'sets of patches of different sizes, {sorted(shapes)}, make no batch')
    starts = np.cumsum([0] + [len(source.pixels) for source in sources])[:-1]
    pairs = None
    if all(source.pairs is not None for source in sources):
        pairs = {
            subset: np.concatenate(
                [
                    source.pairs[subset] + np.array([start, start, 0])
                    for source, start in zip(sources, starts, strict=True)
                ]
            )
            for subset in ('train', 'valid')
        }
    train, valid = (
        np.concatenate(
            [getattr(source, name) + start for source, start in zip(sources, starts, strict=True)]
        )
        for name in ('train', 'valid')
    )
    return Source(Parts([source.pixels for source in sources]), train, valid, pairs=pairs)


def plain(source: Source, *, batch: int, seed: int, devices: int) -> Batches:
    """Patches alone: `patches` `[B, P, P, channels]`."""
    return Batches(
        train=lambda k: {'patches': source.pixels[_rng(seed, k).choice(source.train, batch)]},
        valid=[
            lambda part=part: {'patches': source.pixels[part]}
            for part in _in_turn(source.valid, devices)
        ],
    )


def paired(source: Source, *, batch: int, seed: int, devices: int) -> Batches:
    """Pairs: `pairs` `[B, 2, P, P, channels]` and `same` bool `[B]`."""

    def take(pairs: np.ndarray) -> dict[str, np.ndarray]:
        return {'pairs': source.pixels[pairs[:, :2]], 'same': pairs[:, 2] == 1}

    return Batches(
        train=lambda k: take(_rng(seed, k).choice(source.pairs['train'], batch)),
        valid=[lambda part=part: take(part) for part in _in_turn(source.pairs['valid'], devices)],
    )


def labelled(sources: Sequence[Source], *, batch: int, seed: int, devices: int) -> Batches:
    """Patches of T tasks: `patches` `[B, T, P, P, channels]` and `labels` int32 `[B, T]`.

    Every task has as many patches in a batch, and every class of a task is as likely. The tasks'
    validation sets are gone through side by side; a smaller one begins again.

    Raises:
        ValueError: A class without training patches, or a task without any to validate.
    """
    by_class = []
    for source in sources:
        known = source.train[source.labels[source.train] >= 0]
        members = [known[source.labels[known] == each] for each in range(len(source.classes))]
        if empty := [
            name for name, found in zip(source.classes, members, strict=True) if not len(found)
        ]:
            raise ValueError(f'no training patches of class {", ".join(empty)}; add some')
        by_class.append(members)
    valid = [source.valid[source.labels[source.valid] >= 0] for source in sources]
    if not all(map(len, valid)):
        raise ValueError('a task has no labelled patches to validate; give it some')
    longest = max(map(len, valid))
    valid = np.stack([np.resize(indices, longest) for indices in valid], axis=1)  # [n, T]

    def take(indices: np.ndarray) -> dict[str, np.ndarray]:
        columns = list(zip(sources, indices.T, strict=True))
        return {
            'patches': np.stack([source.pixels[column] for source, column in columns], axis=1),
            'labels': np.stack([source.labels[column] for source, column in columns], axis=1),
        }

    def draw(k: int) -> dict[str, np.ndarray]:
        rng = _rng(seed, k)
        columns = []
        for members in by_class:
            classes = rng.integers(len(members), size=batch)
            sizes = np.array([len(found) for found in members])
            places = (rng.random(batch) * sizes[classes]).astype(int)
            columns.append([members[c][place] for c, place in zip(classes, places, strict=True)])
        return take(np.array(columns).T)

    return Batches(train=draw, valid=[lambda p=part: take(p) for part in _in_turn(valid, devices)])


def _rng(seed: int, k: int) -> np.random.Generator:
    return np.random.default_rng((seed, k, *b'patches'))


def _in_turn(indices: np.ndarray, devices: int) -> list[np.ndarray]:
    """Parts of one size that the devices can share; at most a few at the end are left out."""
    parts = -(-len(indices) // VALID_BATCH)
    size = len(indices) // max(1, parts) // devices * devices
    if not size:
        raise ValueError(
            f'{len(indices)} patches to validate are fewer than the {devices} devices: give more'
        )
    return [indices[start : start + size] for start in range(0, parts * size, size)]
