"""Time and memory of saliency on one large grid, whole: by method and model.

    python benchmarks/explanation.py [--cells=400] [--models=cnn,spatial]

A grid of random codes in memory, 128 features, explained in one version by a network with random
weights: the paper's CNN for crops of 400, and the default model on crops of 400. Each method and
model in a process of its own, once to compile and once more for the time. Occlusion, a forward pass
for every block of cells, is left out. The record goes to benchmarks/results/explanation.json.
"""

import argparse
import datetime
import json
import pathlib
import platform
import re
import shlex
import subprocess
import sys
import time

import jax
import numpy as np

from nic_jax.classifiers.models import build_network
from nic_jax.classifiers.trained import Trained, TrainSettings, initial_variables
from nic_jax.explanation.saliency import ExplainSettings, explain, methods_of
from nic_jax.grids import turn

FEATURES = 128
METHODS = ('grad_cam', 'attention', 'integrated_gradients')
STEPS = 16  # of integrated gradients


class RandomGrid:
    """Codes everywhere, float16 as on disk."""

    slide_id = fingerprint = 'random'
    code_size = FEATURES

    def __init__(self, cells: int):
        self.shape = (cells, cells)
        self.encoded = np.ones(self.shape, bool)
        rng = np.random.default_rng(0)
        self.stored = rng.standard_normal((cells, cells, FEATURES), np.float32).astype(np.float16)

    def crop(self, top: int, left: int, size: int, version: int) -> np.ndarray:
        """float32 `[size, size, C]`."""
        square = np.zeros((size, size, FEATURES), np.float32)
        height, width = self.shape
        square[-top : height - top, -left : width - left] = self.stored
        return turn(square, version)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--cells', type=int, default=400)
    parser.add_argument('--models', default='cnn,spatial')
    parser.add_argument('--only', help='used by this program itself: MODEL/METHOD')
    asked = parser.parse_args()
    if asked.only:
        print(json.dumps(measure(asked.cells, *asked.only.split('/'))))
        return
    found = {}
    for model in asked.models.split(','):
        for method in METHODS:
            command = [
                sys.executable,
                __file__,
                f'--cells={asked.cells}',
                f'--only={model}/{method}',
            ]
            told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            if (record := json.loads(told.splitlines()[-1])) is not None:
                found[f'{model}, {method}'] = record
                print(model, method, record, flush=True)
    record = {
        'command': shlex.join(['python', *sys.argv]),
        'date': datetime.date.today().isoformat(),
        'machine': f'{platform.machine()}, {jax.devices()[0].device_kind}',
        'grid': [asked.cells, asked.cells, FEATURES],
        'integrated_gradients_steps': STEPS,
        'one_version': found,
    }
    path = pathlib.Path(__file__).parent / 'results' / 'explanation.json'
    path.write_text(json.dumps(record, indent=1, ensure_ascii=False) + '\n', encoding='utf-8')


def measure(cells: int, model: str, method: str) -> dict | None:
    """Seconds of one version, and the most memory held by the process (Linux)."""
    settings = TrainSettings(crop=400, versions=(0,))
    network = build_network(model, {}, outputs=2, crop=settings.crop)
    if not methods_of(network, [method]):
        return None
    variables = initial_variables(network, jax.random.key(0), crop=400, code_size=FEATURES)
    trained = Trained(
        model, {}, settings, 'classification', 2, FEATURES, 0, 0.0, 1.0, variables, 0, [], {}
    )
    grid, asked = RandomGrid(cells), ExplainSettings((method,), steps=STEPS)
    explain([trained], grid, asked, target=1)
    began = time.perf_counter()
    found = explain([trained], grid, asked, target=1)[method]
    seconds = time.perf_counter() - began
    assert np.isfinite(found).all()
    status = pathlib.Path('/proc/self/status').read_text()
    peak = int(re.search(r'VmHWM:\s+(\d+) kB', status)[1]) // 1024
    return {'seconds': round(seconds, 2), 'peak_MiB': peak}


if __name__ == '__main__':
    main()
