"""The baseline that needs no training: a patch's mean colour (Tellez et al. 2019, section 3.1)."""

import jax.numpy as jnp

from nic_jax.encoders.encoder import Encoder


def mean_rgb(channels: int = 3) -> Encoder:
    """The mean of the pixels scaled to [−1, 1], a value a channel; any patch size."""
    return Encoder(
        name='mean_rgb' if channels == 3 else 'mean',
        apply=_mean,
        variables={},
        network={'kind': 'mean', 'channels': channels},
        inputs=(),
        channels=channels,
        code_size=channels,
        turn_invariant=True,
    )


def _mean(variables, patches: jnp.ndarray) -> jnp.ndarray:
    del variables
    # Whole numbers up to 255·P² sum exactly in int32: the code does not depend on their order.
    total = patches.astype(jnp.int32).sum(axis=(1, 2))
    pixels = patches.shape[1] * patches.shape[2]
    return total.astype(jnp.float32) / (127.5 * pixels) - 1.0
