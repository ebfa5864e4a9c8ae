"""Training a network on grids of codes, from the first batch to the best weights."""

import contextlib
import dataclasses
import math
import pathlib
import shutil
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from nic_jax import checkpoints, devices, schedules
from nic_jax.classifiers.batches import DRAWS, Examples, training_batches
from nic_jax.classifiers.losses import validation
from nic_jax.classifiers.models import build_network
from nic_jax.classifiers.prediction import mean_outputs, plan_prediction
from nic_jax.classifiers.scaling import code_statistics
from nic_jax.classifiers.steps import compile_step, initial_state, variables_of
from nic_jax.classifiers.trained import (
    TASKS,
    UNFINISHED,
    Trained,
    TrainSettings,
    begin,
    initial_variables,
    load_trained,
    save_trained,
)
from nic_jax.networks.code_scaling import COLLECTION


def train(
    *,
    train: Examples,
    valid: Examples,
    task: str,
    classes: int,
    model: str,
    fields: Mapping[str, Any],
    settings: TrainSettings,
    seed: int,
    folder: pathlib.Path,
    report: Callable[[dict], None] = lambda record: None,
    identity: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> Trained:
    """Trains, or goes on with what `folder` holds, and keeps the best validation weights.

    Interrupted at any time and called again, it gives bit for bit the weights of an unbroken
    run. A finished folder is loaded. The validation loss decides both the learning rate's
    plateaus and the best weights: cross-entropy averaged over classes, the mean squared error of
    the standardised targets, or Cox's partial likelihood of all validation cases.

    Args:
        train: Balanced over classes, for a classification, however many each one has.
        valid: For the plateau and the best weights. No others are ever seen here.
        task: 'classification' (integer targets), 'regression' (standardised by the mean and
            standard deviation of the training targets), or 'survival' (targets [N, 2]: time, and
            1 for death, 0 for censoring; a batch holds one slide of each of its cases).
        classes: K; 1 for a regression or survival.
        model: One of `models.NETWORKS`.
        fields: Of the network, where they differ from its defaults.
        settings: Of the training.
        seed: Of weights, batches and dropout.
        folder: For `weights/` and `classifier.json`; `unfinished/` until then.
        report: Called after each epoch with epoch, step, loss, valid_loss, valid_accuracy
            (balanced), valid_spearman or valid_concordance, learning_rate, steps_per_s.
        identity: JSON values that tell this training apart (encoder, label, fold …).
        overwrite: Replace what other settings have left in `folder`.

    Raises:
        ValueError: data and settings that do not go together, or a folder made with others.
        FloatingPointError: the loss is not finite.
    """
    # ---- What is asked for --------------------------------------------------------------------
    _check(train, valid, task, classes, settings.batch)
    mesh = devices.data_mesh()
    devices.check_divides(settings.batch, mesh)
    code_size = train.grids[0].code_size
    record = {
        'task': task,
        'classes': classes,
        'code_size': code_size,
        'seed': seed,
        'model': model,
        'network': dict(fields),
        'settings': dataclasses.asdict(settings),
        'identity': dict(identity or {}),
        'examples': {'train': train.fingerprint(), 'valid': valid.fingerprint()},
    }
    network = build_network(model, fields, outputs=classes, crop=settings.crop)
    if begin(folder, record, overwrite=overwrite):
        return load_trained(folder)
    unfinished = folder / UNFINISHED

    # ---- What is trained ----------------------------------------------------------------------
    offset, scale = standardisation(train.targets, task)
    epoch_steps = settings.steps_per_epoch or math.ceil(len(train.targets) / settings.batch)
    steps = epoch_steps * settings.epochs
    weights_key, dropout_key = jax.random.split(jax.random.key(seed))
    variables = initial_variables(network, weights_key, crop=settings.crop, code_size=code_size)
    if COLLECTION in variables:
        variables = {**variables, COLLECTION: {'scaling': code_statistics(train.grids)}}
    state = initial_state(variables, weight_decay=settings.weight_decay)
    best = variables_of(state)
    history = np.full((settings.epochs, len(_COLUMNS)), np.nan)
    done = np.zeros((), np.int64)  # Epochs.

    # ---- How far it had got -------------------------------------------------------------------
    if checkpoints.exists(unfinished / 'checkpoint'):
        state, best, history, done = checkpoints.restore(
            unfinished / 'checkpoint', (state, best, history, done)
        )
    state, dropout_key = jax.device_put((state, dropout_key), devices.replicated(mesh))
    step_function = compile_step(network, task, settings.l2, settings.weight_decay, mesh)
    valid_draws = list(
        plan_prediction(valid.grids, crop=settings.crop, crops=settings.valid_crops, versions=(0,))
    )
    batches = training_batches(
        train,
        first=int(done) * epoch_steps,
        last=steps,
        seed=seed,
        batch=settings.batch,
        crop=settings.crop,
        versions=settings.versions,
        draw=DRAWS[task],
    )

    # ---- Epochs -------------------------------------------------------------------------------
    with contextlib.closing(batches):
        for epoch in range(int(done), settings.epochs):
            if settings.schedule == 'plateau':
                rate = schedules.plateau(
                    history[:epoch, _VALID_LOSS],
                    initial=settings.learning_rate,
                    patience=settings.patience,
                    minimum=settings.min_learning_rate,
                )
                if rate is None:
                    break

            losses = []
            began = time.perf_counter()
            for step in range(epoch * epoch_steps, (epoch + 1) * epoch_steps):
                if settings.schedule == 'cosine':
                    rate = schedules.cosine(
                        step,
                        steps=steps,
                        initial=settings.learning_rate,
                        minimum=settings.min_learning_rate,
                    )
                codes, targets = next(batches)
                targets = _as_trained_on(targets, task, offset, scale)
                with jax.transfer_guard('disallow'):
                    codes, targets = devices.put_batch((codes, targets), mesh)
                    step_and_rate = jax.device_put(
                        (np.int32(step), np.float32(rate)), devices.replicated(mesh)
                    )
                    state, loss = step_function(state, codes, targets, dropout_key, *step_and_rate)
                losses.append(loss)
                # One step waits behind the running one: enough to keep the device busy, and
                # batches do not pile up in its memory.
                jax.block_until_ready(losses[-2:][0])
            losses = np.array(jax.device_get(losses), np.float64)
            elapsed = time.perf_counter() - began
            _check_finite(losses, epoch * epoch_steps, rate)

            outputs = mean_outputs(
                network,
                variables_of(state),
                valid.grids,
                valid_draws,
                crop=settings.crop,
                batch=settings.batch,
                task=task,
            )
            valid_loss, valid_metric = validation(
                outputs,
                _as_trained_on(valid.targets, task, offset, scale),
                task,
                case_ids=valid.case_ids,
            )
            end = (epoch + 1) * epoch_steps
            _check_finite(np.array([valid_loss]), end - 1, rate)
            if valid_loss < np.min(history[:epoch, _VALID_LOSS], initial=np.inf):
                best = jax.device_get(variables_of(state))
            speed = epoch_steps / elapsed
            history[epoch] = epoch, end, losses.mean(), valid_loss, valid_metric, rate, speed
            done = np.int64(epoch + 1)
            if done % settings.checkpoint_every == 0:
                checkpoints.save(unfinished / 'checkpoint', (state, best, history, done))
            report(_row(history[epoch], task))

    # ---- The result ---------------------------------------------------------------------------
    trained = Trained(
        model=model,
        fields=record['network'],
        settings=settings,
        task=task,
        classes=classes,
        code_size=code_size,
        seed=seed,
        offset=offset,
        scale=scale,
        variables=jax.device_get(best),
        best_epoch=int(np.argmin(history[:done, _VALID_LOSS])),
        history=[_row(values, task) for values in history[:done]],
        identity=record['identity'],
    )
    save_trained(folder, trained, record)
    shutil.rmtree(unfinished)
    return trained


def standardisation(targets: np.ndarray, task: str) -> tuple[float, float]:
    """Returns mean and standard deviation of a regression's training targets; else 0 and 1."""
    if task != 'regression':
        return 0.0, 1.0
    scale = float(np.std(targets, dtype=np.float64))
    if not scale:
        raise ValueError(f'all {len(targets)} training targets are {targets[0]}: nothing to learn')
    return float(np.mean(targets, dtype=np.float64)), scale


def _as_trained_on(targets: np.ndarray, task: str, offset: float, scale: float) -> np.ndarray:
    if task == 'classification':
        return targets.astype(np.int32)
    if task == 'survival':
        return targets.astype(np.float32)
    return ((targets - offset) / scale).astype(np.float32)


_COLUMNS = ('epoch', 'step', 'loss', 'valid_loss', 'metric', 'learning_rate', 'steps_per_s')
_VALID_LOSS = _COLUMNS.index('valid_loss')
_METRICS = {
    'classification': 'valid_accuracy',
    'regression': 'valid_spearman',
    'survival': 'valid_concordance',
}


def _row(values: np.ndarray, task: str) -> dict[str, float]:
    row = dict(zip(_COLUMNS, values.tolist(), strict=True))
    row = {_METRICS[task] if name == 'metric' else name: value for name, value in row.items()}
    return {**row, 'epoch': int(row['epoch']), 'step': int(row['step'])}


def _check_finite(losses: np.ndarray, first_step: int, rate: float) -> None:
    if not np.isfinite(losses).all():
        step = first_step + int(np.argmin(np.isfinite(losses)))
        raise FloatingPointError(
            f'the loss is {losses[step - first_step]} at step {step}, learning rate {rate:g}: '
            'lower learning_rate, or look for codes that are not finite'
        )


def _check(train: Examples, valid: Examples, task: str, classes: int, batch: int) -> None:
    if task not in TASKS:
        raise ValueError(f'{task=} must be one of {TASKS}')
    if task != 'classification' and classes != 1:
        raise ValueError(f'{classes=} must be 1 for {task}')
    if train.grids[0].code_size != valid.grids[0].code_size:
        raise ValueError(
            f'training grids have codes of {train.grids[0].code_size} features, validation grids '
            f'of {valid.grids[0].code_size}: take both from one encoder'
        )
    train_ids, valid_ids = ({grid.slide_id for grid in each.grids} for each in (train, valid))
    if shared := sorted(train_ids & valid_ids):
        raise ValueError(f'slides in both training and validation: {", ".join(shared[:5])}')
    if task == 'classification':
        for name, examples in (('training', train), ('validation', valid)):
            if not np.issubdtype(examples.targets.dtype, np.integer):
                raise ValueError(f'{name} targets are {examples.targets.dtype}, must be integers')
            if examples.targets.min() < 0 or examples.targets.max() >= classes:
                raise ValueError(f'{name} targets must be from 0 to {classes - 1}')
        if absent := sorted(set(range(classes)) - set(train.targets.tolist())):
            raise ValueError(f'no training slide of classes {absent}: check the folds')
    if task == 'survival':
        for name, examples in (('training', train), ('validation', valid)):
            if not examples.targets[:, 1].any():
                raise ValueError(f'no {name} case has died: nothing tells risks; use fewer folds')
        if (cases := len(train.slides_of_case)) < batch:
            raise ValueError(
                f'{cases} training cases are fewer than the batch of {batch}, whose risk sets hold '
                f'each case once: set --config.classifier.batch to {cases} at most'
            )
