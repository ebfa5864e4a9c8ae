"""Occlusion of cells (Zeiler and Fergus 2014): how far the score falls without them.

Cells are not blanked but given the slide's mean code: tissue stays where it was and tells nothing.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from nic_jax.explanation.integrated_gradients import mean_code
from nic_jax.explanation.scores import of_codes
from nic_jax.explanation.windows import Square, averaged
from nic_jax.networks.code_scaling import is_encoded

_AT_ONCE = 16


def occlusion(
    network: nn.Module,
    variables: Any,
    codes: np.ndarray,
    square: Square,
    *,
    task: str,
    target: int,
    block: int = 3,
) -> np.ndarray:
    """The signed map of one version of a slide, averaged where windows lie over each other.

    Args:
        network: Any on grids.
        variables: Its weights.
        codes: float32 `[size, size, C]`, the grid in its square.
        square: Its windows.
        task: One of `classifiers.trained.TASKS`.
        target: Number of the class whose score is explained.
        block: Cells along the side of what is covered at once; blocks lie side by side.

    Returns:
        float32 `[size, size]`: by how much the score falls when a cell's block is covered, divided
        by the cells that it covers; zeros where no code is.
    """
    baseline = mean_code(codes)
    return averaged(
        codes,
        square,
        lambda part: _falls(network, variables, part, baseline, task, target, block),
    )


def _falls(network, variables, codes, baseline, task, target, block) -> np.ndarray:
    """[R, R, C] -> [R, R]."""
    encoded = codes.any(-1)  # [R, R]
    number = np.arange(len(codes)) // block
    blocks = number[:, None] * (number[-1] + 1) + number  # [R, R], which block a cell is in
    asked, covered = np.unique(blocks[encoded], return_counts=True)
    filled = np.resize(asked, -(-len(asked) // _AT_ONCE) * _AT_ONCE).reshape(-1, _AT_ONCE)
    whole = _score(network, variables, codes, task, target)
    without = np.concatenate(
        [
            _covered(network, variables, codes, baseline, blocks, numbers, task, target)
            for numbers in filled
        ]
    )
    fall = np.zeros(blocks.max() + 1, np.float32)
    fall[asked] = (whole - without[: len(asked)]) / covered
    return np.where(encoded, fall[blocks], 0)


@functools.partial(jax.jit, static_argnames=('network', 'task', 'target'))
def _score(network, variables, codes, task, target) -> jax.Array:
    return of_codes(network, variables, codes[None], task, target)[0]


@functools.partial(jax.jit, static_argnames=('network', 'task', 'target'))
def _covered(network, variables, codes, baseline, blocks, numbers, task, target) -> jax.Array:
    """The score without each of some blocks, [N]."""
    hidden = (blocks == numbers[:, None, None]) & is_encoded(codes)  # [N, R, R]
    changed = jnp.where(hidden[..., None], baseline, codes)
    return of_codes(network, variables, changed, task, target)
