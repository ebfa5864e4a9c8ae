import numpy as np
import pytest

from nic_jax.classifiers import crops


def _two_islands():
    encoded = np.zeros((40, 60), bool)
    encoded[5:16, 5:16] = True
    encoded[25:36, 40:51] = True
    return encoded


def test_weights_are_the_squared_distance_to_the_background():
    encoded = np.zeros((7, 7), bool)
    encoded[1:6, 1:6] = True
    rings = np.array([[max(abs(y - 3), abs(x - 3)) for x in range(7)] for y in range(7)])
    expected = np.maximum(3 - rings, 0) ** 2
    np.testing.assert_allclose(crops.centre_weights(encoded), expected / expected.sum())


def test_outside_the_grid_is_background():
    weights = crops.centre_weights(np.ones((5, 5), bool))
    np.testing.assert_allclose(weights[2] / weights[2, 2], np.array([1, 4, 9, 4, 1]) / 9)


def test_without_tissue_every_cell_is_as_likely():
    np.testing.assert_allclose(crops.centre_weights(np.zeros((2, 5), bool)), 0.1)


def test_centres_are_drawn_as_often_as_they_weigh():
    encoded = np.zeros((6, 8), bool)
    encoded[1:5, 2:7] = True
    centres = crops.cumulative_centres(encoded)
    rng = np.random.default_rng(0)
    counts = np.zeros(encoded.shape)
    draws = 20_000
    for _ in range(draws):
        top, left = crops.draw_crop(centres, encoded.shape, size=3, rng=rng)
        counts[top + 1, left + 1] += 1
    expected = crops.centre_weights(encoded)
    assert np.abs(counts / draws - expected).max() < 5 * np.sqrt(expected.max() / draws)
    assert not counts[~encoded].any()


def test_an_axis_that_fits_is_centred():
    rng = np.random.default_rng(0)
    centres = crops.cumulative_centres(np.ones((4, 30), bool))
    corners = [crops.draw_crop(centres, (4, 30), size=10, rng=rng) for _ in range(20)]
    assert {top for top, _ in corners} == {-3}
    assert len({left for _, left in corners}) > 3
    assert crops.draw_crop(centres, (4, 30), size=30, rng=rng) == (-13, 0)


@pytest.mark.parametrize(('shape', 'corner'), [((10, 10), (0, 0)), ((4, 7), (-3, -2))])
def test_a_small_grid_has_one_centred_crop(shape, corner):
    assert crops.spread_crops(np.ones(shape, bool), size=10, count=10).tolist() == [list(corner)]
    assert crops.centred_crop(shape, 10) == corner


def test_crops_spread_over_all_tissue_and_stay_the_same():
    encoded = _two_islands()
    corners = crops.spread_crops(encoded, size=6, count=8)
    assert len(corners) == 8
    np.testing.assert_array_equal(corners, crops.spread_crops(encoded, size=6, count=8))
    centres = corners + 3
    assert encoded[tuple(centres.T)].all()
    assert 3 <= (centres[:, 0] < 20).sum() <= 5
    # Every encoded cell has a crop's centre nearby.
    cells = np.argwhere(encoded)
    nearest = np.sqrt(((cells[:, None] - centres) ** 2).sum(-1)).min(1)
    assert nearest.max() < 6


def test_fewer_cells_than_crops():
    encoded = np.zeros((50, 50), bool)
    encoded[[3, 30], [40, 8]] = True
    assert crops.spread_crops(encoded, size=5, count=10).tolist() == [[1, 38], [28, 6]]


def test_a_large_grid_without_tissue_has_a_crop_in_its_middle():
    corners = crops.spread_crops(np.zeros((50, 40), bool), size=10, count=3)
    assert corners.tolist() == [[20, 15]]
