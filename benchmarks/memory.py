"""Peak memory of compressing slides of growing size: it must not grow with them.

    python benchmarks/memory.py --slide=CMU-1-Small-Region.svs

Each slide is a JPEG TIFF made by tiling the given one, compressed with mean-RGB (eight versions are
one), every cell, in a process of its own. The record goes to benchmarks/results/memory.json.
"""

import argparse
import datetime
import json
import pathlib
import re
import shlex
import subprocess
import sys
import tempfile

import compress

from nic_jax.cohort import SlideEntry
from nic_jax.compression.compress import compress_cohort
from nic_jax.compression.settings import CompressSettings
from nic_jax.encoders.mean_rgb import mean_rgb

SIDES = (4096, 16384, 32768)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--slide', required=True, type=pathlib.Path)
    parser.add_argument('--compress', type=pathlib.Path, help='used by this program itself')
    arguments = parser.parse_args()
    if arguments.compress:
        print(peak_mib(arguments.compress))
        return
    peaks = {}
    with tempfile.TemporaryDirectory() as folder:
        for side in SIDES:
            path = pathlib.Path(folder) / f'{side}.tif'
            compress.write_tiled(arguments.slide, path, side=side)
            command = [sys.executable, __file__, f'--slide={path}', f'--compress={path}']
            told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            peaks[f'{side}×{side} px'] = int(told.splitlines()[-1])
            path.unlink()
    record = {
        'command': shlex.join(['python', *sys.argv]),
        'date': datetime.date.today().isoformat(),
        'peak_memory_MiB': peaks,
    }
    results = pathlib.Path(__file__).parent / 'results'
    (results / 'memory.json').write_text(json.dumps(record, indent=1, ensure_ascii=False) + '\n')
    print(json.dumps(record, indent=1, ensure_ascii=False))


def peak_mib(path: pathlib.Path) -> int:
    """Compresses a slide and returns the most memory that this process has held (Linux)."""
    settings = CompressSettings(patch_size=128, stride=128, mpp=0.5, encode_all=True)
    with tempfile.TemporaryDirectory() as folder:
        entry = SlideEntry('slide', path, mpp=0.5)
        home = pathlib.Path(folder)
        compress_cohort([entry], mean_rgb(), folder=home / 'mean_rgb', settings=settings)
    # Not ru_maxrss: that begins at the parent's, which has just held a whole slide.
    status = pathlib.Path('/proc/self/status').read_text()
    return int(re.search(r'VmHWM:\s+(\d+) kB', status)[1]) // 1024


if __name__ == '__main__':
    main()
