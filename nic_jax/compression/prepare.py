"""A slide made ready for encoding: opened, its tissue found, its grid laid."""

import dataclasses
import math
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from nic_jax import cohort
from nic_jax.compression import settings as settings_
from nic_jax.slides import tiling
from nic_jax.slides.overview import thumbnail
from nic_jax.slides.picture import PICTURE_SIDE, tissue_picture
from nic_jax.slides.resample import area_resample
from nic_jax.slides.slide import Slide, open_slide
from nic_jax.slides.tissue import read_mask, tissue_mask


@dataclasses.dataclass(frozen=True, eq=False)
class Prepared:
    """What encoding a slide needs.

    Attributes:
        entry: The slide's row of the cohort.
        slide: Open; whoever holds this closes it.
        plan: The grid.
        tissue: Share of tissue in each patch, float16 `[H, W]`.
        encode: Cells to encode, bool `[H, W]`.
        attributes: What the grid will say of itself.
        picture: Thumbnail with the tissue's contour and the grid.
    """

    entry: cohort.SlideEntry
    slide: Slide
    plan: tiling.Plan
    tissue: np.ndarray
    encode: np.ndarray
    attributes: Mapping[str, Any]
    picture: Image.Image


def prepare(
    entry: cohort.SlideEntry, asked: Mapping[str, Any], settings: settings_.CompressSettings
) -> Prepared:
    """Opens a slide, finds its tissue and lays its grid.

    Args:
        entry: The slide's row of the cohort.
        asked: What `settings.request` says of it.
        settings: How slides are cut and encoded.

    Raises:
        SlideError: The slide, or its overview, cannot be read.
        TilingError: The slide is coarser than asked.
        ValueError: The mask cannot be read or does not fit.
    """
    slide = open_slide(entry.path, mpp=entry.mpp, default_mpp=settings.default_mpp)
    try:
        plan = tiling.plan_grid(
            slide.levels,
            bounds=slide.bounds,
            mpp_level0=slide.mpp,
            mpp=settings.mpp,
            patch_size=settings.patch_size,
            stride=settings.stride,
            tolerance=settings.mpp_tolerance,
            edges=settings.edges,
            allow_upsampling=settings.allow_upsampling,
        )
        # Of a small slide, finer than tissue needs: a picture one can see something in.
        finer = max(slide.bounds[2:]) * slide.mpp / PICTURE_SIDE
        image, step = thumbnail(slide, mpp=min(finer, settings.tissue_mpp))
        origin = slide.bounds[:2]
        if entry.mask is None:
            coarse, factor = _coarsen(image, settings.tissue_mpp / (step * slide.mpp))
            mask = tissue_mask(coarse, mpp=factor * step * slide.mpp)
            steps = (factor * step, factor * step)
            share = tiling.tissue_share(plan, mask, origin=origin, step=steps)
        else:  # a mask image lies over the whole of level 0
            mask = read_mask(entry.mask, dimensions=slide.dimensions)
            scale = (slide.dimensions[0] / mask.shape[1], slide.dimensions[1] / mask.shape[0])
            share = tiling.tissue_share(plan, mask, origin=(0, 0), step=scale)
            mask = _cut(mask, slide.bounds, scale)
        encode = share.astype(np.float32) > settings.tissue_threshold
        if settings.encode_all:
            encode = np.ones(plan.shape, bool)
        return Prepared(
            entry=entry,
            slide=slide,
            plan=plan,
            tissue=share,
            encode=encode,
            attributes=settings_.attributes(asked, slide, plan),
            picture=tissue_picture(image, mask, plan, encode, origin=origin, step=step),
        )
    except BaseException:
        slide.close()
        raise


def _coarsen(image: np.ndarray, factor: float) -> tuple[np.ndarray, float]:
    """An overview averaged by area to `factor` times coarser pixels, and the factor, at least 1."""
    factor = max(1.0, factor)
    rows, columns = (math.ceil(length / factor) for length in image.shape[:2])
    coarse = area_resample(
        image, start_y=0, start_x=0, step_y=factor, step_x=factor, rows=rows, columns=columns
    )
    return coarse, factor


def save_picture(picture: Image.Image, path: pathlib.Path) -> None:
    """Writes a PNG so that a reader never sees half of it; whoever calls holds the slide's lock."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f'.{path.name}.partial')  # one name: the next run replaces it
    picture.save(partial, format='png', compress_level=1)
    os.replace(partial, path)


def _cut(mask: np.ndarray, bounds: tuple[int, int, int, int], scale: tuple[float, float]):
    """The part of a whole-slide mask that lies in the slide's bounds, for the picture."""
    x, y, width, height = bounds
    columns = slice(int(x / scale[0]), max(int(x / scale[0]) + 1, round((x + width) / scale[0])))
    rows = slice(int(y / scale[1]), max(int(y / scale[1]) + 1, round((y + height) / scale[1])))
    return mask[rows, columns]
