"""One compiled function that turns and encodes a batch of patches on all devices."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P

from nic_jax import devices
from nic_jax.encoders.encoder import Encoder


def turn_patches(patches: jnp.ndarray, version: int) -> jnp.ndarray:
    """Patches `[B, P, P, channels]` turned by `version`, as `grids.versions.turn` does on numpy."""
    mirrored = jnp.flip(patches, axis=2) if version >= 4 else patches
    return jnp.rot90(mirrored, k=version % 4, axes=(1, 2))


def check_batch(batch: int) -> None:
    """Raises ValueError where a batch cannot be shared out evenly over the devices."""
    if batch % jax.local_device_count():
        raise ValueError(
            f'--config.compress.batch={batch} must be a multiple of the '
            f'{jax.local_device_count()} devices'
        )


def batch_encoder(encoder: Encoder, *, versions: int) -> Callable[[np.ndarray], jax.Array]:
    """Compiles `patches uint8 [B, P, P, channels] -> codes float32 [versions, B, C]`.

    B is shared out over the local devices (`check_batch`), each of which encodes its own part
    without talking to the others. The call returns before the codes are there.

    Args:
        encoder: Any encoder.
        versions: How many of the eight versions to encode, from version 0 on.
    """

    def encode(variables, patches):
        turned = [
            lambda patches, version=version: turn_patches(patches, version)
            for version in range(versions)
        ]
        return jax.lax.map(
            lambda version: encoder.apply(variables, jax.lax.switch(version, turned, patches)),
            jnp.arange(versions),
        )

    mesh = devices.data_mesh()
    split = jax.jit(
        jax.shard_map(
            encode,
            mesh=mesh,
            in_specs=(P(), P('data')),
            out_specs=P(None, 'data'),
            check_vma=False,  # lax.switch on a mapped index is the same on every device
        )
    )
    variables = jax.device_put(encoder.variables, devices.replicated(mesh))

    def encode_batch(patches: np.ndarray) -> jax.Array:
        return split(variables, devices.put_batch(patches, mesh))

    return encode_batch
