"""Patches a second from file to codes, against the encoder alone and decoding alone, in one run.

    python benchmarks/compress.py --encoder=encoder_bigan.h5 --slide=cmu-1-small-region.svs

Measures on the given slide as it is, and on a JPEG TIFF of 16384×16384 px made by tiling it. Every
cell is encoded, tissue or not, one version, so that all of the three count the same patches. The
record goes to benchmarks/results/compress.json.
"""

import argparse
import datetime
import json
import os
import pathlib
import platform
import shlex
import sys
import tempfile
import time

import jax
import numpy as np
import openslide
import tifffile

from nic_jax import prefetch
from nic_jax.cohort import SlideEntry
from nic_jax.compression.compress import compress_cohort
from nic_jax.compression.encode import batch_encoder
from nic_jax.compression.settings import CompressSettings
from nic_jax.encoders.storage import load_encoder
from nic_jax.grids import schema
from nic_jax.slides import open_slide, stream, tiling

SIDE = 16384
REPEATS = 3


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--encoder', required=True)
    parser.add_argument('--slide', required=True, type=pathlib.Path)
    parser.add_argument('--batch', type=int, default=CompressSettings.batch)
    arguments = parser.parse_args()
    encoder = load_encoder(arguments.encoder)
    settings = CompressSettings(
        patch_size=128,
        stride=128,
        mpp=0.5,
        encode_all=True,
        versions=1,
        batch=arguments.batch,
        workers=prefetch.default_workers(),
    )
    record = {
        'command': shlex.join(['python', *sys.argv]),
        'date': datetime.date.today().isoformat(),
        'machine': f'{platform.processor() or platform.machine()}, {os.cpu_count()} cores',
        'device': jax.devices()[0].device_kind,
        'jax': jax.__version__,
        'bound': {'matrix product, GFLOP/s': round(matrix_gflops(), 1)},
        'slides': {},
    }
    # The published architecture takes 90 MFLOP a patch.
    record['bound']['patches_per_s'] = round(record['bound']['matrix product, GFLOP/s'] / 0.09)
    with tempfile.TemporaryDirectory() as folder:
        tiled = pathlib.Path(folder) / 'tiled.tif'
        write_tiled(arguments.slide, tiled, side=SIDE)
        for path, mpp in ((arguments.slide, None), (tiled, 0.5)):
            record['slides'][path.name] = measure(path, mpp, encoder, settings, folder)
    results = pathlib.Path(__file__).parent / 'results'
    results.mkdir(exist_ok=True)
    (results / 'compress.json').write_text(json.dumps(record, indent=1) + '\n')
    print(json.dumps(record, indent=1))


def matrix_gflops() -> float:
    """The device's float32 matrix product, best of a few."""
    side = 2048
    product = jax.jit(lambda a: a @ a)
    matrix = np.random.default_rng(0).random((side, side), np.float32)
    product(matrix).block_until_ready()
    times = []
    for _ in range(5):
        start = time.perf_counter()
        product(matrix).block_until_ready()
        times.append(time.perf_counter() - start)
    return 2 * side**3 / min(times) / 1e9


def measure(path, mpp, encoder, settings, folder) -> dict:
    """Best of a few repetitions of each, interleaved."""
    encode = batch_encoder(encoder, versions=1)
    size = settings.patch_size
    noise = np.random.default_rng(0).integers(0, 256, (settings.batch, size, size, 3), np.uint8)
    np.asarray(encode(noise))
    with open_slide(path, mpp=mpp) as slide:
        plan = tiling.plan_grid(
            slide.levels,
            bounds=slide.bounds,
            mpp_level0=slide.mpp,
            mpp=settings.mpp,
            patch_size=size,
            stride=settings.stride,
        )
    cells = plan.shape[0] * plan.shape[1]
    everything = np.ones(plan.shape, bool)
    shards = list(tiling.shards(plan, schema.SHARD_CELLS))
    times = {'file to grid': [], 'encoder alone': [], 'decoding alone': []}
    for repeat in range(REPEATS):
        with open_slide(path, mpp=mpp) as slide:  # anew: no tile is cached
            start = time.perf_counter()
            for _ in stream.stream(
                slide,
                plan,
                everything,
                shards=shards,
                shard_side=schema.SHARD_CELLS,
                batch=settings.batch,
                workers=settings.workers,
            ):
                pass
            times['decoding alone'].append(time.perf_counter() - start)

        start = time.perf_counter()
        codes = [encode(noise) for _ in range(-(-cells // settings.batch))]
        jax.block_until_ready(codes)
        whole = time.perf_counter() - start
        times['encoder alone'].append(whole * cells / (len(codes) * settings.batch))

        home = pathlib.Path(folder) / f'{path.stem}_{repeat}'
        home.mkdir()
        # The first slide pays for compiling; the second is what each of a cohort costs.
        entries = [SlideEntry(f'{path.stem}_{number}', path, mpp=mpp) for number in range(2)]
        compress_cohort(entries, encoder, folder=home / encoder.name, settings=settings)
        records = (home / 'metrics.jsonl').read_text().splitlines()
        times['file to grid'].append(json.loads(records[-1])['seconds'])
    rates = {name: round(cells / min(values), 1) for name, values in times.items()}
    slower = min(rates['encoder alone'], rates['decoding alone'])
    # On a CPU both share the cores, so that their times add up.
    both = 1 / (1 / rates['encoder alone'] + 1 / rates['decoding alone'])
    return {
        'cells': cells,
        'patches_per_s': rates,
        'share_of_the_slower_alone': round(rates['file to grid'] / slower, 3),
        'share_of_both_in_turn': round(rates['file to grid'] / both, 3),
    }


def write_tiled(source: pathlib.Path, path: pathlib.Path, *, side: int) -> None:
    """A JPEG TIFF of 256-px tiles, with a pyramid, from repetitions of a slide's level 0."""
    with openslide.OpenSlide(source) as slide:
        image = np.asarray(slide.read_region((0, 0), 0, slide.dimensions).convert('RGB'))
    times = [-(-side // length) for length in image.shape[:2]]
    image = np.tile(image, (*times, 1))[:side, :side]
    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        for level in range(6):
            tiff.write(
                image,
                tile=(256, 256),
                photometric='rgb',
                compression='jpeg',
                compressionargs={'level': 80},
                subfiletype=int(level > 0),
            )
            image = image[::2, ::2]


if __name__ == '__main__':
    main()
