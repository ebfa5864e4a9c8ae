"""The variational autoencoder (Kingma & Welling 2014; Tellez et al. 2019, section 3.1).

The loss is the mean squared error of a patch's pixels plus γ times the KL divergence of the code's
posterior from the unit normal. The paper prints the KL term without its factor −½; this is the
textbook's. The code is the posterior's mean.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from nic_jax.encoders.conv import conv_encoder, module
from nic_jax.encoders.encoder import Encoder
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
from nic_jax.networks.decoder import ConvDecoder

GAMMA = 5e-5  # the paper's weight of the KL divergence, beside the error of pixels in −1 … 1


def kl_divergence(mean: jax.Array, log_variance: jax.Array) -> jax.Array:
    """KL of N(mean, exp(log_variance)) from N(0, 1), summed over the code: `[B, C]` -> `[B]`."""
    terms = 1 + log_variance - mean**2 - jnp.exp(log_variance)
    return -0.5 * terms.sum(axis=-1)


def vae(
    network: Mapping[str, Any],
    *,
    decoder: Mapping[str, Any],
    augment: Augment,
    gamma: float = GAMMA,
    weight_decay: float = 0.0,
) -> Objective:
    """Minimises the error of what comes back from a code drawn around the patch's.

    Batches: `patches` uint8 `[B, P, P, channels]`. What is augmented is what must come back.

    Args:
        network: As for `conv_encoder`; its code is the posterior's mean.
        decoder: `start` and `widths` of `ConvDecoder`.
        augment: Of the patches.
        gamma: γ, the weight of the KL divergence.
        weight_decay: AdamW's.
    """
    C = network['code_size']
    # One linear layer gives mean and log variance; the encoder keeps the mean's half of it.
    wide = {**network, 'code_size': 2 * C}
    encode = module(wide)
    decode = ConvDecoder(
        size=network['input_size'],
        channels=network['channels'],
        start=decoder['start'],
        widths=tuple(decoder['widths']),
    )

    def initial_variables(key):
        encoder_key, decoder_key = jax.random.split(key)
        return together(
            encoder=initial_encoder(wide, encoder_key),
            decoder=decode.init(decoder_key, jnp.zeros((1, C))),
        )

    def loss(variables, batch, key, *, train):
        augment_key, noise_key = jax.random.split(key)
        x = pixels(batch['patches'])
        x = network_input(network, augment(augment_key, x) if train else x)
        moments, encoder = apply(encode, variables, 'encoder', x, train=train)
        mean, log_variance = moments[:, :C], moments[:, C:]
        noise = jax.random.normal(noise_key, mean.shape) if train else 0.0
        drawn = mean + jnp.exp(0.5 * log_variance) * noise
        decoded, stats = apply(decode, variables, 'decoder', drawn, train=train)
        error = jnp.mean((decoded - x) ** 2)
        divergence = kl_divergence(mean, log_variance).mean()
        parts = {'error': error, 'kl': divergence}
        return error + gamma * divergence, ({'encoder': encoder, 'decoder': stats}, parts)

    def encoder(variables, mpp) -> Encoder:
        weights = own(variables)
        code = weights['params']['code']
        half = {'kernel': code['kernel'][:, :C], 'bias': code['bias'][:C]}
        weights = {**weights, 'params': {**weights['params'], 'code': half}}
        return conv_encoder('vae', network, weights, mpp=mpp)

    def pictures(variables, patches):
        x = network_input(network, pixels(patches))
        moments = encode.apply(own(variables), x)
        drawn = jax.random.normal(jax.random.key(0), (len(patches), C))
        back = [decode.apply(own(variables, 'decoder'), z) for z in (moments[:, :C], drawn)]
        names = ('patches', 'decoded from their codes', 'decoded from random codes')
        return dict(zip(names, [127.5 * (each + 1) for each in (x, *back)], strict=True))

    return Objective(
        name='vae',
        network=network,
        **loss_steps(loss, initial_variables, weight_decay=weight_decay),
        encoder=encoder,
        pictures=pictures,
    )
