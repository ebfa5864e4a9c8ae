"""Rows of a table of results: hold-outs of all folds scored once, a seed at a time."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nic_jax.evaluation.metrics import Score
from nic_jax.evaluation.predicted import Predicted, collect
from nic_jax.evaluation.predictions import GROUP, group_names
from nic_jax.evaluation.resampling import interval, multiplicities
from nic_jax.evaluation.scoring import PRIMARY, resampled_primary, score


def table(
    rows: Sequence[Mapping[str, Any]], *, seed: int = 0, rounds: int = 1000, unit: str = 'slide'
) -> list[dict[str, Any]]:
    """Scores hold-outs as the papers do: those of all folds together, once for each seed.

    Args:
        rows: Of one or several predictions.csv, see `predicted.collect`.
        seed: Of the bootstrap.
        rounds: Of the bootstrap.
        unit: 'slide' or 'case'.

    Returns:
        For each encoder, label, model and point, a record of `encoder`, `label_name`, `model`,
        `point`, `task`, `unit`; `seeds`, `slides` and `cases` (counts); `by_seed` {seed: {metric:
        value}}; `mean` and `sd` over seeds {metric: value}, sd NaN for one seed; `primary`, the
        metric whose mean over seeds has the 95 % interval `low` to `high` (resampling cases);
        `skipped`, resamples without a figure; `reasons` {metric: why NaN};
        `folds` {fold: {metric: mean over seeds}} and `fold_mean` {metric: their mean}, NaN if any
        is, of the hold-outs that are one fold's; `groups` {name: the same figures, seeds to
        reasons, of the slides that are in it}.

    Raises:
        PredictionsError: A model's seeds predict different slides, or a case has several labels.
    """
    settings = {'seed': seed, 'rounds': rounds}
    records = {}
    for each in collect(rows, unit=unit):
        records[_key(each)] = {
            'encoder': each.encoder,
            'label_name': each.label_name,
            'model': each.model,
            'point': each.point,
            'task': each.task,
            'unit': unit,
            **_summary(each, **settings),
            **_by_fold(each),
            'groups': {},
        }
    for name in dict.fromkeys(name for row in rows for name in group_names(row)):
        inside = [row for row in rows if row.get(GROUP + name) == 1]
        for each in collect(inside, unit=unit):
            records[_key(each)]['groups'][name] = _summary(each, **settings)
    return list(records.values())


def _key(predicted: Predicted) -> tuple:
    return predicted.encoder, predicted.label_name, predicted.model, predicted.point


def _summary(predicted: Predicted, *, seed: int, rounds: int) -> dict[str, Any]:
    scores = score(predicted)
    columns = _columns(scores)
    weights = multiplicities(predicted.case_ids, seed=seed, rounds=rounds)
    low, high, skipped = interval(resampled_primary(predicted, weights))
    return {
        'seeds': len(scores),
        'slides': predicted.slides,
        'cases': len(set(predicted.case_ids.tolist())),
        'by_seed': {
            number: {name: each.value for name, each in found.items()}
            for number, found in scores.items()
        },
        'mean': {name: float(np.mean(column)) for name, column in columns.items()},
        'sd': {
            name: float(np.std(column, ddof=1)) if len(column) > 1 else float('nan')
            for name, column in columns.items()
        },
        'primary': PRIMARY[predicted.task],
        'low': low,
        'high': high,
        'skipped': skipped,
        'reasons': {
            name: each.reason
            for found in scores.values()
            for name, each in found.items()
            if each.reason
        },
    }


def _by_fold(predicted: Predicted) -> dict[str, dict]:
    """Figures of each fold, and their mean; those that several folds foretold are in none."""
    folds = np.array([-1 if fold == '' else fold for _, fold in predicted.units])
    found = {}
    for number in np.unique(folds[folds >= 0]).tolist():
        columns = _columns(score(predicted.at(np.flatnonzero(folds == number))))
        found[number] = {name: float(np.mean(column)) for name, column in columns.items()}
    names = next(iter(found.values()), {})
    return {
        'folds': found,
        'fold_mean': {
            name: float(np.mean([figures[name] for figures in found.values()])) for name in names
        },
    }


def _columns(scores: Mapping[int, Mapping[str, Score]]) -> dict[str, list[float]]:
    """The values of each metric, a seed each."""
    return {
        name: [found[name].value for found in scores.values()]
        for name in next(iter(scores.values()))
    }
