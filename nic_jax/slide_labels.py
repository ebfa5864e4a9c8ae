"""The labels in a table of slides: classes, values, and times to death or censoring."""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from nic_jax.cohort import MISSING, CohortError, SlideEntry, read_number, table_columns


def labels(
    entries: Sequence[SlideEntry], column: str, *, task: Literal['classification', 'regression']
) -> tuple[np.ndarray, tuple[str, ...] | None, np.ndarray]:
    """The labels in a column; empty cells, NA, N/A and NaN mean that there is none.

    Args:
        entries: the slides, N.
        column: one of `table_columns`.
        task: how to read it.

    Returns:
        values: [N]; classification: int64 indices of classes, -1 without a label; regression:
            float64, NaN without a label.
        class_names: sorted, numbers as numbers; None for regression.
        has_label: bool [N].

    Raises:
        CohortError: no such column, no labels in it, fewer than two classes, not a finite number.
    """
    if task not in ('classification', 'regression'):
        raise ValueError(
            f"{task=} must be 'classification' or 'regression'; see `survival_labels` for survival"
        )
    texts = _texts(entries, column)
    has_label = np.array([text.lower() not in MISSING for text in texts])
    if not has_label.any():
        raise CohortError(f'column {column!r} has no labels; fill it for some slides')
    if task == 'classification':
        names = _class_names(
            [t for t, known in zip(texts, has_label, strict=True) if known], column
        )
        return np.array([names.get(text, -1) for text in texts]), tuple(names), has_label
    return numbers(entries, column), None, has_label


def numbers(entries: Sequence[SlideEntry], column: str) -> np.ndarray:
    """The numbers in a column, float64 [N], NaN where there is none.

    Raises:
        CohortError: not a finite number.
    """
    values = np.full(len(entries), np.nan)
    for i, entry in enumerate(entries):
        text = entry.row.get(column, '').strip()
        if text.lower() in MISSING:
            continue
        number = read_number(text)
        if number is None:
            raise CohortError(
                f'slide {entry.slide_id!r}: {column} is {text!r}, expected a finite number (with a '
                'decimal point), or nothing where it is not known'
            )
        values[i] = number
    return values


def survival_labels(
    entries: Sequence[SlideEntry], *, time: str, event: str
) -> tuple[np.ndarray, np.ndarray]:
    """The times to death or censoring in two columns; no label where both cells are empty.

    Args:
        entries: the slides, N.
        time: the column of times, in any unit, above 0.
        event: the column that tells what ended them: 1 or true for a death, 0 or false for
            censoring.

    Returns:
        targets: float64 [N, 2], time and event (1 or 0); NaN without a label.
        has_label: bool [N].

    Raises:
        CohortError: no such column, one cell without the other, not a time or an event, slides of
            one case that differ, no labels, or no deaths.
    """
    names = (time, event)
    texts = zip(*(_texts(entries, name) for name in names), strict=True)
    targets = np.full((len(entries), 2), np.nan)
    first = {}
    for entry, cells, target in zip(entries, texts, targets, strict=True):
        missing = [text.lower() in MISSING for text in cells]
        if all(missing):
            continue
        place = f'slide {entry.slide_id!r}: '
        if any(missing):
            k = missing.index(False)
            raise CohortError(
                f'{place}{names[k]} is {cells[k]!r} but {names[1 - k]} is missing; write both, or '
                'neither where the survival is not known'
            )
        target[:] = _survival(cells, names, place)
        other = first.setdefault(entry.case_id or entry.slide_id, (entry, target))
        if tuple(other[1]) != tuple(target):
            raise CohortError(
                f'slides {other[0].slide_id!r} and {entry.slide_id!r} are of one case, '
                f'{entry.case_id!r}, but differ in {time} or {event}: {other[1].tolist()} and '
                f'{target.tolist()}; a patient has one survival: correct one of them'
            )
    has_label = ~np.isnan(targets[:, 0])
    if not has_label.any():
        raise CohortError(
            f'columns {time!r} and {event!r} have no labels; fill them for some slides'
        )
    if not (targets[:, 1] == 1).any():
        raise CohortError(
            f'column {event!r} has no deaths, only 0 or false; write 1 or true where {time} ends '
            'with a death'
        )
    return targets, has_label


def _survival(cells: Sequence[str], names: Sequence[str], place: str) -> tuple[float, float]:
    """Time and event of one slide."""
    number = read_number(cells[0])
    if number is None or number <= 0:
        raise CohortError(
            f'{place}{names[0]} is {cells[0]!r}, expected a number above 0 (with a decimal '
            'point), or nothing where it is not known'
        )
    word = cells[1].lower()
    happened = float(word == 'true') if word in ('true', 'false') else read_number(word)
    if happened not in (0, 1):
        raise CohortError(
            f'{place}{names[1]} is {cells[1]!r}, expected 1 or true for a death, 0 or false for '
            'censoring, or nothing where it is not known'
        )
    return number, happened


def _texts(entries: Sequence[SlideEntry], column: str) -> list[str]:
    """The cells of one of `table_columns`."""
    columns = table_columns(entries)
    if column not in columns:
        raise CohortError(
            f'no column {column!r} in the table; it has: {", ".join(columns) or "none"}'
        )
    return [entry.row.get(column, '').strip() for entry in entries]


def _class_names(texts: Sequence[str], column: str) -> dict[str, int]:
    """Distinct names and their indices, sorted as numbers if they all are."""
    names = sorted(set(texts))
    numbers = {name: read_number(name) for name in names}
    if None not in numbers.values():
        if len(set(numbers.values())) < len(names):
            raise CohortError(
                f'column {column!r} writes one number in two ways: {", ".join(names)}'
            )
        names.sort(key=numbers.get)
    if len(names) < 2:
        raise CohortError(
            f'column {column!r} has one class only, {names[0]!r}; classification needs two or more'
        )
    return {name: index for index, name in enumerate(names)}
