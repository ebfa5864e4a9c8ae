"""What both forms of the gradient share: what they are given, what they give, what they compute.

S chunks of B patches of P×P px; a crop of R×R cells, codes of C features; K outputs.
"""

import dataclasses
import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh

from nic_jax.classifiers.losses import data_loss
from nic_jax.finetuning.trainable import merge
from nic_jax.patches.augmentation import Augmentation, augment

Tree = Mapping[str, Any]  # {'encoder': …, 'classifier': …}, what is trained or what is frozen
COTANGENT = 'cotangent'  # as a task: the target [K] is the loss's derivative by the outputs
FORMS = ('device', 'streamed')
# Of the device's memory, for the pixels of a crop: the next crop's lie beside them already, and
# the classifier and its activations want the other half.
_SHARE = 0.25


@dataclasses.dataclass(frozen=True)
class Networks:
    """Two networks and what lies between them; all functions are pure and jittable.

    Attributes:
        encode: (variables, patches [B, P, P, channels] in 0 … 255) -> codes [B, C]; what it makes
            of a patch must not depend on the other patches.
        classify: (variables, codes [1, R, R, C]) -> outputs [1, K].
        crop: R.
        augment: (key, patch uint8 [P, P, channels]) -> the same in 0 … 255, float or uint8; the key
            is folded from the step's and the patch's cell, so that it is replayed however patches
            are chunked. None for no augmentation.
    """

    encode: Callable[[Tree, Array], Array]
    classify: Callable[[Tree, Array], Array]
    crop: int
    augment: Callable[[Array, Array], Array] | None = None


class Crop(NamedTuple):
    """The tissue of a crop.

    Attributes:
        cells: int32 [N], y·R + x of each patch, no two the same.
        read: (start, stop) -> uint8 [stop − start, P, P, channels], patches `start` … `stop` − 1;
            called by several threads, once or more for each patch, with the same result each time.
    """

    cells: np.ndarray
    read: Callable[[int, int], np.ndarray]


class Result(NamedTuple):
    """What a slide or a batch gives.

    Attributes:
        loss: A scalar.
        outputs: [K]; of a batch [N, K].
        gradient: Of the loss, by what is trained.
        waited: Seconds that the caller stood still until pixels had been read. While it does, the
            device may be busy with what it was given before: no less than the time that is lost.
    """

    loss: Array
    outputs: Array
    gradient: Tree
    waited: float


class Form(NamedTuple):
    """One of the two ways to the same gradient.

    Attributes:
        load: crop -> what the other two take; may run in a thread of its own, ahead.
        outputs: (trained, frozen, loaded, key) -> (outputs [K], seconds waited as in `Result`).
        value_and_gradient: (trained, frozen, loaded, target, key, *, task) -> `Result`. `task` is
            'classification', 'regression' or `COTANGENT`.
    """

    load: Callable[[Crop], Any]
    outputs: Callable[..., tuple[Array, float]]
    value_and_gradient: Callable[..., Result]


def per_patch(settings: Augmentation) -> Callable[[Array, Array], Array] | None:
    """The augmentation of `patches.augmentation` as `Networks` takes it."""
    if settings == Augmentation():
        return None
    return lambda key, patch: 255 * augment(key, patch[None].astype(jnp.float32) / 255, settings)[0]


def device_memory(mesh: Mesh) -> int:
    """Bytes that all devices have together; of CPU devices, the machine's."""
    stats = [device.memory_stats() for device in mesh.devices.flat]
    if all(stats):
        return sum(each['bytes_limit'] for each in stats)
    return os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')


def choose_form(
    patches: int, patch_bytes: int, memory: int, *, forced: str | None = None
) -> tuple[str, str]:
    """Chooses a form for crops of up to so many patches.

    Args:
        patches: N.
        patch_bytes: Of the pixels of one.
        memory: Bytes that the devices have together.
        forced: One of `FORMS`, or None.

    Returns:
        One of `FORMS`, and a sentence that says which and why.
    """
    if forced not in (None, *FORMS):
        raise ValueError(f'{forced=} must be one of {", ".join(FORMS)}, or None')
    needed, room = patches * patch_bytes, int(_SHARE * memory)
    form = forced or ('device' if needed <= room else 'streamed')
    where = {
        'device': 'lie on the device',
        'streamed': 'are read twice from the host',
    }[form]
    reason = (
        'as asked for'
        if forced
        else f'{needed / 2**30:.2g} GiB of pixels {"fit" if needed <= room else "do not fit"} in '
        f'{room / 2**30:.2g} GiB, a quarter of the memory of the devices'
    )
    return form, f'{form}: patches of a crop ({patches} at most) {where}, {reason}.'


def chunk_cells(cells: np.ndarray, *, chunk: int, steps: int, crop: int) -> np.ndarray:
    """Cells [N] in chunks, int32 [S, B]; what is left over is R², a cell that no crop has.

    Raises:
        ValueError: Cells that are no cells of the crop, or one twice.
    """
    cells = np.asarray(cells)
    if cells.size and not 0 <= cells.min() <= cells.max() < crop**2:
        raise ValueError(f'cells {cells.min()} … {cells.max()} must be from 0 to {crop**2 - 1}')
    if np.unique(cells).size < cells.size:
        raise ValueError(f'{cells.size} patches lie in {np.unique(cells).size} cells; give one each')
    filled = np.full(steps * chunk, crop**2, np.int32)
    filled[: cells.size] = cells
    return filled.reshape(steps, chunk)


def chunk_codes(
    networks: Networks, trained: Tree, frozen: Tree, patches: Array, cells: Array, key: Array
) -> Array:
    """Encodes a chunk: uint8 [B, P, P, channels], int32 [B] -> [B, C]."""
    if networks.augment:
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, cells)
        patches = jax.vmap(networks.augment)(keys, patches)
    return networks.encode(merge(trained['encoder'], frozen['encoder']), patches)


def put_codes(grid: Array, codes: Array, cells: Array) -> Array:
    """Puts codes [..., C] into their cells of a grid [R², C]."""
    return grid.at[cells].set(codes, mode='drop', unique_indices=False)


def slide_outputs(networks: Networks, trained: Tree, frozen: Tree, grid: Array) -> Array:
    """Classifies a grid: [R², C] -> [K]."""
    codes = grid.reshape(1, networks.crop, networks.crop, -1)
    return networks.classify(merge(trained['classifier'], frozen['classifier']), codes)[0]


def slide_loss(outputs: Array, target: Array, task: str) -> Array:
    """The loss of one slide's outputs [K].

    Raises:
        ValueError: Survival, whose loss no slide has for itself.
    """
    if task == 'survival':
        raise ValueError('the loss of survival couples slides: use batch_value_and_gradient')
    if task == COTANGENT:
        return jnp.vdot(target, outputs)
    return data_loss(outputs[None], target[None], task)
