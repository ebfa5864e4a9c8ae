"""The gradient where pixels stay on the host: two passes over them, whatever their number.

The first pass encodes all patches into the grid. The classifier then gives its own gradient and
the derivative of the loss by every code. The second pass encodes again, pulls the derivatives of a
chunk back into the encoder, and adds them up. Reading, transfer and computing overlap, also where
the second pass begins.
"""

import contextlib
import functools
import time
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from nic_jax import devices
from nic_jax.finetuning import gradients
from nic_jax.finetuning.gradients import Form, Networks, Result
from nic_jax.prefetch import default_workers, map_ahead


def streamed_form(
    networks: Networks, *, chunk: int, mesh: Mesh | None = None, workers: int | None = None
) -> Form:
    """Builds the form whose loaded crops stay on the host; it compiles once for all crops.

    Args:
        networks: The networks.
        chunk: B, patches encoded at a time, shared out over the devices.
        mesh: Of devices; all local ones by default.
        workers: Threads that read and transfer, a chunk each; one a core by default.

    Raises:
        ValueError: A chunk that cannot be shared out evenly.
    """
    mesh = devices.data_mesh() if mesh is None else mesh
    devices.check_divides(chunk, mesh)
    workers = default_workers() if workers is None else workers
    start, encode, classify, classify_back, encode_back = compiled(networks, mesh)

    def stream(patches, steps, passes):
        cells = gradients.chunk_cells(patches.cells, chunk=chunk, steps=steps, crop=networks.crop)

        def read(step):
            first, last = step * chunk, min((step + 1) * chunk, len(patches.cells))
            pixels = _filled(patches.read(first, last), chunk)
            return devices.put_batch((pixels, cells[step]), mesh)

        order = [*range(steps)] * passes
        chunks = map_ahead(read, order, workers=workers, ahead=workers + 1)
        return contextlib.closing(chunks)

    def outputs(trained, frozen, patches, key):
        steps = -(-len(patches.cells) // chunk)
        with stream(patches, steps, 1) as chunks:
            grid, waited = each(chunks, steps, encode, start(), trained, frozen, key)
        return classify(trained, frozen, grid), waited

    def value_and_gradient(trained, frozen, patches, target, key, *, task):
        steps = -(-len(patches.cells) // chunk)
        passes = 2 if jax.tree.leaves(trained['encoder']) else 1
        with stream(patches, steps, passes) as chunks:
            grid, waited = each(chunks, steps, encode, start(), trained, frozen, key)
            loss, found, gradient, by_grid = classify_back(trained, frozen, grid, target, task=task)
            if passes == 2:
                total, again = each(
                    chunks, steps, encode_back, gradient['encoder'], trained, frozen, key, by_grid
                )
                gradient, waited = {**gradient, 'encoder': total}, waited + again
        return Result(loss, found, gradient, waited)

    return Form(lambda patches: patches, outputs, value_and_gradient)


def compiled(networks: Networks, mesh: Mesh) -> tuple[Callable, ...]:
    """The jitted functions behind the form; a grid is [R², C].

    Returns:
        () -> empty grid;
        (grid, chunk, trained, frozen, key) -> (the grid with the codes of a chunk, mark);
        (trained, frozen, grid) -> outputs;
        (trained, frozen, grid, target, *, task) -> (loss, outputs, gradient with zeros for the
        encoder, derivative by the grid);
        (sum, chunk, trained, frozen, key, derivative by the grid) -> (the sum with the gradient of
        a chunk, mark).
        The grid and the sum are given up to the call. A mark is there when the call is done.
    """

    @functools.partial(
        jax.shard_map,
        mesh=mesh,
        in_specs=(P(), P(), P('data'), P('data'), P()),
        out_specs=P('data'),
        check_vma=False,
    )
    def codes_of(trained, frozen, patches, cells, key):  # [B, …] -> [B, C]
        return gradients.chunk_codes(networks, trained, frozen, patches, cells, key)

    def encode(grid, chunk, trained, frozen, key):
        patches, cells = chunk
        codes = codes_of(trained['encoder'], frozen['encoder'], patches, cells, key)
        return gradients.put_codes(grid, codes, cells), codes[0, 0]

    def classify(trained, frozen, grid):
        return gradients.slide_outputs(networks, trained['classifier'], frozen['classifier'], grid)

    def classify_back(trained, frozen, grid, target, task):
        def loss(head, grid):
            outputs = gradients.slide_outputs(networks, head, frozen['classifier'], grid)
            return gradients.slide_loss(outputs, target, task), outputs

        by_both = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)
        (value, outputs), (by_head, by_grid) = by_both(trained['classifier'], grid)
        nothing = jax.tree.map(jnp.zeros_like, trained['encoder'])
        return value, outputs, {'encoder': nothing, 'classifier': by_head}, by_grid

    def encode_back(total, chunk, trained, frozen, key, by_grid):
        patches, cells = chunk
        codes, back = jax.vjp(
            lambda encoder: codes_of(encoder, frozen['encoder'], patches, cells, key),
            trained['encoder'],
        )
        by_codes = gradients.take_codes(by_grid, cells).astype(codes.dtype)
        (gradient,) = back(by_codes)
        return jax.tree.map(jnp.add, total, gradient), by_codes[0, 0]

    jit = functools.partial(jax.jit, out_shardings=devices.replicated(mesh))
    return (
        jit(functools.partial(gradients.empty_grid, networks)),
        jit(encode, donate_argnums=0),
        jit(classify),
        jit(classify_back, static_argnames='task'),
        jit(encode_back, donate_argnums=0),
    )


def each(
    chunks: Iterator, steps: int, function: Callable, carried: Array, *others
) -> tuple[Array, float]:
    """Carries an array through the next `steps` chunks: (the last one, seconds waited).

    Args:
        chunks: Of which the next are taken.
        steps: How many.
        function: (carried, chunk, *others) -> (carried, mark), as of `compiled`.
        carried: At first.
        others: The same for all chunks.
    """
    waited, marks = 0.0, []
    for _ in range(steps):
        began = time.perf_counter()
        chunk = next(chunks)
        waited += time.perf_counter() - began
        carried, mark = function(carried, chunk, *others)
        # One chunk waits behind the running one: the device stays busy, and does not fill up.
        marks = [*marks, mark]
        if len(marks) > 1:
            jax.block_until_ready(marks.pop(0))
    return carried, waited


def _filled(pixels: np.ndarray, chunk: int) -> np.ndarray:
    """Copies of the last patch after it, up to B."""
    missing = chunk - len(pixels)
    return np.concatenate([pixels, np.repeat(pixels[-1:], missing, 0)]) if missing else pixels
