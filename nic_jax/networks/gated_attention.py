"""Gated attention over the cells of a grid, and the classifier of bags that is built of it."""

import flax.linen as nn
import jax.numpy as jnp

from nic_jax.networks.code_scaling import CodeScaling

_NOWHERE = -1e9  # logit of cells that are not to be attended to


class GatedAttention(nn.Module):
    """Weights over instances that sum to 1 (Ilse, Tomczak and Welling 2018, equation 9).

    Attributes:
        units: Of the two layers whose product is scored.
    """

    units: int = 32

    @nn.compact
    def __call__(self, features: jnp.ndarray, present: jnp.ndarray) -> jnp.ndarray:
        """[B, N, F], bool [B, N] -> [B, N]; where nothing is present, all weigh the same."""
        content = jnp.tanh(nn.Dense(self.units, name='content')(features))
        gate = nn.sigmoid(nn.Dense(self.units, name='gate')(features))
        logits = nn.Dense(1, name='score')(content * gate)[..., 0]
        return nn.softmax(jnp.where(present, logits, _NOWHERE), axis=-1)


class AttentionMIL(nn.Module):
    """ABMIL, gated: a bag of codes, whatever their arrangement, in, logits or values out.

    Attributes:
        outputs: Classes, or 1 for a value or a risk.
        width: Features of each instance.
        units: Of the attention.
        dropout: Share of features dropped in training.
    """

    outputs: int
    width: int = 32
    units: int = 32
    dropout: float = 0.0

    @nn.compact
    def __call__(self, codes: jnp.ndarray, *, train: bool = False) -> jnp.ndarray:
        """[B, R, R, C] -> [B, outputs], linear."""
        B, C = codes.shape[0], codes.shape[-1]
        codes, present = CodeScaling(name='scaling')(codes)
        x = nn.relu(nn.Dense(self.width, name='embed')(codes.reshape(B, -1, C)))
        x = nn.Dropout(self.dropout)(x, deterministic=not train)
        weights = GatedAttention(self.units, name='attention')(x, present.reshape(B, -1))
        bag = jnp.einsum('bn,bnf->bf', weights, x)
        return nn.Dense(self.outputs, name='output')(bag)
