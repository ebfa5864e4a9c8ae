"""Fixtures that every test may ask for."""

import os
import pathlib

import pytest


@pytest.fixture(scope='session')
def shared() -> pathlib.Path:
    """The folder of real slides and reference outputs; tests that need it skip without it."""
    default = pathlib.Path(__file__).parents[2] / 'shared'
    folder = pathlib.Path(os.environ.get('NIC_JAX_SHARED', default))
    if not (folder / 'data').is_dir():
        pytest.skip(f'no real data at {folder} (set NIC_JAX_SHARED)')
    return folder
