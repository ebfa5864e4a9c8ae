"""The TensorStore arrays of a grid: zarr v3, sharded, float16, NaN for what is not there."""

import functools
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorstore as ts

CACHE_BYTES = 1 << 28


@functools.cache
def _context() -> ts.Context:
    """One cache of decoded chunks for all open grids of the process."""
    return ts.Context({'cache_pool': {'total_bytes_limit': CACHE_BYTES}})


def create(
    path: pathlib.Path,
    *,
    shape: Sequence[int],
    chunks: Sequence[int],
    shards: Sequence[int],
    dimension_names: Sequence[str],
    dtype: str = 'float16',
) -> ts.TensorStore:
    """Creates an array whose `shards` are files that hold `chunks`, each compressed alone."""
    inner = [
        {'name': 'bytes', 'configuration': {'endian': 'little'}},
        {
            'name': 'blosc',
            'configuration': {
                'cname': 'zstd',
                'clevel': 5,
                'shuffle': 'shuffle',
                'typesize': np.dtype(dtype).itemsize,
            },
        },
    ]
    sharding = {'chunk_shape': list(chunks), 'codecs': inner}
    return ts.open(
        {
            'driver': 'zarr3',
            'kvstore': {'driver': 'file', 'path': str(path)},
            'metadata': {
                'shape': list(shape),
                'data_type': dtype,
                'fill_value': {'f': 'NaN', 'b': False}.get(np.dtype(dtype).kind, 0),
                'chunk_grid': {
                    'name': 'regular',
                    'configuration': {'chunk_shape': list(shards)},
                },
                'codecs': [{'name': 'sharding_indexed', 'configuration': sharding}],
                'dimension_names': list(dimension_names),
            },
            # Without this an all-NaN shard would store nothing and look undone.
            'store_data_equal_to_fill_value': True,
        },
        create=True,
        delete_existing=True,
        context=_context(),
    ).result()


def open_array(path: pathlib.Path, *, writable: bool = False) -> ts.TensorStore:
    """Opens an existing array."""
    spec: dict[str, Any] = {
        'driver': 'zarr3',
        'kvstore': {'driver': 'file', 'path': str(path)},
        'store_data_equal_to_fill_value': True,
    }
    return ts.open(spec, open=True, read=True, write=writable, context=_context()).result()


def shard_exists(path: pathlib.Path, index: Sequence[int]) -> bool:
    """Tells whether the shard at `index` of the array at `path` is on disk, whole.

    TensorStore renames a finished file into place, so one that exists is whole.
    """
    return path.joinpath('c', *map(str, index)).is_file()
