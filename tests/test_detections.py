import numpy as np
import pytest
from skimage.morphology import local_maxima

from nic_jax.evaluation.detections import (
    COLUMNS,
    MOST,
    detect,
    detection_rows,
    number_lesions,
    read_rows,
    write_rows,
)
from nic_jax.evaluation.post_processing import smooth

KNOWN = {'slide_id': 'a, b', 'case_id': 'a', 'method': 'grad_cam', 'subset': 'test'}


def drawn(text):
    return np.array([[0 if c == '.' else int(c) for c in line.strip()] for line in text.split()])


MAP = drawn("""
    55566...7
    55566....
    ........4
    ..333....
    ..333...1
    ..333....
""").astype(float)
LESIONS = drawn("""
    ....1....
    .........
    .........
    ..222....
    ..2222222
    ..222....
""")


def test_maxima_of_known_plateaus():
    cells, heights = detect(MAP, sigma=0)
    # The terrace of fives is no maximum; the middle stands for the threes.
    assert cells.tolist()[0] == [0, 8]
    assert cells.tolist()[1] in [[y, x] for y in (0, 1) for x in (3, 4)]
    assert cells.tolist()[2:] == [[2, 8], [4, 3], [4, 8]]
    np.testing.assert_allclose(heights, np.array([7, 6, 4, 3, 1]) / 7)


def test_maxima_are_those_of_scikit_image():
    rng = np.random.default_rng(0)
    for _ in range(20):
        saliency = rng.integers(-2, 5, (12, 15)).astype(float)
        saliency[rng.random(saliency.shape) < 0.2] = np.nan
        values = smooth(saliency, sigma=0)
        expected = number_lesions(local_maxima(values, connectivity=2) & (values > 0))
        cells, heights = detect(saliency, sigma=0)
        assert sorted(expected[tuple(cells.T)]) == list(range(1, expected.max() + 1))
        np.testing.assert_allclose(heights * values.max(), values[tuple(cells.T)])
        assert (np.diff(heights) <= 0).all()


def test_the_strongest_are_kept_and_smoothing_leaves_fewer():
    rng = np.random.default_rng(0)
    saliency = rng.normal(size=(90, 90))
    cells, heights = detect(saliency, sigma=0)
    values = smooth(saliency, sigma=0)
    peaks = np.sort(values[local_maxima(values, connectivity=2) & (values > 0)])[::-1]
    assert len(peaks) > MOST == len(cells)
    np.testing.assert_allclose(heights, peaks[:MOST] / peaks[0])
    assert 0 < len(detect(saliency, sigma=4)[0]) < MOST


def test_rows_say_what_was_hit_and_how_likely():
    rows = detection_rows(MAP, LESIONS, sigma=0, probability=0.5, **KNOWN)
    assert [tuple(row) for row in rows] == [tuple(COLUMNS)] * 5
    assert [row['score'] for row in rows] == pytest.approx([0.5, 3 / 7, 2 / 7, 1.5 / 7, 0.5 / 7])
    assert [row['lesion'] for row in rows[2:]] == ['', 2, 2]
    assert all(row['lesions'] == 2 for row in rows)
    assert {name: rows[0][name] for name in KNOWN} == KNOWN
    scaled = detection_rows(MAP * 1e-9, LESIONS, sigma=0, probability=0.5, **KNOWN)
    assert [row['score'] for row in scaled] == pytest.approx([row['score'] for row in rows])


@pytest.mark.parametrize('value', [0, -1, np.nan])
def test_a_slide_without_detections_is_told_of(value):
    (row,) = detection_rows(np.full(MAP.shape, value), LESIONS, sigma=1, probability=0.9, **KNOWN)
    assert row == {**KNOWN, 'score': '', 'lesion': '', 'lesions': 2}


def test_what_is_no_probability_is_refused():
    with pytest.raises(ValueError, match=r"'a, b'.*probability=1.5 must be from 0 to 1"):
        detection_rows(MAP, LESIONS, sigma=0, probability=1.5, **KNOWN)


def test_lesions_touch_at_corners():
    mask = np.array([[1, 0, 0, 1], [0, 1, 0, 0], [0, 0, 0, 1]], bool)
    np.testing.assert_array_equal(
        number_lesions(mask), np.array([[1, 0, 0, 2], [0, 1, 0, 0], [0, 0, 0, 3]])
    )


def test_rows_are_read_as_they_were_written(tmp_path):
    rows = detection_rows(MAP, LESIONS, sigma=0, probability=0.3, **KNOWN)
    rows += detection_rows(-MAP, LESIONS, sigma=0, probability=0.3, **KNOWN)
    write_rows(tmp_path / 'detections.csv', rows)
    assert read_rows(tmp_path / 'detections.csv') == rows
