"""A picture of pairs for contrastive training: a line of each kind."""

import pathlib
from collections.abc import Mapping

import numpy as np

from nic_jax.patches.store import PatchSet
from nic_jax.report.pictures import new_figure, save

_PAIRS = 12  # of each kind
_GAP = 0.12  # of a patch's side, between pairs


def pair_sheet(patches: PatchSet, pairs: Mapping[str, np.ndarray], path: pathlib.Path) -> None:
    """Draws the first pairs of each kind, one patch above the other, before augmentation.

    Args:
        patches: The set.
        pairs: Of each subset, int `[N, 3]`, see `patches.pairs`.
        path: The PNG file.
    """
    rows = {}
    for subset, drawn in pairs.items():
        one, other, same = drawn.T
        one_slide = patches.columns['name'][one] == patches.columns['name'][other]
        for title, chosen in (
            ('same location', same == 1),
            ('beside each other', (same == 0) & one_slide),
            ('of different slides', (same == 0) & ~one_slide),
        ):
            if chosen.any():
                title = f'{subset}: {title}, {np.count_nonzero(chosen):,} pairs'
                rows[title] = patches.pixels[drawn[chosen, :2][:_PAIRS]]
    figure = new_figure(len(rows), 1, size=(10, 1.9 * len(rows)))
    for axis, (title, pixels) in zip(figure.axes, rows.items(), strict=True):
        axis.imshow(_line(pixels), cmap='gray', vmin=0, vmax=255, interpolation='nearest')
        axis.set_title(title, loc='left', fontsize=9)
        axis.set_axis_off()
    save(figure, path)


def _line(pairs: np.ndarray) -> np.ndarray:
    """Lays pairs side by side: uint8 `[n, 2, P, P, channels]` → `[2 * P, columns, channels]`."""
    count, _, side, _, channels = pairs.shape
    line = np.full((2, side, _PAIRS, side + max(2, round(_GAP * side)), channels), 255, np.uint8)
    line[:, :, :count, :side] = pairs.transpose(1, 2, 0, 3, 4)  # [n, 2, P, …] -> [2, P, n, …]
    line = line.reshape(2 * side, -1, channels)
    return line[..., 0] if channels == 1 else line
