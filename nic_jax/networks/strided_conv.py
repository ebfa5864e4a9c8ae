"""3×3 convolution of stride 2, in the form that each platform trains fastest."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from nic_jax.networks.depthwise import output_size, same_margin

# What the input's gradient at even and odd places is made of: (tap of the kernel, how far back).
_TAPS = (((0, 0), (2, 1)), ((1, 0),))


class StridedConv(nn.Module):
    """A 3×3 convolution of stride 2 with bias; parameters as `flax.linen.Conv` has them."""

    width: int
    padding: str

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[B, H, W, C] -> [B, H', W', width]."""
        shape = (3, 3, x.shape[-1], self.width)
        kernel = self.param('kernel', nn.initializers.lecun_normal(), shape)
        bias = self.param('bias', nn.initializers.zeros, (self.width,))
        return conv3x3_stride2(x, kernel, self.padding) + bias


def conv3x3_stride2(x: Array, kernel: Array, padding: str) -> Array:
    """Convolves [B, H, W, C] with [3, 3, C, F]; 'SAME' pads as XLA and Keras do."""
    return jax.lax.platform_dependent(
        x,
        kernel,
        cpu=lambda x, kernel: _as_product(x, kernel, padding),
        default=lambda x, kernel: jax.lax.conv_general_dilated(
            x, kernel, (2, 2), padding, dimension_numbers=('NHWC', 'HWIO', 'NHWC')
        ),
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _as_product(x: Array, kernel: Array, padding: str) -> Array:
    """One matrix product over gathered neighbourhoods (im2col)."""
    columns = _neighbourhoods(jnp.pad(x, _margins(x, padding)))
    return columns @ kernel.reshape(-1, kernel.shape[-1])


def _forward(x, kernel, padding):
    return _as_product(x, kernel, padding), (x, kernel)


def _backward(padding, saved, gradient):
    """1.5 times faster than what JAX derives, which spreads nine slices over the whole input.

    The gradient at even and at odd places of the input comes from other taps of the kernel: each of
    the four kinds of place is one matrix product, and together they are the input.
    """
    x, kernel = saved
    margins = _margins(x, padding)
    padded = jnp.pad(x, margins)
    columns = _neighbourhoods(padded)
    flat = gradient.reshape(-1, gradient.shape[-1])
    to_kernel = (columns.reshape(flat.shape[0], -1).T @ flat).reshape(kernel.shape)

    B, rows, width, _ = gradient.shape
    framed = jnp.pad(gradient, ((0, 0), (1, 1), (1, 1), (0, 0)))
    lines = []
    for taps_y in _TAPS:
        places = []
        for taps_x in _TAPS:
            parts = [
                (framed[:, 1 - dy : 2 - dy + rows, 1 - dx : 2 - dx + width], kernel[y, x].T)
                for y, dy in taps_y
                for x, dx in taps_x
            ]
            sources, taps = zip(*parts, strict=True)
            places.append(jnp.concatenate(sources, -1) @ jnp.concatenate(taps))
        lines.append(jnp.stack(places, axis=3))
    # [B, rows + 1, 2, width + 1, 2, C] -> [B, 2·rows + 2, 2·width + 2, C]
    spread = jnp.stack(lines, axis=2).reshape(B, 2 * rows + 2, 2 * width + 2, -1)
    top, left = margins[1][0], margins[2][0]
    return spread[:, top : top + x.shape[1], left : left + x.shape[2]], to_kernel


_as_product.defvjp(_forward, _backward)


def _margins(x: Array, padding: str) -> list[tuple[int, int]]:
    if padding == 'VALID':
        return [(0, 0)] * 4
    return [(0, 0), *(same_margin(size, 2) for size in x.shape[1:3]), (0, 0)]


def _neighbourhoods(x: Array) -> Array:
    """[B, H, W, C] -> [B, H', W', 9·C]."""
    rows, columns = (2 * output_size(size, 2, 'VALID') - 1 for size in x.shape[1:3])
    parts = [x[:, i : i + rows : 2, j : j + columns : 2] for i in range(3) for j in range(3)]
    return jnp.concatenate(parts, axis=-1)
