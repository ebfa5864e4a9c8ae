import numpy as np
import pytest

from nic_jax.synthetic import patches, rectangles
from nic_jax.synthetic.digits import DigitSet, load_digits

STUDY = rectangles.RectangleStudy(size=360, lesion_min=36, lesion_max=180)


@pytest.fixture(scope='module')
def digits():
    return load_digits('sklearn', subset='train')


def test_cell_patches_are_cells_of_the_images_with_their_labels(digits):
    found, labels = patches.cell_patches(STUDY, digits, [3, 8, 5], seed=2, count=20)
    assert found.shape == (20, 9, 9)
    assert found.dtype == np.uint8
    start = 0
    for index, share in zip([3, 8, 5], [7, 7, 6], strict=True):
        image = rectangles.draw(STUDY, digits, seed=2, index=index)
        known = {
            (image.pixels[r * 9 : r * 9 + 9, c * 9 : c * 9 + 9].tobytes(), int(image.classes[r, c]))
            for r in range(40)
            for c in range(40)
        }
        for patch, label in zip(
            found[start : start + share], labels[start : start + share], strict=True
        ):
            assert (patch.tobytes(), int(label)) in known
        start += share


def test_a_patch_with_a_white_pixel_is_drawn_twice_as_often(digits):
    image = rectangles.draw(STUDY, digits, seed=0, index=0)
    share = rectangles.cells(image.pixels, 9).any(axis=(2, 3)).mean()
    found, _ = patches.cell_patches(STUDY, digits, [0], seed=0, count=20_000)
    drawn = found.any(axis=(1, 2)).mean()
    odds = drawn / (1 - drawn) / (share / (1 - share))
    assert odds == pytest.approx(2, rel=0.06)


def test_cell_patches_repeat_whatever_the_workers(digits):
    first = patches.cell_patches(STUDY, digits, range(5), seed=1, count=50)
    again = patches.cell_patches(STUDY, digits, range(5), seed=1, count=50, workers=2)
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    other, _ = patches.cell_patches(STUDY, digits, range(5), seed=2, count=50)
    assert (other != first[0]).any()
    with pytest.raises(ValueError, match='at least one index'):
        patches.cell_patches(STUDY, digits, [], seed=1, count=50)


def test_digit_patches_are_shifted_digits():
    rng = np.random.default_rng(0)
    digits = DigitSet(rng.integers(0, 2, (5, 10, 10), dtype=np.uint8), np.array([0, 1, 1, 4, 4]))
    found, labels = patches.digit_patches(digits, seed=1, count=600)
    assert found.shape == (600, 9, 9)
    assert set(labels.tolist()) == {0, 1, 4}
    shifts = set()
    for patch, label in zip(found, labels, strict=True):
        matches = []
        for digit in np.flatnonzero(digits.labels == label):
            for down in range(-4, 5):
                for right in range(-4, 5):
                    expected = np.zeros((9, 9), np.uint8)
                    for row in range(max(0, down), min(9, 10 + down)):
                        for column in range(max(0, right), min(9, 10 + right)):
                            expected[row, column] = digits.images[digit, row - down, column - right]
                    if (expected == patch).all():
                        matches.append((down, right))
        assert matches
        shifts.update(matches[:1])
    assert len(shifts) == 81  # every shift on both axes


def test_digit_patches_are_balanced_and_repeat(digits):
    first, labels = patches.digit_patches(digits, seed=3, count=5000)
    again, _ = patches.digit_patches(digits, seed=3, count=5000)
    np.testing.assert_array_equal(first, again)
    assert np.bincount(labels).min() > 400
    centred, labels = patches.digit_patches(digits, seed=3, count=50, jitter=0)
    for patch, label in zip(centred, labels, strict=True):
        of_class = digits.images[digits.labels == label]
        assert (of_class == patch).all(axis=(1, 2)).any()


def test_digits_smaller_than_the_cell_are_framed():
    digits = DigitSet(np.ones((1, 3, 3), np.uint8), np.array([0]))
    found, _ = patches.digit_patches(digits, seed=0, count=100, jitter=2)
    assert found.shape == (100, 9, 9)
    assert found.any(axis=(1, 2)).all()
