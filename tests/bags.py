"""Grids of codes with background, and networks with weights that hide nothing, for tests."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

# Names of networks, and fields that keep them small.
SMALL = {
    'spatial': {'width': 6, 'units': 5},
    'cnn': {'widths': (6,) * 8, 'dense': 5},
    'attention_cnn': {'widths': (6,) * 4, 'input_width': 4},
    'abmil': {'width': 6, 'units': 5},
    'transformer': {'width': 8, 'points': 3, 'heads': 2},
    'mean': {},
}
BAGS = ('spatial', 'abmil', 'transformer', 'mean')  # what lies on background is nothing to them


def tissue(batch=2, *, size=12, code_size=5, seed=0):
    """float32 [B, size, size, C]: random codes on about half of the middle, zeros elsewhere."""
    rng = np.random.default_rng(seed)
    codes = rng.normal(1, 2, (batch, size, size, code_size)).astype(np.float32)
    present = rng.random((batch, size, size)) < 0.5
    present[:, :3] = present[:, -3:] = present[:, :, :3] = present[:, :, -3:] = False
    return codes * present[..., None]


def shuffled(codes, *, seed=0):
    """The same codes, each bag's cells in another order, background among them."""
    B, H, W, C = codes.shape
    flat = codes.reshape(B, -1, C)
    order = np.random.default_rng(seed).permutation(H * W)
    return flat[:, order].reshape(codes.shape)


def variables(network, codes, *, seed=0):
    """Random weights, no bias of which is zero; a mean and deviation that are no mere 0 and 1."""
    made = jax.jit(network.init)(jax.random.key(seed), codes)
    rng = np.random.default_rng(seed)

    def moved(path, value):
        noise = rng.normal(0, 0.3, value.shape).astype(np.float32)
        return value + (abs(noise) if path[-1].key in ('deviation', 'var') else noise)

    return jax.tree.map_with_path(moved, made)


def outputs(network, weights, codes):
    """float64 [B, outputs]."""
    return np.asarray(_apply(network, weights, jnp.asarray(codes)), np.float64)


@functools.partial(jax.jit, static_argnums=0)
def _apply(network, weights, codes):
    return network.apply(weights, codes)


def compile_quickly():
    """To be yielded from by a fixture: most of the time of small networks is compilation."""
    before = jax.config.read('jax_disable_most_optimizations')
    jax.config.update('jax_disable_most_optimizations', True)
    yield
    jax.config.update('jax_disable_most_optimizations', before)
