"""Fixtures that every test may ask for."""

import os
import pathlib

import pytest

# A worker runs on every core; scikit-learn's threads beside it would wait for one another, busily.
# Before anything imports it.
os.environ.setdefault('OMP_NUM_THREADS', '1')


@pytest.fixture(scope='session')
def shared() -> pathlib.Path:
    """The folder of real slides and reference outputs; tests that need it skip without it."""
    default = pathlib.Path(__file__).parents[2] / 'shared'
    folder = pathlib.Path(os.environ.get('NIC_JAX_SHARED', default))
    if not (folder / 'data').is_dir():
        pytest.skip(f'no real data at {folder} (set NIC_JAX_SHARED)')
    return folder
