"""Starts the program as a user does, for tests of whole runs."""

import importlib.util
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[1]


class Program:
    """Starts the program on the CPU."""

    def start(self, workdir, experiment, *arguments):
        """Starts the program in a process group of its own."""
        return subprocess.Popen(
            [sys.executable, '-m', 'nic_jax.main', f'--config=experiments/{experiment}']
            + [f'--workdir={workdir}', *arguments],
            cwd=ROOT,
            env=os.environ
            | {
                'JAX_PLATFORMS': 'cpu',
                # A third less time: nearly all of it is compilation.
                'JAX_DISABLE_MOST_OPTIMIZATIONS': '1',
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, workdir, experiment, *arguments, status=0):
        """What a run prints; see `finish`."""
        return finish(self.start(workdir, experiment, *arguments), status=status)


def finish(process, *, status=0):
    """What a process prints on both streams, after a check of its exit status."""
    printed = '\n'.join(process.communicate())
    assert process.returncode == status, printed
    assert 'Traceback' not in printed
    return printed


def load_experiment(name):
    """The module of experiments/NAME."""
    path = ROOT / 'experiments' / name
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
