"""The patches that a map points out most, as the encoder saw them."""

import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from nic_jax.slides import Slide, stream
from nic_jax.slides.grid_plan import plan_of_grid
from nic_jax.workdir import replacing

_SIDE = 192  # px of a patch in the sheet, at least: smaller ones are magnified by a whole number
_GAP = 8  # px
_FONT = 'fonts/ttf/DejaVuSans.ttf'  # of matplotlib: Pillow's own has no µ
_FONT_SIZE = 13  # px
_LINE = 20  # px
_FRAME = '#BBBBBB'  # white patches on a white sheet end somewhere


def top_patches(
    saliency: np.ndarray, k: int, *, attributes: Mapping[str, Any], apart: float = 1.0
) -> list[tuple[int, int]]:
    """The cells that speak most for the target, the strongest first, whose patches lie apart.

    Args:
        saliency: Float `[H, W]`, NaN where no cell is encoded; what is not positive is not chosen.
        k: How many, at most.
        attributes: Of the grid.
        apart: Along at least one axis, corners of two patches differ by this many sides of a patch;
            1 and more: no pixel is in two of them.

    Returns:
        Rows and columns.
    """
    if apart < 0:
        raise ValueError(f'{apart=} must be 0 or more')
    left = np.where(saliency > 0, saliency, 0)
    strides, sides = (np.array(attributes[key])[::-1] for key in ('stride_level0', 'patch_level0'))
    # Cells at less than this distance are too near; rounding must not part patches that touch.
    rows, columns = (max(1, math.ceil(each - 1e-6)) for each in apart * sides / strides)
    found = []
    while len(found) < k and left.max(initial=0) > 0:
        row, column = (int(each) for each in np.unravel_index(left.argmax(), left.shape))
        found.append((row, column))
        left[
            max(0, row - rows + 1) : row + rows, max(0, column - columns + 1) : column + columns
        ] = 0
    return found


def write_contact_sheet(
    path: pathlib.Path,
    slide: Slide,
    cells: Sequence[tuple[int, int]],
    *,
    saliency: np.ndarray,
    attributes: Mapping[str, Any],
    columns: int = 5,
    title: str = '',
) -> None:
    """Writes a PNG of patches with their rank, their saliency and their corner on level 0.

    Args:
        path: The file.
        slide: Open.
        cells: Rows and columns, the strongest first.
        saliency: `[H, W]`.
        attributes: Of the grid.
        columns: Patches a line.
        title: Over the sheet.

    Raises:
        ValueError: The grid is not one of this slide.
        SlideError: A patch cannot be read.
    """
    plan = plan_of_grid(slide, saliency.shape, attributes)
    zoom = math.ceil(_SIDE / plan.patch_size)
    side = zoom * plan.patch_size
    across = max(1, min(columns, len(cells)))
    down = math.ceil(len(cells) / across)
    head = [
        *([title] if title else []),
        f'patches of {plan.patch_size} px, {plan.patch_size * plan.mpp:.4g} µm wide',
        'x, y: top left corner, px of level 0' if cells else 'no cell speaks for the target',
    ]
    font = ImageFont.truetype(pathlib.Path(matplotlib.get_data_path(), _FONT), _FONT_SIZE)
    top = _GAP + len(head) * _LINE
    width = max(across * (side + _GAP), *(math.ceil(font.getlength(line)) + _GAP for line in head))
    size = width + _GAP, top + down * (side + 2 * _LINE + _GAP)
    sheet = Image.new('RGB', size, 'white')
    draw = ImageDraw.Draw(sheet)
    for number, line in enumerate(head):
        draw.text((_GAP, _GAP + number * _LINE), line, fill='black', font=font)
    for number, (row, column) in enumerate(cells):
        left = _GAP + number % across * (side + _GAP)
        upper = top + number // across * (side + 2 * _LINE + _GAP)
        draw.rectangle((left - 1, upper - 1, left + side, upper + side), outline=_FRAME)
        (patch,) = stream.read_cells(slide, plan, np.array([(row, column)]))
        sheet.paste(Image.fromarray(patch.repeat(zoom, axis=0).repeat(zoom, axis=1)), (left, upper))
        x, y = (round(float(each)) for each in plan.position(row, column))
        lines = f'{number + 1}: saliency {saliency[row, column]:.3g}', f'x {x}, y {y}'
        for place, line in enumerate(lines):
            draw.text((left, upper + side + place * _LINE), line, fill='black', font=font)
    with replacing(path) as partial:
        sheet.save(partial, format='png')
