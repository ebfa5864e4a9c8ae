"""The table of results: on the terminal, and as a CSV."""

import csv
import io
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import rich.box
import rich.table

from nic_jax import progress
from nic_jax.workdir import write_atomically


def show(records: Sequence[Mapping[str, Any]]) -> None:
    """Prints the records of `evaluation.tables.table`, one table a label."""
    for label_name in dict.fromkeys(record['label_name'] for record in records):
        of_label = [record for record in records if record['label_name'] == label_name]
        metrics = list(of_label[0]['mean'])
        table = rich.table.Table(title=f'{label_name}: hold-outs', box=rich.box.SIMPLE_HEAD)
        for name in ('encoder', 'model', 'slides', *metrics):
            left = name in ('encoder', 'model')
            table.add_column(
                name.replace('_', ' '), justify='left' if left else 'right', no_wrap=True
            )
        for record in of_label:
            cells = [record['encoder'], record['model'], str(record['slides'])]
            table.add_row(*cells, *(_cell(record, name) for name in metrics))
        progress.console.print(table)
        seeds = of_label[0]['seeds']
        spread = f'mean (sd) over {seeds} seeds; ' if seeds > 1 else ''
        progress.console.print(f'{spread}[low, high]: 95 % interval, cases resampled')
        for record in of_label:
            for name, reason in record['reasons'].items():
                progress.console.print(f'{record["encoder"]}: no {name}: {reason}')


def write(path: pathlib.Path, records: Sequence[Mapping[str, Any]]) -> None:
    """Writes one line an encoder, label, model and metric."""
    columns = ('encoder', 'label_name', 'model', 'slides', 'cases', 'seeds')
    text = io.StringIO(newline='')
    writer = csv.writer(text, lineterminator='\n')
    writer.writerow([*columns, 'metric', 'mean', 'sd', 'low', 'high'])
    for record in records:
        for name, mean in record['mean'].items():
            interval = ('', '')
            if name == record['primary']:
                interval = (record['low'], record['high'])
            row = [record[column] for column in columns]
            writer.writerow([*row, name, mean, record['sd'][name], *interval])
    write_atomically(path, text.getvalue())


def _cell(record: Mapping[str, Any], name: str) -> str:
    mean, sd = record['mean'][name], record['sd'][name]
    if math.isnan(mean):
        return '–'
    text = f'{mean:.3f}' if math.isnan(sd) else f'{mean:.3f} ({sd:.3f})'
    if name == record['primary']:
        text += f' [{record["low"]:.3f}, {record["high"]:.3f}]'
    return text
