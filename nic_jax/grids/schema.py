"""How a compressed slide lies on disk: arrays, chunks, attributes, and the mark of completeness.

A grid is a zarr v3 group that zarr-python and xarray open alone:

- `codes` float16 `[version, y, x, feature]`, NaN where nothing was encoded;
- `tissue` float16 `[y, x]`, the share of tissue in each patch;
- attributes that tell where every cell lies and what made it.

The group's `zarr.json` is written once the arrays exist, with `complete` false, and once more, with
`complete` true, when the last shard is on disk. Each write of it is atomic.
"""

import hashlib
import json
import os
import pathlib
import shutil
from collections.abc import Mapping
from typing import Any, Literal

SCHEMA_VERSION = 1
CHUNK_CELLS = 32
SHARD_CELLS = 64

# Attributes that do not tell apart the settings of two grids.
_NOT_SETTINGS = frozenset({'complete', 'created_with'})


class GridError(ValueError):
    """A grid that cannot be read, is incomplete, or was made with other settings."""


def read_attributes(path: pathlib.Path) -> dict[str, Any] | None:
    """Returns the group's attributes, or None where no group has been written yet."""
    try:
        metadata = json.loads((path / 'zarr.json').read_text(encoding='utf-8'))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:  # ValueError: not JSON, or not even UTF-8
        raise GridError(f'{path}: its zarr.json cannot be read ({error}); delete it') from error
    return metadata.get('attributes', {})


def read_complete(path: pathlib.Path) -> dict[str, Any]:
    """Returns the attributes of a group that is complete.

    Raises:
        GridError: There is none, or it is not complete, or of an unknown schema.
    """
    attributes = read_attributes(path)
    if attributes is None:
        raise GridError(f'{path} is not a grid (it has no zarr.json)')
    if attributes.get('schema_version') != SCHEMA_VERSION:
        raise GridError(
            f'{path} has schema_version {attributes.get("schema_version")!r}; '
            f'this version of nic_jax reads {SCHEMA_VERSION}'
        )
    if not attributes.get('complete'):
        raise GridError(f'{path} is not complete; run the compress stage again to finish it')
    return attributes


def write_attributes(path: pathlib.Path, attributes: Mapping[str, Any]) -> None:
    """Writes the group's metadata so that a reader sees the old or the new, never half of it."""
    metadata = {'zarr_format': 3, 'node_type': 'group', 'attributes': dict(attributes)}
    partial = path / 'zarr.json.partial'
    text = json.dumps(metadata, indent=1, ensure_ascii=False)
    with partial.open('w', encoding='utf-8') as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())  # a power cut must not leave a short file under the final name
    os.replace(partial, path / 'zarr.json')


def begin(
    path: pathlib.Path, attributes: Mapping[str, Any], *, overwrite: bool
) -> Literal['new', 'begun', 'complete']:
    """Readies a group's folder for writing.

    Returns:
        'new': the folder is there and empty, its arrays are to be created; 'begun': it was
        interrupted, and what it holds is to be completed; 'complete': there is nothing to do.

    Raises:
        GridError: It was made with other settings and `overwrite` is false.
    """
    stored = read_attributes(path)
    if stored is not None:
        differences = differing_settings(stored, attributes)
        if differences and not overwrite:
            raise GridError(other_settings(path, differences))
        if not differences and stored.get('complete'):
            return 'complete'
        # What another version of this package began, it may have made otherwise: begin anew.
        if not differences and stored.get('created_with') == attributes.get('created_with'):
            return 'begun'
    if path.exists():
        (path / 'zarr.json').unlink(missing_ok=True)  # first: what is left is no grid any more
        shutil.rmtree(path)
    path.mkdir(parents=True)
    return 'new'


def differing_settings(stored: Mapping[str, Any], asked: Mapping[str, Any]) -> list[str]:
    """Returns 'key: stored, asked' for every setting in which two sets of attributes differ."""
    asked = json.loads(json.dumps(asked))  # tuples become lists, as they are when read back
    return [
        f'{key}: stored {stored.get(key)!r}, asked {asked.get(key)!r}'
        for key in sorted((stored.keys() | asked.keys()) - _NOT_SETTINGS)
        if stored.get(key) != asked.get(key)
    ]


def fingerprint(attributes: Mapping[str, Any]) -> str:
    """A hash of all that a grid was made from and with."""
    settings = {key: value for key, value in attributes.items() if key not in _NOT_SETTINGS}
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def other_settings(path: pathlib.Path, differences: list[str]) -> str:
    """The message for a grid that was made with other settings."""
    return (
        f'{path} was made with other settings ({"; ".join(differences)}); '
        'use another --workdir, or --overwrite to replace it'
    )
