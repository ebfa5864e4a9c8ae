"""The supervised encoder: trained to classify patches (Tellez et al. 2019, supplement).

The classifier's head is thrown away; what stays is the encoder that had to tell the classes apart.
"""

import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from nic_jax.encoders.conv import conv_encoder, module, scale
from nic_jax.encoders.encoder import Encoder
from nic_jax.encoders.training import Data, EncoderSettings, train


class _Head(nn.Module):
    """Dense layer, batch norm, leaky ReLU, linear layer to the classes' logits."""

    units: int
    classes: int

    @nn.compact
    def __call__(self, codes: jnp.ndarray, *, train: bool) -> jnp.ndarray:
        x = nn.Dense(self.units)(codes)
        x = nn.BatchNorm(use_running_average=not train, momentum=0.99, epsilon=1e-3)(x)
        return nn.Dense(self.classes)(nn.leaky_relu(x, 0.2))


def train_supervised(
    network: Mapping[str, Any],
    *,
    data: Data,
    valid: Data,
    classes: int,
    head: int = 256,
    settings: EncoderSettings,
    seed: int,
    mpp: float | None,
    folder: pathlib.Path,
    report: Callable[[dict[str, float]], None],
) -> Encoder:
    """Trains an encoder by cross-entropy over the patches' classes.

    Args:
        network: As for `conv_encoder`.
        data: `patches` uint8 `[N, P, P, channels]` and `labels` int `[N]`.
        valid: Likewise.
        classes: Number of classes.
        head: Units of the head's hidden layer.
        settings: How to train.
        seed: Of weights, batches and noise.
        mpp: µm/px of the patches, or None.
        folder: Where the checkpoint lies.
        report: Called after every validation.
    """
    encode, classify = module(network), _Head(head, classes)

    def loss(variables, batch, key, *, train):
        del key
        stats = variables['batch_stats']
        codes, encoder_stats = encode.apply(
            {'params': variables['params']['encoder'], 'batch_stats': stats['encoder']},
            scale(batch['patches']),
            train=train,
            mutable=['batch_stats'],
        )
        logits, head_stats = classify.apply(
            {'params': variables['params']['head'], 'batch_stats': stats['head']},
            codes,
            train=train,
            mutable=['batch_stats'],
        )
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch['labels'])
        right = (logits.argmax(-1) == batch['labels']).mean()
        stats = {'encoder': encoder_stats['batch_stats'], 'head': head_stats['batch_stats']}
        return losses.mean(), (stats, {'accuracy': right})

    key_encoder, key_head = jax.random.split(jax.random.key(seed))
    one = scale(jnp.asarray(data['patches'][:1]))
    first = encode.init(key_encoder, one)
    second = classify.init(key_head, jnp.zeros((1, network['code_size'])), train=False)
    variables = {
        kind: {'encoder': first[kind], 'head': second[kind]} for kind in ('params', 'batch_stats')
    }
    best = train(
        loss,
        variables,
        data=data,
        valid=valid,
        settings=settings,
        seed=seed,
        folder=folder,
        report=report,
    )
    weights = {kind: best[kind]['encoder'] for kind in ('params', 'batch_stats')}
    return conv_encoder('supervised', network, jax.device_get(weights), mpp=mpp)
