"""What a map detects, lesion or not, and detections.csv.

A detection is a local maximum of the smooth map. Maps have no common unit: methods differ, and so
do networks. A detection's score is therefore its height as a share of its map's maximum, times the
probability that the slide has a lesion at all: a slide's best detection has the probability itself,
and none of its others has more.

A row is a detection: `slide_id, case_id, method, subset, score, lesion, lesions`. `lesion` is the
number of the one it lies in, '' for a false positive; `lesions` is how many the slide has. A slide
without detections has one row, with score and lesion ''. Each slide has one map a method.
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import ndimage

from nic_jax.evaluation import localisation
from nic_jax.evaluation.post_processing import TOUCHING, smooth

MOST = 100  # of a slide that are kept, many times the false positives that a curve ends with
COLUMNS = {
    **dict.fromkeys(('slide_id', 'case_id', 'method', 'subset'), str),
    'score': float,
    **dict.fromkeys(('lesion', 'lesions'), int),
}


def number_lesions(mask: np.ndarray) -> np.ndarray:
    """Numbers what is connected in a mask, int `[H, W]` from 1; cells touch at corners as well."""
    return ndimage.label(mask, TOUCHING)[0]


def detect(saliency: np.ndarray, *, sigma: float) -> tuple[np.ndarray, np.ndarray]:
    """The strongest local maxima of a map's smooth positive part, at most `MOST`.

    Args:
        saliency: `[H, W]`, NaN where no cell is encoded.
        sigma: Of the Gaussian, in cells; the wider, the fewer.

    Returns:
        Their cells, int `[D, 2]` of y and x, and heights as shares of the highest, float64 `[D]`,
        descending.
    """
    values = smooth(saliency, sigma=sigma)
    cells = _maxima(values)
    heights = values[tuple(cells.T)]
    strongest = np.argsort(-heights, kind='stable')[:MOST]
    return cells[strongest], heights[strongest] / heights.max(initial=0)


def detection_rows(
    saliency: np.ndarray,
    lesions: np.ndarray,
    *,
    sigma: float,
    probability: float,
    **known: Any,
) -> list[dict[str, Any]]:
    """A slide's rows of detections.csv.

    Args:
        saliency: `[H, W]`, NaN where no cell is encoded; of what speaks for a lesion, whatever was
            foretold of the slide.
        lesions: Numbers from 1 of lesions' cells, 0 elsewhere, int `[H, W]`; see `number_lesions`.
        sigma: Of the Gaussian, in cells.
        probability: That the slide has one, as was foretold.
        known: The rows' other columns.
    """
    if not 0 <= probability <= 1:
        raise ValueError(f'{known}: {probability=} must be from 0 to 1')
    cells, heights = detect(saliency, sigma=sigma)
    found = [
        {'score': float(probability * height), 'lesion': int(lesion) or ''}
        for lesion, height in zip(lesions[tuple(cells.T)], heights, strict=True)
    ]
    known |= {'lesions': np.unique(lesions[lesions > 0]).size}
    return [
        {name: (known | each)[name] for name in COLUMNS}
        for each in found or [{'score': '', 'lesion': ''}]
    ]


def read_rows(path: pathlib.Path) -> list[dict[str, Any]]:
    """Reads and checks detections.csv, see `localisation.read_rows`."""
    return localisation.read_rows(path, columns=COLUMNS)


def write_rows(path: pathlib.Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes detections.csv, see `localisation.write_rows`."""
    localisation.write_rows(path, rows, columns=COLUMNS)


def _maxima(values: np.ndarray) -> np.ndarray:
    """Cells above 0 and above all neighbours, int `[D, 2]`.

    Where neighbouring cells are equally high, the one nearest to their middle stands for all.
    """
    peaks = (values > 0) & (values == ndimage.maximum_filter(values, footprint=TOUCHING))
    labels, count = ndimage.label(peaks, TOUCHING)
    if not count:
        return np.zeros((0, 2), int)
    numbers = np.arange(1, count + 1)
    middles = np.array(ndimage.center_of_mass(peaks, labels, numbers))
    away = np.full(values.shape, np.inf)
    away[peaks] = np.hypot(*(np.argwhere(peaks) - middles[labels[peaks] - 1]).T)
    cells = np.array(ndimage.minimum_position(away, labels, numbers))
    # A terrace on a slope has no higher neighbour in its midst, but an equal one that has.
    others = ndimage.maximum_filter(np.where(peaks, 0, values), footprint=TOUCHING)
    terraces = ndimage.maximum(others >= values, labels, numbers)
    return cells[~np.asarray(terraces, bool)]
