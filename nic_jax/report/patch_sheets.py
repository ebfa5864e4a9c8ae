"""Pictures of a set of training patches: its classes, its pairs, and what augmentation does."""

import pathlib

import numpy as np

from nic_jax.patches.pairs import has_pairs, load_pairs
from nic_jax.patches.store import SUBSETS, PatchSet, open_set
from nic_jax.report.augmentation_sheet import augmentation_sheet
from nic_jax.report.pair_sheet import pair_sheet
from nic_jax.report.pictures import new_figure, save

_PATCHES = 12  # of each class
_AUGMENTED = 8
_GAP = 2  # px between patches, white


def draw_set(folder: pathlib.Path, *, seed: int) -> None:
    """Draws patches.png, augmentation.png and, where there are pairs, pairs.png in a set's folder.

    Args:
        folder: Of a finished set.
        seed: Of the choice of patches.
    """
    patches = open_set(folder)
    class_sheet(patches, folder / 'patches.png', seed=seed)
    some = np.random.default_rng(seed).permutation(len(patches))[:_AUGMENTED]
    augmentation_sheet(patches.pixels[some], folder / 'augmentation.png', seed=seed)
    pairs = {subset: load_pairs(folder, subset) for subset in SUBSETS if has_pairs(folder, subset)}
    if pairs:
        pair_sheet(patches, pairs, folder / 'pairs.png')


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
