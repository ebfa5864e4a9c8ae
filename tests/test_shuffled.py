"""The control for arrangement: the same codes in other places, in every version and crop."""

import numpy as np
import pytest
from array_grid import ArrayGrid
from small_grids import write_grid

from nic_jax.grids import VERSIONS, turn
from nic_jax.grids.cache import cached
from nic_jax.grids.shuffled import _BACK, ShuffledGrid

SHAPES = [(7, 4), (4, 9), (6, 6), (1, 5)]


def _grid(tmp_path, shape, *, share=0.6):
    """Every code tells its cell, from 1 on, and its version; the far corner is background."""
    height, width = shape
    encoded = np.random.default_rng(0).random(shape) < share
    encoded[0, 0], encoded[-1, -1] = True, False
    cells = 1 + np.arange(height * width).reshape(shape)
    codes = np.stack([np.stack([cells, np.full(shape, 10 + v)], -1) for v in VERSIONS])
    return write_grid(tmp_path / 'slide.zarr', codes, encoded=encoded), cells


@pytest.mark.parametrize('version', VERSIONS)
def test_every_version_is_turned_back(version):
    array = np.arange(16).reshape(4, 4)
    np.testing.assert_array_equal(turn(turn(array, version), _BACK[version]), array)


@pytest.mark.parametrize('shape', SHAPES)
def test_encoded_cells_change_places_and_nothing_else(tmp_path, shape):
    grid, cells = _grid(tmp_path, shape)
    shuffled = ShuffledGrid(grid, seed=(0, 1))
    assert (shuffled.slide_id, shuffled.shape, shuffled.code_size) == ('slide', shape, 2)
    np.testing.assert_array_equal(shuffled.encoded, grid.encoded)
    side = max(shape)
    orders = []
    for version in VERSIONS:
        whole = turn(shuffled.crop(0, 0, side, version), _BACK[version])
        assert not whole[shape[0] :].any()
        assert not whole[:, shape[1] :].any()
        whole = whole[: shape[0], : shape[1]]
        assert not whole[~grid.encoded].any()
        assert (whole[grid.encoded][:, 1] == 10 + version).all()  # the codes of this version
        assert sorted(whole[grid.encoded][:, 0]) == sorted(cells[grid.encoded])
        orders.append(whole[..., 0])
    assert (orders[0] != np.where(grid.encoded, cells, 0)).any()
    for order in orders[1:]:
        np.testing.assert_array_equal(order, orders[0])


@pytest.mark.parametrize('shape', SHAPES)
def test_crops_are_cut_from_the_shuffled_grid(tmp_path, shape):
    grid, _ = _grid(tmp_path, shape)
    shuffled = ShuffledGrid(grid, seed=(3,))
    whole = shuffled.crop(-10, -10, 30, 0)
    for version in VERSIONS:
        for top, left, size in ((0, 0, 3), (2, 1, 4), (-2, -1, 5), (3, 2, 9), (8, 8, 2)):
            expected = whole[top + 10 : top + 10 + size, left + 10 : left + 10 + size].copy()
            expected[..., 1] += version * (expected[..., 1] > 0)
            got = shuffled.crop(top, left, size, version)
            assert got.dtype == np.float32
            np.testing.assert_array_equal(got, turn(expected, version))


def test_the_seed_decides_and_is_told(tmp_path):
    grid, _ = _grid(tmp_path, (9, 9))
    first, again, other = (ShuffledGrid(grid, seed=seed) for seed in ((0, 1), (0, 1), (0, 2)))
    np.testing.assert_array_equal(first.crop(0, 0, 9, 0), again.crop(0, 0, 9, 0))
    assert (first.crop(0, 0, 9, 0) != other.crop(0, 0, 9, 0)).any()
    prints = {each.fingerprint for each in (grid, first, again, other)}
    assert len(prints) == 3
    assert first.fingerprint == again.fingerprint


def test_memory_or_disk_makes_no_difference(tmp_path):
    grid, _ = _grid(tmp_path, (7, 4))
    (kept,) = cached([grid], budget=10**6)
    for version in VERSIONS:
        np.testing.assert_array_equal(
            ShuffledGrid(kept, seed=(5,)).crop(1, 0, 5, version),
            ShuffledGrid(grid, seed=(5,)).crop(1, 0, 5, version),
        )


def test_a_grid_of_one_cell_or_none_stays():
    for count in (0, 1):
        encoded = np.arange(6).reshape(2, 3) < count
        grid = ArrayGrid('a', np.ones((2, 3, 1)), encoded)
        np.testing.assert_array_equal(
            ShuffledGrid(grid, seed=(0,)).crop(0, 0, 3, 5), grid.crop(0, 0, 3, 5)
        )
