from fractions import Fraction

import numpy as np
import pytest

from nic_jax.slides.resample import area_resample, area_weights


def naive_weights(start, step, count, length):
    """The definition, pixel by pixel."""
    weights = np.zeros((count, length))
    for i in range(count):
        left, right = float(start + i * step), float(start + (i + 1) * step)
        for k in range(length):
            weights[i, k] = max(0.0, min(right, k + 1) - max(left, k))
        if weights[i].sum() > 0:
            weights[i] /= weights[i].sum()
    return weights


def naive_resample(pixels, start_y, start_x, step_y, step_x, rows, columns):
    """The float64 means, not rounded."""
    along_y = naive_weights(start_y, step_y, rows, pixels.shape[0])
    along_x = naive_weights(start_x, step_x, columns, pixels.shape[1])
    return np.einsum('rh,cw,hwk->rck', along_y, along_x, pixels.astype(np.float64))


PLANS = [
    (0, 1, 20, 20),
    (0, 2, 10, 20),
    (0, 3, 7, 20),  # the last interval is partly outside
    (Fraction(1, 3), Fraction(7, 3), 8, 20),
    (-2.5, 1.7, 15, 20),  # begins outside
    (4.25, 0.3, 30, 20),  # upsampling
    (Fraction(-5), Fraction(1, 2), 60, 20),
    (18, 5, 3, 20),  # ends wholly outside
    (0, 100, 1, 20),
]


@pytest.mark.parametrize('plan', PLANS)
def test_weights_are_the_overlaps(plan):
    weights = area_weights(*plan)
    assert weights.shape == (plan[2], plan[3])
    np.testing.assert_allclose(weights.toarray(), naive_weights(*plan), atol=1e-12)


def test_rows_sum_to_one_or_are_wholly_outside():
    sums = area_weights(-6, 2, 10, 8).sum(axis=1)
    np.testing.assert_allclose(sums, [0, 0, 0, 1, 1, 1, 1, 0, 0, 0])


def test_a_step_of_zero_is_refused():
    with pytest.raises(ValueError, match='step=0 must be > 0'):
        area_weights(0, 0, 3, 3)


@pytest.mark.parametrize('along_y', PLANS)
@pytest.mark.parametrize('along_x', [PLANS[1], PLANS[3], PLANS[5]])
def test_resampling_is_the_rounded_mean(along_y, along_x):
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (20, 20, 3), dtype=np.uint8)
    plan = (along_y[0], along_x[0], along_y[1], along_x[1], along_y[2], along_x[2])
    means = naive_resample(pixels, *plan)
    names = ('start_y', 'start_x', 'step_y', 'step_x', 'rows', 'columns')
    image = area_resample(pixels, **dict(zip(names, plan, strict=True)))
    assert image.dtype == np.uint8
    assert image.shape == means.shape
    # float32 sums may tip over a tie of rounding and nothing else.
    assert np.abs(image - means).max() <= 0.5 + 1e-4


@pytest.mark.parametrize('step', [2, 3, 6, 10])
def test_whole_steps_are_exact_ties_included(step):
    generator = np.random.default_rng(step)
    pixels = generator.integers(0, 256, (12 * step, 9 * step, 3), dtype=np.uint8)
    image = area_resample(
        pixels, start_y=0, start_x=0, step_y=step, step_x=step, rows=12, columns=9
    )
    sums = pixels.reshape(12, step, 9, step, 3).sum(axis=(1, 3), dtype=np.int64)
    expected = [round(Fraction(int(value), step * step)) for value in sums.ravel()]
    np.testing.assert_array_equal(image, np.reshape(expected, image.shape))


def test_one_to_one_leaves_pixels_alone():
    pixels = np.random.default_rng(1).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    image = area_resample(pixels, start_y=5, start_x=7, step_y=1, step_x=1, rows=33, columns=20)
    np.testing.assert_array_equal(image, pixels[5:38, 7:27])


def test_a_white_image_stays_white_at_any_step():
    white = np.full((50, 70, 3), 255, np.uint8)
    for step in (0.37, 1.013, 2.06, 7.7):
        image = area_resample(
            white, start_y=0.5, start_x=-0.1, step_y=step, step_x=step, rows=6, columns=6
        )
        assert (image == 255).all()
