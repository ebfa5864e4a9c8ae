"""Who trains, who validates and who tests: folds over cases."""

import collections
import dataclasses
import re
from collections.abc import Sequence
from typing import Literal

import numpy as np
from sklearn import model_selection

from nic_jax.cohort import MISSING, CohortError, SlideEntry, table_columns

# Strata of a regression's labels, where there are cases enough for each part to hold all of them.
REGRESSION_STRATA = 5

_WORDS = {
    'train': 'train',
    'training': 'train',
    'valid': 'valid',
    'val': 'valid',
    'validation': 'valid',
    'test': 'test',
    'testing': 'test',
}


@dataclasses.dataclass(frozen=True, eq=False)
class Fold:
    """Indices, int [n], ascending, of the examples of each role; disjoint."""

    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray


def rotate_folds(
    case_ids: Sequence[str],
    labels: Sequence[float],
    *,
    task: Literal['classification', 'regression'],
    parts: int = 4,
    train_parts: int = 2,
    seed: int,
) -> tuple[Fold, ...]:
    """One fold per part: fold k tests part k, validates on those after it, and trains on the rest.

    Cases are never split. Parts are stratified: by class, or by fifths of the labels' ranking (for
    survival, stratify by the event as a classification). Every example is tested exactly once, the
    protocol of the TPAMI paper with 4 parts, 2 of them for training. With train_parts = parts - 1
    the one part left validates and nothing is tested, the protocol of the multitask paper for a
    test set of its own.

    Args:
        case_ids: the case of each of N examples.
        labels: the class or value of each.
        task: what the labels are.
        parts: how many parts, and folds.
        train_parts: how many parts train; one tests and the others validate.
        seed: of the shuffle of cases.

    Raises:
        CohortError: too few cases in all or of a class, or numbers of parts that cannot be.
    """
    case_ids, labels = np.asarray(case_ids), np.asarray(labels)
    if len(case_ids) != len(labels):
        raise ValueError(f'{len(case_ids)} case_ids and {len(labels)} labels must be as many')
    _check_parts(parts, train_parts)
    _check_cases(case_ids, labels, task, parts)
    strata = labels if task == 'classification' else _rank_strata(labels, parts)
    splitter = model_selection.StratifiedGroupKFold(parts, shuffle=True, random_state=seed)
    part = np.empty(len(labels), int)
    for k, (_, held_out) in enumerate(splitter.split(strata, strata, case_ids)):
        part[held_out] = k
    return _rotate(part, parts=parts, train_parts=train_parts)


def given_folds(entries: Sequence[SlideEntry], case_ids: Sequence[str]) -> tuple[Fold, ...] | None:
    """The folds that the table itself gives, or None where it gives none.

    It may have a column `split` of the words train, valid (val, validation) and test: one fold; or
    columns `fold_0`, `fold_1`, … of those words: a fold each; or a column `fold` of the numbers of
    parts, which rotate as in `rotate_folds` (one tests, the next validates, the others train). A
    slide whose cell is empty takes no part in that fold.

    Args:
        entries: the slides, N.
        case_ids: the case of each.

    Raises:
        CohortError: columns of several kinds, an unknown word or number, a fold that trains or
            validates on nothing, or a case on two sides of a fold.
    """
    columns = table_columns(entries)
    numbered = sorted(
        (c for c in columns if re.fullmatch(r'fold_\d+', c)), key=lambda c: int(c[5:])
    )
    kinds = [c for c in ('split', 'fold') if c in columns] + numbered[:1]
    if not kinds:
        return None
    if len(kinds) > 1:
        raise CohortError(f'the table gives folds by {" and by ".join(kinds)}; keep one of them')
    if kinds == ['fold']:
        named_folds = [('fold', fold) for fold in _numbered_parts(entries)]
    else:
        named_folds = [(column, _worded(entries, column)) for column in numbered or kinds]
    for column, fold in named_folds:
        _check_fold(column, fold, case_ids)
    return tuple(fold for _, fold in named_folds)


def _check_parts(parts: int, train_parts: int):
    if parts < 2 or not 1 <= train_parts < parts:
        raise CohortError(
            f'{train_parts=} of {parts=}: there must be two parts or more, at least one of which '
            'trains and at least one does not'
        )


def _check_cases(case_ids: np.ndarray, labels: np.ndarray, task: str, parts: int):
    cases = len(np.unique(case_ids))
    if cases < parts:
        raise CohortError(f'{cases} cases cannot make {parts} parts; use fewer parts or more cases')
    if task == 'regression':
        if not np.isfinite(labels).all():
            raise CohortError(
                'a label is not finite; leave slides without a label out of the folds'
            )
        return
    if task != 'classification':
        raise ValueError(f"{task=} must be 'classification' or 'regression'")
    for name in np.unique(labels):
        of_class = len(np.unique(case_ids[labels == name]))
        if of_class < parts:
            raise CohortError(
                f'class {name} has {of_class} cases, fewer than the {parts} parts; use fewer '
                'parts, add cases, or merge the class with another'
            )


def _rank_strata(labels: np.ndarray, parts: int) -> np.ndarray:
    """Equal shares of the labels by rank, as many as leave each part one of each."""
    strata = max(1, min(REGRESSION_STRATA, len(labels) // parts))
    rank = np.argsort(np.argsort(labels, kind='stable'))
    return rank * strata // len(labels)


def _rotate(part: np.ndarray, *, parts: int, train_parts: int) -> tuple[Fold, ...]:
    """Folds from the part of each example, int [N]; -1 takes no part."""
    tests = 1 if parts - train_parts > 1 else 0
    folds = []
    for k in range(parts):
        step = np.where(part < 0, -1, (part - k) % parts)  # 0 tests, the next validate
        folds.append(
            Fold(
                train=np.flatnonzero(step >= parts - train_parts),
                valid=np.flatnonzero((step >= tests) & (step < parts - train_parts)),
                test=np.flatnonzero((step >= 0) & (step < tests)),
            )
        )
    return tuple(folds)


def _cells(entries: Sequence[SlideEntry], column: str) -> list[str]:
    cells = [entry.row.get(column, '').strip() for entry in entries]
    return ['' if cell.lower() in MISSING else cell for cell in cells]


def _numbered_parts(entries: Sequence[SlideEntry]) -> tuple[Fold, ...]:
    cells = _cells(entries, 'fold')
    for entry, cell in zip(entries, cells, strict=True):
        if not re.fullmatch(r'\d*', cell):
            raise CohortError(
                f'slide {entry.slide_id!r}: fold is {cell!r}, expected the number of its part, or '
                'nothing'
            )
    numbers = sorted({int(cell) for cell in cells if cell})
    if len(numbers) < 3:
        raise CohortError(
            f'column fold has {len(numbers)} parts; it takes 3 or more, to train, validate and test'
        )
    part = np.array([numbers.index(int(cell)) if cell else -1 for cell in cells])
    return _rotate(part, parts=len(numbers), train_parts=len(numbers) - 2)


def _worded(entries: Sequence[SlideEntry], column: str) -> Fold:
    roles = []
    for entry, cell in zip(entries, _cells(entries, column), strict=True):
        if cell and cell.lower() not in _WORDS:
            raise CohortError(
                f'slide {entry.slide_id!r}: {column} is {cell!r}, expected train, valid, test or '
                'nothing'
            )
        roles.append(_WORDS.get(cell.lower(), ''))
    roles = np.array(roles)
    return Fold(*(np.flatnonzero(roles == role) for role in ('train', 'valid', 'test')))


def _check_fold(column: str, fold: Fold, case_ids: Sequence[str]):
    sides = collections.defaultdict(set)
    for role in ('train', 'valid', 'test'):
        for index in getattr(fold, role):
            sides[case_ids[index]].add(role)
    for case, roles in sides.items():
        if len(roles) > 1:
            raise CohortError(
                f'case {case!r} is on two sides of column {column}: {" and ".join(sorted(roles))}; '
                'put all its slides on one'
            )
    for role in ('train', 'valid'):
        if not len(getattr(fold, role)):
            raise CohortError(
                f'column {column} has no slide to {role} on; write {role} for some, a fifth of the '
                'training cases for valid'
            )
