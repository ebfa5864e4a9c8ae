"""Survival: whether the risks rank the deaths, and how the curves of high and low risk differ.

Everywhere, times [N] run to death or censoring in any unit, events [N] are 1 or True for a death
and 0 or False for censoring, and of risks [N] the higher dies sooner.
"""

import math
from typing import NamedTuple

import lifelines
import numpy as np
from lifelines import statistics

from nic_jax.evaluation.metrics import Score


class KaplanMeier(NamedTuple):
    """A curve of survival: at 0 and at every time of a death or censoring, M in all.

    Attributes:
        times: [M], ascending from 0.
        survival: [M], the share that lives on after each time.
        low: [M], lower end of the 95 % interval, by Greenwood's variance of log(−log survival).
        high: [M], its upper end.
        at_risk: int [M], how many were alive and followed up just before each time.
    """

    times: np.ndarray
    survival: np.ndarray
    low: np.ndarray
    high: np.ndarray
    at_risk: np.ndarray


class LogRank(NamedTuple):
    """The log-rank test of two curves, one degree of freedom."""

    chi2: float
    p: float


def concordance(times: np.ndarray, events: np.ndarray, risks: np.ndarray) -> Score:
    """Harrell's C: the share of pairs in which who dies first has the higher risk, .5 by chance.

    Pairs count where one is known to outlive the other: a death and a later death or censoring, or
    a censoring at the very time of the death. Equal risks count half.

    References:
        Harrell, Lee & Mark, Multivariable prognostic models, Statistics in Medicine 1996.
    """
    times, events, risks = _checked(times, events, risks)
    # Ascending ranks by time, of one time the censored after the dead.
    rank = 2 * np.unique(times, return_inverse=True)[1] + ~events
    outlived = rank[events, None] < rank  # [deaths, N]
    pairs = np.count_nonzero(outlived)
    if not pairs:
        why = 'nobody outlives a death' if events.any() else 'no deaths'
        return Score(math.nan, f'no pairs to compare: {why}')
    dead = risks[events, None]
    higher = np.count_nonzero(outlived & (dead > risks))
    equal = np.count_nonzero(outlived & (dead == risks))
    return Score((higher + equal / 2) / pairs)


def kaplan_meier(times: np.ndarray, events: np.ndarray) -> KaplanMeier:
    """Kaplan and Meier's curve and its 95 % intervals, point by point."""
    times, events, _ = _checked(times, events)
    fitted = lifelines.KaplanMeierFitter(alpha=0.05).fit(times, events)
    low, high = fitted.confidence_interval_survival_function_.to_numpy().T
    return KaplanMeier(
        times=fitted.survival_function_.index.to_numpy(),
        survival=fitted.survival_function_.to_numpy()[:, 0],
        low=low,
        high=high,
        at_risk=fitted.event_table['at_risk'].to_numpy(),
    )


def log_rank(
    times_a: np.ndarray, events_a: np.ndarray, times_b: np.ndarray, events_b: np.ndarray
) -> LogRank:
    """Tests whether two groups die alike; NaN where one is empty or nobody dies."""
    if not len(times_a) or not len(times_b) or not (np.any(events_a) or np.any(events_b)):
        return LogRank(math.nan, math.nan)
    times_a, events_a, _ = _checked(times_a, events_a)
    times_b, events_b, _ = _checked(times_b, events_b)
    found = statistics.logrank_test(times_a, times_b, events_a, events_b)
    return LogRank(float(found.test_statistic), float(found.p_value))


def median_split(risks: np.ndarray) -> np.ndarray:
    """Bool [N], True for high risk: above the median. Risks equal to the median are low."""
    risks = np.asarray(risks, np.float64)
    return risks > np.median(risks)


def survival_metrics(times: np.ndarray, events: np.ndarray, risks: np.ndarray) -> dict[str, Score]:
    """Returns concordance and log_rank_p, of high against low risk by `median_split`.

    Raises:
        ValueError: arrays that do not go together.
    """
    times, events, risks = _checked(times, events, risks)
    high = median_split(risks)
    if not events.any():
        p = Score(math.nan, 'no deaths')
    elif not high.any():
        p = Score(math.nan, 'no risk is above the median')
    else:
        p = Score(log_rank(times[high], events[high], times[~high], events[~high]).p)
    return {'concordance': concordance(times, events, risks), 'log_rank_p': p}


def _checked(
    times: np.ndarray, events: np.ndarray, risks: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """As float64, bool and float64; zeros for no risks."""
    times, events = np.asarray(times, np.float64), np.asarray(events)
    risks = np.zeros_like(times) if risks is None else np.asarray(risks, np.float64)
    if times.ndim != 1 or not len(times) or not times.shape == events.shape == risks.shape:
        raise ValueError(
            f'{times.shape=}, {events.shape=} and {risks.shape=} must be the same [N], N ≥ 1'
        )
    if not np.isfinite(times).all() or not np.isfinite(risks).all():
        raise ValueError('times and risks must be finite; leave slides without a label out')
    if not np.isin(events, (0, 1)).all():
        raise ValueError(
            f'events are {np.unique(events)[:5]}, must be 1 for a death and 0 for censoring'
        )
    return times, events.astype(bool), risks
