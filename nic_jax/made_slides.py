"""The stage of experiments that make their own slides: mosaics of tiles, miniatures of cohorts."""

import copy
import pathlib

import ml_collections

from nic_jax import challenges, options, prefetch, progress, workdir
from nic_jax.patches.tile_table import TileTable
from nic_jax.patches.tiles import check_table, make_tile_set
from nic_jax.synthetic.mosaic_layout import MosaicStudy
from nic_jax.synthetic.mosaics import make_mosaics
from nic_jax.tile_tasks import made_of

Config = ml_collections.ConfigDict

_NOT_OF_THE_STUDY = ('tumour', 'annotations')


def check(config: Config) -> None:
    """Checks what slides are made of.

    Raises:
        ValueError: No tiles, no tumour among their classes, or a study that cannot be.
    """
    if 'mosaic' not in config:
        return
    study, table = _study(config), _table(config)
    classes = check_table(table, seed=config.seed).classes
    if config.mosaic.tumour not in classes:
        raise ValueError(
            f'--config.mosaic.tumour={config.mosaic.tumour} is no class of {table.tiles}; it has '
            f'{", ".join(classes)}'
        )
    progress.console.print(
        f'mosaic: {study.train_slides} training and {study.test_slides} test slides for each '
        f'label, of {study.cells}×{study.cells} tiles'
    )


def make(config: Config, home: pathlib.Path, *, overwrite: bool) -> bool:
    """Writes the slides, where they are not yet."""
    if 'mosaic' not in config:
        folder = home / 'slides'
        challenges.write_miniature(config.miniature, folder, seed=config.seed)
        progress.console.print(f'slides: a miniature of {config.miniature} → {folder}')
        return True
    workers = config.compress.workers or prefetch.default_workers()
    tiles = home / 'tiles'
    with workdir.alone(home, 'slides'):
        table = _table(config)
        if not workdir.begin(tiles, made_of(table, config.seed), overwrite=overwrite):
            summary = make_tile_set(
                table, tiles, home=home, name='tiles', seed=config.seed, workers=workers
            )
            workdir.finish(tiles)
            progress.console.print(f'slides: {summary} → {tiles}')
        path = make_mosaics(
            _study(config),
            tiles,
            home / 'slides',
            annotations=config.mosaic.annotations,
            tumour=config.mosaic.tumour,
            seed=config.seed,
            workers=workers,
            overwrite=overwrite,
        )
    progress.console.print(f'slides: {path}')
    return True


def located(config: Config, home: pathlib.Path | None) -> Config:
    """The config of an experiment that makes slides, pointed at where they lie."""
    if home is None or not options.makes_slides(config):
        return config
    pointed = copy.deepcopy(config)
    path = home / 'slides'
    if 'mosaic' in config or (path / 'slides.csv').exists():
        path = path / 'slides.csv'
    with pointed.unlocked():
        if 'slides' in config:
            pointed.slides = str(path)
        else:
            for task in pointed.tasks.values():
                task.tiles = str(path)
    return pointed


def are_made(config: Config, home: pathlib.Path | None) -> bool:
    """Whether the slides of an experiment that makes them are there."""
    if home is None:
        return False
    place = home / 'slides'
    return (place / 'slides.csv').exists() if 'mosaic' in config else workdir.is_finished(place)


def _study(config: Config) -> MosaicStudy:
    fields = config.mosaic.to_dict()
    return MosaicStudy(**{key: fields[key] for key in fields if key not in _NOT_OF_THE_STUDY})


def _table(config: Config) -> TileTable:
    if config.tiles.tiles is None:
        raise ValueError(
            'say which tiles the slides are made of: --config.tiles.tiles=PATH (a folder, an '
            'archive, or a CSV, with normal and tumour tiles and a test subset)'
        )
    fields = config.tiles.to_dict() | {'patch_size': config.mosaic.pitch, 'mpp': config.mosaic.mpp}
    return TileTable(**fields)
