"""What evaluation's CSV files come to: the best of each label, and whether it is the best."""

import math
from collections.abc import Sequence

import numpy as np

from nic_jax.report.comparisons import against_the_best
from nic_jax.report.page_parts import Finding, Part, Table
from nic_jax.report.page_tables import Row, by, differing, figure, metric_name, with_point

_VERDICTS = {'tie': 'not told apart', 'unknown': 'no interval'}


def findings(rows: Sequence[Row], pairs: Sequence[Row], *, noun: str, swept: str) -> list[Finding]:
    """For each label its best model, and which are not told apart from it.

    Args:
        rows: Of table.csv.
        pairs: Of comparisons.csv.
        noun: What is predicted.
        swept: What the points of a sweep are called.
    """
    found = []
    for label_name, of_label in by(rows, 'label_name').items():
        main = [row for row in of_label if row.get('low') and not row.get('group')]
        main = [row for row in main if not math.isnan(float(row['mean']))]
        if not main:
            continue
        best = max(main, key=lambda row: float(row['mean']))
        names = differing(main)
        values = [with_point(best)[name] for name in names]
        if values and names[-1] == 'point' and values[-1]:
            values[-1] = f'{swept} {values[-1]}'
        what = ', '.join(filter(None, values))
        told = f'{what}: ' if what else ''
        told += f'{int(best["slides"]):,} {noun} of {int(best["cases"]):,} cases'
        if len(main) > 1:
            ties = _ties(pairs, best)
            told += f'; best of {len(main)}'
            told += f', not told apart from {_listed(ties)}' if ties else ''
        found.append(
            Finding(
                label_name,
                metric_name(best['metric']),
                figure(best['mean']),
                f'[{figure(best["low"])}, {figure(best["high"])}]',
                told,
            )
        )
    return found


def best_models(rows: Sequence[Row]) -> dict[str, str]:
    """The model with the best main figure of each label, whatever its encoder.

    Args:
        rows: Of table.csv.
    """
    main = [row for row in rows if row.get('low') and not row.get('group')]
    main.sort(key=lambda row: np.nan_to_num(float(row['mean'])))
    return {row['label_name']: row['model'] for row in main}  # the last stands


def comparisons(pairs: Sequence[Row], *, swept: str) -> list[Part]:
    """The best of each group against the others.

    Args:
        pairs: Of comparisons.csv.
        swept: What the points of a sweep are called.
    """
    parts: list[Part] = []
    for label_name, of_label in by(pairs, 'label_name').items():
        rows = []
        for group in by(of_label, 'point', 'compared', 'within').values():
            for pair in against_the_best([_parsed(row) for row in group]):
                interval = f'[{pair["low"]:+.3f}, {pair["high"]:+.3f}]'
                rows.append(
                    {
                        'of the same': pair['within'],
                        swept: with_point(pair)['point'],
                        'best': pair['first'],
                        'against': pair['second'],
                        'difference': f'{pair["difference"]:+.3f} {interval}',
                        'verdict': _VERDICTS.get(pair['verdict'], pair['verdict']),
                    }
                )
        same = [name for name in ('of the same', swept) if len({row[name] for row in rows}) == 1]
        told = ', '.join(rows[0][name] for name in same if rows[0][name])
        columns = [name for name in rows[0] if name not in same]
        parts.append(
            Table(
                f'{label_name}{", " + told if told else ""}: the best against the others; '
                f'differences of {metric_name(of_label[0]["metric"])} with 95 % intervals, the '
                'same resampled cases for both.',
                columns,
                [[row[name] for name in columns] for row in rows],
                numbers=frozenset({columns.index('difference')}),
                note='Better: the interval of the paired difference is above 0. Intervals are of '
                'each pair alone: of twenty equal pairs, one is expected to be told apart.',
            )
        )
    return parts


def _ties(pairs: Sequence[Row], best: Row) -> list[str]:
    """What the best is compared with and not told apart from."""
    names = []
    for pair in pairs:
        same = pair['label_name'] == best['label_name'] and pair['point'] == best.get('point', '')
        compared = pair['compared']
        other = 'encoder' if compared == 'model' else 'model'
        both = (pair['first'], pair['second'])
        if same and pair['within'] == best[other] and best[compared] in both:
            name = both[1] if both[0] == best[compared] else both[0]
            if pair['verdict'] == 'tie':
                names.append(name)
    return names


def _listed(names: Sequence[str]) -> str:
    return ' or '.join(filter(None, (', '.join(names[:-1]), names[-1])))


def _parsed(row: Row) -> dict[str, str | float]:
    numbers = ('first_mean', 'second_mean', 'difference', 'low', 'high')
    return {**row, **{name: float(row[name] or 'nan') for name in numbers}}
