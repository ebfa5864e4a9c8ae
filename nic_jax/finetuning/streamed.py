"""The gradient where pixels stay on the host: two passes over them, whatever their number.

The first pass encodes all patches into the grid. The classifier then gives its own gradient and
the loss's derivative by every code. The second pass encodes again, pulls each chunk's derivatives
back into the encoder and adds them up. Reading, transfer and computing overlap, also at the turn.
"""

import contextlib
import functools
import time
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from nic_jax import devices
from nic_jax.finetuning import gradients
from nic_jax.finetuning.gradients import Crop, Form, Networks, Result
from nic_jax.prefetch import default_workers, map_ahead


def streamed(
    networks: Networks, *, chunk: int, mesh: Mesh | None = None, workers: int | None = None
) -> Form:
    """Builds the form whose loaded crops stay on the host; compiled once for all crops.

    Args:
        networks: The networks.
        chunk: B, patches encoded at a time, shared out over the devices.
        mesh: Of devices; all local ones by default.
        workers: Threads that read, each a chunk ahead; one a core by default.

    Raises:
        ValueError: A chunk that cannot be shared out evenly.
    """
    mesh = devices.data_mesh() if mesh is None else mesh
    devices.check_divides(chunk, mesh)
    workers = default_workers() if workers is None else workers
    first, head, second, new_grid = compiled(networks, mesh)
    forward = jax.jit(functools.partial(gradients.slide_outputs, networks))

    def chunks(crop: Crop, passes: int) -> tuple[int, Any]:
        steps = -(-len(crop.cells) // chunk)
        cells = gradients.chunk_cells(crop.cells, chunk=chunk, steps=steps, crop=networks.crop)

        def read(step):
            start = step * chunk
            part = crop.read(start, min(start + chunk, len(crop.cells)))
            patches = np.zeros((chunk, *part.shape[1:]), part.dtype)
            patches[: len(part)] = part
            return devices.put_batch((patches, cells[step]), mesh)

        order = [*range(steps)] * passes
        return steps, map_ahead(read, order, workers=workers, ahead=workers + 1)
