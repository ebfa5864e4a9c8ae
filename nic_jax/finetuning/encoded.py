"""Slides as an encoder that is being trained sees them: grids in memory."""

import collections
import contextlib
import dataclasses
import hashlib
from collections.abc import Callable

import numpy as np
from jax import Array

from nic_jax.classifiers.batches import Draw
from nic_jax.finetuning.pixels import Pixels
from nic_jax.grids import turn
from nic_jax.grids.reading import overlap
from nic_jax.prefetch import map_ahead

_WORKERS = 2  # threads that read: encoding takes longer than decoding
Encode = Callable[[np.ndarray], Array]  # uint8 [B, P, P, channels] -> [B, C]


@dataclasses.dataclass(frozen=True, eq=False)
class EncodedGrid:
    """A grid of new codes, as `GridLike`.

    Attributes:
        slide_id: The slide's name.
        encoded: Cells that hold a code, bool `[H, W]`.
        codes: By version, `[H, W, C]`, in the slide's own orientation; where there is one alone,
            versions turn the layout.
    """

    slide_id: str
    encoded: np.ndarray
    codes: np.ndarray  # [versions, H, W, C]

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of cells."""
        return self.encoded.shape

    @property
    def code_size(self) -> int:
        """C."""
        return self.codes.shape[-1]

    @property
    def fingerprint(self) -> str:
        """A hash of the codes."""
        return hashlib.sha256(self.codes.tobytes()).hexdigest()

    def crop(self, top: int, left: int, size: int, version: int) -> np.ndarray:
        """float32 `[size, size, C]`, zeros outside, turned by `version`."""
        rows, into_rows = overlap(top, size, self.shape[0])
        columns, into_columns = overlap(left, size, self.shape[1])
        square = np.zeros((size, size, self.code_size), np.float32)
        layer = self.codes[version if len(self.codes) > 1 else 0]
        square[into_rows, into_columns] = layer[rows, columns]
        return turn(square, version)


def encode_slide(pixels: Pixels, encode: Encode, *, versions: int, chunk: int) -> EncodedGrid:
    """Encodes a slide's cells in its versions.

    Args:
        pixels: Of the slide.
        encode: The encoder; it is always given `chunk` patches.
        versions: 8, or 1 where versions turn the layout alone.
        chunk: B.
    """
    count, side = int(pixels.encoded.sum()), max(pixels.encoded.shape)
    patches = pixels.crop(Draw(0, 0, 0, version=0), size=side)
    rows, columns = np.divmod(patches.cells, side)

    def read(start: int) -> np.ndarray:
        part = patches.read(start, min(start + chunk, count))
        return np.concatenate([part, np.repeat(part[-1:], chunk - len(part), axis=0)])

    codes, running = None, collections.deque()

    def keep(start: int, found: list[Array]) -> None:
        nonlocal codes
        if codes is None:
            codes = np.zeros((versions, *pixels.encoded.shape, found[0].shape[-1]), np.float32)
        here = slice(start, min(start + chunk, count))
        for version, each in enumerate(found):
            codes[version, rows[here], columns[here]] = np.asarray(each)[: here.stop - start]

    starts = range(0, count, chunk)
    parts = map_ahead(read, starts, workers=_WORKERS, ahead=_WORKERS + 1)
    with contextlib.closing(parts):
        for start, part in zip(starts, parts, strict=True):
            turned = (turn(part, version, axes=(1, 2)) for version in range(versions))
            running.append((start, [encode(np.ascontiguousarray(each)) for each in turned]))
            if len(running) > 1:  # one chunk waits behind the running one
                keep(*running.popleft())
    keep(*running.popleft())
    return EncodedGrid(pixels.slide_id, pixels.encoded, codes)
