"""The number that is explained: how much a network's output speaks for one answer."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


def score(outputs: jax.Array, task: str, target: int) -> jax.Array:
    """A class's log-odds, or the value or the risk itself.

    Log-odds are the logit of a sigmoid with two classes, and count with more what speaks for
    another class against the target.

    Args:
        outputs: [..., K], linear.
        task: One of `classifiers.trained.TASKS`.
        target: Number of the class; of no meaning for other tasks.

    Returns:
        [...].
    """
    if task != 'classification':
        return outputs[..., 0]
    others = jnp.delete(outputs, target, axis=-1)
    return outputs[..., target] - jax.nn.logsumexp(others, axis=-1)


def of_codes(network: nn.Module, variables: Any, codes: jax.Array, task: str, target: int):
    """[B, R, R, C] -> the score of each, [B]."""
    return score(network.apply(variables, codes), task, target)
