"""The tissue of a slide, and how much of it each cell of a grid has."""

import dataclasses
import math
import pathlib

import numpy as np

from nic_jax.slides import tiling
from nic_jax.slides.overview import thumbnail
from nic_jax.slides.picture import PICTURE_SIDE
from nic_jax.slides.resample import area_resample
from nic_jax.slides.slide import Slide
from nic_jax.slides.tissue import read_mask, tissue_mask


@dataclasses.dataclass(frozen=True, eq=False)
class SlideTissue:
    """An overview of a slide and its tissue.

    Attributes:
        share: Share of tissue in each cell of the grid, float16 `[H, W]`.
        image: The overview, uint8 `[h, w, 3]`, fine enough for a picture.
        mask: Tissue, bool, of any resolution; it lies over the whole overview.
        origin: (x, y) of the overview's top-left corner, level-0 px.
        step: Level-0 px per overview pixel.
    """

    share: np.ndarray
    image: np.ndarray
    mask: np.ndarray
    origin: tuple[int, int]
    step: float


def find_tissue(
    slide: Slide, plan: tiling.Plan, *, mpp: float, mask: pathlib.Path | None = None
) -> SlideTissue:
    """Finds the tissue of a slide, by colour or by a mask.

    Args:
        slide: Open; its µm/px must be known.
        plan: Its grid.
        mpp: µm/px of the overview in which tissue is sought.
        mask: An image of the tissue of the whole of level 0, instead.

    Raises:
        SlideError: The overview cannot be read.
        ValueError: The mask cannot be read or does not fit.
    """
    # Of a small slide, finer than tissue needs: a picture one can see something in.
    finer = max(slide.bounds[2:]) * slide.mpp / PICTURE_SIDE
    image, step = thumbnail(slide, mpp=min(finer, mpp))
    origin = slide.bounds[:2]
    if mask is None:
        coarse, factor = _coarsen(image, mpp / (step * slide.mpp))
        tissue = tissue_mask(coarse, mpp=factor * step * slide.mpp)
        steps = (factor * step, factor * step)
        share = tiling.tissue_share(plan, tissue, origin=origin, step=steps)
    else:  # a mask image lies over the whole of level 0
        tissue = read_mask(mask, dimensions=slide.dimensions)
        scale = (slide.dimensions[0] / tissue.shape[1], slide.dimensions[1] / tissue.shape[0])
        share = tiling.tissue_share(plan, tissue, origin=(0, 0), step=scale)
        tissue = _cut(tissue, slide.bounds, scale)
    return SlideTissue(share=share, image=image, mask=tissue, origin=origin, step=step)


def _coarsen(image: np.ndarray, factor: float) -> tuple[np.ndarray, float]:
    """An overview averaged by area to `factor` times coarser pixels, and the factor, at least 1."""
    factor = max(1.0, factor)
    rows, columns = (math.ceil(length / factor) for length in image.shape[:2])
    coarse = area_resample(
        image, start_y=0, start_x=0, step_y=factor, step_x=factor, rows=rows, columns=columns
    )
    return coarse, factor


def _cut(mask: np.ndarray, bounds: tuple[int, int, int, int], scale: tuple[float, float]):
    """The part of a whole-slide mask that lies in the slide's bounds, for the picture."""
    x, y, width, height = bounds
    columns = slice(int(x / scale[0]), max(int(x / scale[0]) + 1, round((x + width) / scale[0])))
    rows = slice(int(y / scale[1]), max(int(y / scale[1]) + 1, round((y + height) / scale[1])))
    return mask[rows, columns]
