"""The gradient where the pixels of a crop fit on the device: backpropagation with checkpoints."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from nic_jax import devices
from nic_jax.finetuning import gradients
from nic_jax.finetuning.gradients import Form, Networks, Patches, Result
from nic_jax.prefetch import default_workers, map_ahead


def device_form(networks: Networks, *, chunk: int, mesh: Mesh | None = None) -> Form:
    """Builds the form whose loaded crops are arrays on the devices.

    It compiles once for each number of chunks that `steps_of` gives; there are few.

    Args:
        networks: The networks.
        chunk: B, patches encoded at a time, shared out over the devices.
        mesh: Of devices; all local ones by default.

    Raises:
        ValueError: A chunk that cannot be shared out evenly.
    """
    mesh = devices.data_mesh() if mesh is None else mesh
    devices.check_divides(chunk, mesh)
    loss_and_gradient, forward = compiled(networks, mesh)

    def load(patches):
        # Shared out by their second axis already on the host: `compiled` keeps them where they are.
        arrays = lay_out(patches, chunk=chunk, crop=networks.crop)
        return jax.device_put(arrays, NamedSharding(mesh, P(None, 'data')))

    def outputs(trained, frozen, loaded, key):
        return forward(trained, frozen, *loaded, key), 0.0

    def value_and_gradient(trained, frozen, loaded, target, key, *, task):
        (loss, found), gradient = loss_and_gradient(
            trained, frozen, *loaded, target, key, task=task
        )
        return Result(loss, found, gradient, waited=0.0)

    return Form(load, outputs, value_and_gradient)


def compiled(networks: Networks, mesh: Mesh) -> tuple[Callable, Callable]:
    """The jitted functions behind the form.

    Returns:
        (trained, frozen, patches [S, B, P, P, channels], cells [S, B], target, key, *, task) ->
        ((loss, outputs), gradient); and (trained, frozen, patches, cells, key) -> outputs.
    """
    shares = P(None, 'data')

    # Each device encodes its own part of every chunk and sees no other. Left to itself, the
    # compiler would give all of them everything, where an encoder takes its batch apart.
    @functools.partial(
        jax.shard_map,
        mesh=mesh,
        in_specs=(P(), P(), shares, shares, P()),
        out_specs=shares,
        check_vma=False,  # what an empty chunk gives is the same on every device
    )
    def encode(trained, frozen, patches, cells, key):  # [S, B, …] -> [S, B, C]
        @functools.partial(jax.checkpoint, prevent_cse=False)
        def step(trained, patches, cells):
            return jax.lax.cond(
                (cells < networks.crop**2).any(),
                lambda: gradients.chunk_codes(networks, trained, frozen, patches, cells, key),
                lambda: jnp.zeros((len(cells), networks.code_size)),
            )

        return jax.lax.map(lambda chunk: step(trained, *chunk), (patches, cells))

    def forward(trained, frozen, patches, cells, key):
        codes = encode(trained['encoder'], frozen['encoder'], patches, cells, key)
        codes, cells = jax.lax.with_sharding_constraint((codes, cells), devices.replicated(mesh))
        grid = gradients.put_codes(gradients.empty_grid(networks), codes, cells)
        return gradients.slide_outputs(networks, trained['classifier'], frozen['classifier'], grid)

    def loss(trained, frozen, patches, cells, target, key, task):
        outputs = forward(trained, frozen, patches, cells, key)
        return gradients.slide_loss(outputs, target, task), outputs

    jit = functools.partial(jax.jit, out_shardings=devices.replicated(mesh))
    return jit(jax.value_and_grad(loss, has_aux=True), static_argnames='task'), jit(forward)


def steps_of(patches: int, chunk: int) -> int:
    """S for so many patches: 1, 2, 3, 4, 6, 8, 12, 16, 24 …; empty chunks cost next to nothing."""
    steps = max(1, -(-patches // chunk))
    power = 1 << (steps - 1).bit_length()
    return 3 * power // 4 if power >= 4 and 4 * steps <= 3 * power else power


def lay_out(patches: Patches, *, chunk: int, crop: int) -> tuple[np.ndarray, np.ndarray]:
    """Reads all patches: uint8 [S, B, P, P, channels] and their cells, int32 [S, B].

    What is left over in the last chunk is copies of the last patch, in a cell that is none.
    """
    count = len(patches.cells)
    steps = steps_of(count, chunk)
    cells = gradients.chunk_cells(patches.cells, chunk=chunk, steps=steps, crop=crop)
    starts = range(0, max(count, 1), chunk)
    workers = default_workers()
    parts = map_ahead(
        lambda start: patches.read(start, min(start + chunk, count)),
        starts,
        workers=workers,
        ahead=workers + 1,
    )
    pixels = None
    for start, part in zip(starts, parts, strict=True):
        if pixels is None:
            pixels = np.empty((steps * chunk, *part.shape[1:]), part.dtype)
        pixels[start : start + len(part)] = part
    pixels[count:] = pixels[count - 1] if count else 0
    return pixels.reshape(steps, chunk, *pixels.shape[1:]), cells
