"""The tasks of experiments on labelled patches, and what tells their patches from others."""

import dataclasses
import pathlib
from typing import Any

import ml_collections

from nic_jax import slide_tasks, workdir
from nic_jax.patches.slide_settings import SlideTask
from nic_jax.patches.tiles import TileTable, check_table

Config = ml_collections.ConfigDict


def tables(config: Config) -> dict[str, TileTable | SlideTask]:
    """The tasks whose tiles, or slides, are given.

    Raises:
        ValueError: None is.
    """
    found = {
        name: _task(task) for name, task in sorted(config.tasks.items()) if task.tiles is not None
    }
    if not found:
        choice = ' or '.join(f'--config.tasks.{name}.tiles=PATH' for name in sorted(config.tasks))
        raise ValueError(f'say where the tiles are: {choice} (a folder, an archive, or a CSV)')
    return found


def _task(task: Config) -> TileTable | SlideTask:
    fields = task.to_dict()
    if 'per_slide' not in fields:
        return TileTable(**fields)
    lists = ('classes', 'per_class')  # a command line may give them as lists
    return SlideTask(
        **{key: tuple(value) if key in lists else value for key, value in fields.items()}
    )


def made_of(table: TileTable, seed: int) -> dict[str, Any]:
    """What tells a set of tiles apart from others; a folder is known by its name alone."""
    path, images = pathlib.Path(table.tiles), check_table(table, seed=seed).images
    settings = dataclasses.asdict(table) | {'tiles': path.name, 'images': images.name, 'seed': seed}
    files = {'file': path, 'archive': images}
    return settings | {
        name: workdir.fingerprint(file) for name, file in files.items() if file.is_file()
    }


def patches_made_with(home: pathlib.Path, task: str) -> dict[str, Any] | None:
    """What tells the patches of a task from others; None where there are none."""
    folder = home / 'patches' / task
    made_with = workdir.made_with(folder)
    return made_with and {**made_with, **slide_tasks.content(folder)}
