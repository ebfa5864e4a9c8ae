"""Codes are scaled by what training slides say, and by them alone."""

import numpy as np
import pytest
from array_grid import ArrayGrid
from small_grids import write_grid

from nic_jax.classifiers import scaling
from nic_jax.classifiers.batches import Examples
from nic_jax.classifiers.scaling import code_statistics
from nic_jax.classifiers.trained import TrainSettings
from nic_jax.classifiers.training import train
from nic_jax.networks.code_scaling import CodeScaling


def _slides(count, *, seed, prefix='slide', mean=3.0, deviation=(1.0, 40.0, 0.02)):
    """Grids of different shapes with background."""
    rng = np.random.default_rng(seed)
    grids = []
    for number in range(count):
        shape = rng.integers(4, 9, 2)
        codes = mean + np.array(deviation) * rng.normal(size=(*shape, 3))
        encoded = rng.random(shape) < 0.7
        encoded[1, 2] = True
        grids.append(ArrayGrid(f'{prefix}_{number}', codes.astype(np.float32), encoded))
    return grids


def test_statistics_are_numpys_over_encoded_cells():
    grids = _slides(7, seed=0)
    cells = np.concatenate([grid.codes[grid.encoded] for grid in grids]).astype(np.float64)
    found = code_statistics(grids)
    assert found['mean'].dtype == found['deviation'].dtype == np.float32
    np.testing.assert_allclose(found['mean'], cells.mean(0), rtol=1e-6)
    np.testing.assert_allclose(found['deviation'], cells.std(0), rtol=1e-5)


def test_statistics_of_grids_on_disk(tmp_path):
    rng = np.random.default_rng(0)
    encoded = rng.random((70, 9)) < 0.5
    codes = rng.normal(size=(1, 70, 9, 4)).astype(np.float16)
    found = code_statistics([write_grid(tmp_path / 'a.zarr', codes, encoded=encoded)])
    cells = codes[0][encoded].astype(np.float64)
    np.testing.assert_allclose(found['mean'], cells.mean(0), rtol=1e-6)
    np.testing.assert_allclose(found['deviation'], cells.std(0), rtol=1e-5)


def test_a_feature_that_never_varies_is_not_divided_by_nothing():
    grids = _slides(3, seed=0, deviation=(1.0, 0.0, 0.0))
    assert code_statistics(grids)['deviation'][1:].tolist() == [1, 1]
    nothing = ArrayGrid('a', np.ones((3, 3, 2)), np.zeros((3, 3), bool))
    found = code_statistics([nothing])
    assert (found['mean'].tolist(), found['deviation'].tolist()) == ([0, 0], [1, 1])


def test_of_many_slides_some_are_read_spread_over_all(monkeypatch):
    monkeypatch.setattr(scaling, '_SLIDES', 5)
    grids = _slides(21, seed=0)
    code_statistics(grids)
    assert [number for number, grid in enumerate(grids) if grid.crops_read] == [0, 5, 10, 15, 20]


def test_scaled_codes_and_where_they_are():
    codes = np.zeros((1, 2, 3, 2), np.float32)
    codes[0, 0, 1] = 5, 0
    codes[0, 1, 2] = 1, -4
    variables = {'scaling': {'mean': np.array([1, 2.0]), 'deviation': np.array([2, 0.5])}}
    scaled, present = CodeScaling().apply(variables, codes)
    assert np.argwhere(present[0]).tolist() == [[0, 1], [1, 2]]
    expected = np.zeros((1, 2, 3, 2))
    expected[0, 0, 1] = 2, -4
    expected[0, 1, 2] = 0, -12
    np.testing.assert_allclose(scaled, expected, rtol=1e-6)


@pytest.mark.parametrize('model', ['spatial', 'mean'])
def test_training_scales_by_training_slides_alone(tmp_path, model):
    def examples(grids):
        return Examples(grids, np.arange(len(grids)) % 2, [grid.slide_id for grid in grids])

    grids = _slides(6, seed=0)
    kept = []
    for name, seed, mean in (('a', 1, 3.0), ('b', 2, -50.0)):
        trained = train(
            train=examples(grids),
            valid=examples(_slides(4, seed=seed, mean=mean, prefix='valid')),
            task='classification',
            classes=2,
            model=model,
            fields={},
            settings=TrainSettings(crop=8, batch=4, epochs=1, versions=(0, 3)),
            seed=0,
            folder=tmp_path / name,
        )
        kept.append(trained.variables['scaling']['scaling'])
    expected = code_statistics(grids)
    for found in kept:
        assert found.keys() == {'mean', 'deviation'}
        for name, values in found.items():
            np.testing.assert_array_equal(values, expected[name])
