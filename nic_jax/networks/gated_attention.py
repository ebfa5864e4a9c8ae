"""Gated attention over the cells of a grid, and the classifier of bags that is built of it."""

import flax.linen as nn
import jax.numpy as jnp

from nic_jax.networks.code_scaling import CodeScaling, is_encoded

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

    def setup(self):
        """Builds the layers."""
        self.scaling = CodeScaling()
        self.embed = nn.Dense(self.width)
        self.drop = nn.Dropout(self.dropout)
        self.attention = GatedAttention(self.units)
        self.output = nn.Dense(self.outputs)

    def __call__(self, codes: jnp.ndarray, *, train: bool = False) -> jnp.ndarray:
        """[B, R, R, C] -> [B, outputs], linear."""
        return self.from_features(self.features(codes), is_encoded(codes), train=train)

    def features(self, codes: jnp.ndarray) -> jnp.ndarray:
        """[B, H, W, C] -> the instances, [B, H, W, width]."""
        return nn.relu(self.embed(self.scaling(codes)[0]))

    def from_features(
        self, features: jnp.ndarray, present: jnp.ndarray, *, train: bool = False
    ) -> jnp.ndarray:
        """[B, R, R, width], bool [B, R, R] -> [B, outputs]."""
        features = self.drop(features, deterministic=not train)
        weights = self._weights(features, present)
        return self.output(jnp.einsum('byx,byxf->bf', weights, features))

    def attention_weights(self, codes: jnp.ndarray) -> jnp.ndarray:
        """[B, R, R, C] -> [B, R, R], summing to 1."""
        return self._weights(self.features(codes), is_encoded(codes))

    def _weights(self, features: jnp.ndarray, present: jnp.ndarray) -> jnp.ndarray:
        B, *cells = present.shape
        weights = self.attention(features.reshape(B, -1, self.width), present.reshape(B, -1))
        return weights.reshape(B, *cells)
