"""The training loop of encoders with one loss: it reads from top to bottom.

Batch k is a pure function of (seed, k), and everything else that changes is in the checkpoint, so a
run that was killed goes on as if it had not been.
"""

import dataclasses
import functools
import pathlib
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from nic_jax import checkpoints

Variables = Mapping[str, Any]
Data = Mapping[str, np.ndarray]
# (variables, batch, key, train) -> loss, (new batch_stats, parts of the loss)
Loss = Callable[..., tuple[jax.Array, tuple[Any, dict[str, jax.Array]]]]

VALID_BATCH = 512


@dataclasses.dataclass(frozen=True)
class EncoderSettings:
    """How an encoder is trained.

    Attributes:
        batch: Patches a step.
        steps: Steps at most.
        epoch_steps: Steps between two looks at the validation set.
        learning_rate: Adam's.
        patience: Validations without gain before the learning rate falls tenfold.
        min_learning_rate: Training stops when the learning rate would fall below it.
    """

    batch: int = 64
    steps: int = 10_000
    epoch_steps: int = 500
    learning_rate: float = 1e-3
    patience: int = 3
    min_learning_rate: float = 1e-5

    def __post_init__(self):
        for name in ('batch', 'steps', 'epoch_steps', 'patience'):
            if getattr(self, name) < 1:
                raise ValueError(f'{name}={getattr(self, name)} must be at least 1')
        if not 0 < self.min_learning_rate <= self.learning_rate:
            raise ValueError(
                f'learning_rate={self.learning_rate} and min_learning_rate='
                f'{self.min_learning_rate} must be positive, the second not above the first'
            )


def train(
    loss: Loss,
    variables: Variables,
    *,
    data: Data,
    valid: Data,
    settings: EncoderSettings,
    seed: int,
    folder: pathlib.Path,
    report: Callable[[dict[str, float]], None],
) -> Variables:
    """Minimises a loss with Adam; the learning rate falls tenfold on plateaus of validation.

    Args:
        loss: (variables, batch, key, train) -> (loss, (batch_stats, parts)).
        variables: `params` and `batch_stats` to start from.
        data: Training arrays with one leading axis `[N, …]`.
        valid: Validation arrays, likewise.
        settings: How to train.
        seed: Of batches and noise.
        folder: Where the checkpoint lies.
        report: Called after every validation with what happened.

    Returns:
        The variables of the best validation loss.

    Raises:
        FloatingPointError: The loss is not finite.
    """
    optimizer = optax.scale_by_adam()
    state = {
        'params': variables['params'],
        'batch_stats': variables['batch_stats'],
        'optimizer': optimizer.init(variables['params']),
        'best': {key: variables[key] for key in ('params', 'batch_stats')},
        'best_loss': jnp.float32(jnp.inf),
        'step': jnp.int32(0),
        'waited': jnp.int32(0),
        'learning_rate': jnp.float32(settings.learning_rate),
    }
    if checkpoints.exists(folder):
        state = checkpoints.restore(folder, state)

    @functools.partial(jax.jit, donate_argnums=(0, 1, 2))
    def take_step(params, batch_stats, optimizer_state, batch, learning_rate, key):
        def of_params(params):
            return loss({'params': params, 'batch_stats': batch_stats}, batch, key, train=True)

        (value, (batch_stats, _)), gradient = jax.value_and_grad(of_params, has_aux=True)(params)
        update, optimizer_state = optimizer.update(gradient, optimizer_state)
        params = jax.tree.map(lambda p, u: p - learning_rate * u, params, update)
        return params, batch_stats, optimizer_state, value

    validate = jax.jit(lambda variables, batch, key: loss(variables, batch, key, train=False))
    # Apart from the keys of the weights, which are split from the same seed.
    key = jax.random.fold_in(jax.random.key(seed), 2**31)
    size = len(next(iter(data.values())))

    while int(state['step']) < settings.steps:
        if float(state['learning_rate']) < settings.min_learning_rate * 0.999:
            break
        first, start, total = int(state['step']), time.perf_counter(), jnp.float32(0)
        last = min(first + settings.epoch_steps, settings.steps)
        # Copies: the step donates its arguments, and `best` may be the same arrays.
        training = jax.tree.map(
            jnp.array, (state['params'], state['batch_stats'], state['optimizer'])
        )
        for step in range(first, last):
            rng = np.random.default_rng((seed, step, *b'patches'))
            chosen = rng.integers(size, size=settings.batch)
            batch = {name: values[chosen] for name, values in data.items()}
            *training, value = take_step(
                *training, batch, state['learning_rate'], jax.random.fold_in(key, step)
            )
            total += value
        train_loss = float(total) / (last - first)
        if not np.isfinite(train_loss):
            raise FloatingPointError(
                f'the encoder loss is {train_loss} between steps {first} and {last}; '
                'lower the learning rate, or look for patches of one value'
            )
        params, batch_stats, optimizer_state = training
        current = {'params': params, 'batch_stats': batch_stats}
        valid_loss, parts = _validate(validate, current, valid, key)

        better = valid_loss < float(state['best_loss'])
        waited = 0 if better else int(state['waited']) + 1
        rate = float(state['learning_rate'])
        state = {
            **current,
            'optimizer': optimizer_state,
            'best': current if better else state['best'],
            'best_loss': jnp.float32(valid_loss if better else state['best_loss']),
            'step': jnp.int32(last),
            'waited': jnp.int32(waited % settings.patience),
            'learning_rate': jnp.float32(rate / 10 if waited == settings.patience else rate),
        }
        checkpoints.save(folder, state)
        report(
            {
                'step': last,
                'loss': round(train_loss, 5),
                'valid_loss': round(valid_loss, 5),
                **{f'valid_{name}': round(value, 5) for name, value in parts.items()},
                'learning_rate': round(rate, 8),
                'images_per_s': round(
                    (last - first) * settings.batch / (time.perf_counter() - start), 1
                ),
            }
        )
    return state['best']


def _validate(validate, variables, valid: Data, key) -> tuple[float, dict[str, float]]:
    """Mean loss and parts over the validation set's whole batches of one shape."""
    size = len(next(iter(valid.values())))
    batch = min(VALID_BATCH, size)
    values, parts = [], []
    for start in range(0, size - batch + 1, batch):
        part = {name: array[start : start + batch] for name, array in valid.items()}
        value, (_, pieces) = validate(variables, part, key)
        values.append(float(value))
        parts.append({name: float(piece) for name, piece in pieces.items()})
    return float(np.mean(values)), {
        name: float(np.mean([piece[name] for piece in parts])) for name in parts[0]
    }
