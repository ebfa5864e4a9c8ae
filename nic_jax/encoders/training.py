"""The training loop of encoders: it reads from top to bottom.

Batch k is a pure function of (seed, k), and everything else that changes is in the checkpoint, so a
run that was killed goes on as if it had not been.
"""

import contextlib
import dataclasses
import functools
import json
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np

from nic_jax import checkpoints, devices, prefetch, schedules, workdir
from nic_jax.encoders.objective import Objective, Variables

SCHEDULES = ('plateau', 'cosine', 'constant')
WARMUP = 0.03  # of a cosine's steps, over which the rate rises to its height
HISTORY = 'history.json'
Arrays = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class EncoderSettings:
    """How an encoder is trained.

    Attributes:
        batch: Patches (pairs, or patches a task) a step.
        steps: Steps at most.
        epoch_steps: Steps between two looks at the validation set.
        learning_rate: Adam's, the first or the highest.
        schedule: 'plateau' (the papers': falls tenfold where validation does not gain), 'cosine'
            (after a short warm-up, to zero), or 'constant'.
        patience: Validations without gain before a plateau's rate falls.
        min_learning_rate: Training stops when a plateau's rate would fall below it.
        weight_decay: AdamW's, on kernels; 0 for Adam.
        augmentation: A preset of `patches.augmentation`, of training patches.
        network: 'paper', or a family of `architectures`.
        decoder: 'paper' or 'small', of what turns codes into patches while training.
    """

    batch: int = 64
    steps: int = 10_000
    epoch_steps: int = 500
    learning_rate: float = 1e-3
    schedule: str = 'plateau'
    patience: int = 3
    min_learning_rate: float = 1e-5
    weight_decay: float = 0.0
    augmentation: str = 'strong'
    network: str = 'paper'
    decoder: str = 'paper'

    def __post_init__(self):
        for name in ('batch', 'steps', 'epoch_steps', 'patience'):
            if getattr(self, name) < 1:
                raise ValueError(f'{name}={getattr(self, name)} must be at least 1')
        if not 0 < self.min_learning_rate <= self.learning_rate:
            raise ValueError(
                f'learning_rate={self.learning_rate} and min_learning_rate='
                f'{self.min_learning_rate} must be positive, the second not above the first'
            )
        if self.schedule not in SCHEDULES:
            raise ValueError(f'schedule={self.schedule!r} must be one of {", ".join(SCHEDULES)}')
        if self.weight_decay < 0:
            raise ValueError(f'weight_decay={self.weight_decay} must not be negative')


def train(
    objective: Objective,
    *,
    batches: Callable[[int], Arrays],
    valid: Sequence[Callable[[], Arrays]],
    settings: EncoderSettings,
    seed: int,
    folder: pathlib.Path,
    report: Callable[[dict[str, float]], None],
    workers: int = 2,
) -> dict[str, Variables]:
    """Trains, or goes on with what `folder` holds.

    Args:
        objective: What is trained.
        batches: k -> the k-th training batch, arrays `[B, …]`; called by several threads.
        valid: Batches of the validation, all of one shape and weight.
        settings: How to train.
        seed: Of weights, augmentation and noise.
        folder: Where the checkpoint and the history of validations lie.
        report: Called after every validation with what happened.
        workers: Threads that make batches ahead.

    Returns:
        The variables, on the host, of the 'best' validation and of the 'last' step.

    Raises:
        FloatingPointError: A loss is not finite, or the objective sees no use in going on.
        ValueError: A batch that the devices cannot share evenly.
    """
    mesh = devices.data_mesh()
    devices.check_divides(settings.batch, mesh)
    weights_key, key = jax.random.split(jax.random.key(seed))
    everywhere = devices.replicated(mesh)
    epochs = -(-settings.steps // settings.epoch_steps)

    # ---- How far it had got -------------------------------------------------------------------
    state = jax.jit(objective.initial)(weights_key)
    best = _variables(state)
    watched, done = np.full(epochs, np.nan), np.zeros((), np.int64)
    history = []
    if checkpoints.exists(folder / 'state'):
        state, best, watched, done = checkpoints.restore(
            folder / 'state', (state, best, watched, done)
        )
        history = json.loads((folder / HISTORY).read_text(encoding='utf-8'))[: int(done)]
        _check_useful(objective, history)
    state, key = jax.device_put((state, key), everywhere)

    @functools.partial(jax.jit, donate_argnums=0, out_shardings=everywhere)
    def take_step(state, batch, key, number, rate):
        return objective.step(state, batch, jax.random.fold_in(key, number), rate)

    validate = jax.jit(objective.validate)
    first = int(done) * settings.epoch_steps
    ahead = prefetch.map_ahead(
        batches, range(first, settings.steps), workers=workers, ahead=workers + 2
    )
    with contextlib.closing(ahead):
        for epoch in range(int(done), epochs):
            # ---- Training ---------------------------------------------------------------------
            rate_at = _rates(settings, watched[:epoch])
            if rate_at is None:
                break
            last = min(first + settings.epoch_steps, settings.steps)
            began, found = time.perf_counter(), []
            for step in range(first, last):
                batch = next(ahead)
                with jax.transfer_guard('disallow'):
                    batch = devices.put_batch(batch, mesh)
                    number, rate = jax.device_put(
                        (np.int32(step), np.float32(rate_at(step))), everywhere
                    )
                    state, parts = take_step(state, batch, key, number, rate)
                found.append(parts)
                jax.block_until_ready(found[-2:][0])  # one step waits behind the running one
            seconds = time.perf_counter() - began
            trained = _means(found)
            _check_finite(trained, f'between steps {first} and {last}', rate_at(last - 1))

            # ---- Validation -------------------------------------------------------------------
            current, pieces = _variables(state), []
            for number, make in enumerate(valid):
                fixed = jax.random.fold_in(key, settings.steps + number)  # the same every time
                pieces.append(validate(current, devices.put_batch(make(), mesh), fixed))
            validated = _means(pieces)
            _check_finite(validated, f'of the validation at step {last}', rate_at(last - 1))
            sign = -1.0 if objective.higher_is_better else 1.0
            watched[epoch] = sign * validated[objective.watched]
            if watched[epoch] <= np.nanmin(watched[: epoch + 1]):
                best = jax.device_get(current)

            # ---- What happened ----------------------------------------------------------------
            record = {
                'step': last,
                **trained,
                **{f'valid_{name}': value for name, value in validated.items()},
                'learning_rate': float(rate_at(last - 1)),
                'images_per_s': round((last - first) * _images(batch) / seconds, 1),
            }
            history.append(record)
            first, done = last, np.int64(epoch + 1)
            workdir.write_atomically(folder / HISTORY, json.dumps(history))
            checkpoints.save(folder / 'state', (state, best, watched, done))
            report(record)
            _check_useful(objective, history)
    return {'best': jax.device_get(best), 'last': jax.device_get(_variables(state))}


def _rates(settings: EncoderSettings, watched: np.ndarray) -> Callable[[int], float] | None:
    """The learning rate by step, after these validations; None where training is over."""
    height = settings.learning_rate
    if settings.schedule == 'plateau':
        rate = schedules.plateau(
            watched, initial=height, patience=settings.patience, minimum=settings.min_learning_rate
        )
        return None if rate is None else lambda step: rate
    if settings.schedule == 'constant':
        return lambda step: height
    warmup = max(1, round(WARMUP * settings.steps))
    fall = functools.partial(
        schedules.cosine, steps=settings.steps - warmup, initial=height, minimum=0.0
    )
    return lambda step: height * (step + 1) / warmup if step < warmup else fall(step - warmup)


def _variables(state) -> Variables:
    return {kind: state[kind] for kind in ('params', 'batch_stats')}


def _means(parts: Sequence[Mapping[str, jax.Array]]) -> dict[str, float]:
    found = jax.device_get(list(parts))
    return {name: float(np.mean([each[name] for each in found])) for name in found[0]}


def _validation(record: Mapping[str, float]) -> dict[str, float]:
    prefix = 'valid_'
    return {
        name.removeprefix(prefix): value
        for name, value in record.items()
        if name.startswith(prefix)
    }


def _images(batch: Arrays) -> int:
    """Patches in a batch: arrays of images `[…, P, P, channels]` beside labels `[…]`."""
    return max(int(np.prod(array.shape[:-3])) for array in batch.values() if array.ndim > 3)


def _check_finite(parts: Mapping[str, float], where: str, rate: float) -> None:
    if bad := [name for name, value in parts.items() if not np.isfinite(value)]:
        raise FloatingPointError(
            f"the encoder's {', '.join(bad)} {where} is not finite, at learning rate {rate:g}; "
            'lower the learning rate, or look for patches of one value'
        )


def _check_useful(objective: Objective, history: list[dict[str, float]]) -> None:
    if reason := objective.check([_validation(each) for each in history]):
        raise FloatingPointError(f'step {history[-1]["step"]}: {reason}')
