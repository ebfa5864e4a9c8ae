"""Codes from memory are those from disk, and no more memory is taken than was given."""

import concurrent.futures
import itertools
import threading

import numpy as np
import pytest
from small_grids import write_grid

from nic_jax.grids import VERSIONS
from nic_jax.grids.cache import cached
from nic_jax.grids.reading import Grid

SHAPE, C = (70, 12), 3  # two shards
LAYER = 2 * SHAPE[0] * SHAPE[1] * C  # bytes
CROPS = ((0, 0, 12), (-3, -5, 9), (60, 8, 16), (5, -40, 90), (200, 0, 4))


def _encoded():
    return np.random.default_rng(0).random(SHAPE) < 0.6


def _codes(versions, seed=1):
    return np.random.default_rng(seed).normal(size=(versions, *SHAPE, C))


@pytest.fixture(scope='module')
def eight(tmp_path_factory):
    """A slide in eight versions."""
    path = tmp_path_factory.mktemp('grids') / 'eight.zarr'
    return write_grid(path, _codes(8), encoded=_encoded())


@pytest.fixture(scope='module')
def one(tmp_path_factory):
    """A slide in one version, whose layout alone is turned."""
    path = tmp_path_factory.mktemp('grids') / 'one.zarr'
    return write_grid(path, _codes(1, seed=2), encoded=_encoded(), layout_only=True)


def _check(kept, grid):
    for (top, left, size), version in itertools.product(CROPS, VERSIONS):
        got = kept.crop(top, left, size, version)
        assert got.dtype == np.float32
        np.testing.assert_array_equal(got, grid.crop(top, left, size, version))


def _bytes(kept):
    return sum(layer.nbytes for layer in kept.memory.layers.values())


@pytest.mark.parametrize('name', ['eight', 'one'])
def test_crops_are_those_of_the_grid(request, monkeypatch, name):
    grid = request.getfixturevalue(name)
    (kept,) = cached([grid], budget=8 * LAYER)
    expected = [grid.crop(*crop, version) for crop in CROPS for version in VERSIONS]
    _check(kept, grid)
    assert _bytes(kept) == {'eight': 8, 'one': 1}[name] * LAYER
    # From now on, nothing is read.
    monkeypatch.setattr(Grid, 'layer', None)
    monkeypatch.setattr(Grid, 'crop', None)
    again = [kept.crop(*crop, version) for crop in CROPS for version in VERSIONS]
    for got, wanted in zip(again, expected, strict=True):
        np.testing.assert_array_equal(got, wanted)


def test_it_is_the_slide_that_it_keeps(eight, one):
    for kept, grid in zip(cached([eight, one], budget=0), (eight, one), strict=True):
        for name in ('slide_id', 'shape', 'code_size', 'fingerprint'):
            assert getattr(kept, name) == getattr(grid, name)
        np.testing.assert_array_equal(kept.encoded, grid.encoded)


@pytest.mark.parametrize('layers', [0, 1, 3])
def test_the_budget_is_for_all_grids_and_kept_to(eight, one, layers):
    grids = (eight, one)
    kept = cached(grids, budget=(layers + 1) * LAYER - 1)
    for each, grid in zip(kept, grids, strict=True):
        _check(each, grid)
    assert kept[0].memory is kept[1].memory
    assert _bytes(kept[0]) == layers * LAYER
    assert kept[0].memory.left == LAYER - 1


def test_turning_the_layout_reads_version_0_only(one):
    (kept,) = cached([one], budget=8 * LAYER)
    plain = kept.crop(0, 0, 12, 0)
    for version in VERSIONS[1:]:
        turned = kept.crop(0, 0, 12, version)
        assert sorted(map(tuple, turned.reshape(-1, C))) == sorted(map(tuple, plain.reshape(-1, C)))
        assert (turned != plain).any()
    assert list(kept.memory.layers) == [(0, 0)]


def test_threads_that_ask_at_once_get_the_same_and_pay_once(eight, monkeypatch):
    expected = eight.crop(0, 0, 12, 3)
    (kept,) = cached([eight], budget=2 * LAYER)
    began, asked, read = threading.Event(), threading.Event(), Grid.layer

    def slow(self, number):
        began.set()
        assert asked.wait(10)
        return read(self, number)

    monkeypatch.setattr(Grid, 'layer', slow)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        first = pool.submit(kept.crop, 0, 0, 12, 3)
        assert began.wait(10)
        others = [pool.submit(kept.crop, 0, 0, 12, 3) for _ in range(20)]
        for other in others:  # while the layer is being read
            np.testing.assert_array_equal(other.result(10), expected)
        asked.set()
        np.testing.assert_array_equal(first.result(10), expected)
    assert kept.memory.left == LAYER
    assert _bytes(kept) == LAYER
    np.testing.assert_array_equal(kept.crop(0, 0, 12, 3), expected)


def test_many_threads_over_all_versions(eight):
    (kept,) = cached([eight], budget=5 * LAYER)
    wanted = [(*crop, version) for crop in CROPS for version in VERSIONS] * 4
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for crop, got in zip(wanted, pool.map(lambda crop: kept.crop(*crop), wanted), strict=True):
            np.testing.assert_array_equal(got, eight.crop(*crop))
    assert _bytes(kept) == 5 * LAYER
    assert kept.memory.left == 0
