"""Where the digits of the synthetic images come from.

Two sources give training and test digits that share no writer's stroke: scikit-learn's small set,
which needs no download, and MNIST, from its idx files or through OpenML.
"""

import dataclasses
import functools
import gzip
import hashlib
import math
import pathlib
import struct
import zlib
from typing import Literal

import numpy as np

Subset = Literal['train', 'test']

# Grey levels above which a pixel is white. MNIST's is that of the paper's authors; of 3 to 9, tried
# on scikit-learn's 0..16, 6 keeps strokes whole and most holes open, and a nearest-neighbour
# classifier of the binary digits does best there (95 %).
MNIST_THRESHOLD = 63
SKLEARN_THRESHOLD = 6
# One row and column in three of MNIST's 28 x 28: digits of 10 x 10 px, a pixel over a cell.
MNIST_STEP = 3
MNIST_TRAIN = 60_000

_IDX_PREFIX = {'train': 'train', 'test': 't10k'}
_IDX_UBYTE = 0x08


@dataclasses.dataclass(frozen=True, eq=False)
class DigitSet:
    """Binary digits and their classes.

    Attributes:
        images: uint8 of 0 and 1, [N, h, w]; no image is blank.
        labels: int, [N].
    """

    images: np.ndarray
    labels: np.ndarray

    def __post_init__(self):
        if self.images.ndim != 3 or self.labels.shape != self.images.shape[:1]:
            raise ValueError(
                f'{self.images.shape=} and {self.labels.shape=} must be [N, h, w] and [N]'
            )
        if self.images.dtype != np.uint8 or self.images.max(initial=0) > 1:
            raise ValueError(f'digits must be uint8 of 0 and 1, got {self.images.dtype}')
        blank = np.flatnonzero(~self.images.any(axis=(1, 2)))
        if len(blank):
            raise ValueError(f'digit {blank[0]} of {len(self.images)} is blank; leave it out')

    @functools.cached_property
    def _by_class(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Digits sorted by class, and where each class starts in that order and how many it has."""
        counts = np.bincount(self.labels)
        return np.argsort(self.labels, kind='stable'), np.cumsum(counts) - counts, counts

    def fingerprint(self) -> str:
        """A hash of images and labels."""
        digest = hashlib.sha256(np.ascontiguousarray(self.images).tobytes())
        digest.update(self.labels.astype(np.int64).tobytes())
        return digest.hexdigest()

    def pick(self, classes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """The index of a random digit of each class asked for, int [n] -> int [n].

        Raises:
            ValueError: a class of which there is no digit.
        """
        order, first, counts = self._by_class
        present = np.isin(classes, np.flatnonzero(counts))
        if not present.all():
            raise ValueError(f'no digit of class {classes[~present][0]} in the set')
        return order[first[classes] + (rng.random(len(classes)) * counts[classes]).astype(int)]


def load_digits(source: str | pathlib.Path, *, subset: Subset) -> DigitSet:
    """The digits of one subset.

    Digits that vanish in binarising and thinning (15 of MNIST's 60,000 training and 3 of its 10,000
    test digits, all thin ones) are left out: what cannot be seen has no class.

    Args:
        source: 'sklearn' (8x8 digits padded to 9x9 px; 70 % train, 30 % test, always the same);
            'openml' (MNIST, kept by scikit-learn in its data folder; 10x10 px); or a folder that
            holds MNIST's idx files, gzipped or not (10x10 px).
        subset: 'train' or 'test'; they have no digit in common.

    Raises:
        ValueError: an unknown subset, or an idx file that is damaged or not what its name says.
        FileNotFoundError: no such folder, or an idx file is missing from it.
    """
    if subset not in _IDX_PREFIX:
        raise ValueError(f"{subset=} must be 'train' or 'test'")
    if source == 'sklearn':
        return _sklearn_digits(subset)
    if source == 'openml':
        return _mnist(*_openml_arrays(subset))
    return _mnist(*_idx_arrays(pathlib.Path(source), subset))


def _sklearn_digits(subset: Subset) -> DigitSet:
    from sklearn import datasets, model_selection

    bunch = datasets.load_digits()
    train, test = model_selection.train_test_split(
        np.arange(len(bunch.target)), test_size=0.3, stratify=bunch.target, random_state=0
    )
    chosen = np.sort(train if subset == 'train' else test)
    binary = (bunch.images[chosen] > SKLEARN_THRESHOLD).astype(np.uint8)
    return _visible(np.pad(binary, ((0, 0), (0, 1), (0, 1))), bunch.target[chosen])


def _mnist(images: np.ndarray, labels: np.ndarray) -> DigitSet:
    # [N, 28, 28] -> [N, 10, 10]
    thin = images[:, ::MNIST_STEP, ::MNIST_STEP] > MNIST_THRESHOLD
    return _visible(thin.astype(np.uint8), labels.astype(np.int64))


def _visible(images: np.ndarray, labels: np.ndarray) -> DigitSet:
    seen = images.any(axis=(1, 2))
    return DigitSet(images[seen], labels[seen])


def _openml_arrays(subset: Subset) -> tuple[np.ndarray, np.ndarray]:
    from sklearn import datasets

    # This parser needs no pandas.
    bunch = datasets.fetch_openml('mnist_784', version=1, as_frame=False, parser='liac-arff')
    part = slice(None, MNIST_TRAIN) if subset == 'train' else slice(MNIST_TRAIN, None)
    return bunch.data[part].reshape(-1, 28, 28), bunch.target[part].astype(np.int64)


def _idx_arrays(folder: pathlib.Path, subset: Subset) -> tuple[np.ndarray, np.ndarray]:
    if not folder.is_dir():
        raise FileNotFoundError(
            f"no folder {folder}; digits come from 'sklearn', 'openml' or a folder of MNIST's files"
        )
    prefix = _IDX_PREFIX[subset]
    images_path = _find_idx(folder, f'{prefix}-images', dimensions=3)
    labels_path = _find_idx(folder, f'{prefix}-labels', dimensions=1)
    images = _read_idx(images_path, dimensions=3)
    labels = _read_idx(labels_path, dimensions=1)
    if len(images) != len(labels):
        raise ValueError(
            f'{images_path} has {len(images)} digits, {labels_path} {len(labels)} labels; '
            'take both from one download'
        )
    return images, labels


def _find_idx(folder: pathlib.Path, stem: str, *, dimensions: int) -> pathlib.Path:
    names = [f'{stem}-idx{dimensions}-ubyte', f'{stem}.idx{dimensions}-ubyte']
    names += [f'{name}.gz' for name in names]
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise FileNotFoundError(f'{folder} lacks {names[0]} (or {", ".join(names[1:])})')


def _read_idx(path: pathlib.Path, *, dimensions: int) -> np.ndarray:
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == '.gz' else path.read_bytes()
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f'{path} is not a whole gzip file ({error}); fetch it again') from error
    header = 4 * (1 + dimensions)
    if len(data) < header:
        raise ValueError(f'{path} has {len(data)} bytes, its header alone {header}; fetch it again')
    magic, *shape = struct.unpack_from(f'>{1 + dimensions}I', data)
    expected = _IDX_UBYTE << 8 | dimensions
    if magic != expected:
        raise ValueError(
            f'{path} starts with {magic:#010x}, an idx file of bytes with {expected:#010x}'
        )
    size = math.prod(shape)
    if len(data) - header != size:
        raise ValueError(
            f'{path} holds {len(data) - header} bytes, its header says {shape}; fetch it again'
        )
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape)
