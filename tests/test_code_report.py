"""Pictures and tables of codes: confusion matrices, maps, curves."""

import csv

import matplotlib.image
import numpy as np
import pytest
from sklearn.metrics import confusion_matrix

from nic_jax.report import training_curve
from nic_jax.report.codes import code_map, confusions

CLASSES = ('fat', 'stroma', 'tumour')


def colours(path):
    """How many colours a picture has: a blank one has one."""
    picture = matplotlib.image.imread(path)
    assert min(picture.shape[:2]) > 100
    return len(np.unique(picture.reshape(-1, picture.shape[-1]), axis=0))


def predictions(count, seed, *, classes=CLASSES):
    rng = np.random.default_rng(seed)
    labels, guesses = rng.choice(classes, (2, count))
    right = rng.random(count) < 0.6
    return [
        {'label': str(label), 'prediction': str(label if hit else guess)}
        for label, guess, hit in zip(labels, guesses, right, strict=True)
    ]


def test_the_table_of_confusions_is_scikit_learn_s(tmp_path):
    # The last class has no test tile, though some are taken for it.
    rows = {'vae': predictions(80, 0), 'bigan': predictions(50, 1, classes=CLASSES[:2])}
    rows['bigan'][0]['prediction'] = 'tumour'
    picture, table = confusions(rows, CLASSES, tmp_path, task='tissue')
    assert (picture.name, table.name) == ('confusion_tissue.png', 'confusion_tissue.csv')
    with table.open(newline='') as file:
        found = list(csv.DictReader(file))
    assert [(row['encoder'], row['label']) for row in found] == [
        (name, label) for name in rows for label in CLASSES
    ]
    for name, each in rows.items():
        labels, guesses = ([row[key] for row in each] for key in ('label', 'prediction'))
        expected = confusion_matrix(labels, guesses, labels=CLASSES)
        own = [row for row in found if row['encoder'] == name]
        got = [[int(row[f'as_{column}']) for column in CLASSES] for row in own]
        np.testing.assert_array_equal(got, expected)
        recall = np.diagonal(expected) / np.maximum(1, expected.sum(1))
        np.testing.assert_allclose([float(row['recall']) for row in own], recall, atol=5.1e-5)
    assert found[-1]['recall'] == '0.0000'
    assert colours(picture) > 50


def test_more_encoders_than_fit_a_line(tmp_path):
    rows = {f'encoder {number}': predictions(20, number) for number in range(4)}
    picture, _ = confusions(rows, CLASSES, tmp_path, task='many')
    height, width = matplotlib.image.imread(picture).shape[:2]
    assert width / 3 < 1.5 * height / 2  # two lines of three
    assert colours(picture) > 50


@pytest.mark.parametrize('count', [5, 60])
def test_a_map_of_codes(count, tmp_path):
    rng = np.random.default_rng(0)
    labels = np.arange(count) % 2  # none of the third class
    codes = {
        'vae': rng.normal(size=(count, 40)).astype(np.float32),
        'mean_rgb': rng.normal(size=(count, 3)).astype(np.float32),
    }
    code_map(codes, labels, CLASSES, tmp_path / 'map.png', seed=0)
    assert colours(tmp_path / 'map.png') > 50
    code_map(codes, labels, CLASSES, tmp_path / 'again.png', seed=0)
    assert (tmp_path / 'map.png').read_bytes() == (tmp_path / 'again.png').read_bytes()


@pytest.mark.parametrize(('watched', 'rate'), [('loss', 1e-3), ('accuracy', 1e-3), ('loss', 0.0)])
@pytest.mark.parametrize('count', [1, 4])
def test_a_curve_of_training(watched, rate, count, tmp_path):
    history = [
        {
            'step': 10 * (number + 1),
            'loss': 1 / (number + 1),
            'valid_loss': 2 / (number + 1),
            'valid_accuracy': number / 4,
            # A cosine ends at zero, which has no logarithm.
            'learning_rate': rate if number == count - 1 else 1e-3,
        }
        for number in range(count)
    ]
    path = tmp_path / 'curve.png'
    training_curve.draw(history, path, title='vae', watched=watched)
    assert colours(path) > 20
