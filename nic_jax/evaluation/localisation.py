"""Where saliency looks: maps against the cells of lesions, and localisation.csv.

A row is a slide explained by one method: `slide_id, case_id, label_name, model, seed, fold, subset,
method, target, lesion_area, jaccard, jaccard_both, average_precision, pointing`. `subset` is 'test'
for networks that never saw the slide, 'valid' for those that chose the post-processing by it.
`lesion_area` is in cells. A slide without a lesion has nothing to be found: its figures are NaN, ''
in the file. `jaccard_both` compares with two regions together, '' where there is no second one.
"""

import csv
import io
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import ndimage
from sklearn import metrics

from nic_jax.evaluation import post_processing
from nic_jax.evaluation.post_processing import PostProcessing
from nic_jax.workdir import write_atomically

METRICS = ('jaccard', 'jaccard_both', 'average_precision', 'pointing')
# How each column is read; '' stays ''.
COLUMNS = {
    **dict.fromkeys(('slide_id', 'case_id', 'label_name', 'model'), str),
    **dict.fromkeys(('seed', 'fold'), int),
    **dict.fromkeys(('subset', 'method', 'target'), str),
    **dict.fromkeys(('lesion_area', *METRICS), float),
}


class LocalisationError(ValueError):
    """A file of saliency's figures that does not say what it must."""


def jaccard(predicted: np.ndarray, mask: np.ndarray) -> float:
    """Cells that both have over cells that either has; NaN of an empty mask.

    Args:
        predicted: Bool `[H, W]`.
        mask: Bool `[H, W]`.
    """
    if not mask.any():
        return math.nan
    return float((predicted & mask).sum() / (predicted | mask).sum())


def pointing(saliency: np.ndarray, mask: np.ndarray, *, tolerance: float = 0) -> float:
    """1 where the maximum lies in the mask, else 0 (the pointing game); NaN of an empty mask.

    A map without anything positive points nowhere. Where several cells are the maximum, all have to
    lie in the mask.

    Args:
        saliency: `[H, W]`, NaN where no cell is encoded.
        mask: Bool `[H, W]`.
        tolerance: Cells from the mask, between centres, that are near enough.

    References:
        Zhang et al., Top-down neural attention by excitation backprop, IJCV 2018.
    """
    if not mask.any():
        return math.nan
    values = np.where(np.isnan(saliency), 0, saliency)
    if values.max() <= 0:
        return 0.0
    distances = ndimage.distance_transform_edt(~mask)
    return float((distances[values == values.max()] <= tolerance).all())


def average_precision(saliency: np.ndarray, mask: np.ndarray) -> float:
    """Precision of cells, averaged over recall, as scikit-learn's; no threshold, no smoothing.

    Encoded cells alone count; NaN where none of them is in the mask.

    Args:
        saliency: `[H, W]`, NaN where no cell is encoded.
        mask: Bool `[H, W]`.
    """
    encoded = ~np.isnan(saliency)
    if not mask[encoded].any():
        return math.nan
    return float(metrics.average_precision_score(mask[encoded], saliency[encoded]))


def score_slide(
    saliency: np.ndarray,
    mask: np.ndarray,
    *,
    settings: PostProcessing,
    second: np.ndarray | None = None,
    **known: Any,
) -> dict[str, Any]:
    """A row of localisation.csv.

    Cells that are not encoded belong to no mask: no network could see them.

    Args:
        saliency: `[H, W]`, NaN where no cell is encoded.
        mask: The cells of lesions, bool `[H, W]`.
        settings: Of the Jaccard indices.
        second: Of a second region that the label depends on.
        known: The row's other columns.
    """
    encoded = ~np.isnan(saliency)
    mask = mask & encoded
    predicted = post_processing.apply(saliency, settings)
    found = {
        'lesion_area': int(mask.sum()),
        'jaccard': jaccard(predicted, mask),
        'jaccard_both': '' if second is None else jaccard(predicted, mask | (second & encoded)),
        'average_precision': average_precision(saliency, mask),
        'pointing': pointing(saliency, mask),
    }
    return {name: (known | found)[name] for name in COLUMNS}


def read_rows(path: pathlib.Path, *, columns: Mapping[str, type] = COLUMNS) -> list[dict[str, Any]]:
    """Reads and checks rows: numbers become numbers; what is absent stays ''.

    Raises:
        LocalisationError: Naming the file, the line and what is wrong with it.
    """
    rows = []
    with path.open(newline='', encoding='utf-8') as file:
        reader = csv.DictReader(file)
        if absent := [name for name in columns if name not in (reader.fieldnames or ())]:
            raise LocalisationError(f'{path}: no columns {", ".join(absent)}; explain it again')
        for row in reader:
            try:
                if None in row or None in row.values():
                    raise ValueError('not as many fields as there are columns')
                rows.append({name: _parsed(row[name], name, columns[name]) for name in columns})
            except ValueError as error:
                raise LocalisationError(f'{path}, line {reader.line_num}: {error}') from error
    return rows


def write_rows(
    path: pathlib.Path,
    rows: Sequence[Mapping[str, Any]],
    *,
    columns: Mapping[str, type] = COLUMNS,
) -> None:
    """Writes rows, atomically; read back, they are equal but for NaN, which becomes ''."""
    text = io.StringIO(newline='')
    writer = csv.DictWriter(text, list(columns), lineterminator='\n')
    writer.writeheader()
    # NaN alone differs from itself.
    writer.writerows(
        {name: '' if value != value else value for name, value in row.items()} for row in rows
    )
    write_atomically(path, text.getvalue())


def _parsed(text: str, name: str, kind: type) -> Any:
    if text == '' or kind is str:
        return text
    try:
        value = kind(text)
    except ValueError as error:
        raise ValueError(f'{name} is {text!r}, must be a number') from error
    if not math.isfinite(value):
        raise ValueError(f'{name} is {text}, must be finite')
    return value
