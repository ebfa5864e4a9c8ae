"""Who beats whom, on the terminal: the best of each group against the others."""

import collections
from collections.abc import Mapping, Sequence
from typing import Any

import rich.box
import rich.table

from nic_jax import progress

_OPPOSITE = {'better': 'worse', 'worse': 'better'}


def show(records: Sequence[Mapping[str, Any]]) -> None:
    """Prints the pairs of `evaluation.comparisons.compare` that the best of each group is in."""
    table = rich.table.Table(title='The best against the others', box=rich.box.SIMPLE_HEAD)
    for name in ('label', 'of the same', 'best', 'against', 'metric', 'difference', 'verdict'):
        right = name == 'difference'
        table.add_column(name, justify='right' if right else 'left', no_wrap=True)
    for group in _groups(records):
        for row in against_the_best(group):
            point = '' if row['point'] == '' else f' at {row["point"]:g}'
            interval = f'[{row["low"]:+.3f}, {row["high"]:+.3f}]'
            table.add_row(
                row['label_name'] + point,
                row['within'],
                row['first'],
                row['second'],
                row['metric'],
                f'{row["difference"]:+.3f} {interval}',
                row['verdict'],
            )
    if table.rows:
        progress.console.print(table)
        progress.console.print(
            'better: the 95 % interval of the paired difference is above 0, cases resampled; '
            'all pairs are in report/comparisons.csv'
        )


def against_the_best(group: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The pairs of a group that its best is in, as its first."""
    means = {}
    for record in group:
        means[record['first']] = record['first_mean']
        means[record['second']] = record['second_mean']
    best = max(means, key=lambda name: (means[name] == means[name], means[name]))
    return [
        record if record['first'] == best else _turned(record)
        for record in group
        if best in (record['first'], record['second'])
    ]


def _groups(records: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    groups = collections.defaultdict(list)
    for record in records:
        names = ('label_name', 'point', 'compared', 'within')
        groups[tuple(record[name] for name in names)].append(record)
    return list(groups.values())


def _turned(record: Mapping[str, Any]) -> dict[str, Any]:
    """The same pair, told from the other side."""
    return {
        **record,
        'first': record['second'],
        'second': record['first'],
        'first_mean': record['second_mean'],
        'second_mean': record['first_mean'],
        'difference': 0 - record['difference'],
        'low': 0 - record['high'],
        'high': 0 - record['low'],
        'verdict': _OPPOSITE.get(record['verdict'], record['verdict']),
    }
