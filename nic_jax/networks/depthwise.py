"""Depthwise 3×3 convolution, in the form that each platform runs fastest."""

import jax
import jax.numpy as jnp
from jax import Array

PADDINGS = ('VALID', 'SAME')


def output_size(size: int, stride: int, padding: str) -> int:
    """Cells along one axis after a 3×3 convolution; below 1 where it does not fit."""
    return -(-size // stride) if padding == 'SAME' else (size - 3) // stride + 1


def depthwise3x3(codes: Array, kernel: Array, *, stride: int = 1, padding: str = 'VALID') -> Array:
    """Convolves every channel with its own 3×3 kernel.

    XLA runs grouped convolutions on the CPU several times slower than nine shifted
    multiply-adds, which are the same sum; elsewhere the convolution is left to the library.

    Args:
        codes: [B, H, W, C].
        kernel: [3, 3, C].
        stride: step between output cells, the same for both axes.
        padding: `'VALID'`, or `'SAME'` with zeros around, as XLA and Keras place them.

    Returns:
        [B, H', W', C].

    Raises:
        ValueError: an unknown padding, or shapes that do not agree.
    """
    if padding not in PADDINGS:
        raise ValueError(f'{padding=} must be one of {PADDINGS}')
    if kernel.shape != (3, 3, codes.shape[-1]):
        raise ValueError(f'{kernel.shape=} must be (3, 3, {codes.shape[-1]}) for {codes.shape=}')
    return jax.lax.platform_dependent(
        codes,
        kernel,
        cpu=lambda codes, kernel: _shifted(codes, kernel, stride, padding),
        default=lambda codes, kernel: _grouped(codes, kernel, stride, padding),
    )


def _shifted(codes: Array, kernel: Array, stride: int, padding: str) -> Array:
    _, H, W, _ = codes.shape
    rows, columns = (output_size(size, stride, padding) for size in (H, W))
    if padding == 'SAME':
        margins = [_same_margin(size, stride) for size in (H, W)]
        codes = jnp.pad(codes, ((0, 0), *margins, (0, 0)))
    total = 0.0
    for y in range(3):
        for x in range(3):
            shifted = codes[
                :,
                y : y + (rows - 1) * stride + 1 : stride,
                x : x + (columns - 1) * stride + 1 : stride,
            ]
            total = total + shifted * kernel[y, x]
    return total


def _same_margin(size: int, stride: int) -> tuple[int, int]:
    """Zeros before and after; the odd one goes after, as in XLA."""
    total = max((output_size(size, stride, 'SAME') - 1) * stride + 3 - size, 0)
    return total // 2, total - total // 2


def _grouped(codes: Array, kernel: Array, stride: int, padding: str) -> Array:
    channels = codes.shape[-1]
    return jax.lax.conv_general_dilated(
        codes,
        kernel[:, :, None, :],  # [3, 3, C] -> [3, 3, 1, C]
        window_strides=(stride, stride),
        padding=padding,
        dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
        feature_group_count=channels,
    )
