"""Training an encoder and a classifier together, from slides' labels, to the best validation."""

import dataclasses
import math
import pathlib
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nic_jax import checkpoints, devices
from nic_jax.classifiers.batches import DRAWS, Examples, plan_batch
from nic_jax.classifiers.losses import validation
from nic_jax.classifiers.prediction import predict
from nic_jax.classifiers.trained import UNFINISHED, Trained, begin, load_trained, save_trained
from nic_jax.encoders.encoder import Encoder
from nic_jax.encoders.storage import read_encoder, write_encoder
from nic_jax.finetuning import trainable
from nic_jax.finetuning.batches import batch_value_and_gradient
from nic_jax.finetuning.choice import choose_form, device_memory
from nic_jax.finetuning.encoded import EncodedGrid, encode_slide
from nic_jax.finetuning.gradients import Networks, per_patch
from nic_jax.finetuning.on_device import device_form
from nic_jax.finetuning.optimization import divide, make_optimizer, update_of, without_encoder
from nic_jax.finetuning.pixels import Pixels
from nic_jax.finetuning.settings import FinetuneSettings
from nic_jax.finetuning.streamed import streamed_form
from nic_jax.patches.augmentation import PRESETS

_COLUMNS = ('step', 'loss', 'valid_loss', 'metric', 'seconds', 'waited')
_VALID_LOSS = _COLUMNS.index('valid_loss')


class Tuned(NamedTuple):
    """An ordinary encoder and an ordinary classifier, trained together.

    Attributes:
        encoder: What compresses slides for the classifier.
        classifier: Its `best_epoch` counts validations: 0 is before any step.
    """

    encoder: Encoder
    classifier: Trained


def finetune(
    encoder: Encoder,
    classifier: Trained,
    *,
    train: Examples,
    valid: Examples,
    train_pixels: Sequence[Pixels],
    valid_pixels: Sequence[Pixels],
    settings: FinetuneSettings,
    seed: int,
    folder: pathlib.Path,
    report: Callable[[dict[str, Any]], None] = lambda record: None,
    tell: Callable[[str], None] = lambda text: None,
    identity: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> Tuned:
    """Trains, or goes on with what `folder` holds, and keeps the best validation weights.

    Batch norm is frozen in both networks and nothing is dropped: a slide's gradient is then a
    function of the slide alone, however its patches are chunked. Weights without a better
    validation loss than those it began with are not kept.

    Args:
        encoder: To begin with.
        classifier: To begin with, trained on the encoder's codes of the same training slides.
        train: Their grids, targets and cases.
        valid: For early stopping and the best weights. No others are ever seen here.
        train_pixels: Of each training slide.
        valid_pixels: Of each validation slide.
        settings: Of the training.
        seed: Of batches, augmentation and adapters.
        folder: For `encoder/`, `weights/` and `classifier.json`; `unfinished/` until then.
        report: Called after each validation with step, loss, valid_loss, the metric, seconds a
            step, and how many of them waited for pixels; None where there is no such figure.
        tell: Called with what is worth reading once.
        identity: JSON values that tell this training apart.
        overwrite: Replace what other settings have left in `folder`.

    Raises:
        ValueError: Nothing to train, settings that do not go with the data or the devices, or a
            folder made with others.
        FloatingPointError: The loss is not finite.
    """
    # ---- What is asked for --------------------------------------------------------------------
    mesh = devices.data_mesh()
    devices.check_divides(settings.chunk, mesh)
    key, adapters = jax.random.split(jax.random.key(seed))
    trained, frozen = divide(encoder, classifier, settings, adapters)
    cases = len(train.slides_of_case)
    if classifier.task == 'survival' and cases < settings.slides:
        raise ValueError(
            f'{cases} training cases are fewer than the {settings.slides} slides of a step, whose '
            f'risk sets hold each case once: set --config.finetune.slides to {cases} at most'
        )
    record = {
        'task': classifier.task,
        'classes': classifier.classes,
        'code_size': classifier.code_size,
        'seed': seed,
        'model': classifier.model,
        'network': dict(classifier.fields),
        'settings': dataclasses.asdict(classifier.settings),
        'identity': dict(identity or {}),
        'examples': {'train': train.fingerprint(), 'valid': valid.fingerprint()},
        'finetuning': settings.deciding() | {'encoder': encoder.sha256()},
    }
    if begin(folder, record, overwrite=overwrite):
        return Tuned(read_encoder(folder), load_trained(folder))
    unfinished = folder / UNFINISHED
    for pixels in [*train_pixels, *valid_pixels]:  # the first are read the most often
        pixels.keep()

    # ---- What is trained ----------------------------------------------------------------------
    network, crop = classifier.network, classifier.settings.crop
    networks = Networks(
        encode=encoder.apply,
        classify=network.apply,
        code_size=classifier.code_size,
        crop=crop,
        augment=per_patch(PRESETS[settings.augmentation]),
        half=settings.precision == 'bfloat16',
    )
    most = max(int(each.encoded.sum()) for each in train_pixels)
    chosen, why = choose_form(
        min(most, crop**2),
        settings.chunk,
        math.prod(train_pixels[0].patch_shape),
        device_memory(mesh),
        forced=settings.form,
    )
    tell(why)
    build = device_form if chosen == 'device' else streamed_form
    form = build(networks, chunk=settings.chunk, mesh=mesh)
    optimizer = make_optimizer(settings)
    moments = optimizer.init(trained)
    update = jax.jit(update_of(optimizer), donate_argnums=(0, 2))
    best = jax.device_get(trained)
    validations = -(-settings.steps // settings.valid_every) + 1
    history = np.full((validations, len(_COLUMNS)), np.nan)
    done = np.zeros((), np.int64)  # steps
    trained, moments, frozen = jax.device_put((trained, moments, frozen), devices.replicated(mesh))

    # ---- How far it had got -------------------------------------------------------------------
    sums = np.zeros(3)  # of loss, seconds and seconds waited since the last validation
    if checkpoints.exists(unfinished / 'checkpoint'):
        trained, moments, best, history, sums, done = checkpoints.restore(
            unfinished / 'checkpoint', (trained, moments, best, history, sums, done)
        )
        trained, moments = jax.device_put((trained, moments), devices.replicated(mesh))
    encode = jax.jit(
        lambda trained, frozen, patches: encoder.apply(trainable.merge(trained, frozen), patches)
    )
    targets = _as_trained_on(train.targets, classifier)

    def validate(number: int, step: int) -> None:
        """Fills a line of the history, and keeps the weights where they are the best."""
        nonlocal best
        grids = (
            encode_slide(
                pixels,
                lambda patches: encode(trained['encoder'], frozen['encoder'], patches),
                versions=1,
                chunk=settings.chunk,
            )
            for pixels in valid_pixels
        )
        loss, metric = _validated(_classifier(classifier, trained, frozen), grids, valid)
        if not np.isfinite(loss):
            raise FloatingPointError(f'the validation loss is {loss} at step {step}')
        if loss < np.min(history[:number, _VALID_LOSS], initial=np.inf):
            best = jax.device_get(trained)
        steps = step - (number - 1) * settings.valid_every if step else np.nan
        mean_loss, seconds, waited = sums / steps
        history[number] = step, mean_loss, loss, metric, seconds, waited
        sums[:] = 0
        report(_row(history[number]))

    # ---- Steps --------------------------------------------------------------------------------
    if not done and np.isnan(history[0, 0]):
        validate(0, 0)
        checkpoints.save(unfinished / 'checkpoint', (trained, moments, best, history, sums, done))
    for step in range(int(done), settings.steps):
        number = step // settings.valid_every  # of the last validation
        best_number = int(np.nanargmin(history[: number + 1, _VALID_LOSS]))
        if number - best_number >= settings.patience:
            break
        began = time.perf_counter()
        draws = plan_batch(
            train,
            step,
            seed=seed,
            batch=settings.slides,
            crop=crop,
            versions=classifier.settings.versions,
            draw=DRAWS[classifier.task],
        )
        slides = [(form, train_pixels[draw.index].crop(draw, size=crop)) for draw in draws]
        held = step < settings.hold
        result = batch_value_and_gradient(
            *(without_encoder(trained, frozen) if held else (trained, frozen)),
            slides,
            targets[[draw.index for draw in draws]],
            jax.random.fold_in(key, step),
            task=classifier.task,
        )
        gradient = result.gradient
        if held:
            still = jax.tree.map(jnp.zeros_like, trained['encoder'])
            gradient = {**gradient, 'encoder': still}
        trained, moments = update(trained, gradient, moments)
        loss = float(result.loss)
        if not np.isfinite(loss):
            raise FloatingPointError(
                f'the loss is {loss} at step {step}: lower the rates, or look for broken pixels'
            )
        sums += loss, time.perf_counter() - began, result.waited
        done = np.int64(step + 1)
        due = done % settings.valid_every == 0 or done == settings.steps
        if due:
            validate(number + 1, int(done))
        if due or done % settings.checkpoint_every == 0:
            checkpoints.save(
                unfinished / 'checkpoint', (trained, moments, best, history, sums, done)
            )

    # ---- The result ---------------------------------------------------------------------------
    frozen = jax.device_get(frozen)
    tuned_encoder = dataclasses.replace(
        encoder,
        variables=_host(trainable.merge(best['encoder'], frozen['encoder'])),
        learned_from=tuple(
            sorted(
                {*encoder.learned_from, *(each.source for each in [*train_pixels, *valid_pixels])}
            )
        ),
    )
    # Those of other folds and labels have names of their own, and folders in a workdir.
    name = f'{encoder.name}-tuned-{tuned_encoder.sha256()[:6]}'
    tuned_encoder = dataclasses.replace(tuned_encoder, name=name)
    kept = history[~np.isnan(history[:, 0])]
    tuned = dataclasses.replace(
        _classifier(classifier, best, frozen),
        seed=seed,
        best_epoch=int(np.argmin(kept[:, _VALID_LOSS])),
        history=[_row(values) for values in kept],
        identity=record['identity'],
    )
    write_encoder(folder, tuned_encoder)
    save_trained(folder, tuned, record)
    shutil.rmtree(unfinished)
    return Tuned(tuned_encoder, tuned)


def _classifier(classifier: Trained, trained, frozen) -> Trained:
    merged = _host(trainable.merge(trained['classifier'], frozen['classifier']))
    return dataclasses.replace(classifier, variables=merged)


def _host(tree):
    return jax.tree.map(np.asarray, jax.device_get(tree))


def _validated(classifier: Trained, grids: Iterable[EncodedGrid], valid: Examples):
    """Loss and metric of validation slides, as of `classifiers.training`; one is held at a time."""
    settings = {
        'versions': (0,),
        'crops': classifier.settings.valid_crops,
        'batch': devices.data_mesh().size,  # few crops a slide: a larger one would be filled up
    }
    outputs = np.stack([predict(classifier, [grid], **settings)[0] for grid in grids])
    outputs = (outputs - classifier.offset) / classifier.scale
    return validation(
        outputs,
        _as_trained_on(valid.targets, classifier),
        classifier.task,
        case_ids=valid.case_ids,
    )


def _as_trained_on(targets: np.ndarray, classifier: Trained) -> np.ndarray:
    if classifier.task == 'classification':
        return targets.astype(np.int32)
    if classifier.task == 'survival':
        return targets.astype(np.float32)
    return ((targets - classifier.offset) / classifier.scale).astype(np.float32)


def _row(values: np.ndarray) -> dict[str, float | None]:
    """A line of the history; None for what is not known, as before the first step."""
    known = [None if math.isnan(value) else value for value in values.tolist()]
    return dict(zip(_COLUMNS, known, strict=True)) | {'step': int(values[0])}
