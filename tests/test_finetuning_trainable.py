"""What is trained of a network, and that nothing else is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nic_jax import checkpoints, finetuning
from nic_jax.encoders.architectures import encoder_network
from nic_jax.encoders.conv import conv_encoder, module
from nic_jax.encoders.mean_rgb import mean_rgb
from nic_jax.encoders.objective import initial_encoder
from nic_jax.finetuning import everything, last_layers, merge, split

adapt = jax.jit(finetuning.adapt, static_argnames=('rank', 'scale'))


@pytest.fixture(scope='module')
def encoder():
    """Three convolutions, a dense layer, the code; no two values are equal."""
    network = encoder_network(
        'supervised', family='pyramid', patch_size=32, channels=3, code_size=6
    ) | {'dense': 8, 'widths': [4, 5, 6]}
    shapes = jax.eval_shape(lambda: initial_encoder(network, jax.random.key(0)))
    rng = np.random.default_rng(0)
    variables = jax.tree.map(
        lambda leaf: rng.uniform(0.5, 1, leaf.shape).astype(np.float32), shapes
    )
    return conv_encoder('pyramid', network, variables, mpp=1.0)


def names(tree):
    return {'/'.join(key.key for key in path) for path, _ in jax.tree.leaves_with_path(tree)}


def test_everything_but_running_statistics(encoder):
    trained, frozen = split(encoder.variables, everything)
    assert names(trained) == {f'params/{name}' for name in names(encoder.variables['params'])}
    assert names(frozen) == {
        f'batch_stats/norm_{layer}/{moment}' for layer in range(4) for moment in ('mean', 'var')
    }
    jax.tree.map(np.testing.assert_array_equal, merge(trained, frozen), dict(encoder.variables))


@pytest.mark.parametrize(
    ('count', 'modules'),
    [
        (1, {'code'}),
        (2, {'code', 'dense', 'norm_3'}),
        (3, {'code', 'dense', 'norm_3', 'conv_2', 'norm_2'}),
    ],
)
def test_last_layers(encoder, count, modules):
    # The order of names is not that of layers: a dict that was a tree is sorted.
    ordered = jax.tree.map(lambda leaf: leaf, encoder.variables)
    trained, frozen = split(ordered, last_layers(encoder.network, count))
    assert {name.split('/')[1] for name in names(trained)} == modules
    assert names(trained) | names(frozen) == names(encoder.variables)
    assert not names(trained) & names(frozen)
    jax.tree.map(np.testing.assert_array_equal, merge(trained, frozen), dict(encoder.variables))


def test_layers_of_the_published_architecture_are_its_convolutions_and_the_code():
    network = encoder_network(
        'bigan', family='published', patch_size=128, channels=3, code_size=128
    )
    trains = last_layers(network, 2)
    chosen = [
        name for name in ('code', 'conv_3', 'norm_3', 'conv_2', 'dense') if trains(f'{name}/x')
    ]
    assert chosen == ['code', 'conv_3', 'norm_3']
    assert last_layers(network, 5)('conv_0/kernel')
    with pytest.raises(ValueError, match='count=6 must be from 1 to the 5 layers'):
        last_layers(network, 6)
    with pytest.raises(ValueError, match='count=1 must be from 1 to the 0 layers'):
        last_layers(mean_rgb().network, 1)


def test_parameters_by_name(encoder):
    trained, _ = split(encoder.variables, lambda name: name in ('norm_2/bias', 'code/kernel'))
    expected = {'params/norm_2/bias', 'params/code/kernel'}
    assert names(trained) == expected
    with pytest.raises(
        ValueError, match=r'no parameter is chosen to be trained; there are .*conv_0'
    ):
        split(encoder.variables, lambda name: False)
    with pytest.raises(ValueError, match='there is nothing to train'):
        split(mean_rgb().variables, everything)


def test_adapters_change_nothing_at_first_and_little_is_trained(encoder):
    trained, frozen = adapt(encoder.variables, jax.random.key(0), rank=3)
    kernels = {
        name.removesuffix('/kernel') for name in names(encoder.variables) if 'kernel' in name
    }
    assert names(trained) == {
        f'{name}/kernel/{side}' for name in kernels for side in ('down', 'up')
    }
    merged = merge(trained, frozen)
    assert names(merged) == names(encoder.variables)
    jax.tree.map(np.testing.assert_array_equal, merged, dict(encoder.variables))
    for one, other in zip(
        *(
            jax.tree.leaves(adapt(encoder.variables, jax.random.key(seed), rank=3)[0])
            for seed in (0, 1)
        ),
        strict=True,
    ):
        assert (one == other).all() == (not one.any())  # of the first seed A is not of the second


def test_an_adapted_kernel_is_that_of_two_layers_in_a_row(encoder):
    trained, frozen = adapt(encoder.variables, jax.random.key(0), rank=3, scale=0.5)
    rng = np.random.default_rng(0)
    trained = jax.tree.map(lambda leaf: rng.normal(0, 0.2, leaf.shape), trained)
    with jax.enable_x64(True):
        merged = jax.jit(merge)(trained, frozen)
        x = rng.normal(size=(2, 9, 9, 4))
        adapters, base = (tree['params']['conv_1']['kernel'] for tree in (trained, frozen))

        def convolve(x, kernel, stride=2):
            return jax.lax.conv_general_dilated(
                x, jnp.asarray(kernel, float), (stride, stride), 'VALID',
                dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
            )  # fmt: skip

        narrow = convolve(x, adapters['down'].reshape(3, 3, 4, 3))
        beside = convolve(narrow, adapters['up'].reshape(1, 1, 3, -1), stride=1)
        expected = convolve(x, base['base']) + 0.5 * beside
        got = convolve(x, merged['params']['conv_1']['kernel'])
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-12 * abs(expected).max())


def test_the_result_of_adapters_is_an_ordinary_encoder(encoder):
    trained, frozen = adapt(encoder.variables, jax.random.key(0), rank=3)
    trained = jax.tree.map(lambda leaf: leaf + 0.01, trained)
    merged = merge(trained, frozen)
    shapes = jax.eval_shape(
        module(encoder.network).init, jax.random.key(0), jnp.zeros((1, 32, 32, 3))
    )
    described = [
        jax.tree.map(lambda leaf: (leaf.shape, np.dtype(leaf.dtype)), tree)
        for tree in (merged, shapes)
    ]
    assert described[0] == described[1]
    made = conv_encoder('tuned', encoder.network, merged, mpp=1.0)
    assert made.sha256() != encoder.sha256()


def test_narrow_layers_have_adapters_as_narrow():
    variables = {'params': {'output': {'kernel': np.ones((5, 2), np.float32)}}}
    trained, frozen = finetuning.adapt(variables, jax.random.key(0), rank=8)
    shapes = {name: leaf.shape for name, leaf in trained['params']['output']['kernel'].items()}
    assert shapes == {'down': (5, 2), 'up': (2, 2)}
    np.testing.assert_array_equal(merge(trained, frozen)['params']['output']['kernel'], 1)
    with pytest.raises(ValueError, match='rank=0 must be at least 1'):
        adapt(variables, jax.random.key(0), rank=0)
    with pytest.raises(ValueError, match='no kernel'):
        adapt(mean_rgb().variables, jax.random.key(0), rank=3)


def test_parts_can_be_stored(encoder, tmp_path):
    for parts in (
        split(encoder.variables, last_layers(encoder.network, 1)),
        adapt(encoder.variables, jax.random.key(0), rank=2),
    ):
        checkpoints.save(tmp_path / 'parts', parts)
        restored = checkpoints.restore(tmp_path / 'parts', parts)
        jax.tree.map(np.testing.assert_array_equal, merge(*restored), merge(*parts))


def test_a_step_moves_what_is_trained_alone(encoder):
    patches = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    trained, frozen = split(encoder.variables, lambda name: name.startswith('conv_1/'))

    @jax.jit
    def gradient(trained):
        return jax.grad(lambda part: encoder.apply(merge(part, frozen), patches).sum())(trained)

    found = gradient(trained)
    assert names(found) == {'params/conv_1/kernel', 'params/conv_1/bias'}
    moved = merge(jax.tree.map(lambda leaf, step: leaf - step, trained, found), frozen)
    changed = {
        '/'.join(key.key for key in path)
        for (path, one), other in zip(
            jax.tree.leaves_with_path(moved), jax.tree.leaves(encoder.variables), strict=True
        )
        if (one != other).any()
    }
    assert changed == {'params/conv_1/kernel', 'params/conv_1/bias'}
