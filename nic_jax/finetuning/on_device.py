"""The gradient where the pixels of a crop fit on the device: backpropagation with checkpoints."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from nic_jax import devices
from nic_jax.finetuning import gradients
from nic_jax.finetuning.gradients import Crop, Form, Networks, Result
from nic_jax.prefetch import default_workers, map_ahead


def on_device(networks: Networks, *, chunk: int, mesh: Mesh | None = None) -> Form:
    """Builds the form whose loaded crops are arrays on the devices.

    Compiled once for each number of chunks that `steps_of` gives, of which there are few.

    Args:
        networks: The networks.
        chunk: B, patches encoded at a time, shared out over the devices.
        mesh: Of devices; all local ones by default.

    Raises:
        ValueError: A chunk that cannot be shared out evenly.
    """
    mesh = devices.data_mesh() if mesh is None else mesh
    devices.check_divides(chunk, mesh)
    loss, forward = compiled(networks, mesh)

    def outputs(trained, frozen, loaded, key):
        return forward(trained, frozen, *loaded, key), 0.0

    def value_and_gradient(trained, frozen, loaded, target, key, *, task):
        (value, found), gradient = loss(trained, frozen, *loaded, target, key, task=task)
        return Result(value, found, gradient, 0.0)

    load = functools.partial(_load, chunk=chunk, crop=networks.crop, mesh=mesh)
    return Form(load, outputs, value_and_gradient)


def steps_of(patches: int, chunk: int) -> int:
    """S, the chunks of so many patches rounded up to 1, 2, 3, 4, 6, 8, 12, 16, 24 …"""
    steps = max(1, -(-patches // chunk))
    power = 1 << (steps - 1).bit_length()
    return 3 * power // 4 if power >= 4 and steps <= 3 * power // 4 else power


def compiled(networks: Networks, mesh: Mesh):
    """The jitted functions behind the form, of arrays [S, B, …] on the devices.

    Returns:
        (trained, frozen, patches, cells, target, key, *, task) -> ((loss, outputs), gradient); and
        (trained, frozen, patches, cells, key) -> outputs.
    """
    shares = P(None, 'data')

    # No device waits for another, or sees its patches, until all codes are there. `jax.jit` would
    # share out the chunks that an encoder makes of its batch, and give every device all the work.
    @functools.partial(
        jax.shard_map,
        mesh=mesh,
        in_specs=(P(), P(), shares, shares, P()),
        out_specs=shares,
        check_vma=False,  # the zeros of an empty chunk are the same on every device
    )
    def encode(trained, frozen, patches, cells, key):  # [S, B, …] -> [S, B, C]
        @functools.partial(jax.checkpoint, prevent_cse=False)
        def step(trained, patches, cells):
            def codes():
                return gradients.chunk_codes(networks, trained, frozen, patches, cells, key)

            def nothing():
                return jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), jax.eval_shape(codes))

            return jax.lax.cond((cells < networks.crop**2).any(), codes, nothing)

        return jax.lax.map(lambda one: step(trained, *one), (patches, cells))

    def forward(trained, frozen, patches, cells, key):
        codes = encode(trained, frozen, patches, cells, key)
        codes = jax.lax.with_sharding_constraint(codes, devices.replicated(mesh))
        grid = jnp.zeros((networks.crop**2, codes.shape[-1]), codes.dtype)
        grid = gradients.put_codes(grid, codes, cells)
        return gradients.slide_outputs(networks, trained, frozen, grid)

    def loss(trained, frozen, patches, cells, target, key, task):
        outputs = forward(trained, frozen, patches, cells, key)
        return gradients.slide_loss(outputs, target, task), outputs

    everywhere = devices.replicated(mesh)
    return (
        jax.jit(
            jax.value_and_grad(loss, has_aux=True),
            static_argnames='task',
            out_shardings=everywhere,
        ),
        jax.jit(forward, out_shardings=everywhere),
    )


def _load(crop_: Crop, *, chunk: int, crop: int, mesh: Mesh) -> tuple[Array, Array]:
    """Reads a crop and puts it on the devices, patches [S, B, P, P, channels] and cells [S, B]."""
    count = len(crop_.cells)
    steps = steps_of(count, chunk)
    cells = gradients.chunk_cells(crop_.cells, chunk=chunk, steps=steps, crop=crop)
    starts = range(0, max(count, 1), chunk)
    workers = default_workers()
    parts = map_ahead(
        lambda start: crop_.read(start, min(start + chunk, count)),
        starts,
        workers=workers,
        ahead=workers,
    )
    patches = None
    for start, part in zip(starts, parts, strict=True):
        if patches is None:
            patches = np.zeros((steps * chunk, *part.shape[1:]), part.dtype)
        patches[start : start + len(part)] = part
    patches = patches.reshape(steps, chunk, *patches.shape[1:])
    # Shared out by their second axis on the host: see `encode`.
    return jax.device_put((patches, cells), NamedSharding(mesh, P(None, 'data')))
