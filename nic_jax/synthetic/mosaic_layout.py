"""Where a mosaic's tissue and lesion lie: cells of a grid, pure functions of (seed, index).

Two labels, each with slides of its own. *Presence*: is there a lesion, of whatever size? Any bag of
patches can tell. *Arrangement*: do the tumour tiles form one mass or lie scattered? Slides 2k and
2k + 1 have the same number of them, so that no bag of patches can tell.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from nic_jax.synthetic.mosaic_shapes import draw_mass, draw_scattered, draw_tissue

VALUES = {'presence': ('normal', 'tumour'), 'arrangement': ('mass', 'scattered')}
SUBSETS = ('train', 'test')

_JPEG_BLOCK = 8  # px


@dataclasses.dataclass(frozen=True)
class MosaicStudy:
    """The settings of a cohort of mosaics.

    Attributes:
        cells: Cells along a side of a slide.
        train_slides: Of each label; more of them leave the first ones as they are.
        test_slides: Of each label.
        parts: Training slides, and the tiles they are made of, are dealt into so many parts.
        pitch: Side of a tile in px; tiles lie side by side.
        patch_size: Side in px of a tile's central part, which is encoded.
        mpp: µm/px that slides are said to have.
        lesion_min: Fewest tumour tiles of a slide with a lesion (presence).
        lesion_max: Most of them; numbers between are drawn log-uniformly.
        arrangement_min: Fewest tumour tiles of a slide (arrangement).
        arrangement_max: Most of them.
        tissue_min: Least share of the cells that is tissue.
        tissue_max: Greatest share; shares between are drawn uniformly.
    """

    cells: int = 40
    train_slides: int = 400
    test_slides: int = 200
    parts: int = 4
    pitch: int = 96
    patch_size: int = 64
    mpp: float = 1.0
    lesion_min: int = 1
    lesion_max: int = 300
    arrangement_min: int = 8
    arrangement_max: int = 150
    tissue_min: float = 0.35
    tissue_max: float = 0.6

    def __post_init__(self):
        if not 0 < self.patch_size <= self.pitch:
            raise ValueError(f'{self.patch_size=} must be from 1 to {self.pitch=}')
        if self.pitch % _JPEG_BLOCK or (self.pitch - self.patch_size) % (2 * _JPEG_BLOCK):
            raise ValueError(
                f'{self.pitch=} must be a multiple of {_JPEG_BLOCK}, and {self.patch_size=} less '
                f'by a multiple of {2 * _JPEG_BLOCK}: then no block of JPEG lies in two tiles'
            )
        for name in ('train_slides', 'test_slides'):
            if getattr(self, name) < 2 or getattr(self, name) % 2:
                raise ValueError(
                    f'{name}={getattr(self, name)} must be even and 2 or more: half of each class'
                )
        if self.parts < 1:
            raise ValueError(f'{self.parts=} must be 1 or more')
        if not (self.mpp > 0 and math.isfinite(self.mpp)):
            raise ValueError(f'{self.mpp=} must be a positive number of µm/px')
        if not 0 < self.tissue_min <= self.tissue_max <= 1:
            raise ValueError(f'{self.tissue_min=} and {self.tissue_max=} must be in (0, 1]')
        fewest = self.tissue_cells(self.tissue_min)
        for name in ('lesion', 'arrangement'):
            low, high = getattr(self, f'{name}_min'), getattr(self, f'{name}_max')
            if not 1 <= low <= high <= fewest:
                raise ValueError(
                    f'{name}_min={low} and {name}_max={high} must be from 1 to {fewest}, the cells '
                    f'of tissue where they are fewest; lower them, or raise tissue_min or cells'
                )

    @property
    def border(self) -> int:
        """Width in px of what is around a tile's central part; the slide begins that far inside."""
        return (self.pitch - self.patch_size) // 2

    @property
    def side(self) -> int:
        """Side of a slide in px."""
        return self.cells * self.pitch - 2 * self.border

    def tissue_cells(self, share: float) -> int:
        """Cells of tissue that a share of all comes to."""
        return round(share * self.cells**2)


@dataclasses.dataclass(frozen=True, eq=False)
class MosaicLayout:
    """Where the tissue and the lesion of one slide are.

    Attributes:
        slide_id: See the function of that name.
        label: 'presence' or 'arrangement'.
        value: Its value, one of `VALUES`.
        part: Of the training slides and tiles; None for test slides.
        tissue: bool `[cells, cells]`, one connected piece.
        lesion: Cells of tumour, bool `[cells, cells]`, all of them tissue.
    """

    slide_id: str
    label: str
    value: str
    part: int | None
    tissue: np.ndarray
    lesion: np.ndarray

    @property
    def lesion_area(self) -> int:
        """Tumour tiles."""
        return int(self.lesion.sum())


def draw_layout(
    study: MosaicStudy,
    *,
    label: str,
    subset: str,
    index: int,
    seed: int,
    outlines: Sequence[np.ndarray] = (),
) -> MosaicLayout:
    """The layout of one slide: a pure function of its arguments, whatever the numbers of slides.

    Args:
        study: The settings.
        label: 'presence' or 'arrangement'.
        subset: 'train' or 'test'.
        index: Of the slide in its subset.
        seed: Of the cohort, not negative.
        outlines: Of lesions, float64 `[n, 2]`, of area 1 around the origin. A mass has the shape of
            one of them, turned and mirrored; it is grown at random where there are none.

    Raises:
        ValueError: No such label or subset.
    """
    if label not in VALUES or subset not in SUBSETS:
        raise ValueError(
            f'{label=} must be one of {", ".join(VALUES)}; {subset=} one of {", ".join(SUBSETS)}'
        )
    key = f'{label}/{subset}'.encode()
    rng = np.random.default_rng((seed, *key, index))
    value = VALUES[label][index % 2]
    share = rng.uniform(study.tissue_min, study.tissue_max)
    tissue = draw_tissue(study.cells, study.tissue_cells(share), rng)
    lesion = np.zeros_like(tissue)
    # Both slides of a pair draw the same number.
    pair = np.random.default_rng((seed, *key, *b'area', index // 2))
    bounds = (
        (study.lesion_min, study.lesion_max)
        if label == 'presence'
        else (study.arrangement_min, study.arrangement_max)
    )
    area = _log_uniform(*bounds, pair)
    if value == 'scattered':
        lesion = draw_scattered(tissue, area, rng)
    elif value != 'normal':
        lesion = draw_mass(tissue, area, outlines, rng)
    return MosaicLayout(
        slide_id=slide_id(label, subset, index),
        label=label,
        value=value,
        part=index // 2 % study.parts if subset == 'train' else None,
        tissue=tissue,
        lesion=lesion,
    )


def slide_id(label: str, subset: str, index: int) -> str:
    """What a slide is called."""
    return f'{label}/{subset}_{index:04d}'


def _log_uniform(low: int, high: int, rng: np.random.Generator) -> int:
    """A whole number from `low` to `high`, the logarithm of it about uniform."""
    return min(high, int(math.exp(rng.uniform(math.log(low), math.log(high + 1)))))
