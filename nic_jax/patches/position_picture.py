"""A picture of where on a slide training patches were taken, and of its annotations."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from nic_jax.slides.cells import SlideTissue
from nic_jax.slides.picture import PICTURE_SIDE
from nic_jax.slides.tiling import Plan

# Okabe and Ito's colours, which colour-blind readers tell apart, without those of stains.
_COLOURS = ('#d55e00', '#0072b2', '#009e73', '#e69f00', '#56b4e9', '#f0e442')
_NO_LABEL = '#000000'


def position_picture(
    tissue: SlideTissue,
    plan: Plan,
    cells: np.ndarray,
    labels: np.ndarray,
    regions: Sequence,
    classes: Sequence[str],
) -> Image.Image:
    """Draws the boxes of patches and the outlines of annotations in the colours of their classes.

    Args:
        tissue: The slide's overview.
        plan: Its grid.
        cells: Rows and columns of the patches, int `[n, 2]`.
        labels: Their classes, int `[n]`; −1 for none.
        regions: With `name`, `outer` and `holes` in level-0 px; black where of no class.
        classes: Their names.
    """
    shrink = max(1.0, max(tissue.image.shape[:2]) / PICTURE_SIDE)
    size = tuple(max(1, round(length / shrink)) for length in tissue.image.shape[1::-1])
    picture = Image.fromarray(tissue.image).resize(size, Image.Resampling.BOX)
    draw = ImageDraw.Draw(picture)
    scale = tissue.step * shrink  # level-0 px per pixel of the picture
    colours = dict(zip(classes, _COLOURS * len(classes), strict=False))

    def place(points: np.ndarray) -> list[tuple[float, float]]:
        return [tuple(point) for point in ((points - tissue.origin) / scale).tolist()]

    width, height = (float(length) for length in plan.patch_level0)
    for (row, column), label in zip(cells.tolist(), labels.tolist(), strict=True):
        x, y = (float(value) for value in plan.position(row, column))
        box = place(np.array([(x, y), (x + width, y + height)]))
        draw.rectangle(box, outline=colours[classes[label]] if label >= 0 else _NO_LABEL)
    for region in regions:
        for ring in (region.outer, *region.holes):
            closed = place(np.concatenate([ring, ring[:1]]))
            draw.line(closed, fill=colours.get(region.name, _NO_LABEL), width=2)
    font = ImageFont.load_default(max(10, max(size) // 60))
    for number, (name, colour) in enumerate(colours.items()):
        draw.text((4, 4 + number * 1.3 * font.size), name, fill=colour, font=font)
    return picture
