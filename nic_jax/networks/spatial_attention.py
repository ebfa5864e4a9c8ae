"""Gated attention over cells and their surroundings: what is there, and how much of it together."""

import flax.linen as nn
import jax.numpy as jnp

from nic_jax.networks.code_scaling import CodeScaling
from nic_jax.networks.gated_attention import GatedAttention


def local_mean(features: jnp.ndarray, present: jnp.ndarray, *, size: int) -> jnp.ndarray:
    """The mean over the cells with a code in a square window around each cell.

    Args:
        features: [B, H, W, F], zeros where nothing is present.
        present: bool [B, H, W].
        size: Cells along the side of the window, odd.

    Returns:
        [B, H, W, F]; zeros where the window is empty.
    """

    def window_sum(x):
        # Two products with banded matrices: many times faster on a CPU than a sliding window.
        bands = [
            (jnp.abs(jnp.arange(n)[:, None] - jnp.arange(n)) <= size // 2).astype(x.dtype)
            for n in x.shape[1:3]
        ]
        return jnp.einsum('yi,xj,bijf->byxf', *bands, x)

    count = window_sum(present[..., None].astype(features.dtype))
    return window_sum(features) / jnp.maximum(count, 1)


class SpatialAttention(nn.Module):
    """Gated attention over the means of codes in windows around every cell, a pooling each size.

    A window of one cell is an instance of a bag, as in `AttentionMIL`. Larger windows average the
    encoder's noise away where a lesion is larger than a cell, and see whether what they hold lies
    together. All windows share the projection of the codes, where nearly all weights are, so that
    there is little more to fit than for a bag; on a few hundred slides that decides.

    Attributes:
        outputs: Classes, or 1 for a value or a risk.
        width: Features of each window.
        units: Of each attention.
        windows: Sizes, cells along the side, odd.
        dropout: Share of features dropped in training.
    """

    outputs: int
    width: int = 32
    units: int = 32
    windows: tuple[int, ...] = (1, 3, 7)
    dropout: float = 0.0

    @nn.compact
    def __call__(self, codes: jnp.ndarray, *, train: bool = False) -> jnp.ndarray:
        """[B, R, R, C] -> [B, outputs], linear.

        Raises:
            ValueError: A window that has no middle.
        """
        if any(size % 2 == 0 for size in self.windows):
            raise ValueError(f'windows={self.windows} must be odd numbers of cells')
        B = codes.shape[0]
        codes, present = CodeScaling(name='scaling')(codes)
        projected = nn.Dense(self.width, name='embed')(codes) * present[..., None]
        pooled = []
        for size in self.windows:
            bias = self.param(f'bias_{size}', nn.initializers.zeros, (self.width,))
            x = nn.relu(local_mean(projected, present, size=size) + bias)
            x = x.reshape(B, -1, self.width)  # [B, y, x, F] -> [B, N, F]
            x = nn.Dropout(self.dropout)(x, deterministic=not train)
            attention = GatedAttention(self.units, name=f'attention_{size}')
            weights = attention(x, present.reshape(B, -1))
            pooled.append(jnp.einsum('bn,bnf->bf', weights, x))
        return nn.Dense(self.outputs, name='output')(jnp.concatenate(pooled, axis=-1))
