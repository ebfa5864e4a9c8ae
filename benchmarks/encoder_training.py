"""How fast each objective trains, and what of a step is augmentation and host work.

    python benchmarks/encoder_training.py

Random patches of 64 px, the settings of experiments/patch_benchmark.py. `images_per_s` counts
patches (two a pair, one a task). The share of augmentation is that of the same function alone, in
the same run; that of the host is the time to gather a batch, which threads do meanwhile. The
record goes to benchmarks/results/encoder_training.json.
"""

import datetime
import importlib.util
import json
import pathlib
import platform
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np

from nic_jax import encoder_stage
from nic_jax.compression.encode import batch_encoder
from nic_jax.encoders.batches import Source
from nic_jax.patches.augmentation import PRESETS, augment
from nic_jax.prefetch import default_workers

ROOT = pathlib.Path(__file__).parents[1]
PATCHES, SIZE, STEPS = 2000, 64, 8


def main():
    config = _experiment().get_config()
    for task in config.tasks.values():
        task.tiles = 'random'  # none are read
    source = _random_source()
    found = {}
    for name in encoder_stage.OBJECTIVES:
        settings = encoder_stage.settings_of(config, name)
        sets = dict.fromkeys(encoder_stage.sets_of(config, name), source)
        objective, feed = encoder_stage.build(name, settings, sets, code_size=128, seed=0)
        state = jax.jit(objective.initial)(jax.random.key(0))
        step = jax.jit(objective.step, donate_argnums=0)
        batch, gather = _timed(feed.train, 1)
        patches = next(array for array in batch.values() if array.ndim > 3)
        count = int(np.prod(patches.shape[:-3])) * (2 if name == 'vicreg' else 1)
        batch = jax.device_put(batch)
        seconds = []
        for number in range(STEPS + 1):
            key = jax.random.key(number)
            (state, _), taken = _timed(step, state, batch, key, 1e-3)
            seconds.append(taken)
        own = _augmentation(settings.augmentation, count)
        median = statistics.median(seconds[1:])
        found[name] = {
            'batch': settings.batch,
            'augmentation': settings.augmentation,
            'network': settings.network,
            'ms_a_step': round(1e3 * median, 1),
            'images_per_s': round(count / median, 1),
            'share_of_augmentation': round(own / median, 3),
            'share_of_gathering': round(gather / median, 3),
        }
        if name in ('supervised', 'bigan'):
            encoder = objective.encoder(
                {kind: state[kind] for kind in ('params', 'batch_stats')}, 1.0
            )
            encode = batch_encoder(encoder, versions=1)
            some = source.pixels[:512]
            jax.block_until_ready(encode(some))
            _, taken = _timed(encode, some)
            found[name]['encoding_patches_per_s'] = round(512 / taken, 1)
        print(name, json.dumps(found[name]), flush=True)
    record = {
        'command': 'python benchmarks/encoder_training.py',
        'date': datetime.date.today().isoformat(),
        'machine': f'{platform.machine()}, {default_workers()} cores, {jax.default_backend()}',
        'objectives': found,
    }
    path = pathlib.Path(__file__).parent / 'results' / 'encoder_training.json'
    path.write_text(json.dumps(record, indent=1) + '\n', encoding='utf-8')


def _experiment():
    path = ROOT / 'experiments' / 'patch_benchmark.py'
    spec = importlib.util.spec_from_file_location('experiment', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _random_source() -> Source:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (PATCHES, SIZE, SIZE, 3), np.uint8)
    pairs = rng.integers(0, PATCHES, (PATCHES, 3)).astype(np.int32)
    pairs[:, 2] %= 2
    everything = np.arange(PATCHES)
    labels = (everything % 2).astype(np.int32)
    return Source(
        pixels, everything, everything, labels, ('0', '1'), {'train': pairs, 'valid': pairs}
    )


def _augmentation(preset: str, count: int) -> float:
    """Median seconds to augment as many patches as a step does."""
    patches = jnp.zeros((count, SIZE, SIZE, 3)) + 0.5
    run = [
        _timed(augment, jax.random.key(number), patches, PRESETS[preset])[1]
        for number in range(STEPS + 1)
    ]
    return statistics.median(run[1:])


def _timed(function, *arguments):
    start = time.perf_counter()
    result = jax.block_until_ready(function(*arguments))
    return result, time.perf_counter() - start


if __name__ == '__main__':
    main()
