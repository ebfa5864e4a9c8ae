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
        encode: The cells that are encoded, bool `[H, W]`; only these are drawn.
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
    scale = step * shrink  # level-0 pixels per pixel of the picture
    left, top = (
        (float(first) - start) / scale
        for first, start in zip(plan.origin_level0, origin, strict=True)
    )
    pitch_x, pitch_y = (float(pitch) / scale for pitch in plan.stride_level0)
    # Neighbours share a line: the part of the patch that is this cell's own.
    width, height = (
        float(min(pitch, side)) / scale
        for pitch, side in zip(plan.stride_level0, plan.patch_level0, strict=True)
    )
    for row, column in np.argwhere(encode).tolist():
        x, y = left + column * pitch_x, top + row * pitch_y
        draw.rectangle([x, y, x + width, y + height], outline=_CELLS)
    return picture
