"""One training step as a jitted pure function."""

import functools
from typing import Any

import flax.linen as nn
import jax
import optax
from jax.sharding import Mesh

from nic_jax import devices
from nic_jax.classifiers.losses import data_loss, kernel_penalty, kernels
from nic_jax.networks.code_scaling import COLLECTION


def make_optimizer(weight_decay: float) -> optax.GradientTransformation:
    """Adam without its learning rate, which the step multiplies by; AdamW with `weight_decay`."""
    return optax.chain(optax.scale_by_adam(), optax.add_decayed_weights(weight_decay, mask=kernels))


def initial_state(variables: Any, *, weight_decay: float) -> dict[str, Any]:
    """Returns weights, batch statistics, the codes' scaling, and the optimizer's moments."""
    return {
        'params': variables['params'],
        'batch_stats': variables.get('batch_stats', {}),
        COLLECTION: variables.get(COLLECTION, {}),
        'optimizer': make_optimizer(weight_decay).init(variables['params']),
    }


def variables_of(state: dict[str, Any]) -> dict[str, Any]:
    """Returns what the network is applied with: the collections that it has."""
    return {name: state[name] for name in ('params', 'batch_stats', COLLECTION) if state[name]}


@functools.cache
def compile_step(network: nn.Module, task: str, l2: float, weight_decay: float, mesh: Mesh) -> Any:
    """Returns the jitted training step, the same one for the same arguments.

    Its arguments: state, codes [B, R, R, C], targets [B], key, step, learning rate; the last two
    are arrays, so that a new one compiles nothing. It returns the new state and the loss without
    the penalty. Batch norm sees the whole batch, over all devices.
    """
    optimizer = make_optimizer(weight_decay)

    def step_function(state, codes, targets, key, step, learning_rate):
        def loss(params):
            outputs, updated = network.apply(
                {**variables_of(state), 'params': params},
                codes,
                train=True,
                rngs={'dropout': jax.random.fold_in(key, step)},
                mutable=['batch_stats'],
            )
            fit = data_loss(outputs, targets, task)
            return fit + l2 * kernel_penalty(params), (fit, updated)

        gradient, (fit, updated) = jax.grad(loss, has_aux=True)(state['params'])
        moves, optimizer_state = optimizer.update(gradient, state['optimizer'], state['params'])
        params = optax.apply_updates(
            state['params'], jax.tree.map(lambda move: -learning_rate * move, moves)
        )
        batch_stats = updated.get('batch_stats', {})
        moved = {'params': params, 'batch_stats': batch_stats, 'optimizer': optimizer_state}
        return {**state, **moved}, fit

    return jax.jit(step_function, out_shardings=devices.replicated(mesh))
