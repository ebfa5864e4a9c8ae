import math

import numpy as np
import pytest
from made_up_localisation import localisation as made_up
from sklearn.metrics import average_precision_score

from nic_jax.evaluation import post_processing
from nic_jax.evaluation.localisation import (
    COLUMNS,
    LocalisationError,
    average_precision,
    jaccard,
    pointing,
    read_rows,
    score_slide,
    write_rows,
)
from nic_jax.evaluation.post_processing import PostProcessing
from nic_jax.synthetic import digits, rectangles

NAN = np.nan
NOTHING = np.zeros((4, 5), bool)


def cells(*chosen, shape=(4, 5)):
    mask = np.zeros(shape, bool)
    mask[tuple(np.array(chosen).T)] = True
    return mask


def test_jaccard_of_known_cells():
    mask = cells((0, 0), (0, 1), (1, 0))
    assert jaccard(cells((0, 0), (0, 1), (3, 3)), mask) == 2 / 4
    assert jaccard(mask, mask) == 1
    assert jaccard(NOTHING, mask) == 0
    assert math.isnan(jaccard(mask, NOTHING))
    assert math.isnan(jaccard(NOTHING, NOTHING))


def test_the_maximum_points():
    saliency = np.full((4, 5), -1.0)
    saliency[1, 1], saliency[2, 4] = 3, 2
    saliency[0, 0] = NAN
    assert pointing(saliency, cells((1, 1))) == 1
    assert pointing(saliency, cells((2, 4), (0, 0))) == 0
    assert math.isnan(pointing(saliency, NOTHING))
    # One cell beside it over the corner, which is √2 away.
    assert pointing(saliency, cells((2, 2)), tolerance=1) == 0
    assert pointing(saliency, cells((2, 2)), tolerance=1.5) == 1
    # Of two maxima both have to be right.
    saliency[2, 4] = 3
    assert pointing(saliency, cells((1, 1))) == 0
    assert pointing(saliency, cells((1, 1), (2, 4))) == 1


@pytest.mark.parametrize('value', [NAN, 0, -2])
def test_without_evidence_nothing_is_pointed_at(value):
    assert pointing(np.full((4, 5), value), cells((1, 1))) == 0
    assert pointing(np.full((4, 5), value), ~NOTHING) == 0


def test_average_precision_is_of_encoded_cells():
    rng = np.random.default_rng(0)
    mask = rng.random((20, 30)) < 0.1
    saliency = (rng.normal(size=mask.shape) + mask).round(1)  # with ties, and negative ones
    saliency[:, :9] = NAN
    encoded = ~np.isnan(saliency)
    found = average_precision(saliency, mask)
    assert found == average_precision_score(mask[encoded], saliency[encoded])
    # As it is defined: precision at each threshold, by how much the recall rises.
    expected, before = 0, 0
    for threshold in np.unique(saliency[encoded])[::-1]:
        chosen = encoded & (saliency >= threshold)
        recall = (chosen & mask).sum() / (encoded & mask).sum()
        expected += (chosen & mask).sum() / chosen.sum() * (recall - before)
        before = recall
    assert found == pytest.approx(expected)
    assert math.isnan(average_precision(saliency, mask & ~encoded))


def test_a_row_of_a_synthetic_image():
    study = rectangles.RectangleStudy(size=360, fill=0.012, lesion_min=90, lesion_max=180)
    known = digits.load_digits('sklearn', subset='test')
    image = rectangles.draw(study, known, seed=0, index=3)
    rng = np.random.default_rng(0)
    saliency = (image.mask + 0.3 * rng.normal(size=image.mask.shape)).astype(np.float32)
    rows = np.flatnonzero(image.mask.any(1))
    saliency[rows[len(rows) // 2] :] = NAN  # half of it, and perhaps of the other one
    names = {
        'slide_id': 'test/000003',
        'case_id': 'test/000003',
        'label_name': 'digit',
        'model': 'cnn',
        'seed': 0,
        'fold': 0,
        'subset': 'test',
        'method': 'grad_cam',
        'target': str(image.label),
    }
    settings = PostProcessing(1, 0.4, 1)
    row = score_slide(saliency, image.mask, settings=settings, second=image.other_mask, **names)
    assert tuple(row) == tuple(COLUMNS)
    assert {name: row[name] for name in names} == names
    encoded = ~np.isnan(saliency)
    predicted = post_processing.apply(saliency, settings)
    assert row['lesion_area'] == (image.mask & encoded).sum() < image.mask.sum()
    assert row['jaccard'] == jaccard(predicted, image.mask & encoded) > 0.6
    either = (image.mask | image.other_mask) & encoded
    assert row['jaccard_both'] == (predicted & either).sum() / (predicted | either).sum()
    assert row['average_precision'] > 0.7
    assert row['pointing'] == 1

    empty = score_slide(saliency, image.mask & ~encoded, settings=settings, **names)
    assert (empty['lesion_area'], empty['jaccard_both']) == (0, '')
    assert all(math.isnan(empty[name]) for name in ('jaccard', 'average_precision', 'pointing'))


def rows_of_a_file():
    rows = [{name: row[name] for name in COLUMNS} for row in made_up(slides=5)]
    rows[1]['fold'] = ''
    return rows


def test_rows_are_read_as_they_were_written(tmp_path):
    rows, path = rows_of_a_file(), tmp_path / 'localisation.csv'
    write_rows(path, rows)
    assert read_rows(path) == rows
    rows[2]['jaccard'] = NAN
    write_rows(path, rows)
    assert read_rows(path) == [*rows[:2], {**rows[2], 'jaccard': ''}, *rows[3:]]


@pytest.mark.parametrize(
    ('old', 'new', 'what'),
    [
        (',case 1,', ',case 1', 'line 4: not as many fields'),
        (',cnn,0,2,', ',cnn,zero,2,', "line 4: seed is 'zero', must be a number"),
        (',pointing\n', ',pointed\n', 'no columns pointing'),
    ],
)
def test_what_is_wrong_with_a_file_is_told(tmp_path, old, new, what):
    path = tmp_path / 'localisation.csv'
    write_rows(path, rows_of_a_file())
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(LocalisationError, match=what) as error:
        read_rows(path)
    assert str(path) in str(error.value)


def test_figures_that_are_not_finite_are_refused(tmp_path):
    path = tmp_path / 'localisation.csv'
    rows = rows_of_a_file()
    rows[0]['jaccard'] = math.inf
    write_rows(path, rows)
    with pytest.raises(LocalisationError, match='line 2: jaccard is inf, must be finite'):
        read_rows(path)
