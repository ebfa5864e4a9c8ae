"""Slides of a few random patches and networks of a few weights, for the tests of fine-tuning."""

import jax
import jax.numpy as jnp
import numpy as np

from nic_jax.classifiers.losses import data_loss
from nic_jax.classifiers.models import build_network
from nic_jax.finetuning import Networks, Patches, merge

R, P, C = 5, 4, 3


def patches(count=10, *, seed=0, size=P, crop=R):
    """Random patches, each in a cell of its own, in no order."""
    rng = np.random.default_rng((seed, count))
    pixels = rng.integers(0, 256, (count, size, size, 3), np.uint8)
    # The last cell always: what fills up a chunk, beyond it, must not be taken for it.
    others = rng.permutation(crop**2 - 1)
    cells = rng.permutation([crop**2 - 1, *others][:count]).astype(np.int32)
    return Patches(cells, lambda start, stop: pixels[start:stop])


def encode(variables, pixels):
    """A small smooth encoder: two dense layers with batch norm between them."""
    params, moments = variables['params'], variables['batch_stats']['norm_0']
    x = pixels.reshape(len(pixels), -1) / 127.5 - 1
    x = x @ params['conv_0']['kernel'] + params['conv_0']['bias']
    x = (x - moments['mean']) / jnp.sqrt(moments['var'])
    x = jnp.tanh(x * params['norm_0']['scale'] + params['norm_0']['bias'])
    return x @ params['code']['kernel'] + params['code']['bias']


def augment(key, patch):
    """Changes the brightness of a patch a good deal."""
    return patch * jax.random.uniform(key, minval=0.2, maxval=1.0)


def encoder_variables(seed=0, width=6):
    rng = np.random.default_rng(seed)
    return {
        'params': {
            'conv_0': {
                'kernel': rng.normal(0, 0.3, (P * P * 3, width)),
                'bias': rng.normal(size=width),
            },
            'norm_0': {'scale': rng.normal(1, 0.3, width), 'bias': rng.normal(size=width)},
            'code': {'kernel': rng.normal(size=(width, C)), 'bias': rng.normal(size=C)},
        },
        'batch_stats': {
            'norm_0': {'mean': rng.normal(size=width), 'var': rng.uniform(0.5, 2, width)}
        },
    }


def classifier(model='mean', *, outputs=3, fields=None, code_size=C, crop=R):
    """A network on grids, and random variables none of which is zero."""
    network = build_network(model, fields or {}, outputs=outputs, crop=crop)
    shapes = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, crop, crop, code_size)))
    rng = np.random.default_rng(1)

    def draw(path, leaf):
        values = rng.normal(0, 0.5, leaf.shape)
        return abs(values) + 0.5 if path[-1].key in ('deviation', 'var') else values

    return network.apply, jax.tree.map_with_path(draw, shapes)


def toy_networks(*, augment=augment, outputs=3):
    """The small encoder under mean pooling: (networks, variables of both)."""
    classify, head = classifier(outputs=outputs)
    networks = Networks(encode, classify, code_size=C, crop=R, augment=augment)
    return networks, {'encoder': encoder_variables(), 'classifier': head}


def divided(variables, **splits):
    """(trained, frozen) of both networks, where `splits` gives each network's."""
    pairs = {name: splits[name](tree) for name, tree in variables.items()}
    return tuple({name: pair[side] for name, pair in pairs.items()} for side in (0, 1))


def all_at_once(networks, trained, frozen, slides, targets, keys, task):
    """Loss and gradient of whole slides by plain backpropagation, as the formula stands."""

    def loss(trained):
        encoder, head = (merge(trained[name], frozen[name]) for name in ('encoder', 'classifier'))
        outputs = []
        for slide, key in zip(slides, keys, strict=True):
            grid = jnp.zeros((networks.crop**2, networks.code_size))
            if len(slide.cells):
                pixels = jnp.asarray(slide.read(0, len(slide.cells)))
                if networks.augment:
                    pixels = jnp.stack(
                        [
                            networks.augment(jax.random.fold_in(key, cell), patch)
                            for cell, patch in zip(slide.cells, pixels, strict=True)
                        ]
                    )
                grid = grid.at[slide.cells].set(networks.encode(encoder, pixels))
            codes = grid.reshape(1, networks.crop, networks.crop, -1)
            outputs.append(networks.classify(head, codes)[0])
        outputs = jnp.stack(outputs)
        return data_loss(outputs, jnp.asarray(targets), task), outputs

    (value, outputs), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(trained)
    return value, outputs, gradient


def assert_same(got, expected, *, relative):
    """Leaves differ by little of their largest value, or of a thousandth of the largest of all."""
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    everywhere = max(float(abs(leaf).max()) for leaf in jax.tree.leaves(expected))
    for (path, one), other in zip(
        jax.tree.leaves_with_path(got), jax.tree.leaves(expected), strict=True
    ):
        one, other = np.asarray(one, np.float64), np.asarray(other, np.float64)
        largest = max(abs(other).max(), 1e-3 * everywhere)
        name = jax.tree_util.keystr(path)
        np.testing.assert_allclose(one, other, rtol=0, atol=relative * largest, err_msg=name)
