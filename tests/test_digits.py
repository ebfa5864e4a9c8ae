import gzip
import struct
import types

import numpy as np
import pytest

from nic_jax.synthetic.digits import DigitSet, load_digits


def _write_idx(path, array):
    header = struct.pack(f'>{1 + array.ndim}I', 0x0800 | array.ndim, *array.shape)
    data = header + array.tobytes()
    path.write_bytes(gzip.compress(data) if path.suffix == '.gz' else data)


@pytest.fixture
def raw():
    rng = np.random.default_rng(0)
    images = rng.integers(64, 256, (6, 28, 28), dtype=np.uint8)
    images[1] = 63  # at the threshold: black, so left out
    return images, np.array([3, 1, 4, 1, 5, 9], np.uint8)


def test_sklearn_digits_are_binary_padded_and_split_without_overlap():
    from sklearn import datasets

    train, test = (load_digits('sklearn', subset=subset) for subset in ('train', 'test'))
    assert train.images.shape == (1257, 9, 9)
    assert test.images.shape == (540, 9, 9)
    assert not train.images[:, 8].any()
    assert not train.images[:, :, 8].any()
    assert train.images.dtype == np.uint8
    everything = datasets.load_digits()
    together = np.concatenate([train.images, test.images])[:, :8, :8].reshape(-1, 64)
    # The two subsets together are the whole set, each digit once.
    expected = (everything.images > 6).reshape(-1, 64)
    assert sorted(map(bytes, together)) == sorted(map(bytes, expected.astype(np.uint8)))
    shares = np.bincount(train.labels) / np.bincount(everything.target)
    np.testing.assert_allclose(shares, 0.7, atol=0.01)
    again = load_digits('sklearn', subset='train')
    np.testing.assert_array_equal(again.images, train.images)


def test_mnist_files(shared):
    test = load_digits(shared / 'data' / 'mnist', subset='test')
    assert test.images.shape == (10_000 - 3, 10, 10)
    with gzip.open(shared / 'data' / 'mnist' / 't10k-images-idx3-ubyte.gz') as file:
        pixels = file.read()[16:]
    for row, column in ((0, 0), (5, 4), (9, 9)):  # the first digit, pixel by pixel
        assert test.images[0, row, column] == (pixels[row * 3 * 28 + column * 3] > 63)
    assert test.labels[:5].tolist() == [7, 2, 1, 0, 4]
    train = load_digits(shared / 'data' / 'mnist', subset='train')
    assert train.images.shape == (60_000 - 15, 10, 10)
    assert train.labels[:5].tolist() == [5, 0, 4, 1, 9]


@pytest.mark.parametrize('dot', ['-', '.'])
@pytest.mark.parametrize('end', ['', '.gz'])
def test_every_spelling_of_idx_files(tmp_path, raw, dot, end):
    images, labels = raw
    _write_idx(tmp_path / f'train-images{dot}idx3-ubyte{end}', images)
    _write_idx(tmp_path / f'train-labels{dot}idx1-ubyte{end}', labels)
    digits = load_digits(tmp_path, subset='train')
    assert digits.labels.tolist() == [3, 4, 1, 5, 9]
    assert digits.images.shape == (5, 10, 10)
    with pytest.raises(FileNotFoundError, match='t10k-images-idx3-ubyte'):
        load_digits(tmp_path, subset='test')


def test_damaged_idx_files_are_told(tmp_path, raw):
    images, labels = raw
    images_path, labels_path = (
        tmp_path / 't10k-images-idx3-ubyte',
        tmp_path / 't10k-labels.idx1-ubyte',
    )
    _write_idx(labels_path, labels)
    with pytest.raises(FileNotFoundError, match='t10k-images'):
        load_digits(tmp_path, subset='test')
    _write_idx(images_path, images)
    whole = images_path.read_bytes()
    for data, message in (
        (whole[:-1], r'4703 bytes, its header says \[6, 28, 28\]'),
        (whole[:10], 'its header alone 16'),
        (b'\0\0\x0d\x03' + whole[4:], '0x00000d03'),
    ):
        images_path.write_bytes(data)
        with pytest.raises(ValueError, match=message):
            load_digits(tmp_path, subset='test')
    _write_idx(images_path, images[:5])
    with pytest.raises(ValueError, match='5 digits'):
        load_digits(tmp_path, subset='test')
    images_path.unlink()
    (tmp_path / 't10k-images-idx3-ubyte.gz').write_bytes(gzip.compress(whole)[:-20])
    with pytest.raises(ValueError, match='not a whole gzip file'):
        load_digits(tmp_path, subset='test')


def test_openml_rows_are_divided_at_60000(monkeypatch, raw):
    from sklearn import datasets

    from nic_jax.synthetic import digits as module

    images, labels = raw

    def fetch(name, *, version, as_frame, parser):
        assert (name, version, as_frame, parser) == ('mnist_784', 1, False, 'liac-arff')
        return types.SimpleNamespace(
            data=images.reshape(6, 784).astype(float), target=labels.astype(str).astype(object)
        )

    monkeypatch.setattr(datasets, 'fetch_openml', fetch)
    monkeypatch.setattr(module, 'MNIST_TRAIN', 4)
    assert load_digits('openml', subset='train').labels.tolist() == [3, 4, 1]
    assert load_digits('openml', subset='test').labels.tolist() == [5, 9]


def test_unknown_sources_and_subsets():
    with pytest.raises(FileNotFoundError, match='nowhere'):
        load_digits('nowhere', subset='train')
    with pytest.raises(ValueError, match='subset'):
        load_digits('sklearn', subset='valid')


def test_digit_sets_are_checked():
    images = np.ones((2, 3, 3), np.uint8)
    with pytest.raises(ValueError, match='shape'):
        DigitSet(images, np.zeros(3, int))
    with pytest.raises(ValueError, match='0 and 1'):
        DigitSet(images * 2, np.zeros(2, int))
    with pytest.raises(ValueError, match='digit 0 of 2 is blank'):
        DigitSet(images * np.array([0, 1], np.uint8)[:, None, None], np.zeros(2, int))


def test_pick_takes_every_digit_of_the_class_and_no_other():
    digits = DigitSet(np.ones((7, 2, 2), np.uint8), np.array([2, 0, 2, 5, 0, 2, 2]))
    rng = np.random.default_rng(0)
    chosen = digits.pick(np.repeat([0, 2, 5], 200), rng).reshape(3, 200)
    assert [set(row) for row in chosen.tolist()] == [{1, 4}, {0, 2, 5, 6}, {3}]
    for missing in (1, 6):
        with pytest.raises(ValueError, match=f'class {missing}'):
            digits.pick(np.array([0, missing]), rng)
