"""Where saliency looked: the table, and curves over lesion area and over false positives."""

import collections
import itertools
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import rich.box
import rich.table
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nic_jax import progress
from nic_jax.evaluation.free_response import RATES, free_response
from nic_jax.evaluation.localisation_summary import GROUP, by_lesion_size, compare, summarise
from nic_jax.report import evaluation_curves, tables
from nic_jax.report.pictures import COLOURS, new_figure, save
from nic_jax.workdir import file_name

Records = Sequence[Mapping[str, Any]]
Lines = Mapping[str, Records]  # by the name of the line
Styles = Mapping[str, Mapping[str, Any]]  # by the name of the line

# The same colour in every figure; other methods come after these.
_METHODS = ('grad_cam', 'integrated_gradients', 'occlusion', 'attention', 'grad_cam_random')
_MARKERS = 'os^DvPX'
_LEAST_RATE = 1 / 8  # where the axis of false positives begins
_APART = 1.03  # factor between the places where intervals of neighbouring lines are drawn


def write_tables(
    rows: Records,
    detections: Records,
    report: pathlib.Path,
    *,
    seed: int = 0,
    rounds: int = 1000,
) -> list[pathlib.Path]:
    """Sums up the hold-outs' saliency; prints the table, writes tables and figures.

    Slides that post-processing was chosen by (subset 'valid') count nowhere.

    Args:
        rows: Of all localisation.csv, with an `encoder` each, which their folders tell.
        detections: Of all detections.csv, with an `encoder`, `label_name` and `model` each.
        report: The folder, for localisation.csv, localisation_comparisons.csv,
            localisation_LABEL.png and froc_LABEL.png.
        seed: Of the bootstrap.
        rounds: Of the bootstrap.

    Returns:
        The files written; none where no hold-out has a lesion.
    """
    bootstrap = {'seed': seed, 'rounds': rounds}
    curves = [each for each in free_response(detections, **bootstrap) if each['lesions']]
    records = _joined(summarise(rows, **bootstrap), curves)
    if not records:
        return []
    show(records)
    made = [report / 'localisation.csv']
    tables.write_rows(made[0], records)
    if pairs := compare(rows, **bootstrap):
        made.append(report / 'localisation_comparisons.csv')
        tables.write_rows(made[-1], pairs)
    sizes = by_lesion_size(rows, **bootstrap)
    for name, found, draw in (
        ('localisation', sizes, draw_lesion_size),
        ('froc', curves, draw_free_response),
    ):
        for label_name in dict.fromkeys(record['label_name'] for record in found):
            made.append(report / file_name(f'{name}_{label_name}.png'))
            draw([record for record in found if record['label_name'] == label_name], made[-1])
    return made


def show(records: Records) -> None:
    """Prints the records of localisation.csv, a table a label."""
    for label_name in dict.fromkeys(record['label_name'] for record in records):
        of_label = [record for record in records if record['label_name'] == label_name]
        table = rich.table.Table(
            title=f'{label_name}: where saliency looks', box=rich.box.SIMPLE_HEAD
        )
        for name in ('encoder', 'model', 'method'):
            table.add_column(name, no_wrap=True)
        columns = {
            'Jaccard': 'jaccard',
            'with 2nd region': 'jaccard_both',
            'average precision': 'average_precision',
            'pointing': 'pointing',
            'FROC': 'froc',
        }
        columns = {
            title: name
            for title, name in columns.items()
            if not all(math.isnan(record[name]) for record in of_label)
        }
        for title in ('slides', *columns):
            table.add_column(title, justify='right', no_wrap=True)
        for record in of_label:
            table.add_row(
                *(record[name] for name in ('encoder', 'model', 'method')),
                str(record['slides']),
                *(_cell(record, name) for name in columns.values()),
            )
        progress.console.print(table)
    progress.console.print('of slides with lesions; [low, high]: 95 % interval, cases resampled')
    if any(record['lesions'] for record in records):
        rates = ', '.join(f'{rate:g}' for rate in RATES)
        progress.console.print(f'FROC: mean sensitivity at {rates} false positives a slide')


def draw_lesion_size(records: Records, path: pathlib.Path) -> None:
    """Draws the records of `localisation_summary.by_lesion_size` of one label."""
    figure, panels, styles = _figure(records, 'Jaccard index over lesion area')
    for axis, lines in zip(figure.axes, panels.values(), strict=True):
        lesion_size(axis, lines, styles)
    _finish(figure, path)


def lesion_size(axis: Axes, lines: Lines, styles: Styles) -> None:
    """Draws the mean Jaccard index over lesion area, intervals side by side."""
    apart = {
        name: [{**record, 'positive': '', 'area': record['area'] * beside} for record in records]
        for (name, records), beside in zip(lines.items(), _beside(len(lines)), strict=True)
    }
    evaluation_curves.lesion_size(axis, apart, styles, metric='jaccard')
    axis.set(ylim=(-0.02, 1.02), ylabel='Jaccard index, mean of a bin')


def draw_free_response(records: Records, path: pathlib.Path) -> None:
    """Draws the records of `evaluation.free_response` of one label."""
    figure, panels, styles = _figure(records, 'lesions found against false positives')
    for axis, lines in zip(figure.axes, panels.values(), strict=True):
        free_response_curves(axis, lines, styles)
    _finish(figure, path)


def free_response_curves(axis: Axes, lines: Lines, styles: Styles) -> None:
    """Draws sensitivity over false positives, with intervals at the challenge's rates."""
    rates = np.geomspace(_LEAST_RATE, RATES[-1], 200)
    for (name, (record,)), beside in zip(lines.items(), _beside(len(lines)), strict=True):
        style = styles[name]
        axis.plot(rates, np.interp(rates, *record['curve']), color=style['color'], linewidth=1.5)
        values = np.array(record['sensitivities'])
        drawn = axis.errorbar(
            np.multiply(RATES, beside),
            values,
            yerr=np.maximum(0, [values - record['lows'], record['highs'] - values]),
            label=name,
            markersize=5,
            elinewidth=0.9,
            **{**style, 'linestyle': 'none'},
        )
        for bars in drawn.lines[2]:
            bars.set_alpha(0.5)
    axis.set_xscale('log')
    axis.set_xticks(RATES, [f'{rate:g}' for rate in RATES])
    axis.minorticks_off()
    axis.set(
        xlim=(_LEAST_RATE, 1.1 * RATES[-1]),
        ylim=(-0.02, 1.02),
        xlabel='false positives a slide, mean',
        ylabel='share of lesions found',
    )


def _joined(records: Records, curves: Records) -> list[dict[str, Any]]:
    """Each record with the score of its curve as `froc`, NaN where there is none."""
    found = {tuple(each[name] for name in GROUP): each for each in curves}
    nothing = {'lesions': 0, 'slides': 0, **dict.fromkeys(('score', 'low', 'high'), math.nan)}
    joined = []
    for record in records:
        each = found.get(tuple(record[name] for name in GROUP), nothing)
        joined.append(
            {
                **record,
                'froc': each['score'],
                'froc_low': each['low'],
                'froc_high': each['high'],
                'froc_slides': each['slides'],
                'lesions': each['lesions'],
            }
        )
    return joined


def _beside(count: int) -> np.ndarray:
    """Factors around 1, on logarithmic axes as far apart."""
    return _APART ** (np.arange(count) - (count - 1) / 2)


def _cell(record: Mapping[str, Any], name: str) -> str:
    value, low, high = (record[f'{name}{end}'] for end in ('', '_low', '_high'))
    return '–' if math.isnan(value) else f'{value:.3f} [{low:.3f}, {high:.3f}]'


def _figure(records: Records, what: str) -> tuple[Figure, dict[str, Lines], Styles]:
    """A figure with a panel an encoder and model; what is in each, a line a method."""
    varying = [name for name in ('encoder', 'model') if len({each[name] for each in records}) > 1]
    panels = collections.defaultdict(lambda: collections.defaultdict(list))
    for record in records:
        panel = ', '.join(record[name] for name in varying)
        panels[panel][record['method']].append(record)
    methods = dict.fromkeys((*_METHODS, *(record['method'] for record in records)))
    looks = zip(methods, itertools.cycle(COLOURS), itertools.cycle(_MARKERS), strict=False)
    styles = {
        name: {'color': colour, 'marker': marker, 'linestyle': '-'}
        for name, colour, marker in looks
    }
    columns = min(len(panels), 3)
    lines = -(-len(panels) // columns)
    figure = new_figure(lines, columns, size=(4.4 * columns + 1.8, 4 * lines + 0.3))
    for axis in figure.axes[len(panels) :]:
        axis.remove()
    for axis, panel in zip(figure.axes, panels, strict=True):
        axis.set_title(panel, loc='left', weight='bold')
    same = [records[0][name] for name in ('encoder', 'model') if name not in varying]
    title = ', '.join([records[0]['label_name'], *same])
    figure.suptitle(f'{title}: {what} (95 % intervals)', x=0.01, ha='left', size='medium')
    return figure, panels, styles


def _finish(figure: Figure, path: pathlib.Path) -> None:
    """One legend for all panels, beside them; writes the PNG."""
    found = {}
    for axis in figure.axes:
        axis.spines[['top', 'right']].set_visible(False)
        axis.grid(alpha=0.25, linewidth=0.6)
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    figure.legend(found.values(), found.keys(), loc='outside right center', frameon=False)
    save(figure, path)
