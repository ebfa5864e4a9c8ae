"""The multitask encoder: one encoder, a classifier for each of several tasks (MIDL 2020).

The heads are thrown away; what stays is the encoder that had to serve them all.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
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
from nic_jax.networks.heads import DropoutHead


def multitask(
    network: Mapping[str, Any],
    tasks: Mapping[str, int],
    *,
    augment: Augment,
    weight_decay: float = 0.0,
    name: str = 'multitask',
    head: type[nn.Module] = DropoutHead,
) -> Objective:
    """Cross-entropy, the mean over tasks, each with a head of its own.

    Batches: `patches` uint8 `[B, T, P, P, channels]` and `labels` int32 `[B, T]`, T tasks in order.

    Args:
        network: As for `conv_encoder`.
        tasks: Name to number of classes, two or more.
        augment: Of the training patches.
        weight_decay: AdamW's.
        name: Of the encoder.
        head: A network of `outputs` logits.
    """
    encode = module(network)
    heads = {task: head(classes) for task, classes in tasks.items()}

    def initial_variables(key):
        key, own_key = jax.random.split(key)
        codes = jnp.zeros((1, network['code_size']))
        keys = jax.random.split(key, len(heads))
        return together(
            encoder=initial_encoder(network, own_key),
            **{
                f'head_{task}': each.init(each_key, codes, train=False)
                for (task, each), each_key in zip(heads.items(), keys, strict=True)
            },
        )

    def loss(variables, batch, key, *, train):
        B, T, *shape = batch['patches'].shape
        x = pixels(batch['patches'].reshape(B * T, *shape))
        if train:
            x = augment(jax.random.fold_in(key, 0), x)
        codes, stats = apply(encode, variables, 'encoder', network_input(network, x), train=train)
        codes = codes.reshape(B, T, -1)
        stats, losses, right = {'encoder': stats}, {}, {}
        for index, (task, each) in enumerate(heads.items()):
            logits, stats[f'head_{task}'] = apply(
                each,
                variables,
                f'head_{task}',
                codes[:, index],
                train=train,
                key=jax.random.fold_in(key, 1 + index),
            )
            labels = batch['labels'][:, index]
            losses[task] = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
            right[task] = (logits.argmax(-1) == labels).mean()
        parts = {'accuracy': jnp.stack(list(right.values())).mean()}
        if T > 1:
            parts |= {f'loss_{task}': value for task, value in losses.items()}
            parts |= {f'accuracy_{task}': value for task, value in right.items()}
        return jnp.stack(list(losses.values())).mean(), (stats, parts)

    return Objective(
        name=name,
        network=network,
        **loss_steps(loss, initial_variables, weight_decay=weight_decay),
        watched='accuracy',
        higher_is_better=True,
        encoder=lambda variables, mpp: conv_encoder(name, network, own(variables), mpp=mpp),
    )
