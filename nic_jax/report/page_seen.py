"""What the stage explain has left of each slide and image."""

import dataclasses
import json
import math
import pathlib
import urllib.parse
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from nic_jax import learned
from nic_jax.explanation.georeference import of_image
from nic_jax.explanation.stored import open_saliency
from nic_jax.grids import arrays, schema
from nic_jax.workdir import file_name


@dataclasses.dataclass(frozen=True, eq=False)
class Seen:
    """What one encoder's networks saw on one slide.

    Attributes:
        encoder: As tables name it.
        folder: ENCODER/explain/LABEL/MODEL, or ENCODER/finetune/explain/LABEL/MODEL.
        told: As explained.json tells it.
        read: Method -> its map `[H, W]` and the attributes that tell where the cells lie.
        overlay: Method -> the picture of its map over the slide, which may not be there.
    """

    encoder: str
    folder: pathlib.Path
    told: Mapping[str, Any]
    read: Callable[[str], tuple[np.ndarray, Mapping[str, Any]]]
    overlay: Callable[[str], pathlib.Path]


def slides(home: pathlib.Path) -> Iterator[Seen]:
    """Slides, which have a folder each."""
    for path in _glob(home, 'explain/*/*/*/explained.json'):
        folder = path.parent

        def read(method: str, folder=folder):
            maps, attributes = open_saliency(folder / 'saliency.zarr')
            return maps[method], attributes

        def overlay(method: str, folder=folder) -> pathlib.Path:
            return folder / f'{file_name(method)}.png'

        told = json.loads(path.read_text(encoding='utf-8'))
        yield Seen(_encoder(home, folder.parent), folder.parent, told, read, overlay)


def images(home: pathlib.Path, rows: Sequence[Mapping[str, Any]]) -> Iterator[Seen]:
    """Synthetic images, whose maps are in one file; places in them count cells."""
    of_image_and_encoder = {
        (row.get('encoder', ''), row['label_name'], row['model'], row['slide_id']): row
        for row in rows
        if row['subset'] == 'test'
    }
    for path in _glob(home, 'explain/*/*/test.zarr'):
        attributes = schema.read_attributes(path) or {}
        if not attributes.get('complete'):
            continue
        methods = sorted(each.parent.name for each in path.glob('*/zarr.json'))
        encoder = _encoder(home, path.parent)
        names = [urllib.parse.unquote(part) for part in path.parts[-3:-1]]
        for index, (slide_id, target) in enumerate(
            zip(attributes['slide_ids'], attributes['targets'], strict=True)
        ):
            row = of_image_and_encoder.get((encoder, *names, slide_id), {})
            told = {'slide_id': slide_id, 'subset': 'test', 'target': target, 'methods': methods}
            told |= {name: row.get(name, '') for name in ('label', 'prediction')}
            told['score'] = row.get(f'score_{target}', math.nan)

            def read(method: str, path=path, index=index, slide_id=slide_id):
                found = arrays.open_array(path / method)[index].read().result()
                place = of_image(slide_id, found.shape[::-1], patch_size=1, stride=1)
                return found, place

            def overlay(method: str, path=path) -> pathlib.Path:
                return path / f'{file_name(method)}.png'

            yield Seen(encoder, path.parent, told, read, overlay)


def _glob(home: pathlib.Path, pattern: str) -> list[pathlib.Path]:
    """The files of all encoders, fine-tuned or not."""
    patterns = [str(each / pattern) for each in learned.folders(pathlib.Path('*'))]
    return sorted(path for each in patterns for path in home.glob(each))


def _encoder(home: pathlib.Path, folder: pathlib.Path) -> str:
    return learned.named(folder.relative_to(home).parts[0], folder.parents[2])
