"""The picture of survival: Kaplan–Meier curves of low and high risk."""

import math
import pathlib

import matplotlib.axes
import matplotlib.ticker
import numpy as np

from nic_jax.evaluation.survival import kaplan_meier, log_rank
from nic_jax.report.pictures import new_figure, save

# Okabe and Ito's blue and vermilion, which the colour-blind tell apart; and by their dashes.
_GROUPS = (('low risk', '#0072B2', '-'), ('high risk', '#D55E00', '--'))


def draw(
    times: np.ndarray,
    events: np.ndarray,
    high_risk: np.ndarray,
    path: pathlib.Path,
    *,
    title: str,
    time_label: str = 'time',
) -> None:
    """Draws the curves to a file.

    Args:
        times: [N], to death or censoring.
        events: [N], 1 for a death, 0 for censoring.
        high_risk: bool [N], such as `survival.median_split` gives.
        path: The PNG file.
        title: Over all.
        time_label: Under the axis of times, with their unit.
    """
    figure = new_figure(1, 1, size=(6.4, 4.8))
    draw_on(figure.axes[0], times, events, high_risk, time_label=time_label)
    figure.suptitle(title)
    save(figure, path)


def draw_on(
    axis: matplotlib.axes.Axes,
    times: np.ndarray,
    events: np.ndarray,
    high_risk: np.ndarray,
    *,
    time_label: str = 'time',
) -> None:
    """Draws the curves with their 95 % bands, ticks where somebody is censored, and log-rank's p.

    Below the axis stands how many of each group are still at risk. An empty group has no curve.

    Args:
        axis: Drawn into; its figure's layout should be 'constrained', to make room below.
        times: [N], to death or censoring.
        events: [N], 1 for a death, 0 for censoring.
        high_risk: bool [N].
        time_label: Under the axis of times, with their unit.
    """
    times, events = np.asarray(times, np.float64), np.asarray(events, bool)
    high_risk = np.asarray(high_risk, bool)
    axis.set(xlim=(0, times.max() * 1.02), ylim=(0, 1.03), xlabel=time_label, ylabel='survival')
    axis.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    ticks = [tick for tick in axis.get_xticks() if 0 <= tick <= times.max()]
    axis.set_xticks(ticks)
    for line, (member, (name, colour, dashes)) in enumerate(
        zip((~high_risk, high_risk), _GROUPS, strict=True)
    ):
        if member.any():
            curve = kaplan_meier(times[member], events[member])
            steps = {'drawstyle': 'steps-post', 'color': colour, 'linestyle': dashes}
            label = f'{name}: {member.sum()}, of whom {events[member].sum()} died'
            axis.plot(curve.times, curve.survival, label=label, **steps)
            axis.fill_between(
                curve.times, curve.low, curve.high, step='post', color=colour, alpha=0.15, lw=0
            )
            censored = np.unique(times[member & ~events])
            after = np.searchsorted(curve.times, censored, side='right') - 1
            axis.plot(censored, curve.survival[after], '|', color=colour, markersize=6)
        left = [np.count_nonzero(times[member] >= tick) for tick in ticks]
        _write_below(axis, line + 1, name, dict(zip(ticks, left, strict=True)), colour)
    _write_below(axis, 0, 'at risk', {}, 'black')
    p = log_rank(*(array[who] for who in (high_risk, ~high_risk) for array in (times, events))).p
    axis.legend(title=f'log-rank {_p_text(p)}', loc='best')


def _write_below(
    axis: matplotlib.axes.Axes, line: int, name: str, counts: dict[float, int], colour: str
) -> None:
    """Writes a line under the axis and its label: a name, and counts at their times."""
    down = -44 - 13 * line  # points, so that the layout can tell how much room it takes
    style = {
        'textcoords': 'offset points',
        'color': colour,
        'va': 'center',
        'annotation_clip': False,
    }
    axis.annotate(name, (0, 0), (-18, down), xycoords='axes fraction', ha='right', **style)
    for time, count in counts.items():
        at = ('data', 'axes fraction')
        axis.annotate(str(count), (time, 0), (0, down), xycoords=at, ha='center', **style)


def _p_text(p: float) -> str:
    if math.isnan(p):
        return 'p: not to be had'
    return 'p < 0.001' if p < 0.001 else f'p = {p:.3f}'
