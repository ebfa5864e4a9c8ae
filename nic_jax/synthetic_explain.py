"""Saliency of synthetic images: many small maps of one shape in one file a subset."""

import functools
import pathlib
from collections.abc import Callable, Sequence

import ml_collections
import numpy as np

import nic_jax
from nic_jax import progress
from nic_jax.explain_measures import localise
from nic_jax.explain_stage import Explained, Maps, Reference, Unit
from nic_jax.explanation.overlay import Thumbnail
from nic_jax.grids import arrays, schema
from nic_jax.report.galleries import Known
from nic_jax.synthetic import rectangles
from nic_jax.synthetic.rectangles import RectangleStudy
from nic_jax.synthetic_stages import digits_of, split_of

Config = ml_collections.ConfigDict

_FILES = {'test': 'test.zarr', 'valid': 'validation.zarr'}
_AT_ONCE = 64  # images of a shard: at most so many are lost when a run is interrupted


def references(config: Config, home: pathlib.Path, name: str) -> Callable[[str], Reference | None]:
    """slide_id -> the cells of an image's tilted rectangle, and of its upright one."""
    del home, name  # the layout is a function of the image's number alone
    study, split = RectangleStudy(**config.images), split_of(config)
    numbers = {'train': split.train, 'test': split.test}

    def reference(slide_id: str) -> Reference:
        subset, index = slide_id.split('/')
        number = numbers[subset][int(index)]
        return Reference(*rectangles.grid_masks(study, seed=config.seed, index=number))

    return reference


def known(config: Config, home: pathlib.Path) -> Callable[[str], Known | None]:
    """slide_id -> a test image and the cells of its tilted rectangle."""
    reference, study = references(config, home, ''), RectangleStudy(**config.images)
    numbers = split_of(config).test
    digits = functools.cache(lambda: digits_of(config, 'test'))

    def of_image(slide_id: str) -> Known:
        number = numbers[int(slide_id.rpartition('/')[2])]
        image = rectangles.draw(study, digits(), seed=config.seed, index=number)
        cells = study.grid_cells
        thumbnail = Thumbnail(image.pixels * np.uint8(255), (0, 0, cells, cells))
        return Known(thumbnail=thumbnail, mask=reference(slide_id).mask)

    return of_image


def explain_all(config: Config, explained: Explained) -> bool:
    """Maps of the test images and of those that validate, measured against the masks."""
    del config
    units = {name: [u for u in explained.units if u.subset == name] for name in _FILES}
    with progress.bar(
        f'explain {explained.title}', total=len(explained.units), unit='images'
    ) as advance:
        for subset, chosen in units.items():
            _write(explained, chosen, explained.folder / _FILES[subset], advance)
    stored = {
        (subset, method): arrays.open_array(explained.folder / file / method).read().result()
        for subset, file in _FILES.items()
        for method in explained.settings.methods
        if units[subset]
    }
    place = {unit: k for chosen in units.values() for k, unit in enumerate(chosen)}

    def read(unit: Unit) -> Maps:
        return {
            method: stored[unit.subset, method][place[unit]]
            for method in explained.settings.methods
        }

    path = localise(explained, read, lesion_class=None)
    progress.console.print(
        f'explain: {explained.title}: {len(units["test"])} images → {explained.folder}'
        + (f', {path.name}' if path else '')
    )
    return True


def _write(
    explained: Explained,
    units: Sequence[Unit],
    path: pathlib.Path,
    advance: Callable[[int], None],
) -> None:
    """Writes what is missing of one file: maps float32 `[image, y, x]` by method."""
    if not units:
        return
    grids = [explained.dataset.grids[unit.index] for unit in units]
    methods = explained.settings.methods
    attributes = {
        'schema_version': schema.SCHEMA_VERSION,
        'created_with': f'nic_jax {nic_jax.__version__}',
        'slide_ids': [grid.slide_id for grid in grids],
        'targets': [explained.target_name(unit) for unit in units],
    }
    state = schema.begin(path, attributes, overwrite=True)  # the folder is checked already
    if state == 'complete':
        advance(len(units))
        return
    shape = (len(units), *grids[0].shape)
    shard = (min(_AT_ONCE, len(units)), *shape[1:])
    if state == 'new':
        for method in methods:
            arrays.create(
                path / method,
                shape=shape,
                chunks=(1, *shape[1:]),
                shards=shard,
                dimension_names=('image', 'y', 'x'),
                dtype='float32',
            )
        schema.write_attributes(path, {**attributes, 'complete': False})
    opened = {method: arrays.open_array(path / method, writable=True) for method in methods}
    for first in range(0, len(units), shard[0]):
        part = slice(first, min(first + shard[0], len(units)))
        if not all(arrays.shard_exists(path / m, (first // shard[0], 0, 0)) for m in methods):
            found = [explained.maps(unit) for unit in units[part]]
            for method in methods:
                opened[method][part].write(np.stack([maps[method] for maps in found])).result()
        advance(part.stop - part.start)
    schema.write_attributes(path, {**attributes, 'complete': True})
