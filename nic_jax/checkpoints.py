"""Trees of arrays on disk, the newest only. The one place that knows Orbax.

A folder holds one numbered checkpoint, `FOLDER/7/`. The next one is written beside it, renamed into
place, and only then is the old one removed: a kill at any time leaves a whole one.
"""

import logging
import pathlib
from typing import Any

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

logging.getLogger('absl').addFilter(
    # Orbax tells of every save and load; its warnings stay.
    lambda record: record.levelno >= logging.WARNING or 'orbax' not in record.pathname
)


class CheckpointError(ValueError):
    """A checkpoint that does not hold what was asked for."""


def save(folder: pathlib.Path, tree: Any) -> None:
    """Writes a tree of arrays, in place of the one that `folder` may hold."""
    tree = jax.tree.map(np.array, jax.device_get(tree))
    with ocp.training.Checkpointer(
        folder.absolute(),
        preservation_policy=ocp.training.preservation_policies.LatestN(1),
        cleanup_tmp_directories=True,
    ) as checkpointer:
        latest = checkpointer.latest
        checkpointer.save(0 if latest is None else latest.step + 1, tree)


def exists(folder: pathlib.Path) -> bool:
    """Tells whether `folder` holds a checkpoint."""
    return _latest(folder) is not None


def restore(folder: pathlib.Path, like: Any) -> Any:
    """Reads the checkpoint in `folder`.

    Args:
        folder: Where `save` wrote.
        like: A tree of the same structure, of arrays or `jax.ShapeDtypeStruct`.

    Returns:
        The structure of `like` with NumPy arrays.

    Raises:
        CheckpointError: there is none, or its arrays have other names, shapes or dtypes.
    """
    path = _latest(folder)
    if path is None:
        raise CheckpointError(f'{folder} holds no checkpoint; run what writes it first')
    stored = _describe(ocp.metadata(path).metadata)
    expected = _describe(like)
    if stored != expected:
        name = min(key for key in stored | expected if stored.get(key) != expected.get(key))
        found, wanted = (each.get(name, 'absent') for each in (stored, expected))
        raise CheckpointError(
            f'{path}: {name} is {found} but {wanted} was expected; it was written by another '
            'network or with other settings: use those, or remove it'
        )
    template = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), like)
    return ocp.load(path, template)


def _latest(folder: pathlib.Path) -> pathlib.Path | None:
    steps = [path for path in folder.absolute().glob('*') if path.name.isdecimal()]
    whole = [path for path in steps if ocp.is_orbax_checkpoint(path)]
    return max(whole, key=lambda path: int(path.name), default=None)


def _describe(tree: Any) -> dict[str, str]:
    """Names of leaves → shapes and dtypes. Tuples become lists on disk; their names are alike."""
    return {
        '.'.join(
            str(getattr(key, 'key', getattr(key, 'idx', getattr(key, 'name', key)))) for key in path
        ): (f'{np.dtype(leaf.dtype).name}{list(leaf.shape)}')
        for path, leaf in jax.tree.leaves_with_path(tree)
    }
