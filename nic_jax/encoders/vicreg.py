"""VICReg: two views of a patch shall have one code, and codes shall not collapse (ICLR 2022).

Bardes, Ponce, LeCun: variance-invariance-covariance regularisation (arXiv 2105.04906). The papers
of neural image compression did not have it. It needs neither negatives nor large batches, nor a
second network: what suits small machines.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

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
from nic_jax.networks.heads import Expander

# Weights of the terms (section 4.1) and what keeps the root's gradient finite.
INVARIANCE, VARIANCE, COVARIANCE = 25.0, 25.0, 1.0
_EPSILON = 1e-4


def vicreg_terms(left: jax.Array, right: jax.Array) -> dict[str, jax.Array]:
    """The loss's three terms without their weights, of embeddings `[B, D]` of two views (eq. 1–4).

    Returns:
        `invariance`, the mean squared distance; `variance`, a hinge of every feature's standard
        deviation at 1; `covariance`, the squares off the diagonal of the covariance over D.
    """
    B, D = left.shape
    variance, covariance = 0.0, 0.0
    for z in (left, right):
        z = z - z.mean(axis=0)
        deviation = jnp.sqrt((z**2).sum(axis=0) / (B - 1) + _EPSILON)
        variance += jnp.maximum(0, 1 - deviation).mean() / 2
        products = (z.T @ z) / (B - 1)
        covariance += ((products**2).sum() - (jnp.diagonal(products) ** 2).sum()) / D
    return {
        'invariance': ((left - right) ** 2).mean(),
        'variance': variance,
        'covariance': covariance,
    }


def vicreg(network: Mapping[str, Any], *, augment: Augment, weight_decay: float = 0.0) -> Objective:
    """Minimises VICReg's loss.

    Batches: `patches` uint8 `[B, P, P, channels]`; both views are drawn here, in validation too.

    Args:
        network: As for `conv_encoder`.
        augment: Of each view on its own.
        weight_decay: AdamW's.
    """
    encode, expand = module(network), Expander()

    def initial_variables(key):
        encoder_key, head_key = jax.random.split(key)
        head = expand.init(head_key, jnp.zeros((1, network['code_size'])), train=False)
        return together(encoder=initial_encoder(network, encoder_key), expander=head)

    def loss(variables, batch, key, *, train):
        x = pixels(batch['patches'])
        # Views side by side, [B, 2, …], so that devices that share B hold both views of a patch.
        views = jnp.stack([augment(each, x) for each in jax.random.split(key)], axis=1)
        x = network_input(network, views.reshape(-1, *x.shape[1:]))
        codes, encoder = apply(encode, variables, 'encoder', x, train=train)
        z, expander = apply(expand, variables, 'expander', codes, train=train)
        z = z.reshape(-1, 2, z.shape[-1])
        terms = vicreg_terms(z[:, 0], z[:, 1])
        value = (
            INVARIANCE * terms['invariance']
            + VARIANCE * terms['variance']
            + COVARIANCE * terms['covariance']
        )
        return value, ({'encoder': encoder, 'expander': expander}, terms)

    return Objective(
        name='vicreg',
        network=network,
        **loss_steps(loss, initial_variables, weight_decay=weight_decay),
        encoder=lambda variables, mpp: conv_encoder('vicreg', network, own(variables), mpp=mpp),
    )
