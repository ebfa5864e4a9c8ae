"""Milliseconds of augmenting a batch: each transform of the strong preset alone, and the presets.

    python benchmarks/augmentation.py

The record goes to benchmarks/results/augmentation.json.
"""

import datetime
import json
import os
import pathlib
import platform
import shlex
import sys
import time

import jax
import numpy as np

from nic_jax.patches.augmentation import PRESETS, augment
from nic_jax.report.augmentation_sheet import single_transforms

SHAPES = ((64, 64, 64, 3), (64, 128, 128, 3))
REPEATS = 100


def main():
    settings = single_transforms(PRESETS['strong'])
    settings |= {name: PRESETS[name] for name in ('none', 'light', 'strong')}
    record = {
        'command': shlex.join(['python', *sys.argv]),
        'date': datetime.date.today().isoformat(),
        'machine': f'{platform.processor() or platform.machine()}, {os.cpu_count()} cores',
        'device': jax.devices()[0].device_kind,
        'jax': jax.__version__,
        'ms_per_batch': {},
    }
    for shape in SHAPES:
        patches = jax.device_put(np.random.default_rng(0).random(shape, np.float32))
        record['ms_per_batch']['×'.join(map(str, shape))] = {
            name: milliseconds(patches, one) for name, one in settings.items()
        }
    results = pathlib.Path(__file__).parent / 'results'
    text = json.dumps(record, indent=1, ensure_ascii=False)
    (results / 'augmentation.json').write_text(text + '\n')
    print(text)


def milliseconds(patches, settings) -> dict[str, float]:
    """The least and the median of many repetitions: others may use the machine's cores too."""
    key = jax.random.key(0)
    augment(key, patches, settings).block_until_ready()
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        augment(key, patches, settings).block_until_ready()
        times.append(1000 * (time.perf_counter() - start))
    return {'least': round(min(times), 2), 'median': round(float(np.median(times)), 2)}


if __name__ == '__main__':
    main()
