"""Synthetic images × encoder → one stack of grids, generated as they are encoded, never stored."""

import dataclasses
import pathlib

import jax
import numpy as np

import nic_jax
from nic_jax import progress
from nic_jax.compression.encode import batch_encoder
from nic_jax.encoders.encoder import Encoder
from nic_jax.grids import schema, stack, writing
from nic_jax.synthetic import rectangles
from nic_jax.synthetic.digits import DigitSet

_BATCH = 4096  # cells, at least


def compress_images(
    encoder: Encoder,
    study: rectangles.RectangleStudy,
    digits: DigitSet,
    *,
    indices: range,
    seed: int,
    path: pathlib.Path,
    workers: int,
    overwrite: bool = False,
) -> int:
    """Encodes a range of images into a stack, patch by patch at the study's stride.

    Patches without a white pixel, more than half of them, share one code, which is encoded once.

    Args:
        encoder: Of patches of one channel.
        study: What the images are like.
        digits: What they are made of.
        indices: Of the images.
        seed: Of the images.
        path: The stack's zarr group.
        workers: Threads that draw images.
        overwrite: Replace a stack that was made with other settings.

    Returns:
        How many images were encoded; 0 where the stack was complete.
    """
    encoder.check_input(study.cell, channels=1)
    shape = (study.grid_cells, study.grid_cells)
    writer = stack.open_stack_writer(
        path,
        attributes=attributes(encoder, study, digits, indices, seed, path),
        images=len(indices),
        shape=shape,
        code_size=encoder.code_size,
        overwrite=overwrite,
    )
    if writer is None:
        return 0
    encode = batch_encoder(encoder, versions=1)
    batch = -(-_BATCH // jax.local_device_count()) * jax.local_device_count()
    blank = np.zeros((batch, study.cell, study.cell, 1), np.uint8)
    blank_code = np.asarray(encode(blank))[0, 0]
    count = sum(last - first for first, last in writer.missing)
    with progress.bar(f'{path.parent.parent.name} {path.stem}', total=count, unit='images') as tell:
        for first, last in writer.missing:
            images = rectangles.generate(
                study, digits, seed=seed, indices=indices[first:last], workers=workers
            )
            codes = np.empty((last - first, *shape, encoder.code_size), np.float16)
            codes[:] = writing.to_float16(blank_code, f'{path}, empty cells')
            masks, labels, patches, places = [], [], [], []
            for number, image in enumerate(images):
                cells = rectangles.cells(image.pixels, study.cell, study.step)
                rows, columns = np.nonzero(cells.any(axis=(2, 3)))
                patches.append(cells[rows, columns])
                places.append(np.stack([np.full(len(rows), number), rows, columns]))
                masks.append(image.grid_mask)
                labels.append(image.label)
                tell(1)
            codes[tuple(np.concatenate(places, axis=1))] = writing.to_float16(
                _encode_all(encode, np.concatenate(patches), batch),
                f'{path}, images {first} to {last}',
            )
            writer.write(
                (first, last), codes=codes, label=np.array(labels, np.int32), mask=np.stack(masks)
            )
    writer.finish()
    return count


def _encode_all(encode, patches: np.ndarray, size: int) -> np.ndarray:
    """Codes float32 `[N, C]` of uint8 `[N, P, P]` patches of 0 and 1, in batches of one shape."""
    codes = []
    for start in range(0, len(patches), size):
        part = patches[start : start + size]
        batch = np.zeros((size, *part.shape[1:], 1), np.uint8)
        batch[: len(part), ..., 0] = part * 255
        codes.append((encode(batch), len(part)))  # not awaited: the next is gathered meanwhile
    return np.concatenate([np.asarray(batch)[0, :length] for batch, length in codes])


def attributes(
    encoder: Encoder,
    study: rectangles.RectangleStudy,
    digits: DigitSet,
    indices: range,
    seed: int,
    path: pathlib.Path,
) -> dict:
    """What a stack of these images says of itself, `complete` aside."""
    # Told only where it is not the cell's, the rule before there was a stride.
    told = dataclasses.asdict(study) | {'stride': study.step}
    if study.step == study.cell:
        del told['stride']
    return {
        'schema_version': schema.SCHEMA_VERSION,
        'name': path.stem,
        'study': told,
        'digits': digits.fingerprint(),
        'indices': [indices.start, indices.stop],
        'seed': seed,
        'encoder': {
            'name': encoder.name,
            'sha256': encoder.sha256(),
            'code_size': encoder.code_size,
        },
        'created_with': f'nic_jax {nic_jax.__version__}',
    }
