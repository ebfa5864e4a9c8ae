"""The variational autoencoder (Kingma & Welling 2014; Tellez et al. 2019, section 3.1).

The loss is the mean squared error of a patch's pixels plus γ times the KL divergence of the code's
posterior from the unit normal. The paper prints the KL term without its factor −½; this is the
textbook's. The code is the posterior's mean.
"""

import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from nic_jax.encoders.conv import conv_encoder, module, scale
from nic_jax.encoders.encoder import Encoder
from nic_jax.encoders.training import Data, EncoderSettings, train
from nic_jax.networks.decoder import ConvDecoder


def kl_divergence(mean: jnp.ndarray, log_variance: jnp.ndarray) -> jnp.ndarray:
    """KL of N(mean, exp(log_variance)) from N(0, 1), summed over the code: `[B, C]` -> `[B]`."""
    terms = 1 + log_variance - mean**2 - jnp.exp(log_variance)
    return -0.5 * terms.sum(axis=-1)


def train_vae(
    network: Mapping[str, Any],
    *,
    decoder: Mapping[str, Any],
    data: Data,
    valid: Data,
    gamma: float = 5e-5,
    settings: EncoderSettings,
    seed: int,
    mpp: float | None,
    folder: pathlib.Path,
    report: Callable[[dict[str, float]], None],
) -> tuple[Encoder, Callable[[jnp.ndarray], jnp.ndarray]]:
    """Trains a VAE on patches without labels.

    Args:
        network: As for `conv_encoder`; its code is the posterior's mean.
        decoder: `start` and `widths` of `ConvDecoder`.
        data: `patches` uint8 `[N, P, P, channels]`.
        valid: Likewise.
        gamma: γ, the weight of the KL divergence.
        settings: How to train.
        seed: Of weights, batches and noise.
        mpp: µm/px of the patches, or None.
        folder: Where the checkpoint lies.
        report: Called after every validation.

    Returns:
        The encoder, and the decoder as a function of codes `[B, C]` to patches in [−1, 1].
    """
    size = network['code_size']
    # One linear layer gives mean and log variance; the encoder keeps the mean's half of it.
    encode = module({**network, 'code_size': 2 * size})
    decode = ConvDecoder(
        size=network['input_size'],
        channels=network['channels'],
        start=decoder['start'],
        widths=tuple(decoder['widths']),
    )

    def loss(variables, batch, key, *, train):
        stats, x = variables['batch_stats'], scale(batch['patches'])
        moments, encoder_stats = encode.apply(
            {'params': variables['params']['encoder'], 'batch_stats': stats['encoder']},
            x,
            train=train,
            mutable=['batch_stats'],
        )
        mean, log_variance = moments[:, :size], moments[:, size:]
        noise = jax.random.normal(key, mean.shape) if train else 0.0
        decoded, decoder_stats = decode.apply(
            {'params': variables['params']['decoder'], 'batch_stats': stats['decoder']},
            mean + jnp.exp(0.5 * log_variance) * noise,
            train=train,
            mutable=['batch_stats'],
        )
        error = jnp.mean((decoded - x) ** 2)
        divergence = kl_divergence(mean, log_variance).mean()
        stats = {'encoder': encoder_stats['batch_stats'], 'decoder': decoder_stats['batch_stats']}
        return error + gamma * divergence, (stats, {'error': error, 'kl': divergence})

    key_encoder, key_decoder = jax.random.split(jax.random.key(seed))
    first = encode.init(key_encoder, scale(jnp.asarray(data['patches'][:1])))
    second = decode.init(key_decoder, jnp.zeros((1, size)))
    variables = {
        kind: {'encoder': first[kind], 'decoder': second[kind]}
        for kind in ('params', 'batch_stats')
    }
    best = jax.device_get(
        train(
            loss,
            variables,
            data=data,
            valid=valid,
            settings=settings,
            seed=seed,
            folder=folder,
            report=report,
        )
    )
    weights = {kind: dict(best[kind]['encoder']) for kind in ('params', 'batch_stats')}
    code = weights['params']['code']
    weights['params']['code'] = {'kernel': code['kernel'][:, :size], 'bias': code['bias'][:size]}
    decoder_weights = {kind: best[kind]['decoder'] for kind in ('params', 'batch_stats')}
    return (
        conv_encoder('vae', network, weights, mpp=mpp),
        jax.jit(lambda codes: decode.apply(decoder_weights, codes)),
    )
