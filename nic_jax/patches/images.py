"""Decoding tiles: bytes of an image file → the pixels of one patch, or why there are none."""

import io
from fractions import Fraction

import numpy as np
from PIL import Image

from nic_jax.slides.resample import area_resample

# Pillow knows others, some of which run programs or cut 16 bits down to 8 without a word.
_FORMATS = ('JPEG', 'PNG', 'TIFF', 'BMP', 'WEBP')
_CONVERTED = frozenset(('L', 'LA', 'P', 'PA', 'RGBA'))
_BITS_PER_SAMPLE = 258  # TIFF's tag


class TileError(ValueError):
    """A tile that cannot become a patch; `kind` is the reason that others share."""

    def __init__(self, kind: str, detail: str = ''):
        super().__init__(f'{kind}: {detail}' if detail else kind)
        self.kind = kind


def decode_tile(data: bytes, *, crop: int, patch_size: int) -> tuple[np.ndarray, str]:
    """Decodes the centre of a tile. Orientation noted in EXIF is a camera's, and ignored.

    Args:
        data: A JPEG, PNG, TIFF, BMP or WebP file's.
        crop: px of the square taken from the tile's centre.
        patch_size: px of the patch, at most `crop`; resampled by area where it is less.

    Returns:
        Pixels, uint8 `[patch_size, patch_size, 3]`, and what they were converted from: '' for RGB.

    Raises:
        TileError: Not an image, cut short, too small, or of a mode that has no plain 8-bit colours.
    """
    try:
        image = Image.open(io.BytesIO(data), formats=_FORMATS)
        mode = _check(image, crop)
        # Its decoder makes grey of what is missing, if there are zeros instead.
        if image.format == 'JPEG' and b'\xff\xd9' not in data[data.rfind(b'\xff\xda') :]:
            raise TileError('corrupt', 'the JPEG has no end')
        left, top = ((length - crop) // 2 for length in image.size)
        image = image.crop((left, top, left + crop, top + crop))  # decodes; cut short is an error
    except (TileError, MemoryError):
        raise
    except Image.UnidentifiedImageError as error:
        raise TileError('no image', f'{len(data)} bytes, none of {", ".join(_FORMATS)}') from error
    except Exception as error:  # Pillow's plugins raise nearly anything on a corrupt file
        raise TileError('corrupt', str(error)) from error
    if mode.endswith(' over white'):
        image, mode = _over_white(image.convert('RGBA'), mode)
    pixels = np.array(image.convert('RGB'))
    if crop != patch_size:
        step = Fraction(crop, patch_size)
        pixels = area_resample(
            pixels,
            start_y=0,
            start_x=0,
            step_y=step,
            step_x=step,
            rows=patch_size,
            columns=patch_size,
        )
    return pixels, mode


def _check(image: Image.Image, crop: int) -> str:
    """Refuses an image by its header; returns what it is to be converted from, '' for RGB."""
    width, height = image.size
    if min(width, height) < crop:
        raise TileError(f'smaller than {crop} px', f'{width}×{height} px')
    # Pillow calls 16-bit colours RGB too, and cuts them down; only the file's own mode tells.
    bits = getattr(image, 'tag_v2', {}).get(_BITS_PER_SAMPLE, (8,))
    deep = max(bits) > 8 or any(';16' in str(tile[3]) for tile in image.tile)
    if image.mode.startswith('I') or (deep and image.mode != 'F'):
        raise TileError('16 bits or more a channel', f'mode {image.mode}')
    if image.mode != 'RGB' and image.mode not in _CONVERTED:
        raise TileError(f'mode {image.mode}', 'neither RGB nor 8-bit grey')
    if image.mode.endswith('A') or 'transparency' in image.info:
        return f'{image.mode} over white'
    return '' if image.mode == 'RGB' else image.mode


def _over_white(image: Image.Image, mode: str) -> tuple[Image.Image, str]:
    """Lays RGBA over white; the mode says so only where something shines through."""
    if image.getextrema()[3][0] == 255:
        mode = mode.removesuffix(' over white')
        return image, '' if mode == 'RGB' else mode
    white = Image.new('RGBA', image.size, 'white')
    return Image.alpha_composite(white, image), mode
