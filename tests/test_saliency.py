"""Saliency of slides: other methods than Grad-CAM, versions, networks, and what it should find."""

import dataclasses

import numpy as np
import pytest
import scipy.ndimage
from array_grid import ArrayGrid
from bags import SMALL, compile_quickly, variables
from sklearn.metrics import roc_auc_score

from nic_jax.classifiers.batches import Examples
from nic_jax.classifiers.models import NETWORKS, build_network
from nic_jax.classifiers.trained import Trained, TrainSettings
from nic_jax.classifiers.training import train
from nic_jax.explanation.attention import attention
from nic_jax.explanation.integrated_gradients import integrated_gradients, mean_code
from nic_jax.explanation.occlusion import occlusion
from nic_jax.explanation.saliency import (
    METHODS,
    ExplainSettings,
    explain,
    methods_of,
    randomised,
)
from nic_jax.explanation.scores import of_codes
from nic_jax.explanation.windows import cover, on_grid, read
from nic_jax.grids import turn
from nic_jax.grids.versions import turn_back

ASKED = {'task': 'classification', 'target': 1}
SIZE = 17


@pytest.fixture(scope='module', autouse=True)
def _quickly():
    yield from compile_quickly()


def _network(model):
    return build_network(model, SMALL[model], outputs=2, crop=SIZE)


def _codes(seed=0, size=SIZE):
    codes = np.random.default_rng(seed).normal(1, 1, (size, size, 5)).astype(np.float32)
    codes[: size // 4] = 0  # background
    return codes


def _score(network, weights, codes):
    return np.asarray(of_codes(network, weights, np.asarray(codes), **ASKED), np.float64)


@pytest.mark.parametrize('model', NETWORKS)
def test_integrated_gradients_add_up_to_the_scores_difference(model):
    network, codes = _network(model), _codes()
    weights = variables(network, codes[None])
    square = cover((SIZE, SIZE), window=SIZE)
    found = integrated_gradients(network, weights, codes, square, steps=300, **ASKED)
    plain = np.where(codes.any(-1, keepdims=True), mean_code(codes), 0)
    with_, without = _score(network, weights, np.stack([codes, plain]))
    assert found.sum() == pytest.approx(with_ - without, rel=0.02, abs=0.01)  # 300 steps, kinks
    assert (found[: SIZE // 4] == 0).all()


@pytest.mark.parametrize('model', ['cnn', 'spatial', 'mean'])
def test_occlusion_is_the_fall_of_the_score_block_by_block(model):
    network, codes = _network(model), _codes()
    weights = variables(network, codes[None])
    found = occlusion(
        network, weights, codes, cover(codes.shape[:2], window=SIZE), block=4, **ASKED
    )
    (whole,) = _score(network, weights, codes[None])
    encoded = codes.any(-1)
    for top in range(0, SIZE, 4):
        for left in range(0, SIZE, 4):
            block = slice(top, top + 4), slice(left, left + 4)
            hidden = codes.copy()
            hidden[block] = np.where(encoded[block][..., None], mean_code(codes), 0)
            fall = whole - _score(network, weights, hidden[None])[0]
            count = encoded[block].sum()
            expected = np.where(encoded[block], fall / max(count, 1), 0)
            np.testing.assert_allclose(found[block], expected, atol=1e-5)  # differences of float32


def test_windows_cover_a_grid_and_have_few_sizes():
    sizes = set()
    for height in range(1, 90):
        square = cover((height, 40), window=20, jump=4)
        sizes.add(square.size)
        assert square.step % 4 == 0
        assert square.top <= 0
        assert square.top + square.size >= height
        tops = {top for top, _ in square.corners()}
        assert max(tops) + 20 == square.size  # the last window ends with the square
        assert tops == set(range(0, max(tops) + 1, square.step))
    assert len(sizes) == 7
    assert cover((3, 5), window=20).size == 20  # smaller than a window: padded to it


@pytest.mark.parametrize('version', range(8))
def test_a_version_is_turned_back(version):
    array = np.random.default_rng(0).normal(size=(4, 6))
    np.testing.assert_array_equal(turn_back(turn(array, version), version), array)
    grid = ArrayGrid('slide', np.random.default_rng(0).normal(size=(7, 12, 3)).astype(np.float32))
    square = cover(grid.shape, window=8)
    codes = read(grid, square, version)
    np.testing.assert_array_equal(on_grid(codes[..., 0], grid, square, version), grid.codes[..., 0])


@pytest.mark.parametrize('model', ['attention_cnn', 'abmil', 'spatial'])
def test_attention_is_over_the_mean_cells(model):
    network, codes = _network(model), _codes()
    weights = variables(network, codes[None])
    found = attention(network, weights, codes, cover(codes.shape[:2], window=SIZE))
    assert found[codes.any(-1)].mean() == pytest.approx(1, rel=1e-4)
    assert (found >= 0).all()
    if model == 'abmil':
        (own,) = network.apply(weights, codes[None], method='attention_weights')
        expected = np.asarray(own) * codes.any(-1).sum()
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_a_model_has_the_methods_that_it_can():
    assert methods_of(_network('mean'), METHODS) == ['integrated_gradients', 'occlusion']
    assert 'attention' not in methods_of(_network('cnn'), METHODS)
    assert methods_of(_network('spatial'), METHODS) == list(METHODS)
    with pytest.raises(ValueError, match="no method 'lime'"):
        ExplainSettings(methods=('lime',))


def _lesion(rng, *, size=SIZE, positive, at=None):
    """Noise, with a spot of another kind of cells where it is positive."""
    codes = rng.normal(0, 1, (size, size, 3)).astype(np.float32)
    mask = np.zeros((size, size), bool)
    if positive:
        top, left = at if at is not None else rng.integers(1, size - 5, 2)
        mask[top : top + 4, left : left + 4] = True
        codes[mask] += 3
    return codes, mask


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """The paper's CNN, small, that has learned to tell grids with a spot."""
    rng = np.random.default_rng(0)

    def examples(count, prefix):
        grids = [
            ArrayGrid(f'{prefix}_{k}', _lesion(rng, positive=bool(k % 2))[0]) for k in range(count)
        ]
        return Examples(grids, np.arange(count) % 2, [grid.slide_id for grid in grids])

    return train(
        train=examples(64, 'train'),
        valid=examples(16, 'valid'),
        task='classification',
        classes=2,
        model='cnn',
        fields={'widths': (8,) * 8, 'dense': 8, 'momentum': 0.9},
        settings=TrainSettings(crop=SIZE, epochs=12, versions=(0, 5), learning_rate=0.02),
        seed=0,
        folder=tmp_path_factory.mktemp('trained'),
        report=lambda record: None,
        identity={},
    )


@pytest.mark.parametrize('method', ['grad_cam', 'integrated_gradients', 'occlusion'])
def test_the_map_follows_the_lesion(trained, method):
    """In a slide larger than the network's input, wherever it is moved to."""
    settings = ExplainSettings(methods=(method,), block=2)
    for at in ((2, 2), (3, 20), (24, 24), (14, 9)):
        codes, _ = _lesion(np.random.default_rng(1), size=30, positive=True, at=at)
        found = explain([trained], ArrayGrid('slide', codes), settings, target=1)[method]
        # Cells one by one have the noise of their codes; the mean of the lesion's size has less.
        around = scipy.ndimage.uniform_filter(found, 4)
        strongest = np.unravel_index(around.argmax(), around.shape)
        assert np.abs(np.subtract(strongest, at) - 2).max() <= 2  # the filter is centred on cell 2
        against = explain([trained], ArrayGrid('slide', codes), settings, target=0)[method]
        np.testing.assert_allclose(against, -found, atol=1e-4 * np.abs(found).max())  # two classes


def test_random_weights_find_less(trained):
    areas = {'grad_cam': [], 'grad_cam_random': []}
    for number in range(6):
        codes, mask = _lesion(np.random.default_rng(10 + number), positive=True)
        settings = ExplainSettings(methods=tuple(areas))
        found = explain([trained], ArrayGrid('slide', codes), settings, target=1)
        for name, values in areas.items():
            values.append(roc_auc_score(mask.ravel(), found[name].ravel()))
    assert np.mean(areas['grad_cam']) > 0.95
    assert np.mean(areas['grad_cam_random']) < np.mean(areas['grad_cam']) - 0.1


def test_versions_and_networks_are_averaged(trained):
    codes, _ = _lesion(np.random.default_rng(2), positive=True)
    grid, settings = ArrayGrid('slide', codes), ExplainSettings()
    other = dataclasses.replace(trained, variables=randomised(trained))

    def one(network: Trained, version: int) -> np.ndarray:
        alone = dataclasses.replace(network.settings, versions=(version,))
        only = dataclasses.replace(network, settings=alone)
        return explain([only], grid, settings, target=1)['grad_cam']

    expected = np.mean([one(each, v) for each in (trained, other) for v in (0, 5)], axis=0)
    found = explain([trained, other], grid, settings, target=1)['grad_cam']
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_cells_without_a_code_have_no_saliency(trained):
    codes, _ = _lesion(np.random.default_rng(3), positive=True)
    encoded = np.ones(codes.shape[:2], bool)
    encoded[:5] = False
    found = explain([trained], ArrayGrid('slide', codes, encoded), ExplainSettings(), target=1)
    np.testing.assert_array_equal(np.isnan(found['grad_cam']), ~encoded)
