"""Small slides on disk for tests: tiled TIFF pyramids that OpenSlide opens.

Plain functions; every one returns the path it wrote.
"""

import pathlib
from collections.abc import Collection, Iterator

import numpy as np
import tifffile

# What tifffile calls OpenSlide's two flavours of Aperio JPEG 2000 (compression 33003 and 33005).
APERIO_JP2K_YCBCR = 'aperio_jp2000_ycbc'
APERIO_JP2K_RGB = 'aperio_jp2000_rgb'


def tissue_image(height: int, width: int, *, seed: int = 0, margin: int = 0) -> np.ndarray:
    """A smooth purple-and-pink texture, uint8 [height, width, 3]; `margin` px of white around."""
    generator = np.random.default_rng(seed)
    coarse = generator.normal(size=(height // 8 + 2, width // 8 + 2))
    texture = np.kron(coarse, np.ones((8, 8)))[:height, :width, None]
    noise = generator.normal(size=(height, width, 1))
    image = np.array([170.0, 90.0, 160.0]) + texture * [25.0, 35.0, 15.0] + noise * 6
    image = np.clip(np.round(image), 0, 255).astype(np.uint8)
    if margin:
        inside = np.zeros((height, width), bool)
        inside[margin : height - margin, margin : width - margin] = True
        image[~inside] = 255
    return image


def halve(image: np.ndarray, *, factor: int = 2) -> np.ndarray:
    """The means of whole blocks of factor x factor px; a remainder at the far edges is dropped."""
    height, width = image.shape[0] // factor, image.shape[1] // factor
    blocks = image[: height * factor, : width * factor].reshape(height, factor, width, factor, 3)
    return np.round(blocks.mean(axis=(1, 3))).astype(np.uint8)


def write_pyramid(
    path: pathlib.Path,
    image: np.ndarray,
    *,
    tile: int = 64,
    levels: int = 3,
    factor: int = 2,
    mpp: float | tuple[float, float] | None = 0.5,
    compression: str | None = 'jpeg',
    absent: Collection[tuple[int, int, int]] = (),
    description: str | None = None,
    bigtiff: bool = False,
) -> pathlib.Path:
    """Writes a tiled pyramidal TIFF that OpenSlide opens as vendor 'generic-tiff'.

    Args:
        path: the file to write.
        image: level 0, uint8 [H, W, 3].
        tile: edge of the tiles, a multiple of 16.
        levels: how many levels; each is the one before, averaged over factor x factor px.
        factor: the ratio between neighbouring levels.
        mpp: µm/px of level 0 (or of x and of y), None to store none.
        compression: tifffile's name: 'jpeg' (YCbCr 4:2:0, quality 90), 'zlib', 'lzw', None, ...
        absent: tiles to leave out as (level, row, column): no bytes are stored for them.
        description: ImageDescription of the first page.
        bigtiff: write 64-bit offsets.
    """
    options = {}
    if compression == 'jpeg':
        options = {'subsampling': (2, 2), 'compressionargs': {'level': 90}}
    if mpp is not None:
        x, y = mpp if isinstance(mpp, tuple) else (mpp, mpp)
        options |= {'resolution': (1e4 / x, 1e4 / y), 'resolutionunit': 'CENTIMETER'}
    with tifffile.TiffWriter(path, bigtiff=bigtiff) as writer:
        for level in range(levels):
            left_out = {(row, column) for at, row, column in absent if at == level}
            writer.write(
                _tiles(image, tile, left_out),
                shape=image.shape,
                dtype=np.uint8,
                tile=(tile, tile),
                compression=compression,
                photometric='rgb',  # what is given; tifffile turns it into YCbCr for JPEG
                subfiletype=1 if level else 0,
                description=description if level == 0 else None,
                metadata=None,
                **options,
            )
            image = halve(image, factor=factor)
    return path


def write_aperio_jp2k(
    path: pathlib.Path,
    image: np.ndarray,
    *,
    mpp: float = 0.5,
    tile: int = 64,
    levels: int = 1,
    factor: int = 4,
    compression: str = APERIO_JP2K_RGB,
    absent: Collection[tuple[int, int, int]] = (),
) -> pathlib.Path:
    """Writes an Aperio SVS (OpenSlide's vendor 'aperio') of JPEG 2000 or other tiles.

    Args as for `write_pyramid`; lossless unless `compression` is another than JPEG 2000.
    """
    height, width, _ = image.shape
    description = (
        f'Aperio Image Library v12.0.0\r\n{width}x{height} [0,0 {width}x{height}] ({tile}x{tile})'
        f' J2K/KDU Q=70|AppMag = 20|MPP = {mpp}'
    )
    return write_pyramid(
        path,
        image,
        tile=tile,
        levels=levels,
        factor=factor,
        mpp=None,
        compression=compression,
        absent=absent,
        description=description,
    )


def write_leica(
    path: pathlib.Path,
    image: np.ndarray,
    *,
    offset: tuple[int, int],
    canvas: tuple[int, int],
    mpp: float = 0.5,
    tile: int = 64,
) -> pathlib.Path:
    """Writes a Leica SCN of two levels, whose scanned part does not begin at (0, 0).

    Args:
        path: the file to write.
        image: the scanned part, uint8 [H, W, 3] with even H and W.
        offset: (x, y) of the scanned part, in level-0 px: OpenSlide's bounds.
        canvas: (width, height) of level 0.
        mpp: µm/px of level 0.
        tile: edge of the tiles.
    """
    height, width, _ = image.shape

    def nanometres(name: str, pair: tuple[int, int]) -> str:
        return f'{name}X="{round(pair[0] * mpp * 1000)}" {name}Y="{round(pair[1] * mpp * 1000)}"'

    levels = ''.join(
        f'<dimension sizeX="{width >> level}" sizeY="{height >> level}" r="{level}" ifd="{level}"/>'
        for level in range(2)
    )
    description = (
        '<?xml version="1.0"?><scn xmlns="http://www.leica-microsystems.com/scn/2010/10/01">'
        f'<collection name="collection" {nanometres("size", canvas)}><image name="image">'
        '<creationDate>2020-01-01T00:00:00</creationDate><device model="none" version="1"/>'
        f'<pixels sizeX="{width}" sizeY="{height}">{levels}</pixels>'
        f'<view {nanometres("size", (width, height))} {nanometres("offset", offset)}/>'
        '<scanSettings><objectiveSettings><objective>20</objective></objectiveSettings>'
        '<illuminationSettings><numericalAperture>0.4</numericalAperture>'
        '<illuminationSource>brightfield</illuminationSource></illuminationSettings>'
        '</scanSettings></image></collection></scn>'
    )
    return write_pyramid(
        path, image, tile=tile, levels=2, mpp=mpp, description=description, bigtiff=True
    )


def write_philips(
    path: pathlib.Path, image: np.ndarray, *, mpp: float = 0.5, tile: int = 64, levels: int = 3
) -> pathlib.Path:
    """Writes a Philips TIFF, which pads every page to whole tiles and tells so in its XML.

    `image` is level 0, uint8 [H, W, 3], H and W multiples of the tile.
    """
    spacings = ''.join(
        '<DataObject ObjectType="PixelDataRepresentation"><Attribute Name="DICOM_PIXEL_SPACING">'
        f'&quot;{mpp / 1000 * 2**level:.9f}&quot; &quot;{mpp / 1000 * 2**level:.9f}&quot;'
        '</Attribute></DataObject>'
        for level in range(levels)
    )
    description = (
        '<?xml version="1.0" encoding="UTF-8" ?><DataObject ObjectType="DPUfsImport">'
        '<Attribute Name="PIM_DP_SCANNED_IMAGES"><Array><DataObject ObjectType="DPScannedImage">'
        '<Attribute Name="PIM_DP_IMAGE_TYPE">WSI</Attribute>'
        '<Attribute Name="PIIM_PIXEL_DATA_REPRESENTATION_SEQUENCE">'
        f'<Array>{spacings}</Array></Attribute></DataObject></Array></Attribute></DataObject>'
    )
    with tifffile.TiffWriter(path) as writer:
        for level in range(levels):
            down, across = (-(-side // tile) * tile for side in image.shape[:2])
            padding = ((0, down - image.shape[0]), (0, across - image.shape[1]), (0, 0))
            writer.write(
                np.pad(image, padding, mode='edge'),
                tile=(tile, tile),
                compression='jpeg',
                photometric='rgb',
                subsampling=(2, 2),
                subfiletype=1 if level else 0,
                software='Philips DP v1.0',
                description=f'level={level}' if level else description,
                metadata=None,
            )
            image = halve(image)
    return path


def corrupt_tile(path: pathlib.Path, *, page: int = 0, tile: int = 0) -> pathlib.Path:
    """Overwrites the stored bytes of one tile of a TIFF (in place) with nonsense."""
    with tifffile.TiffFile(path) as tiff:
        offset = tiff.pages[page].dataoffsets[tile]
        count = tiff.pages[page].databytecounts[tile]
    with open(path, 'r+b') as file:
        file.seek(offset)
        file.write(b'\x5a' * count)
    return path


def _tiles(
    image: np.ndarray, tile: int, left_out: Collection[tuple[int, int]]
) -> Iterator[np.ndarray | None]:
    """The tiles of an image in row-major order, padded by their edges; None where left out."""
    for top in range(0, image.shape[0], tile):
        for left in range(0, image.shape[1], tile):
            if (top // tile, left // tile) in left_out:
                yield None
                continue
            part = image[top : top + tile, left : left + tile]
            padding = ((0, tile - part.shape[0]), (0, tile - part.shape[1]), (0, 0))
            yield np.pad(part, padding, mode='edge')
