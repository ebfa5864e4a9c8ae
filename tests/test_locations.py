"""Which cells of a grid become patches."""

import numpy as np
import pytest
from scipy import ndimage

from nic_jax.patches.locations import choose_cells


def blob(height=40, width=50, seed=0):
    noise = np.random.default_rng(seed).normal(size=(height, width))
    return ndimage.gaussian_filter(noise, 2) > 0


def mask_of(cells, shape):
    mask = np.zeros(shape, bool)
    mask[tuple(cells.T)] = True
    return mask


@pytest.mark.parametrize('neighbours', [False, True])
@pytest.mark.parametrize('quota', [1, 2, 7, 300, 10_000])
def test_as_many_as_asked_all_of_them_tissue_none_twice(quota, neighbours):
    tissue = blob()
    cells = choose_cells(tissue, quota=quota, seed=(0,), neighbours=neighbours)
    assert len(cells) == min(quota, tissue.sum())
    assert tissue[tuple(cells.T)].all()
    assert len(np.unique(cells, axis=0)) == len(cells)
    assert (cells == np.argwhere(mask_of(cells, tissue.shape))).all()  # row-major


def test_a_pure_function_of_its_arguments():
    tissue = blob()
    first, again, other = (choose_cells(tissue, quota=99, seed=(s, 5)) for s in (1, 1, 2))
    assert (first == again).all()
    assert first.tolist() != other.tolist()
    assert choose_cells(np.zeros((3, 0), bool), quota=5, seed=(0,)).shape == (0, 2)
    assert choose_cells(np.zeros((3, 3), bool), quota=5, seed=(0,), neighbours=True).shape == (0, 2)


def test_every_cell_is_equally_likely():
    tissue = blob(8, 9)
    counts = np.zeros(tissue.shape)
    for seed in range(2000):
        counts[tuple(choose_cells(tissue, quota=6, seed=(seed,)).T)] += 1
    drawn, expected = counts[tissue], 2000 * 6 / tissue.sum()
    assert np.abs(drawn - expected).max() < 5 * np.sqrt(expected)


@pytest.mark.parametrize('neighbours', [False, True])
def test_classes_are_balanced_as_far_as_there_are_cells(neighbours):
    tissue = blob()
    labels = np.full(tissue.shape, -1)
    labels[:, :20], labels[:, 20:40] = 0, 2
    labels[3:5, 44:46] = 1
    tissue[3:5, 44:46] = True
    cells = choose_cells(
        tissue, quota=101, seed=(0,), labels=labels, classes=3, neighbours=neighbours
    )
    drawn = labels[tuple(cells.T)]
    assert np.bincount(drawn, minlength=3).tolist() == [34, 4, 33]  # never −1
    assert tissue[tuple(cells.T)].all()


def test_neighbours_are_drawn_beside_each_other():
    tissue = blob(200, 200)
    eight = np.ones((3, 3))
    eight[1, 1] = 0

    def with_neighbour(cells):
        chosen = mask_of(cells, tissue.shape)
        return (ndimage.convolve(chosen.astype(int), eight, mode='constant') > 0)[chosen]

    cells = choose_cells(tissue, quota=200, seed=(3,), neighbours=True)
    assert with_neighbour(cells).mean() > 0.97  # one may be cut from its partner by the quota
    assert with_neighbour(choose_cells(tissue, quota=200, seed=(3,))).mean() < 0.3


def test_cells_without_a_neighbour_come_last():
    tissue = np.zeros((9, 9), bool)
    tissue[::2, ::2] = True  # 25 cells alone
    tissue[4, 5] = True  # a neighbour of (4, 4) and (4, 6)
    for seed in range(20):
        cells = choose_cells(tissue, quota=2, seed=(seed,), neighbours=True).tolist()
        assert [4, 5] in cells
        assert [4, 4] in cells or [4, 6] in cells
    assert len(choose_cells(tissue, quota=20, seed=(0,), neighbours=True)) == 20
