"""The contrastive encoder: are two patches of one place? (Tellez et al. 2019, section 3.1).

A Siamese network: both patches go through one encoder, and a classifier of the joined codes says
'same' or 'different'. It was published before the contrastive losses of today; see `vicreg`.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from nic_jax.encoders.conv import conv_encoder, module
from nic_jax.encoders.objective import (
    Augment,
    Objective,
    apply,
    initial_encoder,
    loss_steps,
    network_input,
    own,
    pixels,
    together,
)
from nic_jax.networks.heads import NormHead


def contrastive(
    network: Mapping[str, Any], *, augment: Augment, weight_decay: float = 0.0
) -> Objective:
    """Binary cross-entropy of 'same'.

    Batches: `pairs` uint8 `[B, 2, P, P, channels]` and `same` bool `[B]`. Both patches are always
    augmented, in validation too: without it those of one place would be equal.

    Args:
        network: As for `conv_encoder`.
        augment: Of each patch of a pair on its own.
        weight_decay: AdamW's.
    """
    encode, classify = module(network), NormHead(1)

    def initial_variables(key):
        encoder_key, head_key = jax.random.split(key)
        head = classify.init(head_key, jnp.zeros((1, 2 * network['code_size'])), train=False)
        return together(encoder=initial_encoder(network, encoder_key), head=head)

    def loss(variables, batch, key, *, train):
        B, _, *shape = batch['pairs'].shape
        x = augment(key, pixels(batch['pairs'].reshape(2 * B, *shape)))
        codes, encoder = apply(encode, variables, 'encoder', network_input(network, x), train=train)
        logits, head = apply(classify, variables, 'head', codes.reshape(B, -1), train=train)
        losses = optax.sigmoid_binary_cross_entropy(logits[:, 0], batch['same'])
        right = ((logits[:, 0] > 0) == batch['same']).mean()
        return losses.mean(), ({'encoder': encoder, 'head': head}, {'accuracy': right})

    return Objective(
        name='contrastive',
        network=network,
        **loss_steps(loss, initial_variables, weight_decay=weight_decay),
        watched='accuracy',
        higher_is_better=True,
        encoder=lambda variables, mpp: conv_encoder(
            'contrastive', network, own(variables), mpp=mpp
        ),
    )
