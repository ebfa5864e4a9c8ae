"""The folded encoder against the Flax module it stands for."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nic_jax.encoders import conv
from nic_jax.encoders.encoder import EncoderError
from nic_jax.encoders.mean_rgb import mean_rgb
from nic_jax.encoders.storage import load_encoder, read_encoder, write_encoder

PAPER = {
    'kind': 'conv',
    'widths': [4, 6],
    'code_size': 7,
    'dense': 9,
    'padding': 'SAME',
    'norm_after': False,
    'slope': 0.2,
    'epsilon': 1e-3,
    'input_size': 16,
    'averaged': False,
    'channels': 3,
}
PUBLISHED = {**PAPER, 'dense': 0, 'padding': 'VALID', 'norm_after': True, 'averaged': True}
NETWORKS = {
    'paper': PAPER,
    'paper, averaged': {**PAPER, 'averaged': True},
    'paper, odd size': {**PAPER, 'input_size': 19},
    'paper, grey': {**PAPER, 'channels': 1, 'dense': 0},
    'published': PUBLISHED,
    'published, dense': {**PUBLISHED, 'dense': 9, 'input_size': 21},
    'published, valid before': {**PUBLISHED, 'norm_after': False, 'slope': 0.3, 'epsilon': 0.1},
}


def random_variables(network, seed=0):
    """Weights with every statistic away from what it is initialised to."""
    size, channels = network['input_size'], network['channels']
    one = jnp.zeros((1, size, size, channels))
    like = jax.eval_shape(conv.module(network).init, jax.random.key(0), one)
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        name = jax.tree_util.keystr(path)
        if 'var' in name or 'scale' in name:
            return rng.uniform(0.5, 2, leaf.shape).astype(np.float32)
        return rng.normal(0, 0.3, leaf.shape).astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, like)


def some_encoder(network, seed=0):
    return conv.conv_encoder('some', network, random_variables(network, seed), mpp=0.5)


def patches(count, size, channels=3, seed=0):
    shape = (count, size, size, channels)
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def apply(encoder, pixels):
    return np.asarray(jax.jit(encoder.apply)(encoder.variables, pixels))


def by_flax(encoder, pixels):
    """The codes of pixels `[B, P, P, channels]` from 0 to 255, not folded."""
    scaled = (pixels / 127.5 - 1.0).astype(np.float32)
    with jax.default_matmul_precision('highest'):
        return np.asarray(jax.jit(conv.module(encoder.network).apply)(encoder.variables, scaled))


def assert_close(codes, expected, relative=1e-5):
    assert codes.dtype == np.float32
    np.testing.assert_allclose(codes, expected, rtol=0, atol=relative * np.abs(expected).max())


@pytest.mark.parametrize(
    ('name', 'function'),
    [(name, conv._as_product) for name in NETWORKS]
    + [(name, conv._as_convolution) for name in ('paper', 'published')],
)
def test_folded_is_the_flax_module(name, function, monkeypatch):
    encoder = some_encoder(NETWORKS[name])
    pixels = patches(3, encoder.network['input_size'], encoder.channels)
    monkeypatch.setattr(conv, '_as_product', function)  # what a CPU uses
    codes = apply(encoder, pixels)
    assert codes.shape == (3, encoder.code_size)
    assert_close(codes, by_flax(encoder, pixels))


@pytest.mark.parametrize('name', [name for name in NETWORKS if NETWORKS[name]['averaged']])
def test_patches_of_twice_the_size_are_averaged_first(name):
    encoder = some_encoder(NETWORKS[name])
    size = encoder.network['input_size']
    pixels = patches(3, 2 * size)
    halved = pixels.reshape(3, size, 2, size, 2, 3).mean(axis=(2, 4))
    codes = apply(encoder, pixels)
    assert_close(codes, by_flax(encoder, halved))
    assert encoder.inputs == ((2 * size, 0.5), (size, 1.0))


@pytest.mark.parametrize('count', [1, 128, 129])
def test_batches_that_are_no_multiple_of_the_chunk(count):
    network = {**PUBLISHED, 'widths': [4], 'input_size': 16}
    encoder = some_encoder(network)
    chunk = conv._CPU_CHUNK * (64 // 16) ** 2
    assert chunk == 128
    pixels = patches(count, 16)
    codes = apply(encoder, pixels)
    assert_close(codes, by_flax(encoder, pixels))
    # Each patch's code is its own, whatever stands beside it.
    alone = apply(encoder, pixels[-1:])
    assert_close(codes[-1:], alone, 1e-6)


@pytest.mark.parametrize(
    ('kernel', 'stride', 'padding'),
    [(3, 2, (0, 0)), (3, 2, (0, 1)), (6, 4, (2, 2)), (1, 1, (0, 0))],
)
def test_a_product_is_the_convolution(kernel, stride, padding):
    rng = np.random.default_rng(0)
    layer = conv._Layer(
        rng.normal(size=(kernel, kernel, 3, 4)).astype(np.float32),
        rng.normal(size=4).astype(np.float32),
        stride,
        padding,
        127.5,
    )
    for size in (13, 16):
        x = jnp.asarray(rng.normal(size=(2, size, size, 3)).astype(np.float32))
        product, convolution = (
            jax.jit(lambda x, function=function: function(x, layer))(x)
            for function in (conv._as_product, conv._as_convolution)
        )
        assert product.shape == convolution.shape
        assert_close(np.asarray(product), np.asarray(convolution))


def test_the_same_shape_is_compiled_once():
    encoder, traced = some_encoder(PUBLISHED), itertools.count()

    @jax.jit
    def encode(variables, pixels):
        next(traced)
        return encoder.apply(variables, pixels)

    for seed in range(3):
        encode(random_variables(PUBLISHED, seed), patches(4, 16, seed=seed))
    assert next(traced) == 1
    encode(encoder.variables, patches(4, 32))
    assert next(traced) == 3


def test_the_fingerprint_tells_networks_and_weights_apart():
    encoder = some_encoder(PUBLISHED)
    assert encoder.sha256() == some_encoder(PUBLISHED).sha256()
    seen = {encoder.sha256()}
    leaves, structure = jax.tree.flatten(encoder.variables)
    for index, leaf in enumerate(leaves):
        changed = leaf.copy()
        changed.flat[-1] = np.nextafter(changed.flat[-1], np.float32(9))
        variables = jax.tree.unflatten(structure, [*leaves[:index], changed, *leaves[index + 1 :]])
        seen.add(dataclasses.replace(encoder, variables=variables).sha256())
    seen.add(some_encoder({**PUBLISHED, 'slope': 0.1}).sha256())
    seen.add(mean_rgb().sha256())
    assert len(seen) == len(leaves) + 3
    on_device = dataclasses.replace(encoder, variables=jax.device_put(encoder.variables))
    assert on_device.sha256() == encoder.sha256()


@pytest.mark.parametrize('size', [8, 15, 17, 24, 48])
def test_other_sizes_are_refused(size):
    encoder = some_encoder(PUBLISHED)
    with pytest.raises(ValueError, match=f'{size} px wide, the encoder takes 16 px'):
        encoder.apply(encoder.variables, patches(1, size))
    with pytest.raises(
        EncoderError, match=r'32 px at 0\.5 µm/px, 16 px at 1 µm/px; got .*patch_si'
    ):
        encoder.check_input(size, channels=encoder.channels)
    encoder.check_input(16, channels=encoder.channels)
    encoder.check_input(32, channels=encoder.channels)


def test_twice_the_size_is_refused_where_nothing_is_averaged():
    encoder = some_encoder(PAPER)
    with pytest.raises(ValueError, match='32 px wide'):
        encoder.apply(encoder.variables, patches(1, 32))
    with pytest.raises(EncoderError, match='takes patches of 16 px'):
        encoder.check_input(32, channels=encoder.channels)


def test_what_cannot_be_folded_is_refused():
    encoder = some_encoder({**PUBLISHED, 'padding': 'SAME'})
    with pytest.raises(ValueError, match='VALID alone'):
        encoder.apply(encoder.variables, patches(1, 16))


@pytest.mark.parametrize(('name', 'widths'), [('paper', tuple), ('published', list)])
def test_a_stored_encoder_is_the_same(name, widths, tmp_path):
    encoder = some_encoder({**NETWORKS[name], 'widths': widths((4, 6))})
    write_encoder(tmp_path / 'some', encoder)
    found = load_encoder(str(tmp_path))
    assert found.sha256() == encoder.sha256() == read_encoder(tmp_path / 'some').sha256()
    assert (found.name, found.inputs, found.code_size) == ('some', encoder.inputs, 7)
    pixels = patches(2, 16)
    np.testing.assert_array_equal(apply(found, pixels), apply(encoder, pixels))


def test_mean_rgb_is_the_mean_of_scaled_pixels_exactly():
    pixels = patches(5, 128)
    codes = np.asarray(mean_rgb().apply({}, pixels))
    expected = (pixels.astype(np.float64) / 127.5 - 1).mean(axis=(1, 2))
    np.testing.assert_allclose(codes, expected, atol=1e-6)
    white, black = np.full((1, 9, 9, 3), 255, np.uint8), np.zeros((1, 9, 9, 3), np.uint8)
    assert np.asarray(mean_rgb().apply({}, white)).tolist() == [[1.0, 1.0, 1.0]]
    assert np.asarray(mean_rgb().apply({}, black)).tolist() == [[-1.0, -1.0, -1.0]]
    turned = np.rot90(pixels, axes=(1, 2))
    np.testing.assert_array_equal(np.asarray(mean_rgb().apply({}, turned)), codes)
