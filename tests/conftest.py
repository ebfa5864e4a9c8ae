"""Fixtures that every test may ask for."""

import atexit
import os
import pathlib
import shutil
import tempfile

import pytest
from program import Program

# A worker runs on every core; scikit-learn's threads beside it would wait for one another, busily.
# Before anything imports it.
os.environ.setdefault('OMP_NUM_THREADS', '1')

# What one test has compiled is there for all others: workers, and programs that tests start,
# inherit this. Most of the time of most tests is compilation.
if 'JAX_COMPILATION_CACHE_DIR' not in os.environ:
    _COMPILED = tempfile.mkdtemp(prefix='nic_jax-compiled-')
    atexit.register(shutil.rmtree, _COMPILED, ignore_errors=True)
    os.environ |= {
        'JAX_COMPILATION_CACHE_DIR': _COMPILED,
        'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
        'JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES': '-1',
    }


@pytest.fixture(scope='session')
def shared() -> pathlib.Path:
    """The folder of real slides and reference outputs; tests that need it skip without it."""
    default = pathlib.Path(__file__).parents[2] / 'shared'
    folder = pathlib.Path(os.environ.get('NIC_JAX_SHARED', default))
    if not (folder / 'data').is_dir():
        pytest.skip(f'no real data at {folder} (set NIC_JAX_SHARED)')
    return folder


@pytest.fixture(scope='session')
def program() -> Program:
    """The program, as a user starts it."""
    return Program()
