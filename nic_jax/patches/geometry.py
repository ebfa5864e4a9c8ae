"""Turning, zooming and bending patches.

B patches of P×P px with C channels; positions in px, row before column, pixel centres at whole
numbers.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

# Coarse noise beyond the patch that still reaches into it, in standard deviations.
_REACH = 4


def turn(patches: Array, version: Array) -> Array:
    """Mirrors and turns every patch: `nic_jax.grids.versions.turn`, one version a patch.

    Args:
        patches: [B, P, P, C].
        version: [B], 0 … 7: mirrored left–right if 4 or more, then `version` % 4 quarter turns
            counter-clockwise.

    Returns:
        [B, P, P, C], the same pixels exactly.
    """
    side = patches.shape[1]
    rows, columns = jnp.meshgrid(jnp.arange(side), jnp.arange(side), indexing='ij')
    return _take(patches, *_before_turning(rows, columns, version, side))


def zoom_and_bend(
    patches: Array,
    factor: Array,
    displacement: Array | None = None,
    *,
    version: Array | None = None,
) -> Array:
    """Magnifies about the centre and displaces, in one bilinear resampling.

    Pixel p of the result shows the original at c + (p − c) / factor + displacement(p), c being the
    centre. Beyond the border the patch is mirrored about its outermost pixels ('mirror' in SciPy).

    Args:
        patches: [B, P, P, C], P at least 2.
        factor: [B], above 1 magnifies.
        displacement: px [B, 2, P, P], rows' and columns'; None bends nothing.
        version: [B]; patches are turned first, as by `turn`, at next to no cost: XLA compiles the
            resampling of what it has just gathered to code that is half as fast.

    Returns:
        [B, P, P, C].
    """
    side = patches.shape[1]
    if side < 2:
        raise ValueError(f'{patches.shape=}: patches of one pixel cannot be resampled')
    centre = (side - 1) / 2
    line = centre + (jnp.arange(side) - centre) / factor[:, None]  # [B, P]
    rows, columns = line[:, :, None], line[:, None, :]
    if displacement is not None:
        rows, columns = rows + displacement[:, 0], columns + displacement[:, 1]
    rows, columns = (
        jnp.broadcast_to(_mirrored(axis, side), patches.shape[:3]) for axis in (rows, columns)
    )
    if version is not None:
        rows, columns = _before_turning(rows, columns, version, side)
    top, left = (jnp.clip(axis.astype(jnp.int32), 0, side - 2) for axis in (rows, columns))
    down, right = (rows - top)[..., None], (columns - left)[..., None]
    # Four reads of a whole pixel: on a CPU several times faster than products with resampling
    # matrices, and thirty times faster than one gather of all four.
    upper = _take(patches, top, left) * (1 - right) + _take(patches, top, left + 1) * right
    lower = _take(patches, top + 1, left) * (1 - right) + _take(patches, top + 1, left + 1) * right
    return upper * (1 - down) + lower * down


def smooth_displacement(
    key: Array, alpha: Array, sigma: Array, *, size: int, sigma_range: tuple[float, float]
) -> Array:
    """Draws the displacements of an elastic deformation (Simard et al., ICDAR 2003).

    That is white noise, uniform in ±1, filtered by a Gaussian and multiplied by α: displacements
    of α / (σ·√(12π)) px on either axis as a root mean square, similar within about 2σ px. From
    noise on a grid of spacing σ a filtered field is as smooth as from noise in every pixel (its
    variance ripples by 1e-4), so that is what is drawn, and two small matrix products bring it to
    full size. The noise goes on beyond the patch, whose border is bent as its middle is.

    Args:
        key: One for the batch.
        alpha: [B].
        sigma: px [B].
        size: P, px.
        sigma_range: The least and the greatest σ.

    Returns:
        px [B, 2, P, P], rows' and columns'.
    """
    spacing, margin = sigma_range[0], _REACH * sigma_range[1]
    count = math.ceil((size - 1 + 2 * margin) / spacing) + 1
    points = (size - 1) / 2 + (np.arange(count) - (count - 1) / 2) * spacing
    distance = np.arange(size)[:, None] - points  # [P, K]
    # The sum of exp(−d²/σ²) over the grid is σ·√π / spacing, for either axis; with its root, the
    # displacements have the wanted variance, and nothing is left to do after the products.
    scale = jnp.sqrt(alpha / math.sqrt(12 * math.pi) * spacing / math.sqrt(math.pi)) / sigma
    weights = jnp.exp(-0.5 * (distance / sigma[:, None, None]) ** 2) * scale[:, None, None]
    noise = jax.random.normal(key, (*alpha.shape, 2, count, count))
    return jnp.einsum('bik,bckl,bjl->bcij', weights, noise, weights, precision='highest')


def _before_turning(rows: Array, columns: Array, version: Array, side: int) -> tuple[Array, Array]:
    """Where in the original the positions [B, P, P] of its version lie."""
    quarters, mirrored = version % 4, version >= 4
    swap, bottom_up = quarters % 2 == 1, quarters >= 2
    right_to_left = ((quarters == 1) | (quarters == 2)) ^ mirrored

    def back(flag, position):
        return jnp.where(flag[:, None, None], side - 1 - position, position)

    swap = swap[:, None, None]
    rows, columns = jnp.where(swap, columns, rows), jnp.where(swap, rows, columns)
    return back(bottom_up, rows), back(right_to_left, columns)


def _mirrored(position: Array, side: int) -> Array:
    """Mirrors positions into 0 … side − 1."""
    period = 2 * (side - 1)
    position = position - period * jnp.floor(position / period)
    return jnp.minimum(position, period - position)


def _take(patches: Array, rows: Array, columns: Array) -> Array:
    """Reads pixels [B, P, P] of each patch; no patch is read from another one's device."""
    return jax.vmap(lambda patch, i, j: patch.at[i, j].get(mode='promise_in_bounds'))(
        patches, rows, columns
    )
