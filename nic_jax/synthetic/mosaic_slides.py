"""Writing a mosaic's slide: a pyramidal TIFF, and beside it its tissue mask and its annotation."""

import json
import pathlib
from collections.abc import Iterator

import imagecodecs
import numpy as np
import PIL.Image
import tifffile

from nic_jax import workdir
from nic_jax.synthetic.mosaic_layout import MosaicLayout, MosaicStudy
from nic_jax.synthetic.mosaic_outlines import lesion_features

_TILE = 256  # px of the TIFF's tiles
_QUALITY = 90
_REDUCTION = 4  # from level to level
_SMALLEST = 512  # px; levels end with the first whose side is shorter
_WHITE = 255
_TUMOUR = 'tumour'  # class of the annotations


def paint(study: MosaicStudy, tissue: np.ndarray, tiles: np.ndarray) -> np.ndarray:
    """A slide's level 0: tiles side by side on white, cut so that it begins inside the first.

    Args:
        study: The settings.
        tissue: bool `[cells, cells]`.
        tiles: Of the tissue's cells, row by row, uint8 `[n, pitch, pitch, 3]`.

    Returns:
        uint8 `[side, side, 3]`. Patches of `patch_size` px at a stride of `pitch` from (0, 0) on
        are the central parts of the tiles.
    """
    full = study.cells * study.pitch
    canvas = np.full((full, full, 3), _WHITE, np.uint8)
    cells = canvas.reshape(study.cells, study.pitch, study.cells, study.pitch, 3)
    cells.swapaxes(1, 2)[tissue] = tiles  # [rows, columns, pitch, pitch, 3]
    return canvas[study.border : full - study.border, study.border : full - study.border]


def cell_edges(study: MosaicStudy) -> np.ndarray:
    """Where cells begin and end along either axis, level-0 px, int `[cells + 1]`."""
    edges = np.arange(study.cells + 1) * study.pitch - study.border
    return np.clip(edges, 0, study.side)


def files_of(folder: pathlib.Path, layout: MosaicLayout) -> dict[str, pathlib.Path]:
    """The files of a slide by the column of the table that names them."""
    stem = folder / 'slides' / layout.slide_id
    files = {'path': stem.with_suffix('.tif'), 'mask': stem.with_name(f'{stem.name}_mask.png')}
    if layout.lesion.any():
        files['annotation'] = stem.with_suffix('.geojson')
    return files


def write_slide(
    study: MosaicStudy, layout: MosaicLayout, tiles: np.ndarray, folder: pathlib.Path
) -> None:
    """Writes a slide's files, each whole or not at all; the slide itself is the last.

    Args:
        study: The settings.
        layout: Of the slide.
        tiles: Of the tissue's cells, row by row, uint8 `[n, pitch, pitch, 3]`.
        folder: Of the cohort.
    """
    files = files_of(folder, layout)
    if 'annotation' in files:
        features = lesion_features(layout.lesion, edges=cell_edges(study), name=_TUMOUR)
        workdir.write_atomically(files['annotation'], json.dumps(features))
    with workdir.replacing(files['mask']) as partial:
        PIL.Image.fromarray(layout.tissue * np.uint8(255)).save(partial, 'png')
    with workdir.replacing(files['path']) as partial:
        write_pyramid(partial, paint(study, layout.tissue, tiles), mpp=study.mpp)


def write_pyramid(path: pathlib.Path, image: np.ndarray, *, mpp: float) -> None:
    """Writes a tiled pyramidal TIFF of JPEG in full colour resolution (4:4:4).

    Args:
        path: The file.
        image: Level 0, uint8 `[H, W, 3]`.
        mpp: µm/px of it.
    """
    with tifffile.TiffWriter(path) as writer:
        level = 0
        while True:
            writer.write(
                _encoded(image),
                shape=image.shape,
                dtype=np.uint8,
                tile=(_TILE, _TILE),
                compression='jpeg',
                photometric='ycbcr',
                subsampling=(1, 1),
                subfiletype=1 if level else 0,
                resolution=(1e4 / mpp / _REDUCTION**level,) * 2,
                resolutionunit='CENTIMETER',
                metadata=None,
            )
            if max(image.shape[:2]) < _SMALLEST:
                return
            level += 1
            image = np.asarray(PIL.Image.fromarray(image).reduce(_REDUCTION))


def _encoded(image: np.ndarray) -> Iterator[bytes]:
    """The tiles of an image as JPEG, row by row; one on white, where it reaches over the edge."""
    blank = _jpeg(np.full((_TILE, _TILE, 3), _WHITE, np.uint8))
    for top in range(0, image.shape[0], _TILE):
        for left in range(0, image.shape[1], _TILE):
            part = image[top : top + _TILE, left : left + _TILE]
            if part.min() == _WHITE:
                yield blank
                continue
            tile = np.full((_TILE, _TILE, 3), _WHITE, np.uint8)
            tile[: part.shape[0], : part.shape[1]] = part
            yield _jpeg(tile)


def _jpeg(tile: np.ndarray) -> bytes:
    return imagecodecs.jpeg8_encode(
        tile, level=_QUALITY, colorspace='rgb', outcolorspace='ycbcr', subsampling='444'
    )
