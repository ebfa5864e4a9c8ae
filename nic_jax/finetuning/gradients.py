"""What both forms of the gradient share: what they take and give, and the steps between.

S chunks of B patches of P×P px; a crop of R×R cells, codes of C features; K outputs.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from nic_jax.classifiers.losses import data_loss
from nic_jax.finetuning.trainable import merge
from nic_jax.patches.augmentation import Augmentation, augment

Tree = Mapping[str, Any]  # nested dicts of arrays; {'encoder': …, 'classifier': …} outermost
COTANGENT = 'cotangent'  # as a task: the target [K] is the derivative of a loss by the outputs


@dataclasses.dataclass(frozen=True)
class Networks:
    """Two networks and what lies between them; all functions are pure and jittable.

    Attributes:
        encode: (variables, patches [B, P, P, channels] in 0 … 255) -> codes [B, C]; what it makes
            of a patch must not depend on the others.
        classify: (variables, codes [1, R, R, C]) -> outputs [1, K].
        code_size: C.
        crop: R.
        augment: (key, patch uint8 [P, P, channels]) -> the same in 0 … 255, of any dtype. The key
            is folded from that of the step and the patch's cell: it is replayed, however patches
            are chunked. None for no augmentation.
        half: Whether patches are encoded in bfloat16; see `FinetuneSettings.precision`.
    """

    encode: Callable[[Tree, Array], Array]
    classify: Callable[[Tree, Array], Array]
    code_size: int
    crop: int
    augment: Callable[[Array, Array], Array] | None = None
    half: bool = False


class Patches(NamedTuple):
    """The patches of a crop that are encoded; where there are none, codes are zero.

    Attributes:
        cells: int32 [N], y·R + x of each patch, no two the same.
        read: (start, stop) -> uint8 [stop − start, P, P, channels], patches `start` … `stop` − 1.
            Called by several threads, up to three times for a patch, and always gives the same.
    """

    cells: np.ndarray
    read: Callable[[int, int], np.ndarray]


class Result(NamedTuple):
    """What a slide gives, or a batch.

    Attributes:
        loss: A scalar.
        outputs: [K]; of a batch [N, K].
        gradient: Of the loss, by what is trained.
        waited: Seconds that the calling thread has waited for pixels to be read. Some of them the
            device may have spent on what it had been given before: at most this is lost to input.
    """

    loss: Array
    outputs: Array
    gradient: Tree
    waited: float


class Form(NamedTuple):
    """One of two ways to the same gradient.

    Attributes:
        load: `Patches` -> what the others take as `loaded`; may run ahead, in another thread.
        outputs: (trained, frozen, loaded, key) -> (outputs [K], seconds waited, as in `Result`).
        value_and_gradient: (trained, frozen, loaded, target, key, *, task) -> `Result`; `task` is
            'classification', 'regression' or `COTANGENT`.
    """

    load: Callable[[Patches], Any]
    outputs: Callable[..., tuple[Array, float]]
    value_and_gradient: Callable[..., Result]


def per_patch(settings: Augmentation) -> Callable[[Array, Array], Array] | None:
    """The augmentation of `patches.augmentation`, as `Networks` takes it."""
    if settings == Augmentation():
        return None
    return lambda key, patch: 255 * augment(key, patch[None].astype(jnp.float32) / 255, settings)[0]


def chunk_cells(cells: np.ndarray, *, chunk: int, steps: int, crop: int) -> np.ndarray:
    """Cells [N] in chunks, int32 [S, B], filled up with R², a cell that no crop has.

    Raises:
        ValueError: Cells that the crop does not have, or one twice.
    """
    cells = np.asarray(cells)
    if cells.size and not 0 <= cells.min() <= cells.max() < crop**2:
        raise ValueError(
            f'cells are from {cells.min()} to {cells.max()}; a crop of {crop}×{crop} has those '
            f'from 0 to {crop**2 - 1}'
        )
    if (different := np.unique(cells).size) < cells.size:
        raise ValueError(f'{cells.size} patches lie in {different} cells: give each its own')
    filled = np.full(steps * chunk, crop**2, np.int32)
    filled[: cells.size] = cells
    return filled.reshape(steps, chunk)


def chunk_codes(
    networks: Networks, trained: Tree, frozen: Tree, patches: Array, cells: Array, key: Array
) -> Array:
    """Encodes a chunk by the encoder's trees: uint8 [B, P, P, channels], int32 [B] -> [B, C]."""
    if networks.augment:
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, cells)
        patches = jax.vmap(networks.augment)(keys, patches)
    if networks.half:
        patches = patches.astype(jnp.bfloat16)
    return networks.encode(merge(trained, frozen), patches)


def empty_grid(networks: Networks) -> Array:
    """The codes of no patch, [R², C]."""
    return jnp.zeros((networks.crop**2, networks.code_size))


def put_codes(grid: Array, codes: Array, cells: Array) -> Array:
    """Puts codes [..., C] into their cells [...] of a grid [R², C], which are zero."""
    # Added, not set: linear, so that its derivative needs no thought of cells given twice.
    return grid.at[cells].add(codes, mode='drop')


def take_codes(grid: Array, cells: Array) -> Array:
    """Takes [B, C] from cells [B] of a grid [R², C]; zeros for the cell R²."""
    return grid.at[cells].get(mode='fill', fill_value=0)


def slide_outputs(networks: Networks, trained: Tree, frozen: Tree, grid: Array) -> Array:
    """Classifies a grid by the classifier's trees: [R², C] -> [K]."""
    codes = grid.reshape(1, networks.crop, networks.crop, -1)
    return networks.classify(merge(trained, frozen), codes)[0]


def slide_loss(outputs: Array, target: Array, task: str) -> Array:
    """The loss of one slide's outputs [K].

    Raises:
        ValueError: Survival, which has no loss of one slide.
    """
    if task == 'survival':
        raise ValueError('the loss of survival is of a batch: use batch_value_and_gradient')
    if task == COTANGENT:
        return jnp.vdot(target, outputs)
    return data_loss(outputs[None], target[None], task)
