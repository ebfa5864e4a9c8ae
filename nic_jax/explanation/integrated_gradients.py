"""Integrated gradients on codes (Sundararajan, Taly and Yan 2017): what each cell adds.

The baseline has the slide's mean code in every cell that holds one: tissue of the same shape that
tells nothing. What all cells add is then the score's difference from it, but for the steps of the
integral.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from nic_jax.explanation.scores import of_codes
from nic_jax.explanation.windows import Square, averaged
from nic_jax.networks.code_scaling import is_encoded


def integrated_gradients(
    network: nn.Module,
    variables: Any,
    codes: np.ndarray,
    square: Square,
    *,
    task: str,
    target: int,
    steps: int = 32,
) -> np.ndarray:
    """The signed map of one version of a slide, averaged where windows lie over each other.

    Args:
        network: Any on grids.
        variables: Its weights.
        codes: float32 `[size, size, C]`, the grid in its square.
        square: Its windows.
        task: One of `classifiers.trained.TASKS`.
        target: Number of the class whose score is explained.
        steps: Points of the integral, the middles of as many equal parts.

    Returns:
        float32 `[size, size]`, zeros where no code is.
    """
    baseline = mean_code(codes)
    return averaged(
        codes,
        square,
        lambda part: _attributed(network, variables, part, baseline, task, target, steps),
    )


def mean_code(codes: np.ndarray) -> np.ndarray:
    """The mean over the cells that hold a code, `[H, W, C]` -> `[C]`; zeros where none does."""
    encoded = codes[codes.any(-1)]
    return encoded.mean(0) if len(encoded) else np.zeros(codes.shape[-1], codes.dtype)


@functools.partial(jax.jit, static_argnames=('network', 'task', 'target', 'steps'))
def _attributed(network, variables, codes, baseline, task, target, steps) -> jax.Array:
    """[R, R, C] -> [R, R]."""
    start = jnp.where(is_encoded(codes)[..., None], baseline, 0.0)

    def gradient(share):
        along = start + share * (codes - start)
        return jax.grad(lambda codes: of_codes(network, variables, codes[None], task, target)[0])(
            along
        )

    shares = (jnp.arange(steps) + 0.5) / steps
    total, _ = jax.lax.scan(
        lambda total, share: (total + gradient(share), None), jnp.zeros_like(codes), shares
    )
    return ((codes - start) * total / steps).sum(-1)
