"""Blur and noise: `[B, P, P, C]` in [0, 1] to the same, one parameter a patch."""

import math

import jax
import jax.numpy as jnp
from jax import Array


def blur_radius(sigma: float) -> int:
    """Pixels on each side that a Gaussian reaches: four standard deviations, one at least."""
    return max(1, math.ceil(4 * sigma))


def blur(patches: Array, sigma: Array, *, radius: int) -> Array:
    """Filters with a Gaussian sampled at whole pixels, columns after rows.

    Beyond the border the patch is mirrored about its outermost pixels. The samples are 1, 0, … in
    float32 below a `sigma` of about 0.17 px.

    Args:
        patches: [B, P, P, C].
        sigma: px [B], 0 blurs nothing.
        radius: px, of `blur_radius`; less than P.
    """
    side, channels = patches.shape[2:]
    if not 1 <= radius < side:
        raise ValueError(f'{radius=} must be in 1 … {side - 1} for patches of {side} px')
    offsets = jnp.arange(-radius, radius + 1)
    weights = jnp.exp(-0.5 * (offsets / jnp.maximum(sigma, 1e-3)[:, None]) ** 2)
    weights = (weights / weights.sum(-1, keepdims=True))[:, :, None, None]  # [B, 2R + 1, 1, 1]
    for axis in (1, 2):
        margins = [(radius, radius) if axis == other else (0, 0) for other in range(4)]
        padded = _lines(jnp.pad(patches, margins, mode='reflect'))
        stride, length = (1, side) if axis == 1 else (channels, side * channels)
        total = sum(
            weights[:, step]
            * jax.lax.slice_in_dim(padded, step * stride, step * stride + length, axis=axis)
            for step in range(2 * radius + 1)
        )
        patches = total.reshape(patches.shape)
    return patches


def add_noise(key: Array, patches: Array, sigma: Array) -> Array:
    """Adds normal noise of standard deviation `sigma` [B], every channel's its own; clips."""
    lines = _lines(patches)
    lines = lines + jax.random.normal(key, lines.shape) * sigma[:, None, None]
    return jnp.clip(lines, 0, 1).reshape(patches.shape)


def _lines(patches: Array) -> Array:
    """Joins columns and channels. CPUs take a last axis of 3 several times more slowly."""
    return patches.reshape(*patches.shape[:2], -1)  # [B, P, P·C]
