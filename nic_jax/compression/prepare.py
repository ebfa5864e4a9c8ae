"""A slide made ready for encoding: opened, its tissue found, its grid laid."""

import dataclasses
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from nic_jax import cohort
from nic_jax.compression import settings as settings_
from nic_jax.slides import tiling
from nic_jax.slides.cells import find_tissue
from nic_jax.slides.picture import tissue_picture
from nic_jax.slides.slide import Slide, open_slide


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
        found = find_tissue(slide, plan, mpp=settings.tissue_mpp, mask=entry.mask)
        encode = found.share.astype(np.float32) > settings.tissue_threshold
        if settings.encode_all:
            encode = np.ones(plan.shape, bool)
        return Prepared(
            entry=entry,
            slide=slide,
            plan=plan,
            tissue=found.share,
            encode=encode,
            attributes=settings_.attributes(asked, slide, plan),
            picture=tissue_picture(
                found.image, found.mask, plan, encode, origin=found.origin, step=found.step
            ),
        )
    except BaseException:
        slide.close()
        raise


def save_picture(picture: Image.Image, path: pathlib.Path) -> None:
    """Writes a PNG so that a reader never sees half of it; whoever calls holds the slide's lock."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f'.{path.name}.partial')  # one name: the next run replaces it
    picture.save(partial, format='png', compress_level=1)
    os.replace(partial, path)
