import dataclasses
import pathlib
import types

import numpy as np
import pytest

from nic_jax.synthetic import patches, rectangles
from nic_jax.synthetic.digits import DigitSet, load_digits

STUDY = rectangles.RectangleStudy(size=360, lesion_min=36, lesion_max=180)


@pytest.fixture(scope='module')
def digits():
    return load_digits('sklearn', subset='train')


def test_cell_patches_are_cells_of_the_images_with_their_labels(digits):
    found = patches.cell_patches(STUDY, digits, [3, 8, 5], seed=2, count=20)
    assert found.patches.shape == found.neighbours.shape == (20, 9, 9)
    assert found.patches.dtype == np.uint8
    assert found.images.tolist() == [0] * 7 + [1] * 7 + [2] * 6
    start = 0
    for index, share in zip([3, 8, 5], [7, 7, 6], strict=True):
        image = rectangles.draw(STUDY, digits, seed=2, index=index)
        known = {
            (image.pixels[r * 9 : r * 9 + 9, c * 9 : c * 9 + 9].tobytes(), int(image.classes[r, c]))
            for r in range(40)
            for c in range(40)
        }
        for patch, label in zip(
            found.patches[start : start + share], found.labels[start : start + share], strict=True
        ):
            assert (patch.tobytes(), int(label)) in known
        start += share


def test_neighbours_lie_beside_their_cells_in_the_image(monkeypatch):
    # Every cell shows its own place: its row and column, and the image's number.
    study = rectangles.RectangleStudy(size=45, cell=9, fill=0.002, lesion_min=9, lesion_max=18)
    rows = study.cells

    def generate(study, digits, *, seed, indices, workers):
        for index in indices:
            numbers = 1 + index * rows**2 + np.arange(rows**2, dtype=np.uint8).reshape(rows, rows)
            yield types.SimpleNamespace(
                pixels=np.kron(numbers, np.ones((9, 9), np.uint8)),
                classes=np.zeros((rows, rows), np.int8),
            )

    monkeypatch.setattr(patches.rectangles, 'generate', generate)
    found = patches.cell_patches(study, None, range(3), seed=0, count=9000)
    cells, beside = (each[:, 0, 0].astype(int) - 1 for each in (found.patches, found.neighbours))
    np.testing.assert_array_equal(cells // rows**2, found.images)
    np.testing.assert_array_equal(beside // rows**2, found.images)
    (y, x), (b, a) = (np.divmod(each % rows**2, rows) for each in (cells, beside))
    step = np.stack([b - y, a - x], axis=1)
    assert np.abs(step).max(axis=1).tolist() == [1] * 9000  # inside, and never the cell itself
    assert len(np.unique(cells)) == 3 * rows**2
    inner = ((y % (rows - 1)) > 0) & ((x % (rows - 1)) > 0)
    _, counts = np.unique(step[inner], axis=0, return_counts=True)
    assert len(counts) == 8
    expected = inner.sum() / 8
    assert np.abs(counts - expected).max() < 5 * np.sqrt(expected)  # each as likely


def test_a_patch_with_a_white_pixel_is_drawn_twice_as_often(digits):
    image = rectangles.draw(STUDY, digits, seed=0, index=0)
    share = rectangles.cells(image.pixels, 9).any(axis=(2, 3)).mean()
    found = patches.cell_patches(STUDY, digits, [0], seed=0, count=20_000)
    drawn = found.patches.any(axis=(1, 2)).mean()
    odds = drawn / (1 - drawn) / (share / (1 - share))
    assert odds == pytest.approx(2, rel=0.06)


def test_cell_patches_repeat_whatever_the_workers(digits):
    first = patches.cell_patches(STUDY, digits, range(5), seed=1, count=50)
    again = patches.cell_patches(STUDY, digits, range(5), seed=1, count=50, workers=2)
    for field in dataclasses.fields(patches.Cells):
        np.testing.assert_array_equal(getattr(first, field.name), getattr(again, field.name))
    other = patches.cell_patches(STUDY, digits, range(5), seed=2, count=50)
    assert (other.patches != first.patches).any()
    with pytest.raises(ValueError, match='at least one index'):
        patches.cell_patches(STUDY, digits, [], seed=1, count=50)


def test_digit_patches_are_shifted_digits():
    rng = np.random.default_rng(0)
    digits = DigitSet(rng.integers(0, 2, (5, 10, 10), dtype=np.uint8), np.array([0, 1, 1, 4, 4]))
    found, labels = patches.digit_patches(digits, seed=1, count=600)
    assert found.shape == (600, 9, 9)
    assert set(labels.tolist()) == {0, 1, 4}
    shifts = set()
    for patch, label in zip(found, labels, strict=True):
        matches = []
        for digit in np.flatnonzero(digits.labels == label):
            for down in range(-4, 5):
                for right in range(-4, 5):
                    expected = np.zeros((9, 9), np.uint8)
                    for row in range(max(0, down), min(9, 10 + down)):
                        for column in range(max(0, right), min(9, 10 + right)):
                            expected[row, column] = digits.images[digit, row - down, column - right]
                    if (expected == patch).all():
                        matches.append((down, right))
        assert matches
        shifts.update(matches[:1])
    assert len(shifts) == 81  # every shift on both axes


def test_digit_patches_are_balanced_and_repeat(digits):
    first, labels = patches.digit_patches(digits, seed=3, count=5000)
    again, _ = patches.digit_patches(digits, seed=3, count=5000)
    np.testing.assert_array_equal(first, again)
    assert np.bincount(labels).min() > 400
    centred, labels = patches.digit_patches(digits, seed=3, count=50, jitter=0)
    for patch, label in zip(centred, labels, strict=True):
        of_class = digits.images[digits.labels == label]
        assert (of_class == patch).all(axis=(1, 2)).any()


def test_digits_smaller_than_the_cell_are_framed():
    digits = DigitSet(np.ones((1, 3, 3), np.uint8), np.array([0]))
    found, _ = patches.digit_patches(digits, seed=0, count=100, jitter=2)
    assert found.shape == (100, 9, 9)
    assert found.any(axis=(1, 2)).all()


def _cells(count, images):
    blank = np.zeros((count, 9, 9), np.uint8)
    return patches.Cells(blank, blank, np.zeros(count, np.int8), np.arange(count) * images // count)


def test_pairs_of_cells_have_the_paper_s_shares():
    drawn = _cells(800, 10)
    pairs = patches.cell_pairs(drawn, 'train', seed=0)
    assert pairs.shape == (800, 3)
    assert pairs.dtype == np.int32
    one, other, label = pairs.T
    same, beside = one == other, other == one + 800
    apart = ~same & ~beside
    assert (same.sum(), beside.sum(), apart.sum()) == (400, 300, 100)
    np.testing.assert_array_equal(same, label == 1)
    # Every cell is in one pair of the first two kinds at most, and they are not in order.
    assert len(set(one[~apart].tolist())) == 700
    assert 0 < same[:400].sum() < 400
    assert one.max() < 800
    assert other[apart].max() < 800
    assert (drawn.images[one[apart]] != drawn.images[other[apart]]).all()

    np.testing.assert_array_equal(pairs, patches.cell_pairs(drawn, 'train', seed=0))
    for subset, seed in (('valid', 0), ('train', 1)):
        assert (pairs != patches.cell_pairs(drawn, subset, seed=seed)).any()


def test_pairs_of_one_image_are_refused():
    with pytest.raises(ValueError, match='no pairs of different slides'):
        patches.cell_pairs(_cells(80, 1), 'valid', seed=0)


def _save(folder: pathlib.Path, **arrays):
    for name, values in arrays.items():
        np.save(folder / f'{name}.npy', values)


def _numbered(first, count):
    numbers = np.arange(first, first + count, dtype=np.uint8)
    return np.broadcast_to(numbers[:, None, None, None], (count, 9, 9, 1))


def test_pairs_point_at_cells_and_neighbours_of_their_own_subset(tmp_path):
    counts = {'train': 24, 'valid': 8}
    first = {'cells_train': 0, 'cells_valid': 50, 'neighbours_train': 100, 'neighbours_valid': 150}
    for name, start in first.items():
        _save(tmp_path, **{name: _numbered(start, counts[name.split('_')[1]])})
    for subset, count in counts.items():
        pairs = patches.cell_pairs(_cells(count, 4), subset, seed=0)
        _save(tmp_path, **{f'pairs_{subset}': pairs})

    source = patches.source_of(tmp_path, 'cells', 10)
    assert source.labels is None
    assert source.pixels.shape == (64, 9, 9, 1)
    for subset, count in counts.items():
        start, beside = first[f'cells_{subset}'], first[f'neighbours_{subset}']
        members = getattr(source, subset)
        assert source.pixels[members][:, 0, 0, 0].tolist() == list(range(start, start + count))
        one, other = source.pixels[source.pairs[subset][:, :2]][..., 0, 0, 0].astype(int).T
        assert set(one.tolist()) <= set(range(start, start + count))
        is_cell = (start <= other) & (other < start + count)
        assert is_cell.sum() == count - round(0.375 * count)
        # What is no cell is the neighbour of the very cell.
        np.testing.assert_array_equal(other[~is_cell] - beside, one[~is_cell] - start)
        np.testing.assert_array_equal(one == other, source.pairs[subset][:, 2] == 1)


def test_digits_come_with_labels(tmp_path):
    _save(
        tmp_path,
        digits_train=_numbered(0, 6),
        digits_valid=_numbered(6, 3),
        labels_train=np.arange(6, dtype=np.int32),
        labels_valid=np.arange(3, dtype=np.int32),
    )
    source = patches.source_of(tmp_path, 'digits', 7)
    assert source.pairs is None
    assert source.classes == ('0', '1', '2', '3', '4', '5', '6')
    assert source.labels.tolist() == [0, 1, 2, 3, 4, 5, 0, 1, 2]
    assert source.train.tolist() == [0, 1, 2, 3, 4, 5]
    assert source.pixels[source.valid][:, 0, 0, 0].tolist() == [6, 7, 8]
