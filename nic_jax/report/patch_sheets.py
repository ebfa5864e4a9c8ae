"""A picture of a set of patches: a line of each class."""

import pathlib

import numpy as np

from nic_jax.patches.store import PatchSet
from nic_jax.report.pictures import new_figure, save

_PATCHES = 12  # of each class
_GAP = 2  # px between patches, white


def class_sheet(patches: PatchSet, path: pathlib.Path, *, seed: int) -> None:
    """Draws random patches of each class, titled by its name and counts.

    Patches for training come first, so that it shows what an encoder will see.

    Args:
        patches: The set; of one or three channels.
        path: The PNG file.
        seed: Of the choice.
    """
    subsets = patches.columns['subset']
    rows = {}
    for number, name in [*enumerate(patches.classes), (-1, 'without label')]:
        members = np.flatnonzero(patches.labels == number)
        if len(members):
            found, counts = np.unique(subsets[members], return_counts=True)
            counts = dict(zip(found.tolist(), counts.tolist(), strict=True))
            shown = [f'{counts[each]:,} {each}' for each in ('train', 'valid', 'test', '')
                     if each in counts]  # fmt: skip
            order = np.random.default_rng(seed).permutation(members)
            order = order[np.argsort(subsets[order] != 'train', kind='stable')]
            rows[f'{name}: {", ".join(shown)}'] = patches.pixels[order[:_PATCHES]]
    figure = new_figure(len(rows), 1, size=(10, 1.15 * len(rows)))
    for axis, (title, pixels) in zip(figure.axes, rows.items(), strict=True):
        axis.imshow(_line(pixels), cmap='gray', vmin=0, vmax=255, interpolation='nearest')
        axis.set_title(title, loc='left', fontsize=9)
        axis.set_axis_off()
    save(figure, path)


def _line(pixels: np.ndarray) -> np.ndarray:
    """Lays patches side by side: uint8 `[n, P, P, channels]` → `[P, columns * (P + gap), …]`."""
    _, side, _, channels = pixels.shape
    line = np.full((side, _PATCHES, side + _GAP, channels), 255, np.uint8)
    line[:, : len(pixels), :side] = pixels.swapaxes(0, 1)  # [n, P, …] -> [P, n, …]
    line = line.reshape(side, -1, channels)
    return line[..., 0] if channels == 1 else line
