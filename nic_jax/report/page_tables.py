"""Tables of the page from the rows of CSV files."""

import collections
import math
import pathlib
from collections.abc import Mapping, Sequence

from nic_jax.report.page_inputs import read_csv
from nic_jax.report.page_parts import Table

Row = Mapping[str, str]

KEYS = ('encoder', 'model', 'point')  # what tells the rows of table.csv apart
_SHOWN = 40  # rows of a table that the page does not know
_NAMES = {
    'auc': 'AUC',
    'spearman': 'Spearman’s ρ',
    'pearson': 'Pearson’s r',
    'concordance': 'concordance index',
    'log_rank_p': 'log-rank p',
    'brier': 'Brier score',
    'jaccard': 'Jaccard index',
    'jaccard_both': 'Jaccard index, both regions',
    'froc': 'FROC score',
}


def metric_name(name: str) -> str:
    """A metric as a reader knows it."""
    return _NAMES.get(name, name.replace('_', ' '))


def figure(text: str | float) -> str:
    """A number with three decimals, a dash where there is none."""
    value = float(text) if text not in ('', None) else math.nan
    if math.isnan(value):
        return '–'
    return f'{value:.3f}' if abs(value) < 1000 else f'{value:,.4g}'


def any_table(path: pathlib.Path, caption: str) -> Table:
    """A CSV whose columns are not known here.

    Numbers are rounded; X_low and X_high stand behind X, low and high behind a difference; columns
    that tell nothing are left out, and so are the last rows of a long table.
    """
    rows = read_csv(path)
    columns: list[str] = []
    cells: list[list[str]] = [[] for _ in rows]
    numbers = set()
    for name in rows[0] if rows else ():
        if name.removesuffix('_low').removesuffix('_high') != name or name in ('low', 'high'):
            continue
        ends = ('low', 'high') if name == 'difference' else (f'{name}_low', f'{name}_high')
        column = [_told(row, name, ends) for row in rows]
        if set(column) == {'–'}:
            continue
        if all(_is_number(row[name]) for row in rows):
            numbers.add(len(columns))
        columns.append(metric_name(name))
        for line, told in zip(cells, column, strict=True):
            line.append(told)
    note = f'The first {_SHOWN} of {len(rows)} rows.' if len(rows) > _SHOWN else ''
    return Table(caption, columns, cells[:_SHOWN], frozenset(numbers), note=note)


def by(rows: Sequence[Row], *names: str) -> dict:
    """Rows by what some of their columns hold, '' where they have no such column."""
    groups = collections.defaultdict(list)
    for row in rows:
        key = tuple(row.get(name, '') for name in names)
        groups[key if len(names) > 1 else key[0]].append(row)
    return dict(groups)


def differing(rows: Sequence[Row]) -> list[str]:
    """What tells rows apart; the model where nothing does."""
    found = [name for name in KEYS if len({row.get(name, '') for row in rows}) > 1]
    return found or ['model']


def with_point(row: Row) -> dict[str, str]:
    """The row with its point as a reader writes it."""
    point = row.get('point', '')
    return {**row, 'point': f'{float(point):g}' if point else ''}


def _told(row: Row, name: str, ends: tuple[str, str]) -> str:
    """A cell, with its interval where the row has one."""
    text = row[name]
    if not _is_number(text):
        return text
    value = float(text or 'nan')
    told = f'{value:,.0f}' if value.is_integer() and name not in _NAMES else figure(value)
    if told != '–' and all(row.get(end) for end in ends):
        told += f' [{figure(row[ends[0]])}, {figure(row[ends[1]])}]'
    return told


def _is_number(text: str) -> bool:
    try:
        float(text or 'nan')
    except ValueError:
        return False
    return True
