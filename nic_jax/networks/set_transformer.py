"""Attention among the cells of a slide, as a set: instances see each other, not their places."""

import flax.linen as nn
import jax.numpy as jnp

from nic_jax.networks.code_scaling import CodeScaling


class AttentionBlock(nn.Module):
    """Multi-head attention and a feed-forward layer, each after layer norm and beside a shortcut.

    Attributes:
        heads: Of the attention; they divide the features.
        dropout: Share of features dropped in training.
    """

    heads: int
    dropout: float

    @nn.compact
    def __call__(self, queries, keys, present, *, train: bool) -> jnp.ndarray:
        """[B, M, F] asks [B, N, F] where `present`, bool [B, N] or None -> [B, M, F]."""
        features = queries.shape[-1]
        mask = None if present is None else present[:, None, None, :]
        asked = nn.LayerNorm()(keys)
        x = nn.MultiHeadDotProductAttention(self.heads, name='attention')(
            nn.LayerNorm()(queries), asked, mask=mask
        )
        x = queries + nn.Dropout(self.dropout)(x, deterministic=not train)
        y = nn.Dense(features)(nn.relu(nn.Dense(features)(nn.LayerNorm()(x))))
        return x + nn.Dropout(self.dropout)(y, deterministic=not train)


class SetTransformer(nn.Module):
    """Set Transformer (Lee et al. 2019): induced self-attention, then pooling by attention.

    Every cell attends to all others through a few learned points (section 3.2's ISAB), so that
    memory grows with the number of cells and not with its square.

    Attributes:
        outputs: Classes, or 1 for a value or a risk.
        width: Features of each instance, a multiple of `heads`.
        points: Learned points of each layer.
        layers: Of induced self-attention.
        heads: Of each attention.
        dropout: Share of features dropped in training.
    """

    outputs: int
    width: int = 32
    points: int = 16
    layers: int = 1
    heads: int = 4
    dropout: float = 0.1

    @nn.compact
    def __call__(self, codes: jnp.ndarray, *, train: bool = False) -> jnp.ndarray:
        """[B, R, R, C] -> [B, outputs], linear.

        Raises:
            ValueError: A width that the heads do not divide.
        """
        if self.width % self.heads:
            raise ValueError(f'width={self.width} must be a multiple of heads={self.heads}')
        B, C = codes.shape[0], codes.shape[-1]
        codes, present = CodeScaling(name='scaling')(codes)
        present = present.reshape(B, -1)
        x = nn.Dense(self.width, name='embed')(codes.reshape(B, -1, C))
        for layer in range(self.layers):
            points = self._learned(f'points_{layer}', self.points, B)
            seen = self._block(f'gather_{layer}')(points, x, present, train=train)
            x = self._block(f'spread_{layer}')(x, seen, None, train=train)
        seed = self._learned('seed', 1, B)
        bag = self._block('pool')(seed, x, present, train=train)[:, 0]
        return nn.Dense(self.outputs, name='output')(nn.LayerNorm()(bag))

    def _learned(self, name: str, count: int, batch: int) -> jnp.ndarray:
        points = self.param(name, nn.initializers.normal(1.0), (count, self.width))
        return jnp.broadcast_to(points, (batch, count, self.width))

    def _block(self, name: str) -> AttentionBlock:
        return AttentionBlock(self.heads, self.dropout, name=name)
