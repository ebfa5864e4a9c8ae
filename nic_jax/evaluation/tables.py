"""Rows of a table of results: hold-outs of all folds scored once, a seed at a time."""

import collections
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nic_jax.evaluation.metrics import (
    Score,
    auc,
    bootstrap,
    classification_metrics,
    regression_metrics,
    spearman,
)
from nic_jax.evaluation.predictions import SCORE, PredictionsError, class_names

# With intervals, and what the tables of the paper show.
PRIMARY = {True: 'auc', False: 'spearman'}


def table(
    rows: Sequence[dict[str, Any]], *, seed: int = 0, rounds: int = 1000
) -> list[dict[str, Any]]:
    """Scores hold-outs as the papers do: those of all folds together, once for each seed.

    Rows without a label, and subsets other than 'test', are left out. A column `encoder` in the
    rows keeps encoders apart.

    Args:
        rows: Of one or several predictions.csv.
        seed: Of the bootstrap.
        rounds: Of the bootstrap.

    Returns:
        For each encoder, label and model, a record of `seeds`, `slides` and `cases` (counts);
        `by_seed` {seed: {metric: value}}; `mean` and `sd` over seeds {metric: value}, sd NaN for
        one seed; `primary`, the metric whose mean over seeds has the 95 % interval `low` to `high`
        (resampling cases); `skipped`, resamples without a figure; `reasons` {metric: why NaN}.

    Raises:
        PredictionsError: a model's seeds predict different slides.
    """
    groups = collections.defaultdict(lambda: collections.defaultdict(dict))
    for row in rows:
        if row['subset'] == 'test' and row['label'] != '':
            key = (row.get('encoder', ''), row['label_name'], row['model'])
            groups[key][row['seed']][row['slide_id'], row['fold']] = row
    return [
        {'encoder': encoder, 'label_name': label_name, 'model': model}
        | _summary(f'{label_name}, {model}', by_seed, seed=seed, rounds=rounds)
        for (encoder, label_name, model), by_seed in groups.items()
    ]


def _summary(
    what: str, by_seed: dict[int, dict[str, dict[str, Any]]], *, seed: int, rounds: int
) -> dict[str, Any]:
    # A slide counts once for each fold that tests it.
    slides = sorted(next(iter(by_seed.values())))
    for number, predicted in by_seed.items():
        if sorted(predicted) != slides:
            differing = sorted(set(predicted) ^ set(slides))[:3]
            raise PredictionsError(
                f'{what}: seed {number} predicts other slides than the first seed, such as '
                f'{", ".join(slide for slide, _ in differing)}: let all folds of all seeds finish'
            )
    ordered = {number: [rows[slide] for slide in slides] for number, rows in by_seed.items()}
    first = next(iter(ordered.values()))
    names = class_names(first[0])
    arrays = {number: _arrays(rows, names) for number, rows in ordered.items()}

    score = classification_metrics if names else regression_metrics
    scores = {number: score(*arrays[number]) for number in arrays}
    values = {
        number: {name: each.value for name, each in found.items()}
        for number, found in scores.items()
    }
    metric_names = list(next(iter(values.values())))
    columns = {name: [found[name] for found in values.values()] for name in metric_names}
    primary: Callable[..., Score] = auc if names else spearman

    def mean_over_seeds(indices: np.ndarray) -> float:
        return float(np.mean([primary(a[indices], b[indices]).value for a, b in arrays.values()]))

    case_ids = [row['case_id'] for row in first]
    interval = bootstrap(mean_over_seeds, case_ids, seed=seed, rounds=rounds)
    return {
        'seeds': len(values),
        'slides': len(slides),
        'cases': len(set(case_ids)),
        'by_seed': values,
        'mean': {name: float(np.mean(column)) for name, column in columns.items()},
        'sd': {
            name: float(np.std(column, ddof=1)) if len(column) > 1 else float('nan')
            for name, column in columns.items()
        },
        'primary': PRIMARY[bool(names)],
        'low': interval.low,
        'high': interval.high,
        'skipped': interval.skipped,
        'reasons': {
            name: each.reason
            for found in scores.values()
            for name, each in found.items()
            if each.reason
        },
    }


def _arrays(rows: Sequence[dict[str, Any]], names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Labels [N] and scores [N, K], or targets [N] and values [N]."""
    if names:
        return (
            np.array([names.index(row['label']) for row in rows]),
            np.array([[row[SCORE + name] for name in names] for row in rows]),
        )
    return (
        np.array([row['label'] for row in rows], np.float64),
        np.array([row['prediction'] for row in rows], np.float64),
    )
