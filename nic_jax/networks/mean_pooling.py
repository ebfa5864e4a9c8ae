"""The mean code of a slide and a linear layer: the least that a model on grids can be."""

import flax.linen as nn
import jax.numpy as jnp

from nic_jax.networks.code_scaling import CodeScaling


class MeanPooling(nn.Module):
    """Mean over the cells that hold a code, then a linear layer.

    Attributes:
        outputs: Classes, or 1 for a value or a risk.
        dropout: Share of features of the mean dropped in training.
    """

    outputs: int
    dropout: float = 0.0

    @nn.compact
    def __call__(self, codes: jnp.ndarray, *, train: bool = False) -> jnp.ndarray:
        """[B, R, R, C] -> [B, outputs], linear."""
        codes, present = CodeScaling(name='scaling')(codes)
        count = present.sum((1, 2))[:, None]
        mean = codes.sum((1, 2)) / jnp.maximum(count, 1)
        mean = nn.Dropout(self.dropout)(mean, deterministic=not train)
        return nn.Dense(self.outputs, name='output')(mean)
