"""Batches of crops for training: batch k is a pure function of (seed, k)."""

import dataclasses
import functools
import hashlib
from collections.abc import Iterator, Sequence

import numpy as np

from nic_jax.classifiers import crops
from nic_jax.grids import GridLike
from nic_jax.prefetch import default_workers, map_ahead

# How the slides of a batch are drawn: a class, then a slide of it; any slide; or different cases,
# a slide of each, so that every patient is in a risk set once.
DRAWS = {'classification': 'classes', 'regression': 'slides', 'survival': 'cases'}


@dataclasses.dataclass(frozen=True, eq=False)
class Examples:
    """Grids and their labels.

    Attributes:
        grids: One a slide, opened; read when a crop is asked for.
        targets: [N], integers from 0 on for classes, floats for values; of survival (time, event),
            floats [N, 2].
        case_ids: The patient of each.
    """

    grids: Sequence[GridLike]
    targets: np.ndarray
    case_ids: Sequence[str]
    _centres: dict = dataclasses.field(default_factory=dict, init=False, repr=False)

    def __post_init__(self):
        if not len(self.grids) == len(self.targets) == len(self.case_ids) or not len(self.grids):
            raise ValueError(
                f'{len(self.grids)} grids, {len(self.targets)} targets and {len(self.case_ids)} '
                'case_ids: give one target and case a grid, and at least one of them'
            )
        if not np.isfinite(self.targets).all():
            raise ValueError('targets must be finite; leave slides without a label out')
        if len(sizes := {grid.code_size for grid in self.grids}) > 1:
            raise ValueError(f'grids of different code sizes {sorted(sizes)} in one training')

    @functools.cached_property
    def members(self) -> list[np.ndarray]:
        """Indices of the examples of each class present."""
        return [np.flatnonzero(self.targets == label) for label in np.unique(self.targets)]

    @functools.cached_property
    def slides_of_case(self) -> list[np.ndarray]:
        """Indices of the slides of each case, cases sorted."""
        cases = np.asarray(self.case_ids)
        return [np.flatnonzero(cases == case) for case in np.unique(cases)]

    def centres(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns `crops.cumulative_centres` of a grid, computed at its first use."""
        if index not in self._centres:
            self._centres[index] = crops.cumulative_centres(self.grids[index].encoded)
        return self._centres[index]

    def fingerprint(self) -> str:
        """A hash of slide ids, cases, targets, and what the grids were made from, in order."""
        digest = hashlib.sha256()
        for row in zip(self.grids, self.case_ids, self.targets.tolist(), strict=True):
            grid, case, target = row
            text = f'{grid.slide_id}\t{case}\t{target!r}\t{grid.fingerprint}\n'
            digest.update(text.encode())
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
    draw: str,
) -> list[Draw]:
    """Draws what batch `step` holds.

    Args:
        examples: The training set.
        step: k, from 0 on.
        seed: Of the training.
        batch: B.
        crop: R, cells.
        versions: Drawn from, each equally likely.
        draw: What is equally likely, one of the values of `DRAWS`; of 'cases' there must be B.
    """
    rng = np.random.default_rng((seed, step, *b'crops'))
    if draw == 'cases':
        cases = examples.slides_of_case
        drawn = [cases[case] for case in rng.choice(len(cases), batch, replace=False)]
    else:
        members = examples.members if draw == 'classes' else [np.arange(len(examples.targets))]
        drawn = [members[k] for k in rng.integers(len(members), size=batch)]
    draws = []
    for slides in drawn:
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
    draw: str,
    ahead: int = 4,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields batches `first` … `last` − 1 in order, read ahead of the training by threads.

    Yields:
        codes float32 [B, R, R, C] and the targets [B] or [B, 2].
    """

    def read(step: int) -> tuple[np.ndarray, np.ndarray]:
        draws = plan_batch(
            examples,
            step,
            seed=seed,
            batch=batch,
            crop=crop,
            versions=versions,
            draw=draw,
        )
        targets = examples.targets[[draw.index for draw in draws]]
        return read_batch(examples.grids, draws, crop=crop), targets

    workers = min(ahead, default_workers())
    return map_ahead(read, range(first, last), workers=workers, ahead=ahead)
