"""Does reading grids hold training up? Steps a second from the store, from the cache, from memory.

    python benchmarks/grid_training.py [--cells=40] [--slides=100]

Random grids in the stored format, 128 features and one version, in a temporary folder; a second
epoch of training from the store alone (no cache), with the cache that fills as it trains, and from
arrays in memory beforehand, each as `classify` trains: crops read ahead by threads, batches of 16.
The record goes to benchmarks/results/grid_training.json.
"""

import argparse
import datetime
import json
import os
import pathlib
import platform
import tempfile
from collections.abc import Sequence

import jax
import numpy as np

import nic_jax.grids
from nic_jax.classifiers.batches import Examples
from nic_jax.classifiers.trained import TrainSettings
from nic_jax.classifiers.training import train
from nic_jax.grids import GridLike, schema
from nic_jax.grids.cache import cached
from nic_jax.grids.writing import open_writer

ROOT = pathlib.Path(__file__).parents[1]
FEATURES, EPOCHS = 128, 4
ATTRIBUTES = {
    'schema_version': schema.SCHEMA_VERSION,
    'encode_all': True,
    'encoder': {'name': 'random', 'turn_invariant': True},
    'tissue': {'threshold': 0.6},
    'versions': 1,
}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--cells', type=int, default=40)
    parser.add_argument('--slides', type=int, default=100)
    asked = parser.parse_args()
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        home = pathlib.Path(folder)
        paths = [_write(home / f'{number}.zarr', asked.cells) for number in range(asked.slides)]
        for model in ('spatial', 'cnn', 'abmil'):
            speeds = {}
            for way in ('store', 'cache', 'memory'):
                grids = _open(paths, way)
                settings = TrainSettings(
                    crop=asked.cells, epochs=EPOCHS, steps_per_epoch=25, checkpoint_every=EPOCHS
                )
                trained = train(
                    train=_examples(grids[:-8]),
                    valid=_examples(grids[-8:]),
                    task='classification',
                    classes=2,
                    model=model,
                    fields={},
                    settings=settings,
                    seed=0,
                    folder=home / model / way,
                )
                # The first epoch compiles and fills the cache.
                steps = [record['steps_per_s'] for record in trained.history[1:]]
                speeds[way] = round(float(np.median(steps)), 2)
            ratios = {way: round(speeds[way] / speeds['memory'], 3) for way in ('store', 'cache')}
            found[model] = {'steps_per_s': speeds, 'of_memory': ratios}
            print(model, found[model])
    record = {
        'command': f'python benchmarks/grid_training.py --cells={asked.cells} '
        f'--slides={asked.slides}',
        'date': datetime.date.today().isoformat(),
        'machine': {
            'processor': platform.processor() or platform.machine(),
            'cores': os.cpu_count(),
            'device': jax.devices()[0].device_kind,
            'jax': jax.__version__,
        },
        'grids': {'cells': asked.cells, 'features': FEATURES, 'slides': asked.slides, 'batch': 16},
        'models': found,
    }
    path = ROOT / 'benchmarks' / 'results' / 'grid_training.json'
    path.write_text(json.dumps(record, indent=1) + '\n', encoding='utf-8')


def _write(path: pathlib.Path, cells: int) -> pathlib.Path:
    rng = np.random.default_rng(int(path.stem))
    writer = open_writer(
        path,
        attributes={**ATTRIBUTES, 'slide_id': path.stem},
        tissue=np.ones((cells, cells), np.float16),
        versions=1,
        code_size=FEATURES,
    )
    for row, column in writer.missing:
        shape = (1, *(min(64, cells - 64 * k) for k in (row, column)), FEATURES)
        writer.write((row, column), rng.normal(size=shape).astype(np.float16)).result()
    writer.finish()
    return path


def _open(paths: Sequence[pathlib.Path], way: str) -> list[GridLike]:
    grids = [nic_jax.grids.open(path) for path in paths]
    if way == 'store':
        return cached(grids, budget=0)
    kept = cached(grids, budget=1 << 40)
    if way == 'memory':
        for grid in kept:
            grid.crop(0, 0, grid.shape[0], 0)
    return kept


def _examples(grids: Sequence[GridLike]) -> Examples:
    ids = [grid.slide_id for grid in grids]
    return Examples(grids, np.arange(len(grids)) % 2, ids)


if __name__ == '__main__':
    main()
