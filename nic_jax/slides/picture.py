"""The picture beside every grid: the slide, the outline of its tissue, the cells to be encoded."""

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from nic_jax.slides.tiling import Plan

_OUTLINE = (0, 158, 115)  # green and blue that red-green-blind readers tell apart
_CELLS = (0, 114, 178)
PICTURE_SIDE = 2000  # px of its longer side, at most


def tissue_picture(
    image: np.ndarray,
    mask: np.ndarray,
    plan: Plan,
    encode: np.ndarray,
    *,
    origin: tuple[float, float],
    step: float,
) -> Image.Image:
    """Draws a thumbnail with the contour of its tissue and the grid of encoded cells.

    Args:
        image: The thumbnail, uint8 `[h, w, 3]`.
        mask: Tissue, bool, of any resolution; it is laid over the whole thumbnail.
        plan: The grid.
        encode: The cells that are encoded, bool `[H, W]`; the others are veiled.
        origin: (x, y) of the thumbnail's top-left corner, level-0 pixels.
        step: Level-0 pixels per thumbnail pixel.
    """
    shrink = max(1.0, max(image.shape[:2]) / PICTURE_SIDE)
    size = tuple(max(1, round(length / shrink)) for length in image.shape[1::-1])
    picture = Image.fromarray(image).resize(size, Image.Resampling.BOX)
    pixels = np.array(picture)

    tissue = np.array(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST))
    outline = ndimage.binary_dilation(tissue, iterations=2) & ~tissue
    pixels[outline] = _OUTLINE
    picture = Image.fromarray(pixels)

    draw = ImageDraw.Draw(picture)
    (dx, dy), (width, height) = plan.stride_level0, plan.patch_level0
    for row, column in np.argwhere(encode):
        x, y = plan.position(int(row), int(column))
        left, top = (float(x) - origin[0]) / step, (float(y) - origin[1]) / step
        # Neighbours share a line: the part of the patch that is this cell's own.
        right = left + float(min(dx, width)) / step
        bottom = top + float(min(dy, height)) / step
        draw.rectangle([value / shrink for value in (left, top, right, bottom)], outline=_CELLS)
    return picture
