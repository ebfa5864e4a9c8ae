"""What the stage explain has left of each slide and image."""

import dataclasses
import json
import math
import pathlib
import urllib.parse
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from nic_jax.explanation.georeference import of_image
from nic_jax.explanation.stored import open_saliency
from nic_jax.grids import arrays, schema
from nic_jax.workdir import file_name


@dataclasses.dataclass(frozen=True, eq=False)
class Seen:
    """What one encoder's networks saw on one slide.

    Attributes:
        folder: ENCODER/explain/LABEL/MODEL.
        told: As explained.json tells it.
        read: Method -> its map `[H, W]` and the attributes that tell where the cells lie.
        overlay: Method -> the picture of its map over the slide, which may not be there.
    """

    folder: pathlib.Path
    told: Mapping[str, Any]
    read: Callable[[str], tuple[np.ndarray, Mapping[str, Any]]]
    overlay: Callable[[str], pathlib.Path]


def slides(home: pathlib.Path) -> Iterator[Seen]:
    """Slides, which have a folder each."""
    for path in sorted(home.glob('*/explain/*/*/*/explained.json')):
        folder = path.parent

        def read(method: str, folder=folder):
            maps, attributes = open_saliency(folder / 'saliency.zarr')
            return maps[method], attributes

        def overlay(method: str, folder=folder) -> pathlib.Path:
            return folder / f'{file_name(method)}.png'

        yield Seen(folder.parent, json.loads(path.read_text(encoding='utf-8')), read, overlay)


def images(home: pathlib.Path, rows: Sequence[Mapping[str, Any]]) -> Iterator[Seen]:
    """Synthetic images, whose maps are in one file; places in them count cells."""
    of_image_and_encoder = {
        (row.get('encoder', ''), row['label_name'], row['model'], row['slide_id']): row
        for row in rows
        if row['subset'] == 'test'
    }
    for path in sorted(home.glob('*/explain/*/*/test.zarr')):
        attributes = schema.read_attributes(path) or {}
        if not attributes.get('complete'):
            continue
        methods = sorted(each.parent.name for each in path.glob('*/zarr.json'))
        names = [urllib.parse.unquote(part) for part in path.relative_to(home).parts]
        for index, (slide_id, target) in enumerate(
            zip(attributes['slide_ids'], attributes['targets'], strict=True)
        ):
            row = of_image_and_encoder.get((names[0], names[2], names[3], slide_id), {})
            told = {'slide_id': slide_id, 'subset': 'test', 'target': target, 'methods': methods}
            told |= {name: row.get(name, '') for name in ('label', 'prediction')}
            told['score'] = row.get(f'score_{target}', math.nan)

            def read(method: str, path=path, index=index, slide_id=slide_id):
                found = arrays.open_array(path / method)[index].read().result()
                place = of_image(slide_id, found.shape[::-1], patch_size=1, stride=1)
                return found, place

            def overlay(method: str, path=path) -> pathlib.Path:
                return path / f'{file_name(method)}.png'

            yield Seen(path.parent, told, read, overlay)
