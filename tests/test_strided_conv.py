"""The strided convolution against XLA's and against `flax.linen.Conv`."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from nic_jax.networks import strided_conv
from nic_jax.networks.strided_conv import StridedConv, conv3x3_stride2

SIZES = [(size, size) for size in (3, 4, 5, 6, 7, 8, 9, 64)] + [(3, 8), (9, 4), (5, 64)]


def _inputs(rows, columns, channels=3, filters=4, dtype=np.float32):
    rng = np.random.default_rng((rows, columns))
    x = rng.normal(size=(2, rows, columns, channels)).astype(dtype)
    kernel = rng.normal(size=(3, 3, channels, filters)).astype(dtype)
    return jnp.asarray(x), jnp.asarray(kernel)


def _by_xla(x, kernel, padding):
    return jax.lax.conv_general_dilated(
        x, kernel, (2, 2), padding, dimension_numbers=('NHWC', 'HWIO', 'NHWC')
    )


@pytest.mark.parametrize('padding', ['SAME', 'VALID'])
@pytest.mark.parametrize('shape', SIZES)
def test_values_and_gradients_are_those_of_the_convolution(shape, padding):
    x, kernel = _inputs(*shape)

    def values_and_gradients(form):
        def loss(x, kernel):
            output = form(x, kernel, padding)
            return jnp.sin(output).sum(), output

        (_, output), gradients = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))(
            x, kernel
        )
        return output, *gradients

    with jax.default_matmul_precision('highest'):
        found, expected = map(values_and_gradients, (conv3x3_stride2, _by_xla))
    for got, wanted in zip(found, expected, strict=True):
        assert got.shape == wanted.shape
        # The sums are taken in another order; the kernel's gradient adds up to 2 · 32 · 32 places.
        np.testing.assert_allclose(got, wanted, rtol=0, atol=3e-6 * float(np.abs(wanted).max()))


def test_against_a_sum_written_out_in_float64():
    x, kernel = _inputs(7, 10)
    expected = np.zeros((2, 3, 4, 4))
    for i in range(3):
        for j in range(4):
            window = np.asarray(x, np.float64)[:, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3]
            expected[:, i, j] = np.einsum('byxc,yxcf->bf', window, np.asarray(kernel, np.float64))
    got = conv3x3_stride2(x, kernel, 'VALID')
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize('padding', ['SAME', 'VALID'])
def test_gradients_are_those_of_small_differences(padding):
    with jax.enable_x64(True):
        x, kernel = _inputs(6, 5, channels=2, filters=2, dtype=np.float64)
        assert x.dtype == np.float64
        # Linear in each: central differences of float64 leave only rounding.
        check_grads(
            lambda x, kernel: strided_conv._as_product(x, kernel, padding),
            (x, kernel),
            order=1,
            modes=['rev'],
            atol=1e-7,
            rtol=1e-7,
        )


@pytest.mark.parametrize('padding', ['SAME', 'VALID'])
def test_parameters_are_interchangeable_with_those_of_flax(padding):
    x, _ = _inputs(9, 8)
    own = StridedConv(5, padding)
    flax = nn.Conv(5, (3, 3), strides=(2, 2), padding=padding)
    variables, others = own.init(jax.random.key(1), x), flax.init(jax.random.key(1), x)
    jax.tree.map(np.testing.assert_array_equal, variables, others)
    bias = np.random.default_rng(0).normal(size=5).astype(np.float32)
    variables = {'params': {**variables['params'], 'bias': bias}}
    with jax.default_matmul_precision('highest'):
        got, expected = own.apply(variables, x), flax.apply(variables, x)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5)


def test_only_the_form_of_the_platform_is_compiled():
    x, kernel = _inputs(8, 8)

    @jax.jit
    def gradient(x, kernel):
        return jax.grad(lambda kernel: (conv3x3_stride2(x, kernel, 'SAME') ** 2).sum())(kernel)

    has_convolution = 'convolution' in gradient.lower(x, kernel).compile().as_text()
    assert has_convolution == (jax.default_backend() != 'cpu')
