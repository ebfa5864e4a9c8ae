"""The tables of evaluation: the main figure of every model with its interval, and the others."""

import math
from collections.abc import Sequence

import numpy as np

from nic_jax.report.page_parts import Folded, Heading, Part, Table, Whisker
from nic_jax.report.page_tables import KEYS, Row, by, differing, figure, metric_name, with_point

Key = tuple[str, str, str]  # encoder, model and point of a sweep

CHANCE = {'auc': 0.5, 'spearman': 0.0, 'concordance': 0.5}
_LONG = 12  # rows, of which only the main figures are not folded away


def hold_outs(rows: Sequence[Row], *, noun: str, swept: str) -> list[Part]:
    """For each label the main figure with its interval, and the other figures.

    Args:
        rows: Of table.csv.
        noun: What is predicted: 'slides', or 'tiles'.
        swept: What the points of a sweep are called.
    """
    parts: list[Part] = []
    for label_name, of_label in by(rows, 'label_name').items():
        if len({row['label_name'] for row in rows}) > 1:
            parts.append(Heading(label_name))
        parts += _of_label(of_label, noun, swept)
    return parts


def _of_label(rows: Sequence[Row], noun: str, swept: str) -> list[Part]:
    whole = [row for row in rows if not row.get('group')]
    records = by(whole, 'encoder', 'model', 'point')
    primary = next((row['metric'] for row in whole if row.get('low')), whole[0]['metric'])
    metrics = list(dict.fromkeys(row['metric'] for row in whole))
    columns = differing(whole)
    groups = [name for name in dict.fromkeys(row.get('group', '') for row in rows) if name]
    main = {key: _metrics(found)[primary] for key, found in records.items()}
    if 'point' not in columns:  # the best first; a sweep in its own order
        main = dict(sorted(main.items(), key=lambda item: -np.nan_to_num(float(item[1]['mean']))))
    scale = _scale(main.values(), CHANCE.get(primary))
    several_folds = len([name for name in whole[0] if name.startswith('fold_')]) > 2
    lines = []
    for key, row in main.items():
        named = [with_point(row)[name] for name in columns]
        line = [*named, _with_interval(row), _whisker(row, scale)]
        if several_folds:
            line.append(figure(row.get('fold_mean', '')))
        line += [_with_interval(_of_group(rows, key, name, primary)) for name in groups]
        lines.append(line)
    spread = f'{scale[0]:.1f}…{scale[1]:.1f}'
    keys = [swept if name == 'point' else name for name in columns]
    head = [*keys, metric_name(primary), spread]
    head += ['mean of folds'] * several_folds + groups
    values = [float(row['mean']) for row in main.values()]
    best = max((value for value in values if not math.isnan(value)), default=None)
    top = frozenset(index for index, value in enumerate(values) if value == best)
    first = len(columns)
    numbers = frozenset(range(first, len(head))) - {first + 1}
    same = ', '.join(f'{name} {whole[0][name]}' for name in KEYS[:2] if name not in columns)
    slides, cases = (_span(main.values(), name) for name in ('slides', 'cases'))
    tables: list[Part] = [
        Table(
            f'{metric_name(primary)} of {rows[0]["label_name"]}, {slides} {noun} of {cases} cases'
            f'{"; " + same if same else ""}: each is predicted by networks that never saw its '
            'case. In brackets: 95 % intervals, cases resampled.',
            head,
            lines,
            numbers,
            top if len(lines) > 1 else frozenset(),
            whiskers=first + 1,
            note=_seeds_note(main.values()),
        )
    ]
    others = [name for name in metrics if name != primary]
    if others:
        found = {key: _metrics(records[key]) for key in main}
        more = Table(
            'Other figures of the same predictions.',
            [*keys, *map(metric_name, others)],
            [
                [
                    *(with_point(main[key])[name] for name in columns),
                    *(_with_interval(each.get(name)) for name in others),
                ]
                for key, each in found.items()
            ],
            frozenset(range(len(columns), len(columns) + len(others))),
        )
        tables.append(more if len(main) <= _LONG else Folded('Other figures', [more]))
    return tables


def _metrics(rows: Sequence[Row]) -> dict[str, Row]:
    return {row['metric']: row for row in rows}


def _of_group(rows: Sequence[Row], key: Key, group: str, metric: str) -> Row | None:
    for row in rows:
        same = tuple(row.get(name, '') for name in KEYS) == key
        if same and row.get('group') == group and row['metric'] == metric:
            return row
    return None


def _with_interval(row: Row | None) -> str:
    """Mean (sd) [low, high], as far as there are such."""
    if row is None or (text := figure(row['mean'])) == '–':
        return '–'
    if row['metric'].endswith('_p') and float(row['mean']) < 0.001:
        return '< 0.001'
    if figure(row.get('sd', '')) != '–':
        text += f' ({figure(row["sd"])})'
    if row.get('low') and not math.isnan(float(row['low'])):
        text += f' [{figure(row["low"])}, {figure(row["high"])}]'
    return text


def _scale(rows: Sequence[Row], chance: float | None) -> tuple[float, float]:
    """The ends of the line that intervals are drawn on: round numbers around all of them."""
    values = [float(row[name]) for row in rows for name in ('mean', 'low', 'high') if row.get(name)]
    values = [value for value in values if not math.isnan(value)]
    values += [] if chance is None else [chance]
    low, high = math.floor(min(values) * 10) / 10, math.ceil(max(values) * 10) / 10
    return low, max(high, low + 0.1)


def _whisker(row: Row, scale: tuple[float, float]) -> Whisker | str:
    numbers = [float(row.get(name) or 'nan') for name in ('low', 'mean', 'high')]
    if any(map(math.isnan, numbers)):
        return ''
    chance = CHANCE.get(row['metric'], scale[0])
    places = [(value - scale[0]) / (scale[1] - scale[0]) for value in (*numbers, chance)]
    return Whisker(*places)


def _seeds_note(rows: Sequence[Row]) -> str:
    seeds = max(int(row['seeds']) for row in rows)
    return f'Mean (standard deviation) over {seeds} initialisations.' if seeds > 1 else ''


def _span(rows: Sequence[Row], name: str) -> str:
    counts = sorted({int(row[name]) for row in rows})
    return ' to '.join(f'{count:,}' for count in dict.fromkeys((counts[0], counts[-1])))
