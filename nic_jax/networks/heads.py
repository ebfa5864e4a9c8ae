"""What is trained on top of an encoder and thrown away afterwards."""

import flax.linen as nn
import jax.numpy as jnp

_SLOPE = 0.2  # of leaky ReLU, as in the encoders
_EPSILON = 1e-3  # of batch norm; Keras's default


class NormHead(nn.Module):
    """Dense layer, batch norm, leaky ReLU, linear layer: classifier and pair of Tellez et al. 2019.

    Attributes:
        outputs: Logits.
        units: Of the hidden layer.
    """

    outputs: int
    units: int = 256

    @nn.compact
    def __call__(self, codes: jnp.ndarray, *, train: bool) -> jnp.ndarray:
        """[B, C] -> [B, outputs]."""
        x = nn.Dense(self.units)(codes)
        x = nn.BatchNorm(use_running_average=not train, momentum=0.99, epsilon=_EPSILON)(x)
        return nn.Dense(self.outputs)(nn.leaky_relu(x, _SLOPE))


class DropoutHead(nn.Module):
    """Dropout, dense layer, leaky ReLU, dropout, linear layer (the multitask paper, MIDL 2020)."""

    outputs: int
    units: int = 256
    rate: float = 0.1

    @nn.compact
    def __call__(self, codes: jnp.ndarray, *, train: bool) -> jnp.ndarray:
        """[B, C] -> [B, outputs]; in training it draws from the stream 'dropout'."""
        x = nn.Dropout(self.rate, deterministic=not train)(codes)
        x = nn.leaky_relu(nn.Dense(self.units)(x), _SLOPE)
        return nn.Dense(self.outputs)(nn.Dropout(self.rate, deterministic=not train)(x))


class Expander(nn.Module):
    """Two dense layers with batch norm and ReLU, and a linear one (VICReg, section 4.2).

    Attributes:
        units: Of each.
    """

    units: int = 512

    @nn.compact
    def __call__(self, codes: jnp.ndarray, *, train: bool) -> jnp.ndarray:
        """[B, C] -> [B, units]."""
        x = codes
        for _ in range(2):
            x = nn.Dense(self.units)(x)
            x = nn.BatchNorm(use_running_average=not train, momentum=0.99, epsilon=_EPSILON)(x)
            x = nn.relu(x)
        return nn.Dense(self.units, use_bias=False)(x)


class JointCritic(nn.Module):
    """The discriminator's end: of an image's features and a code, one logit.

    Attributes:
        units: Of two dense layers with leaky ReLU and dropout of one half.
    """

    units: int = 1024

    @nn.compact
    def __call__(self, features: jnp.ndarray, z: jnp.ndarray, *, train: bool) -> jnp.ndarray:
        """[B, F], [B, C] -> [B]; in training it draws from the stream 'dropout'."""
        x = jnp.concatenate([features, z], axis=-1)
        for _ in range(2):
            x = nn.leaky_relu(nn.Dense(self.units)(x), _SLOPE)
            x = nn.Dropout(0.5, deterministic=not train)(x)
        return nn.Dense(1)(x)[:, 0]
