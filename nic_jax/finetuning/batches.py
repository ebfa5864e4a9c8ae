"""The gradient of several slides, one after the other, in the memory of one.

The mean loss of classification and regression is a sum over slides. Survival couples them: every
risk set holds several. There all outputs come first, without gradients; the derivative of the loss
by its own outputs is then all that a slide needs to know of the others.
"""

import contextlib
import functools
import time
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from nic_jax.classifiers.losses import data_loss
from nic_jax.finetuning.gradients import COTANGENT, Form, Patches, Result, Tree
from nic_jax.prefetch import map_ahead


def batch_value_and_gradient(
    trained: Tree,
    frozen: Tree,
    slides: Sequence[tuple[Form, Patches]],
    targets: np.ndarray,
    key: Array,
    *,
    task: str,
) -> Result:
    """The loss of a batch, as `data_loss` defines it, and its gradient.

    The next slide is loaded while one is computed, so that two lie in memory.

    Args:
        trained: {'encoder': …, 'classifier': …}; what the loss is differentiated by.
        frozen: The same, of what it is not.
        slides: N, each with the form that it takes.
        targets: [N], integers or values; of survival (time, event), [N, 2].
        key: Of the step; each slide's is folded from it and the slide's place in the batch.
        task: 'classification', 'regression' or 'survival'.
    """
    keys = _slide_keys(key, count=len(slides))
    coupled = task == 'survival'
    outputs, losses, total, waited = [], [], None, 0.0
    order = [*slides] * (2 if coupled else 1)
    crops = map_ahead(lambda slide: slide[0].load(slide[1]), order, workers=1, ahead=2)
    with contextlib.closing(crops):
        if coupled:
            risks = []
            for (form, _), own in zip(slides, keys, strict=True):
                loaded, loading = _timed(crops)
                found, reading = form.outputs(trained, frozen, loaded, own)
                # Or the pixels of many slides would wait for their turn on the device.
                risks.append(jax.block_until_ready(found))
                waited += loading + reading
            loss, goals = _couple(risks, jax.device_put(targets), task=task)
            task = COTANGENT
        else:
            goals = [jax.device_put(target) for target in targets]
        for (form, _), own, goal in zip(slides, keys, goals, strict=True):
            loaded, loading = _timed(crops)
            result = form.value_and_gradient(trained, frozen, loaded, goal, own, task=task)
            total = result.gradient if total is None else _add(total, result.gradient)
            jax.block_until_ready(total)
            outputs.append(result.outputs)
            losses.append(result.loss)
            waited += loading + result.waited
    if not coupled:
        loss, total = _mean(losses, total)
    return Result(loss, jnp.stack(outputs), total, waited)


def _timed(crops):
    """The next crop, and the seconds that it took to come."""
    began = time.perf_counter()
    return next(crops), time.perf_counter() - began


@functools.partial(jax.jit, static_argnames='count')
def _slide_keys(key, count):
    return [jax.random.fold_in(key, slide) for slide in range(count)]


@functools.partial(jax.jit, static_argnames='task')
def _couple(outputs, targets, task):
    """The loss of the batch, and its derivatives by each slide's outputs."""
    return jax.value_and_grad(lambda rows: data_loss(jnp.stack(rows), targets, task))(outputs)


@functools.partial(jax.jit, donate_argnums=0)
def _add(total, more):
    return jax.tree.map(jnp.add, total, more)


@functools.partial(jax.jit, donate_argnums=1)
def _mean(losses, total):
    return sum(losses) / len(losses), jax.tree.map(lambda part: part / len(losses), total)
