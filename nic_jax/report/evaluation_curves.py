"""Curves of what evaluation found: reliability, detection over lesion size, sweeps.

A line is a model or an encoder: where both vary, a panel an encoder and a line a model.
"""

import collections
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.ticker
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from nic_jax.report.pictures import COLOURS, new_figure, save

Records = Sequence[Mapping[str, Any]]
Lines = Mapping[str, Records]  # by the name of the line
Styles = Mapping[str, Mapping[str, Any]]  # by the name of the line

_MARKERS = 'os^DvPX'
_DASHES = ('-', '--', ':')
_GREY = '0.6'
_DASHED = {'linestyle': (0, (4, 3)), 'linewidth': 1.2}
_OTHERS = 'other class'
_LOGARITHMIC = 8  # last over first, from which an axis is
_CHANCE = {'auc': 0.5, 'spearman': 0.0, 'concordance': 0.5}
_AXIS = {
    'auc': 'area under the ROC curve',
    'spearman': "Spearman's rank correlation",
    'concordance': 'concordance index',
}


def draw_reliability(records: Records, path: pathlib.Path) -> None:
    """Draws the records of `evaluation.calibration` of one label."""
    panels, styles = _panels(records), _styles(records)
    figure = _figure(panels, columns=1)
    _title(figure, records, 'calibration')
    for axis, lines in zip(figure.axes, panels.values(), strict=True):
        reliability(axis, lines, styles)
    _finish(figure, path)


def reliability(axis: Axes, lines: Lines, styles: Styles) -> None:
    """Draws how often what was foretold was so, against its probability."""
    axis.plot([0, 1], [0, 1], color=_GREY, linewidth=1, zorder=0)
    for name, records in lines.items():
        _line(axis, records, 'probability', 'frequency', label=name, **styles[name])
    positive = next(iter(lines.values()))[0]['positive']
    axis.set(
        xlim=(-0.02, 1.02),
        ylim=(-0.02, 1.02),
        xlabel=f'predicted probability of {positive or "the foretold class"}, mean of a bin',
        ylabel=f'frequency of {positive}' if positive else 'how often it is right',
    )


def draw_lesion_size(records: Records, path: pathlib.Path) -> None:
    """Draws the records of `evaluation.lesion_size` of one label."""
    panels, styles = _panels(records), _styles(records)
    found = {record['metric'] for record in records}
    metrics = [name for name in ('probability', 'auc', 'accuracy') if name in found]
    figure = _figure(panels, columns=len(metrics))
    _title(figure, records, 'detection over lesion area')
    axes = np.array(figure.axes).reshape(len(panels), len(metrics))
    for row, lines in zip(axes, panels.values(), strict=True):
        for axis, metric in zip(row, metrics, strict=True):
            lesion_size(axis, lines, styles, metric=metric)
    for column in axes.T:
        _share_heights(column)
    _finish(figure, path)


def lesion_size(axis: Axes, lines: Lines, styles: Styles, *, metric: str) -> None:
    """Draws one metric over lesion area; the radius of the circle of equal area above.

    Beside the probability of the positives that of the others is dashed.
    """
    every = [record for records in lines.values() for record in records]
    areas = [record['area'] for record in every if record['area']]
    _scale(axis, areas)
    for name, records in lines.items():
        of_metric = [record for record in records if record['metric'] == metric]
        _line(axis, of_metric, 'area', 'value', label=name, **styles[name])
        others = [record for record in records if record['metric'] == 'probability_of_others']
        if metric == 'probability' and others:
            _others(axis, others, styles[name]['color'])
    if metric == 'auc':
        axis.axhline(_CHANCE['auc'], color=_GREY, linewidth=1, zorder=0)
    label = {'probability': f'mean probability of {every[0]["positive"]}', 'auc': _AXIS['auc']}
    axis.set(xlabel='lesion area (cells)', ylabel=label.get(metric, metric))
    radius = axis.secondary_xaxis(
        'top',
        functions=(
            lambda area: np.sqrt(np.maximum(area, 0) / np.pi),
            lambda radius: np.pi * np.square(radius),
        ),
    )
    radius.set_xlabel('radius of the circle of equal area (cells)')
    if axis.get_xscale() == 'log':
        _plain_numbers(radius.xaxis, np.sqrt(np.array(areas) / np.pi))


def draw_sweep(records: Records, path: pathlib.Path, *, swept: str) -> None:
    """Draws the primary metric of one label against what was swept.

    Args:
        records: Of `evaluation.tables.table`, with a `point` each.
        path: The PNG file.
        swept: What the points count, with the unit.
    """
    panels, styles = _panels(records), _styles(records)
    figure = _figure(panels, columns=1)
    _title(figure, records, 'sweep')  # the axis says of what
    for axis, lines in zip(figure.axes, panels.values(), strict=True):
        sweep(axis, lines, styles, swept=swept)
    _share_heights(figure.axes)
    _finish(figure, path)


def sweep(axis: Axes, lines: Lines, styles: Styles, *, swept: str) -> None:
    """Draws the primary metric's mean over seeds against `point`, with intervals."""
    points = sorted({record['point'] for records in lines.values() for record in records})
    _scale(axis, points)
    for number, (name, records) in enumerate(lines.items()):
        shift = (number - (len(lines) - 1) / 2) * 0.012  # of the axis: intervals side by side
        drawn = [
            {
                'point': _beside(record['point'], shift, points, log=axis.get_xscale() == 'log'),
                'value': record['mean'][record['primary']],
                'low': record['low'],
                'high': record['high'],
            }
            for record in sorted(records, key=lambda record: record['point'])
        ]
        _line(axis, drawn, 'point', 'value', label=name, **styles[name])
    metric = next(iter(lines.values()))[0]['primary']
    axis.axhline(_CHANCE[metric], color=_GREY, linewidth=1, zorder=0)
    axis.set(xlabel=swept, ylabel=_AXIS[metric])
    axis.set_xticks(points, [f'{point:g}' for point in points])


def _panels(records: Records) -> dict[str, dict[str, list[Mapping[str, Any]]]]:
    """The records of each line of each panel."""
    encoders = {record['encoder'] for record in records}
    models = {record['model'] for record in records}
    panels = collections.defaultdict(lambda: collections.defaultdict(list))
    for record in records:
        if len(models) == 1 and len(encoders) > 1:
            panel, line = record['model'], record['encoder']
        else:
            panel, line = record['encoder'], record['model']
        panels[panel][line].append(record)
    return panels


def _styles(records: Records) -> dict[str, dict[str, Any]]:
    """What each line looks like, in all panels."""
    names = dict.fromkeys(name for lines in _panels(records).values() for name in lines)
    return {
        name: {
            'color': COLOURS[number % len(COLOURS)],
            'marker': _MARKERS[number % len(_MARKERS)],
            'linestyle': _DASHES[number // len(COLOURS) % len(_DASHES)],
        }
        for number, name in enumerate(names)
    }


def _figure(panels: Mapping[str, Lines], *, columns: int) -> Figure:
    """A figure of a row of `columns` axes a panel; of one column, panels beside each other."""
    count = len(panels)
    shape = (count, columns)
    if columns == 1:
        beside = count if count <= 3 else 2 if count == 4 else 3
        shape = (-(-count // beside), beside)
    figure = new_figure(*shape, size=(4.4 * shape[1] + 1.8, 4 * shape[0] + 0.3))
    for axis in figure.axes[count * columns :]:
        axis.remove()
    if count > 1:
        for index, axis in enumerate(figure.axes):
            axis.set_title(list(panels)[index // columns], loc='left', weight='bold')
    return figure


def _title(figure: Figure, records: Records, what: str) -> None:
    """What all panels are of."""
    panels = _panels(records)
    same = list(panels) if len(panels) == 1 else []
    names = ', '.join(filter(None, (records[0]['label_name'], *same)))
    figure.suptitle(f'{names}: {what} (95 % intervals)', x=0.01, ha='left', size='medium')


def _finish(figure: Figure, path: pathlib.Path) -> None:
    """One legend for all panels, beside them; writes the PNG."""
    found = {}
    for axis in figure.axes:
        axis.spines[['top', 'right']].set_visible(False)
        axis.grid(alpha=0.25, linewidth=0.6)
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    if found.pop(_OTHERS, None):  # of no one colour, and last
        found[_OTHERS] = Line2D([], [], color=_GREY, **_DASHED)
    figure.legend(found.values(), found.keys(), loc='outside right center', frameon=False)
    save(figure, path)


def _others(axis: Axes, records: Records, colour: str) -> None:
    """The mean probability of slides that are not positive, over the area of their lesions."""
    style = {'color': colour, 'label': _OTHERS, **_DASHED}
    if records[0]['area'] == 0:
        axis.axhline(records[0]['value'], **style)
    else:
        axis.plot([r['area'] for r in records], [r['value'] for r in records], **style)


def _share_heights(axes: Sequence[Axes]) -> None:
    """The same limits for all panels of a figure of merit, which is 1 at most."""
    low, high = zip(*(axis.get_ylim() for axis in axes), strict=True)
    for axis in axes:
        axis.set_ylim(min(low), min(1.02, max(high)))


def _line(axis: Axes, records: Records, x: str, y: str, *, label: str, **style) -> None:
    """A line with 95 % intervals."""
    values = np.array([record[y] for record in records])
    lengths = [
        np.maximum(0, values - [record['low'] for record in records]),
        np.maximum(0, [record['high'] for record in records] - values),
    ]
    drawn = axis.errorbar(
        [record[x] for record in records],
        values,
        yerr=lengths,
        label=label,
        markersize=5,
        linewidth=1.5,
        elinewidth=0.9,
        **style,
    )
    for bars in drawn.lines[2]:
        bars.set_alpha(0.5)


def _scale(axis: Axes, values: Sequence[float]) -> None:
    """Logarithmic where the values span much."""
    if values and min(values) > 0 and max(values) >= _LOGARITHMIC * min(values):
        axis.set_xscale('log')
        _plain_numbers(axis.xaxis, values)


def _plain_numbers(axis: Axis, values: Sequence[float]) -> None:
    """A few round numbers as ticks, not powers of ten."""
    values = np.asarray(values)
    decades = np.arange(np.floor(np.log10(values.min())), np.ceil(np.log10(values.max())) + 1)
    ticks = (10.0 ** decades[:, None] * [1, 2, 5]).ravel()
    ticks = ticks[(ticks > 0.6 * values.min()) & (ticks < 1.6 * values.max())]
    axis.set_major_locator(matplotlib.ticker.FixedLocator(ticks))
    axis.set_major_formatter(matplotlib.ticker.StrMethodFormatter('{x:g}'))
    axis.set_minor_locator(matplotlib.ticker.NullLocator())


def _beside(point: float, shift: float, points: Sequence[float], *, log: bool) -> float:
    """A point moved by a share of the axis."""
    if log:
        return point * (max(points) / min(points)) ** shift
    return point + shift * (max(points) - min(points))
