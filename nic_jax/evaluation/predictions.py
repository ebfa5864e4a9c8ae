"""predictions.csv, the file that evaluation needs and all that it needs.

A row is a slide predicted by one seed's networks: `slide_id, case_id, label_name, model, seed,
fold, subset, label, prediction, score_CLASS…, lesion_area, group_NAME…`, of which scores, area and
groups may be absent. `subset` is 'test' for hold-outs and 'new' for slides without a label; `fold`
is '' where the row is the mean of several folds' networks. Of a classification, `label` and
`prediction` are names of classes; of a regression, values, and there are no scores. Of a survival,
`time` and `event` (1 died, 0 censored) stand instead of `label`, and `prediction` is the risk:
higher dies sooner. `lesion_area` is in cells of the grid, '' where unknown; the slides of a group
(1, else 0) are scored beside all hold-outs.
"""

import csv
import io
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from nic_jax.workdir import write_atomically

KEYS = ('slide_id', 'label_name', 'model', 'seed', 'subset', 'fold')
BEFORE_TARGET = ('slide_id', 'case_id', 'label_name', 'model', 'seed', 'fold', 'subset')
SURVIVAL = ('time', 'event')
SCORE = 'score_'
LESION_AREA = 'lesion_area'
GROUP = 'group_'


class PredictionsError(ValueError):
    """A file of predictions that does not say what it must."""


def class_names(row: Mapping[str, Any]) -> list[str]:
    """Returns the classes that a row scores, in order; none for a regression or a survival."""
    return _suffixes(row, SCORE)


def group_names(row: Mapping[str, Any]) -> list[str]:
    """Returns the groups that a row is or is not in."""
    return _suffixes(row, GROUP)


def task_of(row: Mapping[str, Any]) -> str:
    """Returns 'survival', 'classification' or 'regression', as a row's columns tell."""
    if 'time' in row:
        return 'survival'
    return 'classification' if class_names(row) else 'regression'


def has_label(row: Mapping[str, Any]) -> bool:
    """Tells whether there is something to compare the prediction with."""
    return row['time' if 'time' in row else 'label'] != ''


def write(path: pathlib.Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes rows, atomically; read back, they are equal.

    Raises:
        PredictionsError: there are none, or they differ in their columns.
    """
    if not rows:
        raise PredictionsError(f'{path}: no predictions to write')
    first = rows[0]
    columns = [
        *BEFORE_TARGET,
        *(SURVIVAL if 'time' in first else ('label',)),
        'prediction',
        *(SCORE + name for name in class_names(first)),
        *([LESION_AREA] if LESION_AREA in first else []),
        *(GROUP + name for name in group_names(first)),
    ]
    for row in rows:
        if set(row) != set(columns):
            raise PredictionsError(f'{path}: a row of {sorted(row)} among rows of {columns}')
    text = io.StringIO(newline='')
    writer = csv.DictWriter(text, columns, lineterminator='\n')
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, text.getvalue())


def read(path: pathlib.Path) -> list[dict[str, Any]]:
    """Reads and checks rows: numbers become numbers; what is absent stays ''.

    Raises:
        PredictionsError: naming the file, the line and what is wrong with it.
    """
    with path.open(newline='', encoding='utf-8') as file:
        reader = csv.DictReader(file)
        columns = reader.fieldnames or ()
        target = SURVIVAL if set(SURVIVAL) & set(columns) else ('label',)
        if absent := [
            name for name in (*BEFORE_TARGET, *target, 'prediction') if name not in columns
        ]:
            raise PredictionsError(f'{path}: no columns {", ".join(absent)}')
        odd = [name for name in columns if name == 'label' or name.startswith(SCORE)]
        if target == SURVIVAL and odd:
            raise PredictionsError(
                f'{path}: columns {", ".join(odd)} beside time and event, which stand instead of '
                'them: write each label to a file of its own'
            )
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
    parsed['seed'] = _integer(row, 'seed')
    parsed['fold'] = _integer(row, 'fold') if row['fold'] else ''
    task = task_of(row)
    if task == 'classification':
        parsed |= _scores(row)
    else:
        parsed['prediction'] = _number(row, 'prediction')
    if task == 'regression' and row['label']:
        parsed['label'] = _number(row, 'label')
    if task == 'survival':
        parsed |= _time_and_event(row)
    if row.get(LESION_AREA):
        parsed[LESION_AREA] = _number(row, LESION_AREA, at_least=0)
    for name in group_names(row):
        parsed[GROUP + name] = _flag(row, GROUP + name)
    return parsed


def _scores(row: Mapping[str, str]) -> dict[str, float]:
    names = class_names(row)
    scores = {SCORE + name: _number(row, SCORE + name, at_least=0) for name in names}
    if abs(sum(scores.values()) - 1) > 1e-3:
        raise ValueError(f'the scores do not sum to 1 but to {sum(scores.values()):.6g}')
    if row['label'] not in ('', *names):
        raise ValueError(f'label {row["label"]!r} is none of {names}')
    if row['prediction'] not in names:
        raise ValueError(f'prediction {row["prediction"]!r} is none of {names}')
    return scores


def _time_and_event(row: Mapping[str, str]) -> dict[str, float | int]:
    if bool(row['time']) != bool(row['event']):
        raise ValueError(
            f'time {row["time"]!r} and event {row["event"]!r} must both be given, or neither'
        )
    if not row['time']:
        return {}
    return {'time': _number(row, 'time', at_least=0), 'event': _flag(row, 'event')}


def _number(row: Mapping[str, str], name: str, *, at_least: float = -math.inf) -> float:
    try:
        value = float(row[name])
    except ValueError as error:
        raise ValueError(f'{name} is {row[name]!r}, must be a number') from error
    if not math.isfinite(value):
        raise ValueError(f'{name} is {row[name]}, must be finite')
    if value < at_least:
        raise ValueError(f'{name} is {row[name]}, must be {at_least} or more')
    return value


def _integer(row: Mapping[str, str], name: str) -> int:
    try:
        return int(row[name])
    except ValueError as error:
        raise ValueError(f'{name} is {row[name]!r}, must be an integer') from error


def _flag(row: Mapping[str, str], name: str) -> int:
    if row[name] not in ('0', '1'):
        raise ValueError(f'{name} is {row[name]!r}, must be 0 or 1')
    return int(row[name])


def _suffixes(row: Mapping[str, Any], prefix: str) -> list[str]:
    return [name.removeprefix(prefix) for name in row if name.startswith(prefix)]
