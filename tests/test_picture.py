"""The picture beside a grid: cells and outline stand where they should."""

from fractions import Fraction

import numpy as np

from nic_jax.slides import Level, tiling
from nic_jax.slides.picture import PICTURE_SIDE, tissue_picture

BLUE, GREEN, GREY = (0, 114, 178), (0, 158, 115), (200, 200, 200)


def plan(width, height, bounds=None, **options):
    level = Level(0, width, height, Fraction(1), Fraction(1))
    return tiling.plan_grid(
        [level], bounds=bounds or (0, 0, width, height), mpp_level0=0.5, mpp=0.5, **options
    )


def test_cells_and_the_outline_of_tissue():
    laid = plan(1000, 800, bounds=(100, 50, 900, 750), patch_size=200, stride=200)
    assert laid.shape == (3, 4)
    encode = np.zeros((3, 4), bool)
    encode[1, 2] = True
    image = np.full((75, 90, 3), 200, np.uint8)  # 10 level-0 px a pixel
    mask = np.zeros((15, 18), bool)
    mask[:, :4] = True  # x < 20
    picture = np.asarray(tissue_picture(image, mask, laid, encode, origin=(100, 50), step=10.0))
    assert picture.shape == image.shape
    blue = np.argwhere((picture == BLUE).all(axis=2))
    assert blue.min(axis=0).tolist() == [20, 40]  # row 1, column 2
    assert blue.max(axis=0).tolist() == [40, 60]
    assert len(blue) == 4 * 20
    assert tuple(picture[30, 50]) == GREY
    green = (picture == GREEN).all(axis=2)
    assert green.any(axis=1).all()
    assert np.flatnonzero(green.any(axis=0)).tolist() == [20, 21]


def test_large_thumbnails_are_reduced_and_cells_stay_in_place():
    laid = plan(5000, 2500, patch_size=1000, stride=1000)
    image = np.full((2500, 5000, 3), 200, np.uint8)
    encode = np.zeros(laid.shape, bool)
    encode[1, 3] = True
    mask = np.zeros((1, 1), bool)
    picture = np.asarray(tissue_picture(image, mask, laid, encode, origin=(0, 0), step=1.0))
    assert picture.shape == (PICTURE_SIDE // 2, PICTURE_SIDE, 3)
    blue = np.argwhere((picture == BLUE).all(axis=2))
    assert blue.min(axis=0).tolist() == [400, 1200]
    assert blue.max(axis=0).tolist() == [800, 1600]


def test_a_grid_without_cells():
    laid = plan(50, 40, patch_size=64, stride=64)
    image = np.full((40, 50, 3), 200, np.uint8)
    nothing = np.zeros(laid.shape, bool)
    mask = np.zeros((5, 5), bool)
    picture = tissue_picture(image, mask, laid, nothing, origin=(0, 0), step=1.0)
    np.testing.assert_array_equal(np.asarray(picture), image)
