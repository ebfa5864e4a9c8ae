"""Who was predicted, and what was taken for what: counts of the rows of predictions.csv."""

import collections
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nic_jax.evaluation.predicted import Predicted, collect
from nic_jax.evaluation.predictions import class_names, has_label, task_of
from nic_jax.report.page_parts import Folded, Heading, Part, Shared, Table

Rows = Sequence[Mapping[str, Any]]

_ALL_FOLDS = 'all folds'  # tested by the mean of their networks


def cohort(rows: Rows, *, noun: str) -> list[Part]:
    """For each label its slides, cases and folds, and the classes in each.

    Args:
        rows: Of predictions.csv.
        noun: What is predicted: 'slides', or 'tiles'.
    """
    parts: list[Part] = []
    labels = list(dict.fromkeys(row['label_name'] for row in rows))
    lines = []
    for label_name in labels:
        of_label = [row for row in rows if row['label_name'] == label_name]
        tested = _slides(row for row in of_label if row['subset'] == 'test' and has_label(row))
        new = _slides(row for row in of_label if row['subset'] == 'new')
        lines.append(
            [
                label_name,
                task_of(of_label[0]),
                f'{len({slide_id for slide_id, _ in tested}):,}',
                f'{len({row["case_id"] for row in tested.values()}):,}',
                f'{len({fold for _, fold in tested}):,}',
                f'{len(new):,}' if new else '–',
            ]
        )
        if tested:
            parts.append(_folds(label_name, tested, noun))
    head = ['label', 'task', f'{noun} tested', 'cases', 'folds', 'without label']
    caption = (
        f'{noun.capitalize()} that were predicted by networks which had never seen them; those '
        'without a label are predicted by the mean of the folds’ networks.'
    )
    return [Table(caption, head, lines, frozenset(range(2, 6))), *parts]


def confusions(rows: Rows, *, unit: str, noun: str) -> list[Part]:
    """Of each classification, what was taken for what: the best model's, the others folded away.

    Args:
        rows: Outside sweeps.
        unit: 'slide' or 'case'.
        noun: What is predicted.
    """
    noun = 'cases' if unit == 'case' else noun
    found = [each for each in collect(rows, unit=unit) if each.task == 'classification']
    parts: list[Part] = []
    for label_name in dict.fromkeys(each.label_name for each in found):
        of_label = [each for each in found if each.label_name == label_name]
        of_label.sort(key=_accuracy, reverse=True)
        first, *others = [_confusion(each, noun) for each in of_label]
        parts += [Heading(label_name), first]
        if others:
            parts.append(Folded(f'{len(others)} more', others))
    return parts


def _confusion(predicted: Predicted, noun: str) -> Table:
    K = len(predicted.class_names)
    counts = np.zeros((K, K), int)
    for scores in predicted.predictions:
        np.add.at(counts, (predicted.targets, scores.argmax(1)), 1)
    shares = counts / np.maximum(1, counts.sum(1, keepdims=True))
    lines = [
        [
            name,
            *(
                Shared(int(counts[row, column]), float(shares[row, column]), row == column)
                for column in range(K)
            ),
            f'{counts[row].sum():,}',
        ]
        for row, name in enumerate(predicted.class_names)
    ]
    seeds = len(predicted.seeds)
    added = f', {seeds} initialisations added up' if seeds > 1 else ''
    what = ', '.join(filter(None, (predicted.encoder, predicted.model)))
    return Table(
        f'Rows: what {noun} are. Columns: what they are predicted to be, and the share of the '
        f'row{added}. Accuracy {_accuracy(predicted):.3f}.',
        [f'{noun} that are', *(f'predicted {name}' for name in predicted.class_names), 'all'],
        lines,
        frozenset(range(1, K + 2)),
        title=what,
    )


def _accuracy(predicted: Predicted) -> float:
    return float((predicted.predictions.argmax(-1) == predicted.targets).mean())


def _slides(rows) -> dict[tuple[str, int | str], Mapping[str, Any]]:
    """A row of each slide and the fold that predicts it, whatever models did."""
    return {(row['slide_id'], row['fold']): row for row in rows}


def _folds(label_name: str, tested: Mapping[tuple, Mapping[str, Any]], noun: str) -> Table:
    """What each fold tests."""
    by_fold = collections.defaultdict(list)
    for (_, fold), row in sorted(tested.items(), key=lambda item: str(item[0][1])):
        by_fold[_ALL_FOLDS if fold == '' else str(fold)].append(row)
    every = [*by_fold.items()]
    if len(by_fold) > 1:
        every.append(('together', list(tested.values())))
    task = task_of(every[0][1][0])
    heads = {
        'classification': class_names(every[0][1][0]),
        'regression': ['least', 'median', 'most'],
        'survival': ['died', 'censored', 'median time'],
    }[task]
    lines = [
        [
            fold,
            f'{len(of_fold):,}',
            f'{len({row["case_id"] for row in of_fold}):,}',
            *_told(of_fold, task, heads),
        ]
        for fold, of_fold in every
    ]
    head = ['tested by fold', noun, 'cases', *heads]
    numbers = frozenset(range(1, len(head)))
    return Table(f'{label_name}: what each fold tests.', head, lines, numbers)


def _told(rows: Rows, task: str, heads: Sequence[str]) -> list[str]:
    if task == 'classification':
        counts = collections.Counter(row['label'] for row in rows)
        return [f'{counts[name]:,} ({counts[name] / len(rows):.0%})' for name in heads]
    if task == 'survival':
        died = sum(row['event'] for row in rows)
        middle = np.median([row['time'] for row in rows])
        return [f'{died:,}', f'{len(rows) - died:,}', f'{middle:,.4g}']
    values = [row['label'] for row in rows]
    return [f'{value:,.4g}' for value in np.percentile(values, [0, 50, 100])]
