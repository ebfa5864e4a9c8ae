"""The papers' tables of layers (method: TPAMI 2019, supplement; MIDL 2020)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nic_jax.encoders import conv
from nic_jax.encoders.architectures import decoder_network, encoder_network
from nic_jax.networks.decoder import ConvDecoder
from nic_jax.networks.heads import DropoutHead, Expander, JointCritic, NormHead

PYRAMIDS = ('vae', 'contrastive', 'supervised', 'vicreg')
PUBLISHED = ('bigan', 'multitask')


def _network(objective, patch_size, *, family='paper', channels=3, code_size=128):
    return encoder_network(
        objective, family=family, patch_size=patch_size, channels=channels, code_size=code_size
    )


def _shapes(module, *inputs, **kwargs):
    """Names of leaves to their shapes, without computing any."""
    one = [jnp.zeros(shape) for shape in inputs]
    tree = jax.eval_shape(lambda key: module.init(key, *one, **kwargs), jax.random.key(0))
    return {
        '.'.join(key.key for key in path): leaf.shape
        for path, leaf in jax.tree.leaves_with_path(tree)
    }


def _encoder_shapes(network):
    size, channels = network['input_size'], network['channels']
    return _shapes(conv.module(network), (1, size, size, channels))


def _count(shapes):
    return sum(int(np.prod(shape)) for shape in shapes.values())


@pytest.mark.parametrize('objective', PYRAMIDS)
def test_the_pyramid_of_128_px(objective):
    network = _network(objective, 128)
    assert (network['input_size'], network['averaged'], network['channels']) == (128, False, 3)
    assert (network['padding'], network['norm_after']) == ('SAME', False)
    assert (network['slope'], network['epsilon']) == (0.2, 1e-3)
    shapes = _encoder_shapes(network)
    kernels = [shapes[f'params.conv_{level}.kernel'] for level in range(5)]
    assert kernels == [
        (3, 3, 3, 32),
        (3, 3, 32, 64),
        (3, 3, 64, 128),
        (3, 3, 128, 256),
        (3, 3, 256, 512),
    ]
    assert shapes['params.dense.kernel'] == (4 * 4 * 512, 512)
    assert shapes['params.code.kernel'] == (512, 128)
    norms = [name for name in shapes if name.startswith('batch_stats') and name.endswith('mean')]
    assert len(norms) == 6  # one a convolution, and the dense layer's
    assert 'params.conv_5.kernel' not in shapes


def test_the_pyramid_of_64_px_has_one_level_fewer():
    network = _network('vae', 64)
    assert network['widths'] == [32, 64, 128, 256]
    assert _encoder_shapes(network)['params.dense.kernel'] == (4 * 4 * 256, 512)
    assert _network('vae', 16)['widths'] == [32, 64]
    assert _network('vae', 256)['widths'] == [32, 64, 128, 256, 512, 1024]


@pytest.mark.parametrize('objective', PUBLISHED)
def test_the_published_network_has_the_published_number_of_weights(objective):
    network = _network(objective, 64)
    assert (network['padding'], network['norm_after']) == ('VALID', True)
    assert (network['input_size'], network['averaged']) == (64, False)
    shapes = _encoder_shapes(network)
    assert [shapes[f'params.conv_{level}.bias'] for level in range(4)] == [(128,)] * 4
    assert shapes['params.code.kernel'] == (3 * 3 * 128, 128)
    assert _count(shapes) == 595_968  # the statistics of batch norm among them, as in Keras


@pytest.mark.parametrize('objective', PUBLISHED)
def test_patches_of_128_px_are_averaged_for_the_published_network(objective):
    at_64, at_128 = _network(objective, 64), _network(objective, 128)
    assert at_128 == {**at_64, 'averaged': True}


def test_a_family_can_be_asked_for():
    assert _network('vae', 128, family='published') == _network('bigan', 128)
    assert _network('bigan', 128, family='pyramid') == _network('vae', 128)
    assert _network('vae', 128, family='pyramid') == _network('vae', 128)


@pytest.mark.parametrize('objective', PYRAMIDS)
def test_the_network_of_cells(objective):
    network = _network(objective, 9, channels=1, code_size=16)
    shapes = _encoder_shapes(network)
    assert shapes['params.conv_0.kernel'] == (3, 3, 1, 32)
    assert shapes['params.conv_1.kernel'] == (3, 3, 32, 64)
    assert shapes['params.dense.kernel'] == (3 * 3 * 64, 64)  # 9 -> 5 -> 3
    assert shapes['params.code.kernel'] == (64, 16)
    assert (network['padding'], network['norm_after']) == ('SAME', False)


def test_the_network_of_cells_of_the_bigan():
    network = _network('bigan', 9, channels=1, code_size=16)
    shapes = _encoder_shapes(network)
    assert shapes['params.conv_1.kernel'] == (3, 3, 32, 32)
    assert shapes['params.code.kernel'] == (3 * 3 * 32, 16)
    assert 'params.dense.kernel' not in shapes
    assert (network['padding'], network['norm_after']) == ('SAME', False)


def _decoder(objective, size, channels=3, kind='paper'):
    return ConvDecoder(
        size=size, channels=channels, **decoder_network(objective, size=size, kind=kind)
    )


def _decoder_shapes(objective, size, channels=3, kind='paper', code_size=128):
    decoder = _decoder(objective, size, channels, kind)
    out = jax.eval_shape(
        lambda key: decoder.init_with_output(key, jnp.zeros((2, code_size)))[0], jax.random.key(0)
    )
    assert out.shape == (2, size, size, channels)
    return _shapes(decoder, (1, code_size))


def test_the_decoder_of_the_vae_at_128_px():
    shapes = _decoder_shapes('vae', 128)
    assert shapes['params.Dense_0.kernel'] == (128, 8192)  # 4×4×512
    kernels = [shapes[f'params.UpConv_{level}.kernel'] for level in range(5)]
    assert kernels == [
        (3, 3, 512, 256),
        (3, 3, 256, 128),
        (3, 3, 128, 64),
        (3, 3, 64, 32),
        (3, 3, 32, 16),
    ]
    assert shapes['params.Conv_0.kernel'] == (3, 3, 16, 3)
    norms = [name for name in shapes if name.startswith('batch_stats') and name.endswith('mean')]
    assert len(norms) == 6


def test_the_generator_of_the_bigan_at_64_px():
    shapes = _decoder_shapes('bigan', 64)
    assert shapes['params.Dense_0.kernel'] == (128, 1024)  # 4×4×64
    kernels = [shapes[f'params.UpConv_{level}.kernel'] for level in range(4)]
    assert kernels == [(3, 3, 64, 128)] + [(3, 3, 128, 128)] * 3
    assert shapes['params.Conv_0.kernel'] == (3, 3, 128, 3)


def test_decoders_of_cells_are_cut_from_16_px():
    vae = _decoder_shapes('vae', 9, channels=1, code_size=16)
    assert vae['params.Dense_0.kernel'] == (16, 2048)  # 4×4×128
    assert vae['params.UpConv_0.kernel'] == (3, 3, 128, 64)
    assert vae['params.UpConv_1.kernel'] == (3, 3, 64, 32)
    bigan = _decoder_shapes('bigan', 9, channels=1, code_size=16)
    assert bigan['params.Dense_0.kernel'] == (16, 512)  # 4×4×32
    assert bigan['params.UpConv_1.kernel'] == (3, 3, 32, 32)

    # The same weights at 16 px: what 9 px shows is its centre.
    small, large = (ConvDecoder(size=size, channels=1, start=2, widths=(2, 2)) for size in (9, 16))
    z = jax.random.normal(jax.random.key(1), (2, 3))
    variables = small.init(jax.random.key(0), z)
    centre = large.apply(variables, z)[:, 3:12, 3:12]
    np.testing.assert_array_equal(small.apply(variables, z), centre)


def test_small_decoders_have_half_the_filters_of_the_paper_s():
    for size in (64, 128):
        paper = decoder_network('vae', size=size, kind='paper')
        small = decoder_network('vae', size=size, kind='small')
        assert small['start'] == paper['start'] // 2
        assert small['widths'] == tuple(width // 2 for width in paper['widths'])
        assert decoder_network('bigan', size=size, kind='small') == small
    assert decoder_network('vae', size=64, kind='paper')['start'] == 256
    _decoder_shapes('vae', 9, channels=1, kind='small')
    _decoder_shapes('bigan', 64, kind='small')


def test_the_heads():
    shapes = _shapes(NormHead(9), (1, 128), train=False)
    assert shapes['params.Dense_0.kernel'] == (128, 256)
    assert shapes['params.BatchNorm_0.scale'] == (256,)
    assert shapes['params.Dense_1.kernel'] == (256, 9)
    shapes = _shapes(DropoutHead(2), (1, 128), train=False)
    assert [shapes[f'params.Dense_{i}.bias'] for i in (0, 1)] == [(256,), (2,)]
    assert not any('BatchNorm' in name for name in shapes)
    shapes = _shapes(JointCritic(), (1, 128), (1, 128), train=False)
    assert [shapes[f'params.Dense_{i}.kernel'] for i in (0, 1, 2)] == [
        (256, 1024),
        (1024, 1024),
        (1024, 1),
    ]
    shapes = _shapes(Expander(), (1, 128), train=False)
    assert [shapes[f'params.Dense_{i}.kernel'][1] for i in (0, 1, 2)] == [512] * 3


@pytest.mark.parametrize(
    ('objective', 'family', 'size', 'message'),
    [
        ('vae', 'resnet', 128, 'must be one of paper, pyramid, published'),
        ('vae', 'paper', 100, 'patch_size=100 must be 9, or a power of two'),
        ('vae', 'paper', 8, 'patch_size=8'),
        ('supervised', 'pyramid', 96, 'patch_size=96'),
        ('bigan', 'paper', 256, '64 or 128 px, not 256'),
        ('vae', 'published', 32, '64 or 128 px, not 32'),
    ],
)
def test_what_there_is_no_network_for_is_refused(objective, family, size, message):
    with pytest.raises(ValueError, match=message):
        _network(objective, size, family=family)


def test_an_unknown_decoder_is_refused():
    with pytest.raises(ValueError, match="decoder='large' must be one of paper, small"):
        decoder_network('vae', size=64, kind='large')
