"""A grid in memory, for tests."""

import dataclasses
import hashlib

import numpy as np

from nic_jax.grids import turn


@dataclasses.dataclass
class ArrayGrid:
    slide_id: str
    codes: np.ndarray  # [H, W, C]
    encoded: np.ndarray = None  # [H, W]
    crops_read: int = 0

    def __post_init__(self):
        if self.encoded is None:
            self.encoded = np.ones(self.codes.shape[:2], bool)

    @property
    def fingerprint(self):
        return hashlib.sha256(self.codes.tobytes()).hexdigest()

    @property
    def shape(self):
        return self.codes.shape[:2]

    @property
    def code_size(self):
        return self.codes.shape[2]

    def crop(self, top, left, size, version):
        self.crops_read += 1
        padded = np.pad(self.codes * self.encoded[..., None], ((size,) * 2, (size,) * 2, (0, 0)))
        cut = padded[top + size : top + 2 * size, left + size : left + 2 * size]
        assert cut.shape[:2] == (size, size)
        return turn(cut, version).astype(np.float32)


def random_grids(count, *, size=9, code_size=3, seed=0, prefix='slide'):
    rng = np.random.default_rng(seed)
    codes = rng.normal(size=(count, size, size, code_size)).astype(np.float32)
    return [ArrayGrid(f'{prefix}_{index}', each) for index, each in enumerate(codes)]
