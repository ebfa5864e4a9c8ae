import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nic_jax.networks import depthwise


def _inputs(rows, columns, channels=5):
    rng = np.random.default_rng(rows * columns)
    codes = rng.normal(size=(2, rows, columns, channels)).astype(np.float32)
    kernel = rng.normal(size=(3, 3, channels)).astype(np.float32)
    return jnp.asarray(codes), jnp.asarray(kernel)


@pytest.mark.parametrize('padding', ['VALID', 'SAME'])
@pytest.mark.parametrize('stride', [1, 2, 3])
@pytest.mark.parametrize('shape', [(9, 12), (10, 7), (3, 3)])
def test_both_forms_agree_in_values_and_gradients(shape, stride, padding):
    codes, kernel = _inputs(*shape)

    def values_and_gradients(form):
        def loss(codes, kernel):
            output = form(codes, kernel, stride, padding)
            return jnp.sin(output).sum(), output

        (_, output), gradients = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))(
            codes, kernel
        )
        return output, *gradients

    for got, expected in zip(
        values_and_gradients(depthwise._shifted),
        values_and_gradients(depthwise._grouped),
        strict=True,
    ):
        np.testing.assert_allclose(got, expected, rtol=2e-6, atol=2e-5)
        assert got.shape == expected.shape


def test_against_a_sum_written_out_in_float64():
    codes, kernel = _inputs(7, 9)
    expected = np.zeros((2, 3, 4, 5))
    for i in range(3):
        for j in range(4):
            window = np.asarray(codes, np.float64)[:, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3]
            expected[:, i, j] = (window * np.asarray(kernel, np.float64)).sum((1, 2))
    got = depthwise.depthwise3x3(codes, kernel, stride=2)
    np.testing.assert_allclose(got, expected, rtol=2e-6, atol=2e-6)


def test_only_the_form_of_the_platform_is_compiled():
    codes, kernel = _inputs(8, 8)

    @jax.jit
    def gradient(codes, kernel):
        return jax.grad(lambda kernel: (depthwise.depthwise3x3(codes, kernel) ** 2).sum())(kernel)

    has_convolution = 'convolution' in gradient.lower(codes, kernel).compile().as_text()
    assert has_convolution == (jax.default_backend() != 'cpu')


@pytest.mark.parametrize(
    ('kernel', 'padding', 'message'),
    [((3, 3, 4), 'VALID', 'kernel.shape'), ((3, 3, 5), 'FULL', 'padding')],
)
def test_errors_name_what_was_got(kernel, padding, message):
    codes, _ = _inputs(8, 8)
    with pytest.raises(ValueError, match=message):
        depthwise.depthwise3x3(codes, jnp.ones(kernel), padding=padding)
