import dataclasses
import math

import numpy as np
import pytest

from nic_jax.synthetic import rectangles
from nic_jax.synthetic.digits import DigitSet, load_digits

SMALL = rectangles.RectangleStudy(size=360, lesion_min=36, lesion_max=180)


@pytest.fixture(scope='module')
def digits():
    return load_digits('sklearn', subset='train')


@pytest.fixture(scope='module')
def coded():
    """Digits of one white pixel in the middle row of 9x9: the column tells the class (0 to 8)."""
    images = np.zeros((9, 9, 9), np.uint8)
    images[np.arange(9), 4, np.arange(9)] = 1
    return DigitSet(images, np.arange(9))


def _unpicked(study, digits, monkeypatch, **kwargs):
    """An image, with the digits and shifts that went into it, for a slow reconstruction."""
    painted = {}
    paint = rectangles._paint

    def spy(study, digits, taken, chosen, rng):
        painted.update(taken=taken, chosen=chosen)
        state = rng.bit_generator.state
        pixels = paint(study, digits, taken, chosen, rng)
        rng.bit_generator.state = state
        painted['shift'] = rng.integers(-study.jitter, study.jitter, (2, len(taken)), endpoint=True)
        return pixels

    monkeypatch.setattr(rectangles, '_paint', spy)
    return rectangles.draw(study, digits, **kwargs), painted


def test_full_scale_counts(digits):
    study = rectangles.RectangleStudy()
    image = rectangles.draw(study, digits, seed=1, index=2)
    assert study.digits == 25_920
    assert (image.classes >= 0).sum() == 25_920
    assert (image.classes >= 0).mean() == pytest.approx(0.162)
    assert image.pixels.shape == (3600, 3600)
    assert image.pixels.dtype == np.uint8
    assert set(np.unique(image.pixels)) == {0, 1}
    assert image.mask.shape == image.other_mask.shape == (400, 400)
    # White pixels: those of 25,920 digits, less what overlaps and what the border clips.
    expected = 25_920 * digits.images.sum(axis=(1, 2)).mean()
    assert 0.8 * expected < image.pixels.sum() < expected


def test_full_scale_digits_lie_in_their_cells_without_jitter():
    one = DigitSet(np.ones((10, 1, 1), np.uint8), np.arange(10))
    study = rectangles.RectangleStudy(jitter=0)
    image = rectangles.draw(study, one, seed=0, index=0)
    assert image.pixels.sum() == 25_920
    np.testing.assert_array_equal(image.pixels[::9, ::9] > 0, image.classes >= 0)


def test_slow_painting_gives_the_same_pixels(shared, monkeypatch):
    digits = load_digits(shared / 'data' / 'mnist', subset='test')
    study = rectangles.RectangleStudy(size=90, lesion_min=36, lesion_max=45, fill=0.01)
    image, painted = _unpicked(study, digits, monkeypatch, seed=3, index=4)
    expected = np.zeros((90, 90), np.uint8)
    for cell, digit, (down, right) in zip(
        painted['taken'], painted['chosen'], painted['shift'].T, strict=True
    ):
        top, left = cell // 10 * 9 + down, cell % 10 * 9 + right
        for row, column in np.argwhere(digits.images[digit]):
            if 0 <= top + row < 90 and 0 <= left + column < 90:
                expected[top + row, left + column] = 1
        assert digits.labels[digit] == image.classes.ravel()[cell]
    np.testing.assert_array_equal(image.pixels, expected)
    assert painted['shift'].min() == -4
    assert painted['shift'].max() == 4


def test_rectangles_hold_only_their_digit(coded):
    study = rectangles.RectangleStudy(
        size=360, lesion_min=90, lesion_max=180, jitter=0, classes=9, fill=0.01
    )
    outside = set()
    for index in range(10):
        image = rectangles.draw(study, coded, seed=0, index=index)
        for row in range(40):
            for column in range(40):
                cell = image.pixels[row * 9 : row * 9 + 9, column * 9 : column * 9 + 9]
                found = np.flatnonzero(cell[4]).tolist()
                if image.mask[row, column]:
                    assert found in ([], [image.label])
                elif image.other_mask[row, column]:
                    assert found in ([], [image.other_label])
                else:
                    outside.update(found)
                assert found == [c for c in [image.classes[row, column]] if c >= 0]
    assert outside == set(range(9))


def test_same_arguments_same_image_others_others(digits):
    first = rectangles.draw(SMALL, digits, seed=5, index=7)
    again = rectangles.draw(SMALL, digits, seed=5, index=7)
    np.testing.assert_array_equal(first.pixels, again.pixels)
    assert first.label == again.label
    for seed, index in ((5, 8), (6, 7), (7, 5)):
        other = rectangles.draw(SMALL, digits, seed=seed, index=index)
        assert (other.pixels != first.pixels).any()


def test_a_label_can_be_asked_for_and_leaves_the_layout(digits):
    for label in range(10):
        image = rectangles.draw(SMALL, digits, seed=5, index=7, label=label)
        assert image.label == label
        assert set(image.classes[image.mask]) == {label, -1}
    free = rectangles.draw(SMALL, digits, seed=5, index=7)
    np.testing.assert_array_equal(free.mask, image.mask)
    with pytest.raises(ValueError, match='label=10'):
        rectangles.draw(SMALL, digits, seed=5, index=7, label=10)


def test_labels_are_uniform_and_the_other_is_one_to_eight_on(digits):
    images = [rectangles.draw(SMALL, digits, seed=0, index=i) for i in range(1000)]
    counts = np.bincount([image.label for image in images], minlength=10)
    assert len(counts) == 10
    assert ((counts - 100) ** 2 / 100).sum() < 27.9  # chi squared of 9 degrees, p = .001
    steps = np.bincount([(image.other_label - image.label) % 10 for image in images], minlength=10)
    assert steps[0] == steps[9] == 0
    assert steps[1:9].min() > 80


def test_layouts(digits):
    """Area, tilt, half, border and overlap of many layouts, at full scale, without painting."""
    study = rectangles.RectangleStudy()
    centres = (np.arange(400) + 0.5) * 9
    seen = set()
    for index in range(300):
        rng = np.random.default_rng(index)
        lesion = 1800 if index % 4 == 0 else int(rng.integers(360, 1801))
        layout = rectangles._draw_layout(study.size, lesion, rng)
        tilted, upright = rectangles._masks(layout, centres)
        area = lesion * lesion / 2
        assert not (tilted & upright).any()
        np.testing.assert_allclose([m.sum() * 81 / area for m in (tilted, upright)], 1, atol=0.08)
        rows, columns = np.nonzero(upright)
        sides = np.ptp(centres[rows]) + 9, np.ptp(centres[columns]) + 9
        np.testing.assert_allclose(sorted(sides), [lesion / 2, lesion], atol=9)
        y, x = (centres[axis] for axis in np.nonzero(tilted))
        # Second moments of a rectangle: L²/12 along, (L/2)²/12 across, so 45 degrees gives the
        # covariance ±(L² - L²/4)/24.
        covariance = np.cov(x, y)
        np.testing.assert_allclose(abs(covariance[0, 1]), lesion**2 / 32, rtol=0.1)
        np.testing.assert_allclose(np.diag(covariance), 5 * lesion**2 / 96, rtol=0.1)
        # Wholly inside: the bounding box is as wide as it should be.
        box = 1.5 * lesion / math.sqrt(2)
        np.testing.assert_allclose([np.ptp(x), np.ptp(y)], box, atol=27)
        middle = np.array([[y.mean(), x.mean()], [centres[rows].mean(), centres[columns].mean()]])
        off = np.abs(middle - 1800)
        # Which way are the two apart? Their centres lie on either side of a middle line.
        axes = [a for a in (0, 1) if (middle[0, a] - 1800) * (middle[1, a] - 1800) < 0]
        assert axes, off
        if index % 4 == 0:  # the upright one's long side tells the dividing line
            axis = int(np.argmin(sides))
            assert axis in axes
            seen.add((axis, middle[0, axis] < 1800, covariance[0, 1] > 0))
    assert len(seen) == 8  # four halves, two tilts: all eight symmetries


@pytest.mark.parametrize('stride', [1, 4, 5, 9, 18, 25])
def test_the_grid_s_mask_tells_the_patches_whose_centre_is_inside(digits, stride):
    """Against the cells' masks, and areas; strides that leave pixels out on one side as well."""
    study = rectangles.RectangleStudy(
        size=360, lesion_min=60, lesion_max=180, fill=0.001, stride=stride
    )
    plain = dataclasses.replace(study, stride=None)
    side = 1 + max(first for first in range(0, 352, stride)) // stride
    assert study.grid_cells == side
    areas = []
    for index in range(40):
        image = rectangles.draw(study, digits, seed=1, index=index)
        before = rectangles.draw(plain, digits, seed=1, index=index)
        np.testing.assert_array_equal(image.pixels, before.pixels)
        np.testing.assert_array_equal(image.mask, before.mask)
        assert image.grid_mask.shape == (side, side)
        # Every cell that is also a patch of the grid.
        shared = np.arange(0, 40)[np.arange(0, 360, 9) % stride == 0]
        shared = shared[shared * 9 // stride < side]
        at = shared * 9 // stride
        assert len(shared) > 1
        np.testing.assert_array_equal(
            image.grid_mask[np.ix_(at, at)], before.mask[np.ix_(shared, shared)]
        )
        areas.append(image.grid_mask.sum() * stride**2 / (image.lesion**2 / 2))
    assert np.mean(areas) == pytest.approx(1, abs=0.06)


def test_the_grid_s_mask_at_every_pixel_is_a_turned_rectangle(digits):
    """Its sides, from the second moments, in all quarters of the image and with both tilts."""
    study = rectangles.RectangleStudy(size=180, lesion_min=45, lesion_max=45, fill=0.001, stride=1)
    places = set()
    for index in range(60):
        image = rectangles.draw(study, digits, seed=0, index=index)
        y, x = np.nonzero(image.grid_mask)
        covariance = np.cov(y, x)
        if min(y.min(), x.min()) > 0 and max(y.max(), x.max()) < 171:  # not cut by the border
            places.add((covariance[0, 1] > 0, y.mean() < 86, x.mean() < 86))
            across, along = np.linalg.eigvalsh(covariance)
            # L²/12 along and (L/2)²/12 across. Diagonals of pixels are 0.7 px apart, 3 % of the
            # short side, 6 % of its square.
            np.testing.assert_allclose([along * 12, across * 12], [45**2, 22.5**2], rtol=0.07)
        # The cells of the plain grid lie where the finest one says.
        np.testing.assert_array_equal(image.grid_mask[::9, ::9], image.mask)
    assert len(places) == 8


def test_lesion_lengths_are_uniform(digits):
    study = rectangles.RectangleStudy(size=360, lesion_min=36, lesion_max=180, fill=0.0001)
    images = [rectangles.draw(study, digits, seed=2, index=i) for i in range(1500)]
    lengths = np.array([image.lesion for image in images])
    assert (lengths.min(), lengths.max()) == (36, 180)
    assert lengths.mean() == pytest.approx(108, abs=4)
    assert images[0].lesion_share == images[0].lesion / 360


@pytest.mark.parametrize('workers', [1, 3])
def test_generate_keeps_order_and_looks_a_little_ahead(digits, workers):
    asked = []

    def indices():
        for index in (4, 2, 9, 0, 5, 6, 7, 8, 10, 11):
            asked.append(index)
            yield index

    images = rectangles.generate(SMALL, digits, seed=1, indices=indices(), workers=workers)
    first = next(images)
    assert len(asked) <= workers + 2
    rest = list(images)
    for index, image in zip(asked, [first, *rest], strict=True):
        expected = rectangles.draw(SMALL, digits, seed=1, index=index)
        np.testing.assert_array_equal(image.pixels, expected.pixels)


def test_cells_is_a_view():
    pixels = np.arange(18 * 27).reshape(18, 27)
    grid = rectangles.cells(pixels, 9)
    assert grid.shape == (2, 3, 9, 9)
    np.testing.assert_array_equal(grid[1, 2], pixels[9:, 18:])
    assert np.shares_memory(grid, pixels)


@pytest.mark.parametrize('stride', [2, 5, 9, 12])
def test_patches_at_a_stride_are_whole_ones(stride):
    pixels = np.random.default_rng(0).integers(0, 255, (36, 36), dtype=np.uint8)
    grid = rectangles.cells(pixels, 9, stride)
    study = rectangles.RectangleStudy(size=36, lesion_min=9, lesion_max=18, stride=stride)
    firsts = [first for first in range(0, 36, stride) if first + 9 <= 36]
    assert grid.shape == (len(firsts), len(firsts), 9, 9)
    assert study.grid_cells == len(firsts)
    for row, top in enumerate(firsts):
        for column, left in enumerate(firsts):
            patch = pixels[top : top + 9, left : left + 9]
            np.testing.assert_array_equal(grid[row, column], patch)


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'size': 100}, 'multiple'),
        ({'lesion_max': 1801}, 'half'),
        ({'lesion_min': 900, 'lesion_max': 800}, 'lesion_min'),
        ({'fill': 0.5}, 'digits in 160000 cells'),
        ({'classes': 2}, 'at least 3'),
        ({'stride': 0}, 'stride=0 must be from 1 to 3591'),
        ({'stride': 3592}, 'from 1 to 3591'),
    ],
)
def test_impossible_studies(settings, message):
    with pytest.raises(ValueError, match=message):
        rectangles.RectangleStudy(**settings)


def test_a_class_without_digits_is_told(coded):
    with pytest.raises(ValueError, match='no digit of class 9'):
        rectangles.draw(SMALL, coded, seed=0, index=0)
