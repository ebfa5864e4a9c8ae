"""A picture of what augmentation does to patches: look at it before training on them."""

import dataclasses
import pathlib

import jax
import numpy as np

from nic_jax.patches.augmentation import PRESETS, Augmentation, augment
from nic_jax.report.pictures import new_figure, save


def single_transforms(settings: Augmentation) -> dict[str, Augmentation]:
    """Returns settings that have one of the given transforms each, by its name."""
    singles = {}
    for field in dataclasses.fields(settings):
        name = 'elastic' if field.name.startswith('elastic') else field.name
        value = {field.name: getattr(settings, field.name)}
        singles.setdefault(name, {}).update(value)
    singles = {name: Augmentation(**values) for name, values in singles.items()}
    return {name: single for name, single in singles.items() if single != Augmentation()}


def augmentation_sheet(patches: np.ndarray, path: pathlib.Path, *, seed: int) -> None:
    """Draws patches and, below them, each transform alone at its strong range, then the presets.

    Args:
        patches: uint8 [n, P, P, 3], a column each.
        path: The PNG file.
        seed: Of the random parameters.
    """
    rows = single_transforms(PRESETS['strong'])
    rows |= {'light': PRESETS['light'], 'strong': PRESETS['strong']}
    pixels = patches.astype(np.float32) / 255
    pictures = {'original': pixels} | {
        name: np.asarray(augment(jax.random.key(seed), pixels, settings))
        for name, settings in rows.items()
    }
    count = len(patches)
    figure = new_figure(len(pictures), count, size=(1 + 1.2 * count, 1.2 * len(pictures)))
    axes = np.array(figure.axes).reshape(len(pictures), count)
    for row, (name, images) in zip(axes, pictures.items(), strict=True):
        row[0].set_ylabel(name, rotation=0, ha='right', va='center')
        for axis, image in zip(row, images, strict=True):
            axis.imshow(image, vmin=0, vmax=1, interpolation='nearest')
            axis.set(xticks=[], yticks=[], frame_on=False)
    save(figure, path)
