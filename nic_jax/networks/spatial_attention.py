"""Gated attention over cells and their surroundings: what is there, and how much of it together."""

import flax.linen as nn
import jax.numpy as jnp

from nic_jax.networks.code_scaling import CodeScaling, is_encoded
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
    count = _window_sum(present[..., None].astype(features.dtype), size)
    return _window_sum(features, size) / jnp.maximum(count, 1)


def local_share(weights: jnp.ndarray, present: jnp.ndarray, *, size: int) -> jnp.ndarray:
    """Gives each window's weight to the cells with a code in it, in equal shares: [B, H, W]."""
    inside = present[..., None].astype(weights.dtype)
    count = jnp.maximum(_window_sum(inside, size), 1)
    return (_window_sum(weights[..., None] / count, size) * inside)[..., 0]


def _window_sum(x: jnp.ndarray, size: int) -> jnp.ndarray:
    """[B, H, W, F], summed over the square window around each cell."""
    # Two products with banded matrices: many times faster on a CPU than a sliding window.
    bands = [
        (jnp.abs(jnp.arange(n)[:, None] - jnp.arange(n)) <= size // 2).astype(x.dtype)
        for n in x.shape[1:3]
    ]
    return jnp.einsum('yi,xj,bijf->byxf', *bands, x)


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

    def setup(self):
        """Builds the layers.

        Raises:
            ValueError: A window that has no middle.
        """
        if any(size % 2 == 0 for size in self.windows):
            raise ValueError(f'windows={self.windows} must be odd numbers of cells')
        self.scaling = CodeScaling()
        self.embed = nn.Dense(self.width)
        self.bias = {
            size: self.param(f'bias_{size}', nn.initializers.zeros, (self.width,))
            for size in self.windows
        }
        # Named attention_1, attention_3 and so on.
        self.attention = {str(size): GatedAttention(self.units) for size in self.windows}
        self.drop = nn.Dropout(self.dropout)
        self.output = nn.Dense(self.outputs)

    def __call__(self, codes: jnp.ndarray, *, train: bool = False) -> jnp.ndarray:
        """[B, R, R, C] -> [B, outputs], linear."""
        return self.from_features(self.features(codes), is_encoded(codes), train=train)

    def features(self, codes: jnp.ndarray) -> jnp.ndarray:
        """[B, H, W, C] -> every window around every cell, [B, H, W, width · windows]."""
        codes, present = self.scaling(codes)
        projected = self.embed(codes) * present[..., None]
        windows = [
            nn.relu(local_mean(projected, present, size=size) + bias)
            for size, bias in self.bias.items()
        ]
        return jnp.concatenate(windows, axis=-1)

    def from_features(
        self, features: jnp.ndarray, present: jnp.ndarray, *, train: bool = False
    ) -> jnp.ndarray:
        """[B, R, R, width · windows], bool [B, R, R] -> [B, outputs]."""
        features = self.drop(features, deterministic=not train)
        weights = self._weights(features, present)
        pooled = [
            jnp.einsum('byx,byxf->bf', weight, window)
            for weight, window in zip(weights, self._by_window(features), strict=True)
        ]
        return self.output(jnp.concatenate(pooled, axis=-1))

    def attention_weights(self, codes: jnp.ndarray) -> jnp.ndarray:
        """[B, R, R, C] -> the mean of the windows' weights, spread over the cells of each window.

        Returns:
            [B, R, R], summing to 1 where any cell holds a code.
        """
        present = is_encoded(codes)
        weights = self._weights(self.features(codes), present)
        spread = [
            local_share(weight, present, size=size)
            for weight, size in zip(weights, self.windows, strict=True)
        ]
        return sum(spread) / len(spread)

    def _weights(self, features: jnp.ndarray, present: jnp.ndarray) -> list[jnp.ndarray]:
        """[B, R, R, width · windows] -> for each size of window, [B, R, R]."""
        B, *cells = present.shape
        flat = present.reshape(B, -1)
        return [
            attention(window.reshape(B, -1, self.width), flat).reshape(B, *cells)
            for attention, window in zip(
                self.attention.values(), self._by_window(features), strict=True
            )
        ]

    def _by_window(self, features: jnp.ndarray) -> list[jnp.ndarray]:
        return jnp.split(features, len(self.windows), axis=-1)
