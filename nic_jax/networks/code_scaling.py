"""Codes as networks like them: every feature with mean 0 and standard deviation 1."""

import flax.linen as nn
import jax.numpy as jnp

COLLECTION = 'scaling'  # of variables: constants, neither weights nor running statistics


def is_encoded(codes: jnp.ndarray) -> jnp.ndarray:
    """[..., C] -> bool [...]: readers of grids give zeros for cells without a code."""
    return (codes != 0).any(-1)


class CodeScaling(nn.Module):
    """Shifts and scales codes by constants that are set before training.

    Features of one encoder differ in size by an order of magnitude, and weight decay, dropout and
    learning rate then mean another thing for each. The constants are the mean and the standard
    deviation over tissue cells of training slides (`classifiers.scaling`).
    """

    @nn.compact
    def __call__(self, codes: jnp.ndarray) -> tuple[jnp.ndarray, jnp.ndarray]:
        """[B, H, W, C] -> the same scaled, zeros where no code is; and bool [B, H, W], where."""
        shape = codes.shape[-1:]
        mean = self.variable(COLLECTION, 'mean', jnp.zeros, shape)
        deviation = self.variable(COLLECTION, 'deviation', jnp.ones, shape)
        present = is_encoded(codes)
        scaled = (codes - mean.value) / deviation.value
        return jnp.where(present[..., None], scaled, 0), present
