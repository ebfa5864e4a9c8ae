"""The gradient of several slides, one after the other, in the memory of one.

The mean loss of classification and regression is a sum over slides. Survival couples them: every
risk set holds several. There all outputs come first, without gradients; the loss's derivative by
each of them is then all that a slide needs to know of the others.
"""

import contextlib
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import Array

from nic_jax.classifiers.losses import data_loss
from nic_jax.finetuning.gradients import COTANGENT, Form, Patches, Result, Tree
from nic_jax.prefetch import map_ahead


def batch_value_and_gradient(
    trained: Tree,
    frozen: Tree,
    slides: Sequence[tuple[Form, Patches]],
    targets: Array,
    key: Array,
    *,
    task: str,
) -> Result:
    """The loss of a batch of slides, as `data_loss` has it, and its gradient.

    Args:
        trained: {'encoder': …, 'classifier': …}, differentiated by.
        frozen: The same of what is not.
        slides: N crops, each with the form that it goes through.
        targets: [N], or of survival (time, event) [N, 2].
        key: Of the step; slide n is augmented by what is folded from it and n.
        task: 'classification', 'regression' or 'survival'.
    """
    keys = _keys(key, len(slides))
    outputs, losses, total, waited = [], [], None, 0.0
    if task == 'survival':
        ...
