"""The networks on grids by name, and what all of them must do."""

import jax
import numpy as np
import pytest
from bags import BAGS, SMALL, compile_quickly, outputs, shuffled, tissue, variables

from nic_jax import devices
from nic_jax.classifiers.models import NETWORKS, build_network, network_fields
from nic_jax.classifiers.steps import compile_step, initial_state, variables_of
from nic_jax.networks.gated_attention import GatedAttention
from nic_jax.networks.grid_cnn import PAPER_STRIDES, GridCNN

# Sums of a few hundred float32 in another order.
CLOSE = {'rtol': 1e-4, 'atol': 1e-5}


@pytest.fixture(scope='module', autouse=True)
def quick_compilation():
    yield from compile_quickly()


def _small(model, *, count=2, size=12):
    return build_network(model, SMALL[model], outputs=count, crop=size)


def _count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def test_the_papers_cnn_has_its_published_number_of_values():
    network = build_network('cnn', {}, outputs=2, crop=400)
    assert network.strides == PAPER_STRIDES
    codes = jax.ShapeDtypeStruct((1, 400, 400, 128), np.float32)
    assert _count(jax.eval_shape(network.init, jax.random.key(0), codes)) == 162_690


def test_the_cnn_follows_the_crop_unless_told():
    assert build_network('cnn', {}, outputs=1, crop=40).strides == (2, 2, 2, 1)
    fields = {'strides': (2, 2), 'widths': [7, 6, 5]}
    network = build_network('cnn', fields, outputs=1, crop=40)
    assert (network.strides, network.widths) == ((2, 2), (7, 6))


def test_every_default_is_told_and_none_is_the_tasks():
    for model, network in NETWORKS.items():
        fields = network_fields(model)
        assert fields['dropout'] >= 0
        assert not fields.keys() & {'outputs', 'parent', 'name'}
        if network is not GridCNN:
            assert build_network(model, fields, outputs=3, crop=9) == network(outputs=3)
    fields = network_fields('cnn')
    assert fields.pop('strides') is None
    assert GridCNN(outputs=3, **fields) == GridCNN(outputs=3)  # the paper's
    assert network_fields('attention_cnn')['pooling'] == 'attention'


def test_fields_read_from_json_build_the_same_network():
    for model in NETWORKS:
        fields = network_fields(model) | SMALL[model]
        as_read = {k: list(v) if isinstance(v, tuple) else v for k, v in fields.items()}
        built = [build_network(model, each, outputs=2, crop=12) for each in (fields, as_read)]
        assert built[0] == built[1]
        assert hash(built[0]) == hash(built[1])  # programs are compiled once for both


@pytest.mark.parametrize(
    ('model', 'fields', 'message'),
    [
        ('svm', {}, "no model 'svm'; there are spatial, cnn, .*abmil"),
        ('abmil', {'heads': 4, 'depth': 1}, 'abmil has no depth, heads; it has width, units'),
        ('cnn', {'outputs': 3}, 'cnn has no outputs'),
        ('cnn', {'widths': (8,)}, 'give --config.cnn.widths as many'),
    ],
)
def test_what_there_is_not_is_refused(model, fields, message):
    with pytest.raises(ValueError, match=message):
        build_network(model, fields, outputs=2, crop=40)


@pytest.mark.parametrize('model', ['transformer', 'spatial'])
def test_fields_that_do_not_go_together_are_refused(model):
    fields = {'transformer': {'width': 10, 'heads': 4}, 'spatial': {'windows': (1, 4)}}[model]
    network = build_network(model, fields, outputs=2, crop=9)
    with pytest.raises(ValueError, match=r'heads=4|must be odd'):
        network.init(jax.random.key(0), tissue(1))


@pytest.mark.parametrize(
    ('model', 'task'),
    [(model, 'classification') for model in NETWORKS]
    + [('mean', 'regression'), ('abmil', 'survival')],
)
def test_a_step_moves_weights_and_leaves_constants(model, task):
    codes = tissue()
    codes[1] = 0  # a slide without tissue, whose gradient is finite too
    targets, count = {
        'classification': (np.array([0, 1]), 2),
        'regression': (np.array([0.5, -1], np.float32), 1),
        'survival': (np.array([[1, 1], [2, 0]], np.float32), 1),
    }[task]
    network = _small(model, count=count)
    before = variables(network, codes)
    found = outputs(network, before, codes)
    assert found.shape == (2, count)
    assert np.isfinite(found).all()
    state = initial_state(before, weight_decay=0.0)
    step = compile_step(network, task, 0.0, 0.0, devices.data_mesh())
    state, loss = step(state, codes, targets, jax.random.key(0), np.int32(0), np.float32(1e-3))
    assert np.isfinite(loss)
    after = variables_of(state)
    for path, value in jax.tree.leaves_with_path(after['params']):
        assert np.isfinite(value).all(), path
    # The last layer's gradient is never all zeros.
    kernel = after['params']['output']['kernel']
    assert (kernel != before['params']['output']['kernel']).any()
    assert ('scaling' in before) == ('scaling' in after) == (model in BAGS)
    if model in BAGS:
        jax.tree.map(np.testing.assert_array_equal, after['scaling'], before['scaling'])


@pytest.mark.parametrize('model', BAGS)
def test_background_has_no_influence(model):
    network, codes = _small(model), tissue()
    weights = variables(network, codes)
    expected = outputs(network, weights, codes)
    moved = np.roll(codes, (2, -3), axis=(1, 2))  # no tissue reaches the edge
    padded = np.pad(codes, ((0, 0), (0, 7), (5, 0), (0, 0)))
    for other in (moved, padded):
        np.testing.assert_allclose(outputs(network, weights, other), expected, **CLOSE)
    # What is compared is not the same for all bags.
    assert not np.allclose(expected[0], expected[1], rtol=1e-2)


@pytest.mark.parametrize('model', BAGS)
def test_only_the_spatial_model_sees_arrangement(model):
    network, codes = _small(model), tissue()
    weights = variables(network, codes)
    expected = outputs(network, weights, codes)
    got = outputs(network, weights, shuffled(codes))
    if model == 'spatial':
        assert (np.abs(got - expected) > 1e-3).any()
    else:
        np.testing.assert_allclose(got, expected, **CLOSE)


@pytest.mark.parametrize('model', BAGS)
def test_a_turned_grid_is_the_same_grid(model):
    network, codes = _small(model), tissue()
    weights = variables(network, codes)
    expected = outputs(network, weights, codes)
    for turned in (np.rot90(codes, axes=(1, 2)), codes[:, ::-1]):
        np.testing.assert_allclose(outputs(network, weights, turned), expected, **CLOSE)


@pytest.mark.parametrize('model', ['spatial', 'abmil'])
def test_attention_sums_to_one_and_is_nowhere_but_on_tissue(model):
    network, codes = _small(model), tissue()
    _, kept = network.apply(
        variables(network, codes),
        codes,
        capture_intermediates=lambda module, _: isinstance(module, GatedAttention),
    )
    attentions = jax.tree.leaves(kept['intermediates'])
    assert attentions
    present = (codes != 0).any(-1).reshape(2, -1)
    for weights in map(np.asarray, attentions):
        np.testing.assert_allclose(weights.sum(1), 1, rtol=1e-5)  # of float32
        assert (weights[~present] == 0).all()
        assert (weights[present] > 0).all()
