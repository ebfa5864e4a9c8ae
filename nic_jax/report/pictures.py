"""Pictures of what went in and what came out, as PNG files."""

import pathlib
from collections.abc import Mapping

import matplotlib.figure
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg

from nic_jax.workdir import replacing

# Okabe and Ito's, which colour-blind readers can tell apart.
COLOURS = ('#0072B2', '#E69F00', '#009E73', '#CC79A7', '#56B4E9', '#D55E00', '#000000', '#F0E442')


def patch_sheet(rows: Mapping[str, np.ndarray], path: pathlib.Path, *, columns: int = 25) -> None:
    """Draws sheets of patches one below another.

    Args:
        rows: Title to patches `[N, P, P]` or `[N, P, P, channels]`, 0 … 255.
        path: The PNG file.
        columns: Patches a line.
    """
    lines = -(-max(map(len, rows.values())) // columns)
    figure = new_figure(len(rows), 1, size=(10, (0.45 + 10 * lines / columns) * len(rows)))
    for axis, (title, patches) in zip(np.atleast_1d(figure.axes), rows.items(), strict=True):
        sheet = np.rint(_tile(patches, columns)).astype(np.uint8)
        axis.imshow(sheet, cmap='gray', vmin=0, vmax=255)
        axis.set_title(title)
        axis.set_axis_off()
    save(figure, path)


def image_and_grid(
    pixels: np.ndarray,
    mask: np.ndarray,
    grids: Mapping[str, np.ndarray],
    path: pathlib.Path,
    *,
    title: str,
    channels: int = 3,
) -> None:
    """Draws a synthetic image, its mask, and a few channels of its grid for each encoder.

    Shown are the channels in which the cells of the mask, outlined in white, differ most from the
    others.

    Args:
        pixels: `[size, size]` of 0 and 1.
        mask: The cells that the label is about, bool `[H, W]`.
        grids: Encoder's name to codes `[H, W, C]`.
        path: The PNG file.
        title: Over all.
        channels: Shown of each grid, at most.
    """
    figure = new_figure(1 + len(grids), channels, size=(4 * channels, 4.2 * (1 + len(grids))))
    figure.suptitle(title)
    axes = np.array(figure.axes).reshape(1 + len(grids), channels)
    for axis in axes.flat:
        axis.set_axis_off()
    zoom = slice(pixels.shape[0] // 2 - 45, pixels.shape[0] // 2 + 45)
    top = (('image', pixels), ('its centre, 90×90 px', pixels[zoom, zoom]), ('mask', mask))
    for axis, (name, values) in zip(axes[0], top, strict=False):
        axis.imshow(values, cmap='gray', interpolation='nearest')
        axis.set_title(name)
    for row, (name, codes) in zip(axes[1:], grids.items(), strict=True):
        inside, outside = codes[mask], codes[~mask]
        contrast = np.abs(inside.mean(0) - outside.mean(0)) / (outside.std(0) + 1e-6)
        for axis, channel in zip(row, np.argsort(-contrast), strict=False):
            axis.imshow(codes[..., channel], cmap='viridis', interpolation='nearest')
            axis.contour(mask, levels=[0.5], colors='white', linewidths=1.2)
            axis.set_title(f'{name}, channel {channel}')
    save(figure, path)


def new_figure(rows: int, columns: int, *, size: tuple[float, float]) -> matplotlib.figure.Figure:
    """A figure with axes that needs no display and no global state."""
    figure = matplotlib.figure.Figure(figsize=size, layout='constrained')
    FigureCanvasAgg(figure)
    figure.subplots(rows, columns)
    return figure


def save(figure: matplotlib.figure.Figure, path: pathlib.Path) -> None:
    """Writes a PNG so that a reader never sees half of it."""
    with replacing(path) as partial:
        figure.savefig(partial, format='png', dpi=120)


def _tile(patches: np.ndarray, columns: int) -> np.ndarray:
    """Lays patches in lines with a grey pixel between them."""
    patches = patches[..., 0] if patches.ndim == 4 and patches.shape[-1] == 1 else patches
    count, height, width = patches.shape[:3]
    lines = -(-count // columns)
    sheet = np.full((lines * (height + 1), columns * (width + 1), *patches.shape[3:]), 96.0)
    for index, patch in enumerate(patches):
        top, left = (index // columns) * (height + 1), (index % columns) * (width + 1)
        sheet[top : top + height, left : left + width] = patch
    return sheet
