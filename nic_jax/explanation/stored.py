"""Maps of a slide on disk: a zarr v3 group that xarray and zarr-python open alone.

An array `[y, x]` a method, NaN where no cell is encoded. The group's attributes tell where the
cells lie, as those of the slide's grid do, and under `details` what was explained.
"""

import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from nic_jax.explanation.georeference import georeference
from nic_jax.grids import arrays, schema
from nic_jax.workdir import remove

VERSION = 1


def write_saliency(
    path: pathlib.Path,
    maps: Mapping[str, np.ndarray],
    *,
    attributes: Mapping[str, Any],
    details: Mapping[str, Any],
) -> None:
    """Writes the maps of one slide; what was there is replaced, and `complete` is said last.

    Args:
        path: The zarr group.
        maps: Method to map, float32 `[H, W]`.
        attributes: Of the slide's grid.
        details: What was explained, as JSON has it.

    Raises:
        ValueError: No maps, maps of different shapes, or a name that is not a method's.
    """
    shapes = {name: np.shape(saliency) for name, saliency in maps.items()}
    if len(set(shapes.values())) != 1 or len(next(iter(shapes.values()))) != 2:
        raise ValueError(f'{path}: maps must be of one shape [H, W], not {shapes}')
    for name in maps:
        if not re.fullmatch(r'[a-z][a-z0-9_]*', name):
            raise ValueError(f'{path}: {name!r} cannot name a method: small letters, digits and _')
    told = {
        'saliency_version': VERSION,
        'methods': list(maps),
        **georeference(attributes),
        'details': dict(details),
    }
    remove(path)
    path.mkdir(parents=True)
    schema.write_attributes(path, {**told, 'complete': False})
    for name, saliency in maps.items():
        whole = [max(1, length) for length in saliency.shape]
        array = arrays.create(
            path / name,
            shape=saliency.shape,
            chunks=whole,
            shards=whole,
            dimension_names=('y', 'x'),
            dtype='float32',
        )
        array.write(np.asarray(saliency, np.float32)).result()
    schema.write_attributes(path, {**told, 'complete': True})


def open_saliency(path: str | os.PathLike) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Reads the maps of one slide.

    Returns:
        Method to map, float32 `[H, W]`, NaN where no cell is encoded; and the group's attributes.

    Raises:
        ValueError: There are none, or not all of them, or another version of nic_jax wrote them.
    """
    path = pathlib.Path(path)
    attributes = schema.read_attributes(path)
    if attributes is None or 'saliency_version' not in attributes:
        raise ValueError(
            f'{path} holds no maps of saliency; the explain stage writes saliency.zarr'
        )
    if attributes['saliency_version'] != VERSION:
        raise ValueError(
            f'{path} has saliency_version {attributes["saliency_version"]!r}; '
            f'this version of nic_jax reads {VERSION}'
        )
    if not attributes.get('complete'):
        raise ValueError(f'{path} is not complete; run the explain stage again')
    maps = {name: arrays.open_array(path / name).read().result() for name in attributes['methods']}
    return maps, attributes
