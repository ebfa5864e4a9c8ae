"""Gradients from a slide's label into the encoder, exact, in memory that patches do not fill.

Patches are encoded one apart from another, so a slide's loss has the gradient

    d loss / d encoder = Σ over patches of (d loss / d code) · (d code / d encoder)

and the sum can be taken chunk by chunk. What a chunk has computed is forgotten and computed again
when its part of the sum is due: a third more work, and the memory of one chunk. There are two
forms, alike in what they take and give: the pixels lie on the device (`on_device`), or are read
twice from the host (`streamed`).

    networks = Networks(encoder.apply, classify, crop=400, augment=per_patch(settings))
    trained, frozen = ({'encoder': …, 'classifier': …} for each, from `trainable.split`)
    form = on_device(networks, chunk=256)
    crop = Crop(cells, read)  # what is tissue, and its pixels
    result = form.value_and_gradient(trained, frozen, form.load(crop), target, key, task=task)

Exact needs batch norm with its running statistics, in both networks: a step sees one slide.
"""

from nic_jax.finetuning.batches import batch_value_and_gradient
from nic_jax.finetuning.gradients import (
    Crop,
    Form,
    Networks,
    Result,
    choose_form,
    device_memory,
    per_patch,
)
from nic_jax.finetuning.on_device import on_device
from nic_jax.finetuning.streamed import streamed

__all__ = [
    'Crop',
    'Form',
    'Networks',
    'Result',
    'batch_value_and_gradient',
    'choose_form',
    'device_memory',
    'on_device',
    'per_patch',
    'streamed',
]
