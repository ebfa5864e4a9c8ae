"""Time and memory of one slide's gradient into the encoder, by the number of its patches.

    python benchmarks/finetuning.py
    python benchmarks/finetuning.py --encoder=published --patches=256,1024,4096 \
        --plain_MiB=4096 --repeat=1 --name=finetuning_published
    python benchmarks/finetuning.py --encoder=published --patches=160000 --ways=streamed \
        --repeat=1 --name=finetuning_gigapixel

Three ways: pixels on the device, streamed from the host, and plain backpropagation through all
patches at once; where its compiled temporary memory is more than --plain_MiB, the crop is cut to
half of its patches until it fits. Each way and number in a process of its own: once with a few
patches to compile, then the best of --repeat. Patches are decoded from JPEG when they are read:
twice within the seconds of the streamed form, before those of the one on the device.
`forward_s` is the same loss without gradients; `share_of_input` is the share of the time in which
the calling thread waits for pixels: with pixels on the device, of a batch of three slides, since
one is loaded while another is computed. The small encoder takes patches of 32 px (three
convolutions, 16 features), the published one 128 px (128 features); the default model classifies.
Plain backpropagation is in float32 always. The record goes to benchmarks/results/NAME.json.
"""

import argparse
import datetime
import json
import math
import os
import pathlib
import platform
import re
import shlex
import subprocess
import sys
import tempfile
import time

import imagecodecs
import jax
import jax.numpy as jnp
import numpy as np

from nic_jax import devices
from nic_jax.classifiers.losses import data_loss
from nic_jax.classifiers.models import build_network
from nic_jax.classifiers.trained import initial_variables
from nic_jax.encoders.architectures import encoder_network
from nic_jax.encoders.conv import conv_encoder
from nic_jax.encoders.objective import initial_encoder
from nic_jax.finetuning import (
    Networks,
    Patches,
    batch_value_and_gradient,
    device_form,
    everything,
    merge,
    on_device,
    split,
    streamed,
    streamed_form,
)
from nic_jax.finetuning.settings import PRECISIONS

WAYS = ('device', 'streamed', 'plain')
TASK, TARGET = 'classification', np.int32(1)
_KEEP_ALL = {  # what is compiled, so that looking at its memory does not compile it once more
    'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
    'JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES': '-1',
}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--patches', default='256,1024,4096,16384')
    parser.add_argument('--encoder', default='small', choices=('small', 'published'))
    parser.add_argument('--chunk', type=int, default=64)
    parser.add_argument('--precision', default='float32', choices=PRECISIONS)
    parser.add_argument('--ways', default=','.join(WAYS))
    parser.add_argument('--plain_MiB', type=int, default=2048)
    parser.add_argument('--repeat', type=int, default=2)
    parser.add_argument('--name', default='finetuning')
    parser.add_argument('--only', help='used by this program itself: WAY/PATCHES')
    asked = parser.parse_args()
    if asked.only:
        way, patches = asked.only.split('/')
        print(json.dumps(measure(way, int(patches), asked)))
        return
    found = {way: {} for way in asked.ways.split(',')}
    with tempfile.TemporaryDirectory() as compiled:
        kept = {'JAX_COMPILATION_CACHE_DIR': compiled, **_KEEP_ALL}
        for patches in asked.patches.split(','):
            for way in asked.ways.split(','):
                told = subprocess.run(
                    [sys.executable, __file__, *sys.argv[1:], f'--only={way}/{patches}'],
                    check=True,
                    capture_output=True,
                    text=True,
                    env=os.environ | kept,
                ).stdout
                found[way][patches] = json.loads(told.splitlines()[-1])
                print(way, patches, found[way][patches], flush=True)
    record = {
        'command': shlex.join(['python', *sys.argv]),
        'date': datetime.date.today().isoformat(),
        'machine': f'{platform.machine()}, {os.cpu_count()} cores, {jax.devices()[0].device_kind}',
        'load_average': round(os.getloadavg()[1], 1),
        'encoder': asked.encoder,
        'chunk': asked.chunk,
        'precision': asked.precision,
        'ways': found,
    }
    path = pathlib.Path(__file__).parent / 'results' / f'{asked.name}.json'
    path.write_text(json.dumps(record, indent=1, ensure_ascii=False) + '\n', encoding='utf-8')


def measure(way: str, count: int, asked: argparse.Namespace) -> dict:
    largest = max(map(int, asked.patches.split(',')))
    networks, trees, size = _networks(asked.encoder, largest, half=asked.precision == 'bfloat16')
    slide = _slide(count, size, networks.crop)
    if way == 'plain':
        return _plain(networks, trees, slide, asked)
    temporary = _temporary(way, networks, trees, count, size, asked.chunk)
    form = {'device': device_form, 'streamed': streamed_form}[way](networks, chunk=asked.chunk)
    if way == 'streamed':  # compiled once for all sizes
        _step(form, trees, form.load(_slide(asked.chunk, size, networks.crop)))
    forward, seconds, waited = _timed(form, trees, form.load(slide), way, asked.repeat)
    if way == 'device':
        waited = _share_of_input(form, trees, slide)
    return {
        'temporary_MiB': _mib(temporary),
        **_peaks(),
        'seconds': round(seconds, 3),
        'patches_per_s': round(count / seconds, 1),
        'forward_s': round(forward, 3),
        'of_forward': round(seconds / forward, 2),
        'share_of_input': round(waited, 3),
    }


def _step(form, trees, loaded) -> tuple[float, float, float]:
    """Seconds of the loss without its gradient and with it, and the share that input took."""
    key, target, began = jax.random.key(0), jax.device_put(TARGET), time.perf_counter()
    jax.block_until_ready(form.outputs(*trees, loaded, key)[0])
    forward, began = time.perf_counter() - began, time.perf_counter()
    result = form.value_and_gradient(*trees, loaded, target, key, task=TASK)
    jax.block_until_ready(result.gradient)
    seconds = time.perf_counter() - began
    return forward, seconds, result.waited / seconds


def _timed(form, trees, loaded, way: str, repeat: int) -> tuple[float, float, float]:
    """As `_step`, the fastest of each; the share is that of the fastest gradient."""
    if way == 'device':
        _step(form, trees, loaded)  # compiles
    tries = [_step(form, trees, loaded) for _ in range(repeat)]
    _, seconds, share = min(tries, key=lambda each: each[1])
    return min(forward for forward, *_ in tries), seconds, share


def _share_of_input(form, trees, slide) -> float:
    """Of the time of a batch of three slides."""
    slides, targets = [(form, slide)] * 3, np.full(3, TARGET)
    for _ in range(2):  # once to compile
        began = time.perf_counter()
        batch = batch_value_and_gradient(*trees, slides, targets, jax.random.key(0), task=TASK)
    return batch.waited / (time.perf_counter() - began)


def _plain(networks, trees, slide, asked) -> dict:
    """Plain backpropagation of as many patches as fit."""

    def loss(trained, frozen, patches):
        variables = {name: merge(trained[name], frozen[name]) for name in trained}
        grid, cells = jnp.zeros((networks.crop**2, networks.code_size)), slide.cells[: len(patches)]
        grid = grid.at[cells].set(networks.encode(variables['encoder'], patches))
        codes = grid.reshape(1, networks.crop, networks.crop, -1)
        outputs = networks.classify(variables['classifier'], codes)
        return data_loss(outputs, TARGET[None], TASK)

    def compiled(count):
        patches = jax.ShapeDtypeStruct((count, *slide.read(0, 1).shape[1:]), np.uint8)
        gradient = jax.jit(jax.value_and_grad(loss)).lower(*trees, patches).compile()
        return gradient, _mib(gradient.memory_analysis().temp_size_in_bytes)

    whole = count = len(slide.cells)
    gradient, temporary = compiled(count)
    needed = temporary
    while temporary > asked.plain_MiB:
        if count == 1:
            raise SystemExit(f'--plain_MiB={asked.plain_MiB} is less than one patch takes')
        count //= 2
        gradient, temporary = compiled(count)
    patches = jax.device_put(slide.read(0, count))
    seconds = _best(lambda: gradient(*trees, patches), asked.repeat)
    return {
        'temporary_MiB': needed,
        'cut_to': round(count / whole, 4),  # of the crop
        **_peaks(),
        'seconds': round(seconds, 3),
        'patches_per_s': round(count / seconds, 1),
    }


def _networks(name: str, largest: int, *, half: bool) -> tuple[Networks, tuple, int]:
    """Networks with random weights, (trained, frozen) of both, and the patches' size."""
    if name == 'published':
        size, crop = 128, 400
        network = encoder_network(
            'multitask', family='published', patch_size=size, channels=3, code_size=128
        )
    else:
        size, crop = 32, math.isqrt(largest - 1) + 1
        network = encoder_network(
            'supervised', family='pyramid', patch_size=size, channels=3, code_size=16
        ) | {'widths': [8, 16, 32], 'dense': 0}
    encoder = conv_encoder(name, network, initial_encoder(network, jax.random.key(0)), mpp=1.0)
    classifier = build_network('spatial', {}, outputs=2, crop=crop)
    head = initial_variables(classifier, jax.random.key(1), crop=crop, code_size=encoder.code_size)
    parts = {'encoder': split(encoder.variables, everything), 'classifier': split(head, everything)}
    trees = tuple({key: pair[side] for key, pair in parts.items()} for side in (0, 1))
    trees = jax.device_put(trees, devices.replicated(devices.data_mesh()))
    networks = Networks(encoder.apply, classifier.apply, encoder.code_size, crop, half=half)
    return networks, trees, size


def _slide(count: int, size: int, crop: int) -> Patches:
    """Patches that are decoded from JPEG, of which a few repeat."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (64, size // 8, size // 8, 3), np.uint8)
    smooth = coarse.repeat(8, 1).repeat(8, 2)
    files = [imagecodecs.jpeg8_encode(patch, level=80) for patch in smooth]

    def read(start, stop):
        return np.stack([imagecodecs.jpeg8_decode(files[k % 64]) for k in range(start, stop)])

    return Patches(rng.permutation(crop**2)[:count].astype(np.int32), read)


def _temporary(way, networks, trees, count, size, chunk) -> int:
    """Bytes of the largest of the compiled functions."""
    mesh, key = devices.data_mesh(), jax.random.key(0)
    if way == 'device':
        S = on_device.steps_of(count, chunk)
        pixels = jax.ShapeDtypeStruct((S, chunk, size, size, 3), np.uint8)
        cells = jax.ShapeDtypeStruct((S, chunk), np.int32)
        gradient, _ = on_device.compiled(networks, mesh)
        lowered = [gradient.lower(*trees, pixels, cells, TARGET, key, task=TASK)]
    else:
        part = (
            jax.ShapeDtypeStruct((chunk, size, size, 3), np.uint8),
            jax.ShapeDtypeStruct((chunk,), np.int32),
        )
        grid = jax.ShapeDtypeStruct((networks.crop**2, networks.code_size), np.float32)
        _, encode, _, classify_back, encode_back = streamed.compiled(networks, mesh)
        lowered = [
            encode.lower(grid, part, *trees, key),
            classify_back.lower(*trees, grid, TARGET, task=TASK),
            encode_back.lower(trees[0]['encoder'], part, *trees, key, grid),
        ]
    return max(each.compile().memory_analysis().temp_size_in_bytes for each in lowered)


def _best(function, repeat: int) -> float:
    """Seconds of the fastest run but the first, which compiles."""
    seconds = []
    for _ in range(repeat + 1):
        began = time.perf_counter()
        jax.block_until_ready(function())
        seconds.append(time.perf_counter() - began)
    return min(seconds[1:])


def _peaks() -> dict[str, int]:
    """The most memory that the process has held (Linux), and the device where it tells."""
    status = pathlib.Path('/proc/self/status').read_text()
    peaks = {'peak_MiB': _mib(1024 * int(re.search(r'VmHWM:\s+(\d+) kB', status)[1]))}
    if stats := jax.devices()[0].memory_stats():
        peaks['peak_device_MiB'] = _mib(stats['peak_bytes_in_use'])
    return peaks


def _mib(count: int) -> int:
    return round(count / 2**20)


if __name__ == '__main__':
    main()
