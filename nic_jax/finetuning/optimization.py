"""What of two networks is trained, and by which steps."""

from collections.abc import Callable
from typing import Any

import jax
import optax

from nic_jax.classifiers.losses import kernels
from nic_jax.classifiers.trained import Trained
from nic_jax.encoders.encoder import Encoder
from nic_jax.finetuning import trainable
from nic_jax.finetuning.settings import FinetuneSettings


def divide(
    encoder: Encoder, classifier: Trained, settings: FinetuneSettings, key: jax.Array
) -> tuple[Any, Any]:
    """What is trained and what is frozen of both networks: {'encoder': …, 'classifier': …} each.

    Args:
        encoder: Of which `settings.encoder_trains` says what is trained.
        classifier: Of which all is.
        settings: Of the training.
        key: Of adapters.
    """
    kind, number = settings.trained_part()
    if kind == 'lora':
        split = trainable.adapt(encoder.variables, key, rank=number)
    elif kind == 'last':
        split = trainable.split(encoder.variables, trainable.last_layers(encoder.network, number))
    else:
        split = trainable.split(encoder.variables, trainable.everything)
    head = trainable.split(classifier.variables, trainable.everything)
    return tuple(
        {'encoder': of_encoder, 'classifier': of_classifier}
        for of_encoder, of_classifier in zip(split, head, strict=True)
    )


def without_encoder(trained: Any, frozen: Any) -> tuple[Any, Any]:
    """The same with the encoder frozen: no patch is encoded twice for a gradient of nothing."""
    whole = trainable.merge(trained['encoder'], frozen['encoder'])
    return {**trained, 'encoder': {}}, {**frozen, 'encoder': whole}


def make_optimizer(settings: FinetuneSettings) -> optax.GradientTransformation:
    """AdamW with a rate of its own for each network, both falling to 0 by a cosine.

    Each is clipped by itself: an encoder's gradient, a sum over all patches, may be many times as
    long as the classifier's, which would hardly count beside it.
    """

    def rate(peak: float, hold: int) -> optax.Schedule:
        rising = min(settings.warmup, max(1, settings.steps - hold - 1))
        cosine = optax.warmup_cosine_decay_schedule(
            0.0, peak, rising, max(settings.steps - hold, rising + 1)
        )
        return optax.join_schedules([optax.constant_schedule(0.0), cosine], [hold])

    def adam(peak: float, hold: int) -> optax.GradientTransformation:
        return optax.chain(
            optax.clip_by_global_norm(settings.clip),
            optax.adamw(rate(peak, hold), weight_decay=settings.weight_decay, mask=kernels),
        )

    parts = {
        'encoder': adam(settings.encoder_rate, settings.hold),
        'classifier': adam(settings.classifier_rate, 0),
    }
    return optax.partition(parts, {name: name for name in parts})


def update_of(optimizer: optax.GradientTransformation) -> Callable:
    """(trained, gradient, moments) -> both after a step."""

    def update(trained, gradient, moments):
        changes, moments = optimizer.update(gradient, moments, trained)
        return optax.apply_updates(trained, changes), moments

    return update
