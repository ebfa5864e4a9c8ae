"""The table of results: on the terminal, and as a CSV."""

import csv
import io
import math
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import rich.box
import rich.table

from nic_jax import progress
from nic_jax.workdir import write_atomically


def show(records: Sequence[Mapping[str, Any]]) -> None:
    """Prints the records of `evaluation.tables.table`: two tables a label.

    The first is of the primary metric, of all hold-outs, of folds and of groups; the second of the
    other metrics.
    """
    for label_name in dict.fromkeys(record['label_name'] for record in records):
        of_label = [record for record in records if record['label_name'] == label_name]
        primary, units = of_label[0]['primary'], f'{of_label[0]["unit"]}s'
        groups = dict.fromkeys(name for record in of_label for name in record['groups'])
        rows = []
        for record in of_label:
            row = {units: str(record['slides' if units == 'slides' else 'cases'])}
            row[_spaced(primary)] = cell(record, primary)
            if len(record['folds']) > 1:
                row['mean of folds'] = _figure(record['fold_mean'][primary])
            for name in groups:
                group = record['groups'].get(name)
                row[name] = cell(group, primary) if group else '–'
            rows.append(row)
        _print(f'{label_name}: hold-outs', of_label, rows)
        others = [name for name in of_label[0]['mean'] if name != primary]
        rows = [{_spaced(name): cell(record, name) for name in others} for record in of_label]
        _print(f'{label_name}: other figures of the same', of_label, rows)
        seeds = max(record['seeds'] for record in of_label)
        spread = f'mean (sd) over {seeds} seeds; ' if seeds > 1 else ''
        progress.console.print(f'{spread}[low, high]: 95 % interval, cases resampled')
        for record in of_label:
            for part, found in {'': record, **record['groups']}.items():
                for name, reason in found['reasons'].items():
                    what = ', '.join(filter(None, (record['encoder'], record['model'], part)))
                    progress.console.print(f'{what}: no {name}: {reason}')


def write(path: pathlib.Path, records: Sequence[Mapping[str, Any]]) -> None:
    """Writes one line an encoder, label, model, point and metric, and a line more each group."""
    rows = []
    folds = sorted({number for record in records for number in record['folds']})
    for record in records:
        for group, found in {'': record, **record['groups']}.items():
            for name, mean in found['mean'].items():
                primary = name == found['primary']
                by_fold = record['folds'] if not group else {}
                rows.append(
                    {
                        **{key: record[key] for key in ('encoder', 'label_name', 'model', 'point')},
                        'group': group,
                        **{key: found[key] for key in ('slides', 'cases', 'seeds')},
                        'metric': name,
                        'mean': mean,
                        'sd': found['sd'][name],
                        'low': found['low'] if primary else '',
                        'high': found['high'] if primary else '',
                        'fold_mean': record['fold_mean'][name] if by_fold else '',
                        **{
                            f'fold_{number}': by_fold[number][name] if number in by_fold else ''
                            for number in folds
                        },
                    }
                )
    write_rows(path, rows)


def write_rows(path: pathlib.Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes records of the same keys as a CSV."""
    text = io.StringIO(newline='')
    writer = csv.DictWriter(text, list(rows[0]), lineterminator='\n')
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, text.getvalue())


def cell(record: Mapping[str, Any], name: str) -> str:
    """A metric as the papers print it: mean (sd) [low, high], as far as there are such."""
    text = _figure(record['mean'][name])
    if text == '–':
        return text
    if not math.isnan(record['sd'][name]):
        text += f' ({_figure(record["sd"][name])})'
    if name == record['primary'] and not math.isnan(record['low']):
        text += f' [{_figure(record["low"])}, {_figure(record["high"])}]'
    return text


def _print(
    title: str, records: Iterable[Mapping[str, Any]], rows: Sequence[Mapping[str, str]]
) -> None:
    """A table of some columns beside the names of what was scored."""
    table = rich.table.Table(title=title, box=rich.box.SIMPLE_HEAD)
    swept = any(record['point'] != '' for record in records)
    for name in ('encoder', 'model', *(['point'] if swept else [])):
        table.add_column(name, no_wrap=True)
    columns = dict.fromkeys(name for row in rows for name in row)
    for name in columns:
        table.add_column(name, justify='right', no_wrap=True)
    for record, row in zip(records, rows, strict=True):
        point = [f'{record["point"]:g}' if record['point'] != '' else ''] if swept else []
        cells = [row.get(name, '–') for name in columns]
        table.add_row(record['encoder'], record['model'], *point, *cells)
    progress.console.print(table)


def _spaced(name: str) -> str:
    return name.replace('_', ' ')


def _figure(value: float) -> str:
    if math.isnan(value):
        return '–'
    return f'{value:.3f}' if abs(value) < 1000 else f'{value:.4g}'
