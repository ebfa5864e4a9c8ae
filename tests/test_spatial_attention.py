"""Means of windows, and a model that tells one arrangement from another."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
from bags import outputs, variables
from jax.test_util import check_grads

from nic_jax.networks.spatial_attention import SpatialAttention, local_mean


def _some(shape=(2, 9, 7), features=3, share=0.4):
    rng = np.random.default_rng(0)
    present = rng.random(shape) < share
    present[0, :, :4] = False  # windows with nothing in them
    codes = rng.normal(size=(*shape, features)).astype(np.float32) * present[..., None]
    return codes, present


@pytest.mark.parametrize('size', [1, 3, 5, 21])
def test_the_local_mean_is_that_of_loops(size):
    codes, present = _some()
    expected = np.zeros(codes.shape)
    reach = size // 2
    for b, y, x in np.ndindex(present.shape):
        rows, columns = (slice(max(0, at - reach), at + reach + 1) for at in (y, x))
        inside = codes[b, rows, columns][present[b, rows, columns]].astype(np.float64)
        if len(inside):
            expected[b, y, x] = inside.mean(0)
    got = local_mean(jnp.asarray(codes), jnp.asarray(present), size=size)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)  # sums of float32
    assert (np.asarray(got)[expected == 0] == 0).all()


def test_where_all_is_tissue_it_is_scipys_filter_inside():
    codes, _ = _some((1, 20, 30), share=2.0)
    present = np.ones((1, 20, 30), bool)
    codes = np.random.default_rng(1).normal(size=codes.shape).astype(np.float32)
    got = local_mean(jnp.asarray(codes), jnp.asarray(present), size=7)
    expected = scipy.ndimage.uniform_filter(codes.astype(np.float64), size=(0, 7, 7, 0))
    inside = np.s_[:, 3:-3, 3:-3]
    np.testing.assert_allclose(got[inside], expected[inside], rtol=1e-5, atol=1e-6)


def test_its_gradient_is_that_of_differences():
    codes, present = _some((1, 5, 4), features=2)
    weights = np.random.default_rng(2).normal(size=codes.shape)

    def total(x):
        return (weights * local_mean(x, jnp.asarray(present), size=3)).sum()

    with jax.enable_x64(True):
        check_grads(total, (jnp.asarray(codes, jnp.float64),), order=1, modes=['rev'])


def test_one_mass_and_the_same_cells_scattered_are_told_apart():
    normal, tumour = np.eye(2, dtype=np.float32) + 0.1
    slides = np.tile(normal, (2, 15, 15, 1))
    slides[0, 4:8, 4:8] = tumour
    slides[1, :16:4, :16:4] = tumour
    assert slides[0].sum() == pytest.approx(slides[1].sum())
    network = SpatialAttention(outputs=1)
    weights = variables(network, slides)
    mass, scattered = outputs(network, weights, slides)
    assert abs(mass - scattered) > 1e-3


def test_far_cells_do_not_reach_into_a_window():
    codes, present = _some((1, 20, 20), share=1.0)
    far = codes.copy()
    far[0, 15:] += 1
    means = [
        np.asarray(local_mean(jnp.asarray(each), jnp.asarray(present), size=7))
        for each in (codes, far)
    ]
    np.testing.assert_array_equal(means[0][0, :12], means[1][0, :12])
    assert (means[0][0, 12, 4:] != means[1][0, 12, 4:]).any()
