"""Curves of the page that no other file holds: ROC, precision and recall, values, trainings."""

import collections
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from nic_jax.evaluation.metrics import auc
from nic_jax.evaluation.predicted import Predicted, collect
from nic_jax.evaluation.resampling import multiplicities
from nic_jax.report.page_inputs import stage_records
from nic_jax.report.page_parts import Picture
from nic_jax.report.page_pictures import legend_name, of_figure, square, styled
from nic_jax.report.pictures import COLOURS

GRID = np.linspace(0, 1, 101)  # false-positive rates, or recalls, at which curves are had
TRAINED = {  # by stage
    'encoder': 'encoders',
    'classify': 'networks on grids',
    'finetune': 'encoders and networks that were trained together',
}
_LINES = 8  # in one picture, at most: more cannot be told apart
_PANELS = 12
_ROUNDS = 300
_DASHES = ('-', '--')
_GREY = '0.6'

Records = Sequence[Mapping[str, Any]]


def predictions(rows: Records, *, unit: str, seed: int) -> dict[str, list[Picture]]:
    """Pictures of the predictions of each label: ROC and the like, or values against truth.

    Args:
        rows: Outside sweeps.
        unit: 'slide' or 'case'.
        seed: Of the bootstrap.
    """
    found = collect(rows, unit=unit)
    pictures = collections.defaultdict(list)
    for label_name in dict.fromkeys(each.label_name for each in found):
        of_label = [each for each in found if each.label_name == label_name]
        if of_label[0].task == 'classification':
            pictures[label_name].append(_classification(of_label, seed=seed))
        elif of_label[0].task == 'regression':
            pictures[label_name].append(_regression(of_label))
    return dict(pictures)


def trainings(path: pathlib.Path, stage: str) -> list[Picture]:
    """Losses of training and validation of every network, from metrics.jsonl.

    Args:
        path: metrics.jsonl; runs that came later stand for those before.
        stage: One of `TRAINED`.
    """
    step = 'epoch' if stage == 'classify' else 'step'
    panels = collections.defaultdict(lambda: collections.defaultdict(dict))
    for record in stage_records(path, stage):
        names = [record.get(name, '') for name in ('label_name', 'encoder', 'model')]
        line = (record.get('seed'), record.get('fold'))
        if record.get('valid_loss') is not None:
            panels[tuple(names)][line][record[step]] = record
    plain = {names: each for names, each in panels.items() if '@' not in names[2]} or panels
    shown = list(plain)[:_PANELS]
    if not shown:
        return []
    columns = min(3, len(shown))
    lines = -(-len(shown) // columns)
    with styled(lines, columns, size=(3.1 * columns + 0.2, 2.3 * lines + 0.3)) as figure:
        for axis, names in zip(figure.axes, shown, strict=False):
            _training(axis, plain[names].values(), step)
            axis.set_title(_title(names, shown), fontsize=7.5)
        for axis in figure.axes[len(shown) :]:
            axis.remove()
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc='outside lower center', ncols=2)
        cut = f' The first {len(shown)} of {len(plain)}.' if len(plain) > len(shown) else ''
        told = '' if stage == 'encoder' else ' A line is a fold and initialisation.'
        return [
            of_figure(figure, f'Losses of {TRAINED[stage]} over their training.{told}{cut}'),
        ]


def roc(labels: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Sensitivities at the false-positive rates of `GRID`, for each row of weights.

    Args:
        labels: bool `[N]`.
        scores: `[N]`; equal ones are passed by the threshold together.
        weights: How often each counts, `[R, N]`.

    Returns:
        `[R, G]`; NaN where there are no positives or no negatives.
    """
    hits, false_alarms = _passed(labels, scores, weights)
    curves = np.full((len(weights), len(GRID)), np.nan)
    for curve, y, x in zip(curves, hits, false_alarms, strict=True):
        if y[-1] and x[-1]:
            curve[:] = _upper(GRID, x / x[-1], y / y[-1])
    return curves


def precision_recall(labels: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Precisions at the recalls of `GRID`, for each row of weights: the best at that or more.

    Args and result as for `roc`.
    """
    hits, false_alarms = _passed(labels, scores, weights)
    curves = np.full((len(weights), len(GRID)), np.nan)
    for curve, y, x in zip(curves, hits, false_alarms, strict=True):
        if y[-1]:
            y, x = y[1:], x[1:]  # nothing has passed: no precision
            with np.errstate(invalid='ignore'):
                precision = np.nan_to_num(y / (y + x))
            best = np.maximum.accumulate(precision[::-1])[::-1]
            first = np.searchsorted(y / y[-1], GRID - 1e-12)
            curve[:] = best[np.minimum(first, len(best) - 1)]
    return curves


def _passed(
    labels: np.ndarray, scores: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Positives and negatives above every threshold, falling; `[R, T + 1]` each, from 0."""
    order = np.argsort(-scores, kind='stable')
    last = np.flatnonzero(np.diff(scores[order], append=-np.inf))  # of equal scores
    counted = []
    for part in (labels, ~labels):
        sums = (weights[:, order] * part[order]).cumsum(1, dtype=float)[:, last]
        counted.append(np.pad(sums, ((0, 0), (1, 0))))
    return counted[0], counted[1]


def _upper(at: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A curve of points joined by lines; where it rises straight up, its top."""
    return np.interp(at, x[_last_of_equal(x)], y[_last_of_equal(x)])


def _last_of_equal(x: np.ndarray) -> np.ndarray:
    return np.flatnonzero(np.diff(x, append=np.inf))


def _classification(found: Sequence[Predicted], *, seed: int) -> Picture:
    found = sorted(found, key=_quality, reverse=True)
    shown, two = found[:_LINES], found[0].positive != ''
    columns = 2 if two else 1
    with styled(1, columns, size=(3.9 * columns + 2.2, 3.9)) as figure:
        for axis, curve in zip(figure.axes, (roc, precision_recall), strict=False):
            for number, each in enumerate(shown):
                style = {
                    'color': COLOURS[number % len(COLOURS)],
                    'linestyle': _DASHES[number // len(COLOURS) % 2],
                }
                name = legend_name(_name(each, found))
                _curve(axis, each, curve, style, name=name, band=number == 0, seed=seed)
            square(axis)
        figure.axes[0].plot([0, 1], [0, 1], color=_GREY, linewidth=1, zorder=0)
        figure.axes[0].set(xlabel='false-positive rate', ylabel='sensitivity', title='ROC')
        if two:
            share = float((found[0].targets == 1).mean())
            figure.axes[1].axhline(share, color=_GREY, linewidth=1, zorder=0)
            figure.axes[1].set(
                xlabel='recall (sensitivity)', ylabel='precision', title='precision and recall'
            )
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc='outside right center')
        return of_figure(figure, _caption(found, len(shown)))


def _caption(found: Sequence[Predicted], shown: int) -> str:
    positive = found[0].positive
    told = (
        f'{positive} against the others' if positive else 'the mean of each class against the rest'
    )
    cut = f' The best {shown} of {len(found)}.' if len(found) > shown else ''
    seeds = ', averaged over initialisations' if len(found[0].seeds) > 1 else ''
    return (
        f'{found[0].label_name}: {told}{seeds}, on hold-outs. The band is the 95 % interval of the '
        f'first, cases resampled; grey is guessing.{cut}'
    )


def _curve(axis: Axes, predicted: Predicted, curve, style, *, name: str, band: bool, seed: int):
    """The mean over seeds (and classes) of a curve; with its interval if it is to have a band."""
    K = len(predicted.class_names)
    classes = range(K) if K > 2 else (1,)
    weights = np.ones((1, len(predicted.targets)))
    if band:
        drawn = multiplicities(predicted.case_ids, seed=seed, rounds=_ROUNDS)
        weights = np.concatenate([weights, drawn])
    curves = np.mean(
        [
            curve(predicted.targets == k, scores[:, k], weights)
            for scores in predicted.predictions
            for k in classes
        ],
        axis=0,
    )
    axis.plot(*_from_zero(curve, curves[0]), label=name, linewidth=1.6, **style)
    kept = curves[1:][~np.isnan(curves[1:]).any(1)]
    if len(kept):
        low, high = np.percentile(kept, [2.5, 97.5], axis=0)
        axis.fill_between(GRID, low, high, color=style['color'], alpha=0.15, linewidth=0)


def _from_zero(curve, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """An ROC curve begins where nothing passes."""
    if curve is roc:
        return np.concatenate([[0], GRID]), np.concatenate([[0], values])
    return GRID, values


def _regression(found: Sequence[Predicted]) -> Picture:
    best = max(found, key=_quality)
    values = best.predictions.mean(0)
    with styled(1, 1, size=(4.6, 4.2)) as figure:
        (axis,) = figure.axes
        ends = [min(best.targets.min(), values.min()), max(best.targets.max(), values.max())]
        axis.plot(ends, ends, color=_GREY, linewidth=1, zorder=0)
        axis.plot(best.targets, values, 'o', markersize=3.5, alpha=0.6, color=COLOURS[0])
        axis.set(xlabel=best.label_name, ylabel='predicted, hold-outs')
        what = ', '.join(filter(None, (best.encoder, best.model)))
        caption = f'{best.label_name}: predicted against measured, {what}; grey: equal.'
        return of_figure(figure, caption)


def _quality(predicted: Predicted) -> float:
    """What models are put in order by, the better the more."""
    if predicted.task == 'classification':
        areas = [auc(predicted.targets, scores).value for scores in predicted.predictions]
        return float(np.nan_to_num(np.mean(areas), nan=-1))
    ranks = [np.argsort(np.argsort(each)) for each in (predicted.targets, *predicted.predictions)]
    return float(np.nan_to_num(np.mean([np.corrcoef(ranks[0], each)[0, 1] for each in ranks[1:]])))


def _name(predicted: Predicted, among: Sequence[Predicted]) -> str:
    """What tells a line from the others."""
    parts = [
        name
        for key in ('encoder', 'model')
        if len({getattr(each, key) for each in among}) > 1 and (name := getattr(predicted, key))
    ]
    return ', '.join(parts) or predicted.model


def _title(names: Sequence[str], among: Sequence[Sequence[str]]) -> str:
    """Of a label, an encoder and a model what tells it from the others; encoders on a line."""
    told = [
        name if len({each[index] for each in among}) > 1 else '' for index, name in enumerate(names)
    ]
    label_name, encoder, model = told if any(told) else names
    return '\n'.join(filter(None, (encoder, ', '.join(filter(None, (label_name, model))))))


def _training(axis: Axes, lines, step: str) -> None:
    """Thin lines, a fold each; those that are one line of two are thicker."""
    lines = list(lines)
    width = 1.6 if len(lines) == 1 else 0.8
    styles = (('loss', 'training', COLOURS[0], '-'), ('valid_loss', 'validation', COLOURS[5], '--'))
    for key, label, colour, dashes in styles:
        for number, records in enumerate(lines):
            at = sorted(records)
            axis.plot(
                at,
                # None where it is not known: before the first step of a fine-tuning.
                [math.nan if records[where][key] is None else records[where][key] for where in at],
                color=colour,
                linestyle=dashes,
                linewidth=width,
                marker='.' if len(at) < 3 else None,
                label=label if number == 0 else None,
            )
    axis.set(xlabel=f'{step}s', ylabel='loss')
