"""The bidirectional GAN (Donahue et al. 2017; Tellez et al. 2019, section 3.1).

Three networks: E makes codes of patches, G patches of random codes, D tells pairs (patch, its code)
from (patch made, its random code). Where D cannot, E and G are each other's inverse, and E's codes
tell what the patch is of. A step improves D, then E and G against the new D.

Against collapse: D sees real and made patches in one batch, so that batch norm cannot give them
away; every validation measures how varied the made patches are (`diversity`, their pixels' standard
deviation over that of real ones), and training stops where three in a row are below
`COLLAPSED`, or D has told all pairs apart in five in a row and no gradient is left.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from nic_jax.encoders.conv import conv_encoder, module
from nic_jax.encoders.objective import (
    Augment,
    Objective,
    adam,
    apply,
    descend,
    initial_encoder,
    network_input,
    own,
    pixels,
    together,
)
from nic_jax.networks.decoder import ConvDecoder
from nic_jax.networks.heads import JointCritic

COLLAPSED = 0.05
_WATCHED_SHORTFALL, _WATCHED_TRIUMPH = 3, 5  # validations in a row
_MAKERS, _CRITICS = ('encoder', 'generator'), ('critic_image', 'critic')


def bigan(
    network: Mapping[str, Any],
    *,
    generator: Mapping[str, Any],
    critic_units: int = 1024,
    augment: Augment,
) -> Objective:
    """Alternates between D, and E with G, in one jitted step.

    Batches: `patches` uint8 `[B, P, P, channels]`.

    Args:
        network: As for `conv_encoder`; D's image branch has the same shape and its own weights.
        generator: `start` and `widths` of `ConvDecoder`.
        critic_units: Of D's two dense layers.
        augment: Of the patches.
    """
    C = network['code_size']
    encode, look, judge = module(network), module(network), JointCritic(critic_units)
    generate = ConvDecoder(
        size=network['input_size'],
        channels=network['channels'],
        start=generator['start'],
        widths=tuple(generator['widths']),
    )
    optimizer = adam(b1=0.5)  # as Donahue et al.; Adam's usual .9 makes GANs swing

    def initial(key):
        keys, codes = jax.random.split(key, 4), jnp.zeros((1, C))
        variables = together(
            encoder=initial_encoder(network, keys[0]),
            generator=generate.init(keys[1], codes),
            critic_image=initial_encoder(network, keys[2]),
            critic=judge.init(keys[3], codes, codes, train=False),
        )
        moments = [
            optimizer.init(_some(variables['params'], names)) for names in (_MAKERS, _CRITICS)
        ]
        return {**variables, 'optimizer': moments}

    def make(variables, x, z, *, train):
        """Codes of the patches and patches of the codes, and E's and G's batch statistics."""
        codes, encoder = apply(encode, variables, 'encoder', x, train=train)
        made, stats = apply(generate, variables, 'generator', z, train=train)
        return (codes, made), {'encoder': encoder, 'generator': stats}

    def tell(variables, x, z, codes, made, key, *, train):
        """D's logits of the real pairs, those of the made ones, and its batch statistics."""
        # Side by side, so that devices that share the batch have both of every pair.
        both, all_codes = (
            jnp.stack(each, axis=1).reshape(-1, *each[0].shape[1:])
            for each in ((x, made), (codes, z))
        )
        features, image = apply(look, variables, 'critic_image', both, train=train)
        logits, stats = apply(judge, variables, 'critic', features, all_codes, train=train, key=key)
        return logits[0::2], logits[1::2], {'critic_image': image, 'critic': stats}

    def step(state, batch, key, rate):
        augment_key, code_key, key_1, key_2 = jax.random.split(key, 4)
        x = network_input(network, augment(augment_key, pixels(batch['patches'])))
        z = jax.random.normal(code_key, (len(x), C))
        params, stats = state['params'], state['batch_stats']

        # E and G do not change while D does: one pass serves both, its gradient is taken later.
        made, pull_back, maker_stats = jax.vjp(
            lambda makers: make({'params': makers, 'batch_stats': stats}, x, z, train=True),
            _some(params, _MAKERS),
            has_aux=True,
        )

        def critic_loss(critics):
            variables = {'params': critics, 'batch_stats': stats}
            real, fake, updated = tell(variables, x, z, *made, key_1, train=True)
            right = ((real > 0).mean() + (fake < 0).mean()) / 2
            return _loss(real, fake), (updated, right)

        critics = _some(params, _CRITICS)
        (loss_d, (critic_stats, right)), gradient = jax.value_and_grad(critic_loss, has_aux=True)(
            critics
        )
        critics, critic_moments = descend(optimizer, gradient, state['optimizer'][1], critics, rate)

        def maker_loss(made):
            variables = {'params': critics, 'batch_stats': stats}
            real, fake, _ = tell(variables, x, z, *made, key_2, train=True)
            return _loss(fake, real)  # to be taken for each other

        loss, to_made = jax.value_and_grad(maker_loss)(made)
        makers = _some(params, _MAKERS)
        makers, maker_moments = descend(
            optimizer, *pull_back(to_made), state['optimizer'][0], makers, rate
        )
        state = {
            'params': {**makers, **critics},
            'batch_stats': {**maker_stats, **critic_stats},
            'optimizer': [maker_moments, critic_moments],
        }
        return state, {'loss': loss, 'loss_critic': loss_d, 'accuracy_critic': right}

    def validate(variables, batch, key):
        x = network_input(network, pixels(batch['patches']))
        z = jax.random.normal(key, (len(x), C))
        (codes, made), _ = make(variables, x, z, train=False)
        real, fake, _ = tell(variables, x, z, codes, made, None, train=False)
        back = generate.apply(own(variables, 'generator'), codes)
        return {
            'loss': _loss(fake, real),
            'accuracy_critic': ((real > 0).mean() + (fake < 0).mean()) / 2,
            'reconstruction': ((back - x) ** 2).mean(),
            'diversity': made.std(axis=0).mean() / x.std(axis=0).mean(),
        }

    def pictures(variables, patches):
        x = network_input(network, pixels(patches))
        codes = encode.apply(own(variables), x)
        z = jax.random.normal(jax.random.key(0), codes.shape)
        back = [generate.apply(own(variables, 'generator'), each) for each in (codes, z)]
        names = ('patches', 'generated from their codes', 'generated from random codes')
        return dict(zip(names, [127.5 * (each + 1) for each in (x, *back)], strict=True))

    return Objective(
        name='bigan',
        network=network,
        initial=initial,
        step=step,
        validate=validate,
        encoder=lambda variables, mpp: conv_encoder('bigan', network, own(variables), mpp=mpp),
        keep='last',
        check=collapse,
        pictures=pictures,
    )


def collapse(history: list[dict[str, float]]) -> str:
    """Why training should stop after these validations, or ''."""
    recent = [record['diversity'] for record in history[-_WATCHED_SHORTFALL:]]
    if len(recent) == _WATCHED_SHORTFALL and max(recent) < COLLAPSED:
        return (
            f'the generator has collapsed: its patches vary {recent[-1]:.3f} times as much as real '
            'ones; lower the learning rate, take a larger batch, or another seed'
        )
    recent = [record['accuracy_critic'] for record in history[-_WATCHED_TRIUMPH:]]
    if len(recent) == _WATCHED_TRIUMPH and min(recent) > 0.9999:
        return (
            'the critic tells all pairs apart, so that encoder and generator learn nothing more; '
            'lower the learning rate, or augment more strongly'
        )
    return ''


def _loss(positive: jax.Array, negative: jax.Array) -> jax.Array:
    """Binary cross-entropy of logits that should be positive and others that should not."""
    return (jax.nn.softplus(-positive).mean() + jax.nn.softplus(negative).mean()) / 2


def _some(tree: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: tree[name] for name in names}
