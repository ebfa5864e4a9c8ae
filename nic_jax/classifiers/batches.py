"""Batches of crops for training: batch k is a pure function of (seed, k)."""

import dataclasses
import functools
import hashlib
from collections.abc import Iterator, Sequence

import numpy as np

from nic_jax.classifiers import crops
from nic_jax.grids import GridLike
from nic_jax.prefetch import default_workers, map_ahead


@dataclasses.dataclass(frozen=True, eq=False)
class Examples:
    """Grids and their labels.

    Attributes:
        grids: One a slide, opened; read when a crop is asked for.
        targets: [N], integers from 0 on for classes, floats for values.
    """

    grids: Sequence[GridLike]
    targets: np.ndarray
    _centres: dict = dataclasses.field(default_factory=dict, init=False, repr=False)

    def __post_init__(self):
        if len(self.grids) != len(self.targets) or not len(self.grids):
            raise ValueError(
                f'{len(self.grids)} grids and {len(self.targets)} targets: give one target a grid, '
                'and at least one of them'
            )
        if not np.isfinite(self.targets).all():
            raise ValueError('targets must be finite; leave slides without a label out')
        if len(sizes := {grid.code_size for grid in self.grids}) > 1:
            raise ValueError(f'grids of different code sizes {sorted(sizes)} in one training')

    @functools.cached_property
    def members(self) -> list[np.ndarray]:
        """Indices of the examples of each class present."""
        return [np.flatnonzero(self.targets == label) for label in np.unique(self.targets)]

    def centres(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns `crops.cumulative_centres` of a grid, computed at its first use."""
        if index not in self._centres:
            self._centres[index] = crops.cumulative_centres(self.grids[index].encoded)
        return self._centres[index]

    def fingerprint(self) -> str:
        """A hash of slide ids, targets, and what the grids were made from, in order."""
        digest = hashlib.sha256()
        for grid, target in zip(self.grids, self.targets.tolist(), strict=True):
            digest.update(f'{grid.slide_id}\t{target!r}\t{grid.fingerprint}\n'.encode())
        return digest.hexdigest()


@dataclasses.dataclass(frozen=True)
class Draw:
    """One example of a batch: grid `index`, cropped from (top, left), turned by `version`."""

    index: int
    top: int
    left: int
    version: int


def plan_batch(
    examples: Examples,
    step: int,
    *,
    seed: int,
    batch: int,
    crop: int,
    versions: Sequence[int],
    balanced: bool,
) -> list[Draw]:
    """Draws what batch `step` holds.

    Args:
        examples: The training set.
        step: k, from 0 on.
        seed: Of the training.
        batch: B.
        crop: R, cells.
        versions: Drawn from, each equally likely.
        balanced: Every class equally likely, then a slide of it; else every slide.
    """
    rng = np.random.default_rng((seed, step, *b'crops'))
    members = examples.members if balanced else [np.arange(len(examples.targets))]
    draws = []
    for _ in range(batch):
        slides = members[rng.integers(len(members))]
        index = int(slides[rng.integers(len(slides))])
        shape = examples.grids[index].shape
        if crops.fits(shape, crop):
            corner = crops.centred_crop(shape, crop)
        else:
            corner = crops.draw_crop(examples.centres(index), shape, size=crop, rng=rng)
        draws.append(Draw(index, *corner, version=versions[rng.integers(len(versions))]))
    return draws


def read_batch(grids: Sequence[GridLike], draws: Sequence[Draw], *, crop: int) -> np.ndarray:
    """Reads the crops of a batch: float32 [B, R, R, C]."""
    codes = np.empty((len(draws), crop, crop, grids[0].code_size), np.float32)
    for row, draw in zip(codes, draws, strict=True):
        row[:] = grids[draw.index].crop(draw.top, draw.left, crop, draw.version)
    return codes


def training_batches(
    examples: Examples,
    *,
    first: int,
    last: int,
    seed: int,
    batch: int,
    crop: int,
    versions: Sequence[int],
    balanced: bool,
    ahead: int = 4,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields batches `first` … `last` − 1 in order, read ahead of the training by threads.

    Yields:
        codes float32 [B, R, R, C] and the targets [B].
    """

    def read(step: int) -> tuple[np.ndarray, np.ndarray]:
        draws = plan_batch(
            examples,
            step,
            seed=seed,
            batch=batch,
            crop=crop,
            versions=versions,
            balanced=balanced,
        )
        targets = examples.targets[[draw.index for draw in draws]]
        return read_batch(examples.grids, draws, crop=crop), targets

    workers = min(ahead, default_workers())
    return map_ahead(read, range(first, last), workers=workers, ahead=ahead)
