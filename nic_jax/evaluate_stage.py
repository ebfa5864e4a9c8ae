"""Everything that evaluation makes of predictions: tables, comparisons and curves."""

import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from nic_jax.evaluation.calibration import calibration
from nic_jax.evaluation.comparisons import compare
from nic_jax.evaluation.lesion_size import by_lesion_size
from nic_jax.evaluation.predicted import collect
from nic_jax.evaluation.survival import median_split
from nic_jax.evaluation.tables import table
from nic_jax.report import comparisons as report_comparisons
from nic_jax.report import evaluation_curves, survival_curves
from nic_jax.report import tables as report_tables
from nic_jax.workdir import file_name

Records = list[dict[str, Any]]


def evaluate(
    rows: Sequence[Mapping[str, Any]],
    *,
    home: pathlib.Path,
    seed: int,
    unit: str = 'slide',
    points: str = 'point',
    times: str = 'time',
    rounds: int = 1000,
) -> tuple[Records, list[pathlib.Path]]:
    """Scores predictions; writes WORKDIR/report's tables and figures, prints the tables.

    Args:
        rows: Of all predictions.csv, each with its `encoder`, and with a number `point` where a
            sweep was run.
        home: The workdir.
        seed: Of the bootstrap.
        unit: 'slide', or 'case' for the mean prediction over a case's slides.
        points: What the points of a sweep count, with the unit: the name of its axis.
        times: What survival counts, with the unit: the name of its axis.
        rounds: Of the bootstrap.

    Returns:
        The records of `evaluation.tables.table`, and the files written.

    Raises:
        ValueError: No row is of a hold-out with a label.
    """
    bootstrap = {'seed': seed, 'rounds': rounds, 'unit': unit}
    records = table(rows, **bootstrap)
    if not records:
        raise ValueError(
            'no fold tests a slide: with --config.cohort.train_parts one less than folds, the last '
            'part validates; give a part to test'
        )
    report = home / 'report'
    report_tables.show(records)
    made = [report / 'table.csv']
    report_tables.write(made[0], records)

    pairs = compare(rows, **bootstrap)
    report_comparisons.show(pairs)
    curves, sizes = calibration(rows, **bootstrap), by_lesion_size(rows, **bootstrap)
    for name, found in (('comparisons', pairs), ('calibration', curves), ('lesion_size', sizes)):
        if found:
            made.append(report / f'{name}.csv')
            report_tables.write_rows(made[-1], found)

    # Outside sweeps; a sweep's figures are one for each number.
    made += _draw(_at_no_point(curves), report, 'calibration', evaluation_curves.draw_reliability)
    made += _draw(_at_no_point(sizes), report, 'lesion_size', evaluation_curves.draw_lesion_size)
    swept = [record for record in records if record['point'] != '']
    made += _draw(
        swept,
        report,
        'sweep',
        lambda found, path: evaluation_curves.draw_sweep(found, path, swept=points),
    )
    return records, made + _draw_survival(rows, report, unit=unit, times=times)


def _at_no_point(records: Records) -> Records:
    return [record for record in records if record['point'] == '']


def _draw(
    records: Records,
    report: pathlib.Path,
    name: str,
    draw: Callable[[Records, pathlib.Path], None],
) -> list[pathlib.Path]:
    """A figure a label."""
    made = []
    for label_name in dict.fromkeys(record['label_name'] for record in records):
        made.append(report / file_name(f'{name}_{label_name}.png'))
        draw([record for record in records if record['label_name'] == label_name], made[-1])
    return made


def _draw_survival(
    rows: Sequence[Mapping[str, Any]], report: pathlib.Path, *, unit: str, times: str
) -> list[pathlib.Path]:
    """Kaplan–Meier curves of the median split of the risk, the mean of all seeds'."""
    made = []
    for each in collect(rows, unit=unit):
        if each.task == 'survival' and each.point == '':
            high_risk = median_split(np.mean(each.predictions, axis=0))
            names = filter(None, ('survival', each.label_name, each.encoder, each.model))
            made.append(report / file_name(f'{"_".join(names)}.png'))
            title = f'{each}: median split of the risk of hold-outs'
            survival_curves.draw(
                each.targets, each.events, high_risk, made[-1], title=title, time_label=times
            )
    return made
