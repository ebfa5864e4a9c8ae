import subprocess
import sys

import jax
import numpy as np
import pytest
from array_grid import ArrayGrid, random_grids

from nic_jax.classifiers import crops
from nic_jax.classifiers.models import build_network
from nic_jax.classifiers.prediction import predict
from nic_jax.classifiers.trained import Trained, TrainSettings, initial_variables

FIELDS = {'widths': (6,), 'strides': (2,), 'dense': 4}


def _trained(task='classification', classes=3, **kwargs):
    settings = TrainSettings(crop=9, versions=(0, 1), **kwargs)
    network = build_network('cnn', FIELDS, outputs=classes, crop=9)
    return Trained(
        model='cnn',
        fields=FIELDS,
        settings=settings,
        task=task,
        classes=classes,
        code_size=3,
        seed=0,
        offset=100.0 if task == 'regression' else 0.0,
        scale=10.0 if task == 'regression' else 1.0,
        variables=initial_variables(network, jax.random.key(0), crop=9, code_size=3),
        best_epoch=0,
        history=[],
        identity={},
    )


def _by_hand(trained, grid, versions, count):
    corners = crops.spread_crops(grid.encoded, size=9, count=count)
    codes = np.stack([grid.crop(*corner, 9, v) for corner in corners for v in versions])
    outputs = jax.jit(trained.network.apply)(trained.variables, codes)
    if trained.task == 'classification':
        outputs = jax.nn.softmax(outputs)
    return np.asarray(outputs, np.float64).mean(0) * trained.scale + trained.offset


@pytest.mark.parametrize('batch', [1, 7, 64])
@pytest.mark.parametrize('task', ['classification', 'regression', 'survival'])
def test_the_mean_over_crops_and_versions(task, batch):
    trained = _trained(task, 3 if task == 'classification' else 1)
    rng = np.random.default_rng(0)
    encoded = np.zeros((20, 30), bool)
    encoded[4:16, 3:28] = True
    grids = [
        *random_grids(2),
        ArrayGrid('wide', rng.normal(size=(20, 30, 3)), encoded),
        *random_grids(1, size=6),
    ]
    got = predict(trained, grids, versions=(0, 6, 3), crops=4, batch=batch)
    expected = [_by_hand(trained, grid, (0, 6, 3), 4) for grid in grids]
    np.testing.assert_allclose(got, expected, rtol=1e-5)
    if task == 'classification':
        np.testing.assert_allclose(got.sum(1), 1, rtol=1e-6)


def test_versions_and_crops_are_those_of_the_training_unless_said():
    trained = _trained(test_crops=2)
    grids = random_grids(1, size=25)
    predict(trained, grids)
    assert grids[0].crops_read >= 2 * 2
    np.testing.assert_array_equal(
        predict(trained, grids), predict(trained, grids, versions=(0, 1), crops=2)
    )


def test_grids_of_another_encoder_are_refused():
    with pytest.raises(ValueError, match='slide_1: codes of 4 features'):
        predict(_trained(), random_grids(1) + random_grids(2, code_size=4)[1:])


_ON_DEVICES = """
import dataclasses, pathlib, sys
import jax
jax.config.update('jax_num_cpu_devices', int(sys.argv[2]))
import numpy as np
from array_grid import random_grids
from nic_jax.classifiers.batches import Examples
from nic_jax.classifiers.prediction import predict
from nic_jax.classifiers.trained import TrainSettings
from nic_jax.classifiers.training import train

# So small a rate that Adam does not blow rounding up; so small a momentum that the batch
# statistics show in the predictions.
settings = TrainSettings(crop=9, batch=8, epochs=1, learning_rate=1e-5)
fields = {'widths': (6,), 'strides': (2,), 'dense': 0, 'momentum': 0.5}

def examples(count, **kwargs):
    grids = random_grids(count, **kwargs)
    return Examples(grids, np.arange(count) % 2, [grid.slide_id for grid in grids])

def run(settings):
    return train(
        train=examples(16), valid=examples(6, prefix='v', seed=1), task='classification',
        classes=2, model='cnn', fields=fields, seed=0, folder=folder, settings=settings)

folder = pathlib.Path(sys.argv[1])
if len(jax.devices()) > 1:
    try:
        run(dataclasses.replace(settings, batch=6))
    except ValueError as error:
        assert 'not a multiple of the 4 devices' in str(error), error
    else:
        raise AssertionError
trained = run(settings)
predicted = predict(trained, random_grids(5), batch=8)
np.save(folder / 'results.npy', [trained.history[0]['loss'], *predicted.ravel()])
"""


def test_several_devices_give_what_one_gives(tmp_path):
    results = []
    for count in (1, 4):
        folder = tmp_path / str(count)
        folder.mkdir()
        subprocess.run(
            [sys.executable, '-c', _ON_DEVICES, str(folder), str(count)],
            check=True,
            env={'PYTHONPATH': ':'.join(['tests', '.']), 'JAX_PLATFORMS': 'cpu', 'PATH': ''},
        )
        results.append(np.load(folder / 'results.npy'))
    np.testing.assert_allclose(*results, rtol=2e-5)
