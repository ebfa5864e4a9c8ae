"""The upsampling convolution against repetition and a convolution of the large map."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from nic_jax.networks.up_conv import UpConv, upsample_conv3x3


def _inputs(rows, columns, channels=3, filters=4, dtype=np.float32):
    rng = np.random.default_rng((rows, columns))
    x = rng.normal(size=(2, rows, columns, channels)).astype(dtype)
    kernel = rng.normal(size=(3, 3, channels, filters)).astype(dtype)
    return jnp.asarray(x), jnp.asarray(kernel)


def _doubled(x):
    return x.repeat(2, axis=1).repeat(2, axis=2)


def _by_repetition(x, kernel):
    return jax.lax.conv_general_dilated(
        _doubled(x), kernel, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
    )


@pytest.mark.parametrize('shape', [(1, 1), (2, 2), (4, 4), (3, 5), (16, 8)])
def test_values_and_gradients_are_those_of_repeat_and_convolution(shape):
    x, kernel = _inputs(*shape)

    def values_and_gradients(form):
        def loss(x, kernel):
            output = form(x, kernel)
            return jnp.sin(output).sum(), output

        (_, output), gradients = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))(
            x, kernel
        )
        return output, *gradients

    with jax.default_matmul_precision('highest'):
        found, expected = map(values_and_gradients, (upsample_conv3x3, _by_repetition))
    for got, wanted in zip(found, expected, strict=True):
        assert got.shape == wanted.shape
        # Taps are added before they are multiplied: the same in other roundings.
        np.testing.assert_allclose(got, wanted, rtol=0, atol=3e-6 * float(np.abs(wanted).max()))


def test_gradients_are_those_of_small_differences():
    with jax.enable_x64(True):
        x, kernel = _inputs(3, 2, channels=2, filters=2, dtype=np.float64)
        check_grads(upsample_conv3x3, (x, kernel), order=1, modes=['rev'], atol=1e-7, rtol=1e-7)


def test_parameters_are_interchangeable_with_those_of_flax():
    x, _ = _inputs(4, 3)
    own, flax = UpConv(5), nn.Conv(5, (3, 3))
    variables, others = own.init(jax.random.key(1), x), flax.init(jax.random.key(1), x)
    jax.tree.map(np.testing.assert_array_equal, variables, others)
    bias = np.random.default_rng(0).normal(size=5).astype(np.float32)
    variables = {'params': {**variables['params'], 'bias': bias}}
    with jax.default_matmul_precision('highest'):
        got, expected = own.apply(variables, x), flax.apply(variables, _doubled(x))
    assert got.shape == (2, 8, 6, 5)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5)


def test_the_large_map_is_never_made():
    x, kernel = _inputs(16, 16, channels=7)
    program = jax.jit(upsample_conv3x3).lower(x, kernel).compile().as_text()
    assert '32,32,7]' not in program
    assert '32,32,7]' in jax.jit(_by_repetition).lower(x, kernel).compile().as_text()
