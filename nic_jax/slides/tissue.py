"""Where the tissue is: by colour, or by a mask of the user's."""

import os
import pathlib

import numpy as np
import PIL.Image
import scipy.ndimage
import tifffile

SMALLEST_MASK = 512  # px; of a pyramid, the smallest level with a side this long is read


def tissue_mask(
    image: np.ndarray,
    *,
    mpp: float,
    smoothing_um: float = 16.0,
    threshold_range: tuple[float, float] = (12.0, 20.0),
    darkest: float = 50.0,
    minimum_area_um2: float = 50_000.0,
    largest_hole_um2: float = 100_000.0,
) -> np.ndarray:
    """Finds stained tissue in an overview of a slide.

    Stains of histopathology absorb green more than red or blue; glass, scanner background, dust,
    edges, black ink and green ink do not. So tissue is where max(red, blue) - green, smoothed,
    exceeds a threshold: Otsu's, kept within a range because Otsu's alone would cut a picture
    without background, or without tissue, in two. The difference is absolute: HSV's saturation
    is large in near-black pixels too.

    Args:
        image: uint8 [h, w, 3].
        mpp: µm/px of the image.
        smoothing_um: standard deviation of the Gaussian, which also fills narrow gaps.
        threshold_range: the least and the greatest threshold, in grey levels. JPEG's noise of
            colour on glass stays below 6, and the tint of glass below 10; faintly stained stroma
            lies around 20.
        darkest: pixels whose brightest channel is below this are ink or shadow, not tissue.
        minimum_area_um2: smaller pieces are dropped...
        largest_hole_um2: ...and smaller holes filled; both at most 2 % of the image's area, so
            that they mean something in very small images.

    Returns:
        bool [h, w].

    Raises:
        ValueError: if mpp is not above zero or the image is not uint8 [h, w, 3].
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f'image is {image.dtype} {image.shape}; expected uint8 [h, w, 3]')
    if not mpp > 0:
        raise ValueError(f'{mpp=} of the image must be > 0 µm/px')
    brightest_stained = np.maximum(image[..., 0], image[..., 2])
    staining = np.clip(brightest_stained.astype(np.float32) - image[..., 1], 0, None)
    staining[brightest_stained < darkest] = 0
    staining = scipy.ndimage.gaussian_filter(staining, smoothing_um / mpp)  # [h, w]
    mask = staining > np.clip(otsu_threshold(staining), *threshold_range)
    at_most = 0.02 * mask.size
    mask = _drop_small(mask, min(minimum_area_um2 / mpp**2, at_most))
    return _fill_small_holes(mask, min(largest_hole_um2 / mpp**2, at_most))


def otsu_threshold(values: np.ndarray) -> float:
    """The threshold that parts values in [0, 256) with the least variance within both parts.

    On a histogram of 256 bins; of equally good ones, the middle of the first and last.
    (N. Otsu, IEEE Transactions on Systems, Man, and Cybernetics 9, 1979.)
    """
    counts, edges = np.histogram(values, bins=256, range=(0, 256))
    centres = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)[:-1]
    above = values.size - below
    sums = np.cumsum(counts * centres)
    mean_below = sums[:-1] / np.maximum(below, 1)
    mean_above = (sums[-1] - sums[:-1]) / np.maximum(above, 1)
    between = below * above * (mean_below - mean_above) ** 2.0
    return float(edges[1:-1][between >= between.max() * (1 - 1e-12)].mean())


def read_mask(path: str | os.PathLike, *, dimensions: tuple[int, int]) -> np.ndarray:
    """Reads a user's tissue mask: an image of the whole of level 0, at any scale.

    Args:
        path: a PNG or another common image, or a (pyramidal) TIFF, of which the smallest level
            with a side of 512 px or more is read. Nonzero (in any channel but alpha) is tissue.
        dimensions: (width, height) of the slide's level 0.

    Returns:
        bool [h, w].

    Raises:
        ValueError: if the file cannot be read, or if its aspect ratio differs from the slide's by
            more than 2 % (and by more than the rounding of its sides explains).
    """
    path = pathlib.Path(path)
    if not path.exists():
        raise ValueError(f'{path}: no such mask')
    try:
        if path.suffix.lower() in ('.tif', '.tiff'):
            image = _read_tiff(path)
        else:
            with PIL.Image.open(path) as opened:
                image = np.asarray(_without_palette(opened))
    except Exception as error:  # every codec raises its own class
        raise ValueError(f'{path}: cannot be read as a mask (PNG or TIFF): {error}') from error
    if image.ndim not in (2, 3):
        raise ValueError(f'{path}: a mask must be [h, w] or [h, w, channels], got {image.shape}')
    if image.ndim == 3:
        image = image[..., : 3 if image.shape[2] >= 3 else 1].any(axis=2)
    check_mask_aspect(path, image.shape, dimensions=dimensions)
    return image != 0


def check_mask_aspect(
    path: str | os.PathLike, shape: tuple[int, int], *, dimensions: tuple[int, int]
) -> None:
    """Raises ValueError if a mask [h, w] cannot be of the whole slide.

    Args:
        path: the mask's file, for the message.
        shape: (height, width) of the mask.
        dimensions: (width, height) of the slide's level 0.
    """
    height, width = shape
    stretch = (width / dimensions[0]) / (height / dimensions[1])
    rounding = 1 / min(width, height)  # a side may have been rounded by up to a pixel
    if not 1 / (1.02 + rounding) <= stretch <= 1.02 + rounding:
        raise ValueError(
            f'{path}: the mask has {width}x{height} px and the slide {dimensions[0]}x'
            f'{dimensions[1]}: their aspect ratios differ by {abs(stretch - 1):.0%}, more than '
            '2 %; the mask must cover the whole of level 0'
        )


def _drop_small(mask: np.ndarray, area: float) -> np.ndarray:
    """The mask without the pieces (joined by sides or corners) of less than `area` px."""
    pieces, count = scipy.ndimage.label(mask, structure=np.ones((3, 3)))
    kept = np.bincount(pieces.ravel(), minlength=count + 1) >= area
    kept[0] = False
    return kept[pieces]


def _fill_small_holes(mask: np.ndarray, area: float) -> np.ndarray:
    """The mask with holes of less than `area` px filled; what touches the border is no hole."""
    holes, count = scipy.ndimage.label(~mask)
    filled = np.bincount(holes.ravel(), minlength=count + 1) < area
    for border in (holes[0], holes[-1], holes[:, 0], holes[:, -1]):
        filled[border] = False
    filled[0] = False
    return mask | filled[holes]


def _read_tiff(path: pathlib.Path) -> np.ndarray:
    """The smallest level of 512 px or more of a TIFF, [h, w] or [h, w, channels]."""
    with tifffile.TiffFile(path) as tiff:
        series = tiff.series[0]
        # Pyramids are told as levels of a series, or are just pages one after another.
        levels = list(series.levels) if len(series.levels) > 1 else list(tiff.pages)
        large = [level for level in levels if max(level.shape[:2]) >= SMALLEST_MASK]
        level = min(large or levels[:1], key=lambda level: level.shape[0] * level.shape[1])
        return level.asarray()


def _without_palette(image: PIL.Image.Image) -> PIL.Image.Image:
    """Colours for palette images; the others as they are."""
    return image.convert('RGB') if image.mode == 'P' else image
