"""predictions.csv, the file that evaluation needs and all that it needs.

A row is a slide predicted by one seed's networks: `slide_id, case_id, label_name, model, seed,
fold, subset, label, prediction, score_CLASS…, lesion_area`. `subset` is 'test' for hold-outs and
'new' for slides without a label. Of a classification, `label` and `prediction` are names of
classes; of a regression, values, and there are no scores.
"""

import csv
import io
import math
import pathlib
from collections.abc import Sequence
from typing import Any

from nic_jax.workdir import write_atomically

KEYS = ('slide_id', 'label_name', 'model', 'seed', 'subset', 'fold')
COLUMNS = (
    'slide_id',
    'case_id',
    'label_name',
    'model',
    'seed',
    'fold',
    'subset',
    'label',
    'prediction',
)
SCORE = 'score_'
LESION_AREA = 'lesion_area'


class PredictionsError(ValueError):
    """A file of predictions that does not say what it must."""


def class_names(row: dict[str, Any]) -> list[str]:
    """Returns the classes that a row scores, in order; none for a regression."""
    return [name.removeprefix(SCORE) for name in row if name.startswith(SCORE)]


def write(path: pathlib.Path, rows: Sequence[dict[str, Any]]) -> None:
    """Writes rows, atomically; read back, they are equal.

    Raises:
        PredictionsError: there are none, or they differ in their columns.
    """
    if not rows:
        raise PredictionsError(f'{path}: no predictions to write')
    scores = [SCORE + name for name in class_names(rows[0])]
    columns = [*COLUMNS, *scores, *([LESION_AREA] if LESION_AREA in rows[0] else [])]
    for row in rows:
        if set(row) != set(columns):
            raise PredictionsError(f'{path}: a row of {sorted(row)} among rows of {columns}')
    text = io.StringIO(newline='')
    writer = csv.DictWriter(text, columns, lineterminator='\n')
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, text.getvalue())


def read(path: pathlib.Path) -> list[dict[str, Any]]:
    """Reads and checks rows: numbers become numbers; an absent label stays ''.

    Raises:
        PredictionsError: naming the file, the line and what is wrong with it.
    """
    with path.open(newline='', encoding='utf-8') as file:
        reader = csv.DictReader(file)
        if absent := [name for name in COLUMNS if name not in (reader.fieldnames or ())]:
            raise PredictionsError(f'{path}: no columns {", ".join(absent)}')
        rows, seen = [], {}
        for row in reader:
            line = reader.line_num
            try:
                row = _parse(row)
            except ValueError as error:
                raise PredictionsError(f'{path}, line {line}: {error}') from error
            key = tuple(row[name] for name in KEYS)
            if key in seen:
                raise PredictionsError(
                    f'{path}, line {line}: {row["slide_id"]} was predicted in line {seen[key]} '
                    f'already, for the same {", ".join(KEYS[1:])}'
                )
            seen[key] = line
            rows.append(row)
    return rows


def _parse(row: dict[str, str]) -> dict[str, Any]:
    if None in row or None in row.values():
        raise ValueError('not as many fields as there are columns')
    parsed: dict[str, Any] = dict(row)
    parsed['seed'] = int(row['seed'])
    parsed['fold'] = int(row['fold']) if row['fold'] else ''
    names = class_names(row)
    for name in names:
        parsed[SCORE + name] = _number(row, SCORE + name)
    if names:
        if abs(sum(parsed[SCORE + name] for name in names) - 1) > 1e-3:
            raise ValueError('the scores do not sum to 1')
        if row['label'] not in ('', *names):
            raise ValueError(f'label {row["label"]!r} is none of {names}')
        if row['prediction'] not in names:
            raise ValueError(f'prediction {row["prediction"]!r} is none of {names}')
    else:
        parsed['prediction'] = _number(row, 'prediction')
        parsed['label'] = _number(row, 'label') if row['label'] else ''
    if LESION_AREA in row:
        parsed[LESION_AREA] = int(row[LESION_AREA]) if row[LESION_AREA] else ''
    return parsed


def _number(row: dict[str, str], name: str) -> float:
    value = float(row[name])
    if not math.isfinite(value):
        raise ValueError(f'{name} is {row[name]}, must be finite')
    return value
