"""Gradients from a slide's label into the encoder, exact, in memory that patches do not fill.

Patches are encoded one apart from another, so a slide's loss has the gradient

    d loss / d encoder = Σ over patches of (d loss / d code) · (d code / d encoder)

and the sum can be taken chunk by chunk. What a chunk has computed is forgotten and computed again
when its part of the sum is due: a third more work, in the memory of one chunk. There are two
forms, alike in what they take and give: the pixels lie on the device (`device_form`), or are read
twice from the host (`streamed_form`).

    networks = Networks(encoder.apply, classify, code_size=128, crop=400)
    parted = {'encoder': split(encoder.variables, everything), 'classifier': …}
    trained, frozen = ({name: pair[k] for name, pair in parted.items()} for k in (0, 1))
    form = device_form(networks, chunk=256)
    loaded = form.load(Patches(cells, read))
    result = form.value_and_gradient(trained, frozen, loaded, target, key, task='classification')
    result.gradient  # as `trained`; for optax

`batch_value_and_gradient` does several slides, survival among them. A gradient is exact where
batch norm uses its running statistics, in both networks: a step sees one slide.
"""

from nic_jax.finetuning.batches import batch_value_and_gradient
from nic_jax.finetuning.choice import choose_form, device_memory
from nic_jax.finetuning.gradients import (
    COTANGENT,
    Form,
    Networks,
    Patches,
    Result,
    per_patch,
)
from nic_jax.finetuning.on_device import device_form
from nic_jax.finetuning.streamed import streamed_form
from nic_jax.finetuning.trainable import adapt, everything, last_layers, merge, split

__all__ = [
    'COTANGENT',
    'Form',
    'Networks',
    'Patches',
    'Result',
    'adapt',
    'batch_value_and_gradient',
    'choose_form',
    'device_form',
    'device_memory',
    'everything',
    'last_layers',
    'merge',
    'per_patch',
    'split',
    'streamed_form',
]
