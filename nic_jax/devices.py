"""All local devices as one mesh, batches divided over them."""

import functools
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec


@functools.cache
def data_mesh() -> Mesh:
    """A mesh of all local devices with the one axis 'data'."""
    devices = jax.local_devices()
    return jax.make_mesh(
        (len(devices),), ('data',), axis_types=(AxisType.Auto,), devices=tuple(devices)
    )


def check_divides(batch: int, mesh: Mesh) -> None:
    """Raises ValueError where a batch cannot be divided over the devices."""
    if batch % mesh.size:
        raise ValueError(
            f'{batch=} is not a multiple of the {mesh.size} devices: make it one, or hide devices '
            '(CUDA_VISIBLE_DEVICES)'
        )


def replicated(mesh: Mesh) -> NamedSharding:
    """The same array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def put_batch(batch: Any, mesh: Mesh) -> Any:
    """Moves arrays [B, …] to the devices, B divided over them."""
    return jax.device_put(batch, NamedSharding(mesh, PartitionSpec('data')))
