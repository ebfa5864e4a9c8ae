"""What the training loop needs of an objective, and how a loss becomes one."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from nic_jax.encoders.conv import module
from nic_jax.encoders.encoder import Encoder

Batch = Mapping[str, jax.Array]  # arrays [B, …]
Variables = Mapping[str, Any]  # 'params' and 'batch_stats', each {'encoder': …, other networks …}
State = Mapping[str, Any]  # variables, and 'optimizer'
Parts = Mapping[str, jax.Array]  # scalars
Augment = Callable[[jax.Array, jax.Array], jax.Array]  # (key, [B, P, P, C] in 0 … 1) -> the same
# (variables, batch, key, train) -> (loss, (new batch_stats, parts))
Loss = Callable[..., tuple[jax.Array, tuple[Any, Parts]]]


@dataclasses.dataclass(frozen=True, eq=False)
class Objective:
    """An objective; all its functions are pure and jittable.

    Attributes:
        name: Of the encoder that comes of it.
        network: The encoder's, as for `conv.conv_encoder`.
        initial: key -> state.
        step: (state, batch, key, learning rate) -> (state, parts).
        validate: (variables, batch, key) -> parts, means over the batch.
        watched: The part of the validation that decides plateaus and the best weights.
        higher_is_better: Of `watched`.
        keep: 'best' or 'last': the weights that become the encoder.
        check: (all validations' parts so far) -> why training should stop here, or ''.
        encoder: (variables, µm/px) -> the encoder.
        pictures: (variables, patches uint8) -> titles to patches `[N, P, P, channels]`, 0 … 255.
    """

    name: str
    network: Mapping[str, Any]
    initial: Callable[[jax.Array], State]
    step: Callable[..., tuple[State, Parts]]
    validate: Callable[..., Parts]
    encoder: Callable[[Variables, float | None], Encoder]
    watched: str = 'loss'
    higher_is_better: bool = False
    keep: str = 'best'
    check: Callable[[list[dict[str, float]]], str] = lambda history: ''
    pictures: Callable[..., dict[str, jax.Array]] | None = None


def loss_steps(
    loss: Loss, initial_variables: Callable[[jax.Array], Variables], *, weight_decay: float
) -> dict[str, Callable]:
    """The functions `initial`, `step` and `validate` of an objective that minimises one loss.

    Args:
        loss: (variables, batch, key, *, train) -> (loss, (batch_stats, parts)).
        initial_variables: key -> `params` and `batch_stats`.
        weight_decay: AdamW's, on kernels; 0 for Adam.
    """
    optimizer = adam(weight_decay)

    def initial(key):
        variables = initial_variables(key)
        return {**variables, 'optimizer': optimizer.init(variables['params'])}

    def step(state, batch, key, rate):
        def of_params(params):
            variables = {'params': params, 'batch_stats': state['batch_stats']}
            return loss(variables, batch, key, train=True)

        (value, (stats, parts)), gradient = jax.value_and_grad(of_params, has_aux=True)(
            state['params']
        )
        params, moments = descend(optimizer, gradient, state['optimizer'], state['params'], rate)
        state = {'params': params, 'batch_stats': stats, 'optimizer': moments}
        return state, {'loss': value, **parts}

    def validate(variables, batch, key):
        value, (_, parts) = loss(variables, batch, key, train=False)
        return {'loss': value, **parts}

    return {'initial': initial, 'step': step, 'validate': validate}


def adam(weight_decay: float = 0.0, *, b1: float = 0.9) -> optax.GradientTransformation:
    """Adam without its learning rate, which `descend` multiplies by; AdamW on kernels alone."""
    return optax.chain(
        optax.scale_by_adam(b1=b1),
        optax.add_decayed_weights(
            weight_decay, mask=lambda params: jax.tree.map(lambda leaf: leaf.ndim > 1, params)
        ),
    )


def descend(optimizer, gradient, moments, params, rate):
    """One step of gradient descent: (params, moments)."""
    moves, moments = optimizer.update(gradient, moments, params)
    return optax.apply_updates(params, jax.tree.map(lambda move: -rate * move, moves)), moments


def pixels(patches: jax.Array) -> jax.Array:
    """uint8 0 … 255 to float32 0 … 1."""
    return patches.astype(jnp.float32) / 255


def network_input(network: Mapping[str, Any], patches: jax.Array) -> jax.Array:
    """Patches in 0 … 1 to what the network takes: averaged 2×2 where it does that, −1 … 1."""
    size = network['input_size']
    if patches.shape[1] == 2 * size and network['averaged']:
        B, _, _, channels = patches.shape
        patches = patches.reshape(B, size, 2, size, 2, channels).mean(axis=(2, 4))
    return 2 * patches - 1


def initial_encoder(network: Mapping[str, Any], key: jax.Array) -> Variables:
    """Random weights of an encoder's network."""
    size, channels = network['input_size'], network['channels']
    return module(network).init(key, jnp.zeros((1, size, size, channels)))


def together(**networks: Variables) -> Variables:
    """The variables of several networks as one: `params` and `batch_stats`, each by network."""
    return {
        kind: {name: variables.get(kind, {}) for name, variables in networks.items()}
        for kind in ('params', 'batch_stats')
    }


def apply(network, variables: Variables, name: str, *inputs, train: bool, key=None):
    """Applies one of `together`'s networks: (output, its new batch_stats)."""
    own = {kind: variables[kind][name] for kind in ('params', 'batch_stats')}
    rngs = {} if key is None else {'dropout': key}
    output, updated = network.apply(own, *inputs, train=train, mutable=['batch_stats'], rngs=rngs)
    return output, updated.get('batch_stats', {})


def own(variables: Variables, name: str = 'encoder') -> Variables:
    """The variables of one of `together`'s networks."""
    return {kind: variables[kind][name] for kind in ('params', 'batch_stats')}
