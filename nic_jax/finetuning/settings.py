"""How an encoder and a classifier are trained together."""

import dataclasses
from typing import Any

from nic_jax.finetuning.choice import FORMS
from nic_jax.patches.augmentation import PRESETS

PRECISIONS = ('float32', 'bfloat16')


@dataclasses.dataclass(frozen=True)
class FinetuneSettings:
    """Settings of a fine-tuning; all of them are ours: the papers name it as future work.

    Attributes:
        steps: At most.
        slides: Of a step, one after the other in the memory of one; survival wants many, so that
            risk sets hold several.
        chunk: B, patches encoded at a time, divisible by the number of devices.
        encoder_rate: Learning rate of the encoder.
        classifier_rate: Of the classifier.
        hold: Steps in which the encoder is kept still; at least two must follow.
        warmup: Steps in which a rate rises from 0, the encoder's after `hold`.
        weight_decay: Decoupled from the gradient, of both networks' kernels; not of adapters.
        clip: Largest norm of the gradient of each network.
        encoder_trains: 'all', 'last:N' (its last N layers), or 'lora:R' (adapters of rank R).
        form: 'device' or 'streamed'; None chooses by size.
        precision: 'float32' or 'bfloat16', of what encodes patches in training; weights, sums over
            chunks and the classifier are float32 with both, and so is validation.
        augmentation: Of patches, on the device: one of `PRESETS`.
        valid_every: Steps between validations; the first is before any, the last after all.
        patience: Validations without a better loss, after which it stops.
        checkpoint_every: Steps between checkpoints.
        cache_gb: Memory for pixels that have been read; slides that do not fit are read each time.
    """

    steps: int = 600
    slides: int = 4
    chunk: int = 64
    encoder_rate: float = 3e-5
    classifier_rate: float = 1e-4
    hold: int = 50
    warmup: int = 50
    weight_decay: float = 0.01
    clip: float = 1.0
    encoder_trains: str = 'all'
    form: str | None = None
    precision: str = 'float32'
    augmentation: str = 'none'
    valid_every: int = 100
    patience: int = 4
    checkpoint_every: int = 50
    cache_gb: float = 4.0

    def __post_init__(self):
        for name in ('steps', 'slides', 'chunk', 'valid_every', 'patience', 'checkpoint_every'):
            if getattr(self, name) < 1:
                raise ValueError(f'{name}={getattr(self, name)} must be at least 1')
        for name in ('hold', 'warmup', 'weight_decay', 'cache_gb', 'classifier_rate'):
            if getattr(self, name) < 0:
                raise ValueError(f'{name}={getattr(self, name)} must not be negative')
        for name in ('clip', 'encoder_rate'):
            if not getattr(self, name) > 0:
                raise ValueError(f'{name}={getattr(self, name)} must be more than 0')
        if self.hold + 1 >= self.steps:  # the first rate after `hold` is 0 still
            raise ValueError(
                f'with hold={self.hold} of steps={self.steps} the encoder would never be trained: '
                f'set hold to {max(0, self.steps - 2)} at most, or train for more steps'
            )
        if self.form not in (None, *FORMS):
            raise ValueError(f'form={self.form!r} must be one of {", ".join(FORMS)}, or None')
        if self.precision not in PRECISIONS:
            raise ValueError(f'precision={self.precision!r} must be one of {", ".join(PRECISIONS)}')
        if self.augmentation not in PRESETS:
            raise ValueError(
                f'augmentation={self.augmentation!r} must be one of {", ".join(PRESETS)}'
            )
        self.trained_part()

    def trained_part(self) -> tuple[str, int]:
        """What `encoder_trains` says: 'all', 'last' or 'lora', and its number.

        Raises:
            ValueError: It says something else.
        """
        kind, _, number = self.encoder_trains.partition(':')
        if kind == 'all' and not number:
            return kind, 0
        if kind in ('last', 'lora') and number.isdigit() and int(number):
            return kind, int(number)
        raise ValueError(
            f'encoder_trains={self.encoder_trains!r} must be all, last:N or lora:R, N and R from 1 '
            'on'
        )

    def deciding(self) -> dict[str, Any]:
        """The settings that decide what is learned, but for rounding.

        Others are of memory, and may change when a broken training is taken up again.
        """
        return {
            name: value
            for name, value in dataclasses.asdict(self).items()
            if name not in ('chunk', 'form', 'cache_gb')
        }
