"""A map as an image of the slide's own size: a pyramidal, tiled OME-TIFF that viewers lay over it.

A pixel shows the cell that its centre is in, on every level; levels end where a pixel would be
larger than a cell. Tiles are made, compressed and written one after another, and blank ones, as
most of a slide's are, are compressed once: memory does not grow with the slide.
"""

import contextlib
import pathlib
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import tifffile

from nic_jax import prefetch
from nic_jax.explanation.georeference import cell_edges
from nic_jax.workdir import replacing

TILE = 512  # px
_DEFLATE = 6  # level: half the size of level 1 for twice its time


def write_heat_map(
    path: pathlib.Path,
    saliency: np.ndarray,
    *,
    attributes: Mapping[str, Any],
    method: str,
    workers: int | None = None,
) -> None:
    """Writes what speaks for the target as greys: 255 the map's maximum, 0 nothing.

    The OME-XML tells µm/px, the method, and the saliency that greys stand for.

    Args:
        path: The file, *.ome.tiff.
        saliency: Float `[H, W]`, NaN where no cell is encoded: 0 in the image.
        attributes: Of the grid.
        method: Of the map.
        workers: Threads that compress; None for one a core.
    """
    positive = np.where(saliency > 0, saliency, 0).astype(np.float64)
    highest = float(positive.max(initial=0))
    greys = np.rint(255 / (highest or 1) * positive).astype(np.uint8)
    size = tuple(reversed(attributes['level0_dimensions']))  # rows, columns
    scales = _scales(size, attributes)
    mpp = attributes['mpp_level0']
    options, metadata = {}, _told(attributes['slide_id'], method, highest)
    if mpp is not None:
        options = {'resolution': (1e4 / mpp, 1e4 / mpp), 'resolutionunit': 'CENTIMETER'}
        metadata |= {f'PhysicalSize{axis}{unit}': value for axis in 'XY'
                     for unit, value in (('', mpp), ('Unit', 'µm'))}  # fmt: skip
    workers = workers or prefetch.default_workers()
    with (
        replacing(path) as partial,
        tifffile.TiffWriter(partial, bigtiff=True, ome=True) as writer,
    ):
        for level, scale in enumerate(scales):
            shape = tuple(max(1, length // scale) for length in size)
            if level:
                options = {'subfiletype': 1}
            with contextlib.closing(_tiles(greys, shape, scale, attributes, workers)) as tiles:
                writer.write(
                    tiles,
                    shape=shape,
                    dtype=np.uint8,
                    tile=(TILE, TILE),
                    compression='zlib',
                    photometric='minisblack',
                    subifds=0 if level else len(scales) - 1,
                    metadata=None if level else metadata,
                    **options,
                )


def _told(slide_id: str, method: str, highest: float) -> dict[str, Any]:
    """What the OME-XML says beside the pixels' size."""
    described = (
        f'{method} of {slide_id}: saliency = grey / 255 * {highest!r}; '
        'grey 0: nothing for the target, or no cell encoded'
    )
    values = {'method': method, 'minimum': '0', 'maximum': repr(highest)}
    return {
        'axes': 'YX',
        'Name': f'{method} of {slide_id}',
        'Description': described,
        'Channel': {'Name': [method]},
        'MapAnnotation': {'Namespace': 'nic_jax/saliency', **values},
    }


def _scales(size: tuple[int, int], attributes: Mapping[str, Any]) -> list[int]:
    """Level-0 pixels along a pixel of each level."""
    scales = [1]
    while max(size) // scales[-1] > TILE and 2 * scales[-1] <= min(attributes['stride_level0']):
        scales.append(2 * scales[-1])
    return scales


def _tiles(
    greys: np.ndarray,
    shape: tuple[int, int],
    scale: int,
    attributes: Mapping[str, Any],
    workers: int,
) -> Iterator[bytes]:
    """The compressed tiles of a level, row by row."""
    first_x, first_y = (edges[0] for edges in cell_edges(greys.shape, attributes, clip=False))
    stride_x, stride_y = attributes['stride_level0']
    greys = np.pad(greys, 1)  # what is outside the grid is a cell of nothing
    rows = _cells(shape[0], scale, first_y, stride_y, greys.shape[0])
    columns = _cells(shape[1], scale, first_x, stride_x, greys.shape[1])
    blank = zlib.compress(bytes(TILE * TILE), _DEFLATE)

    def tile(corner: tuple[int, int]) -> bytes:
        row, column = (cells[start : start + TILE] for cells, start in
                       zip((rows, columns), corner, strict=True))  # fmt: skip
        part = greys[row[0] : row[-1] + 1, column[0] : column[-1] + 1]
        if not part.any():
            return blank
        return zlib.compress(part[:, column - column[0]][row - row[0]], _DEFLATE)

    corners = ((y, x) for y in range(0, len(rows), TILE) for x in range(0, len(columns), TILE))
    return prefetch.map_ahead(tile, corners, workers=workers, ahead=8 * workers)


def _cells(pixels: int, scale: int, first: float, stride: float, count: int) -> np.ndarray:
    """The padded row or column of cells that each pixel's centre is in, to the end of a tile."""
    centres = (np.arange(pixels) + 0.5) * scale
    cells = np.clip(np.floor((centres - first) / stride).astype(np.int64) + 1, 0, count - 1)
    return np.pad(cells, (0, -pixels % TILE), constant_values=count - 1)
