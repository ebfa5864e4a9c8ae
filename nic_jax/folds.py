"""Who trains, who validates and who tests: folds over cases."""

import collections
import dataclasses
import re
import warnings
from collections.abc import Sequence
from typing import Literal

import numpy as np
from sklearn import model_selection

from nic_jax.case_subsets import nested_subset
from nic_jax.cohort import MISSING, CohortError, SlideEntry, table_columns

TASKS = ('classification', 'regression', 'survival')
# Strata of a regression's labels, where there are cases enough for each part to hold all of them.
REGRESSION_STRATA = 5
# The same of a survival's times, of those who died and of the censored.
SURVIVAL_STRATA = 3

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
    labels: Sequence[float] | np.ndarray,
    *,
    task: Literal['classification', 'regression', 'survival'],
    parts: int = 4,
    train_parts: int = 2,
    seed: int,
) -> tuple[Fold, ...]:
    """One fold per part: fold k tests part k, validates on those after it, and trains on the rest.

    Cases are never split. Parts are stratified: by class, by fifths of the values' ranking, or by
    event and, of each, thirds of the times' ranking; by fewer where cases do not suffice. Every
    example is tested exactly once, the protocol of the TPAMI paper with 4 parts, 2 of them for
    training. With train_parts = parts - 1 the one part left validates and nothing is tested, the
    protocol of the multitask paper for a test set of its own.

    Args:
        case_ids: the case of each of N examples.
        labels: the class or value of each; of survival time and event, [N, 2].
        task: what the labels are.
        parts: how many parts, and folds.
        train_parts: how many parts train; one tests and the others validate.
        seed: of the shuffle of cases.

    Raises:
        CohortError: too few cases in all, of a class or with an event, or numbers of parts that
            cannot be.
    """
    case_ids, labels = np.asarray(case_ids), np.asarray(labels)
    if len(case_ids) != len(labels):
        raise ValueError(f'{len(case_ids)} case_ids and {len(labels)} labels must be as many')
    if task not in TASKS:
        raise ValueError(f'{task=} must be one of {", ".join(TASKS)}')
    _check_parts(parts, train_parts)
    _check_cases(case_ids, labels, task, parts)
    strata = _strata(case_ids, labels, task, parts)
    splitter = model_selection.StratifiedGroupKFold(parts, shuffle=True, random_state=seed)
    part = np.empty(len(labels), int)
    with warnings.catch_warnings():
        # Of the censored there may be fewer than parts; they go as far as they go.
        warnings.filterwarnings('ignore', 'The least populated class')
        for k, (_, held_out) in enumerate(splitter.split(strata, strata, case_ids)):
            part[held_out] = k
    return _rotate(part, parts=parts, train_parts=train_parts)


def given_folds(entries: Sequence[SlideEntry], case_ids: Sequence[str]) -> tuple[Fold, ...] | None:
    """The folds that the table itself gives, or None where it gives none.

    It may have a column `split` of the words train, valid (val, validation) and test: one fold; or
    columns `fold_0`, `fold_1`, … of those words: a fold each; or a column `fold` of the numbers of
    parts, which rotate as in `rotate_folds` (one tests, the next validates, the others train); with
    the word test for some slides, every fold tests those, one part validates and all others train,
    the protocol of the multitask paper. A slide whose cell is empty takes no part
    in that fold.

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


def subset_cases(
    fold: Fold,
    case_ids: Sequence[str],
    targets: np.ndarray,
    *,
    slides: int,
    task: Literal['classification', 'regression', 'survival'],
    seed: int,
) -> Fold:
    """A fold with fewer slides to train and validate on, the same ones to test: learning curves.

    Whole cases are taken, so that the number is met about. Training and validation keep their
    proportion, and classes (of survival, events) theirs, each having at least one case on either
    side. Of one seed, the slides of a smaller number are among those of a larger one.

    Args:
        fold: what to take from.
        case_ids: the case of each of N examples.
        targets: the class or value of each, [N]; of survival time and event, [N, 2].
        slides: how many train and validate together; 0 or as many as there are for the fold itself.
        task: what the targets are.
        seed: of the choice of cases.

    Raises:
        CohortError: a negative number.
    """
    if slides < 0:
        raise CohortError(f'{slides=} to train and validate on must be positive, or 0 for all')
    available = len(fold.train) + len(fold.valid)
    if not 0 < slides < available:
        return fold
    if task == 'regression':
        classes = np.zeros(len(targets))
    else:
        classes = targets[:, 1] if task == 'survival' else targets
    valid = int(slides * len(fold.valid) / available + 0.5)
    taken = {}
    for role, count in (('train', slides - valid), ('valid', valid)):
        taken[role] = nested_subset(
            getattr(fold, role), case_ids, classes, slides=count, seed=(seed, *role.encode())
        )
    return dataclasses.replace(fold, **taken)


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
    if task == 'survival' and labels.shape != (len(case_ids), 2):
        raise ValueError(f'{labels.shape=} must be [N, 2] for survival: time and event')
    if task != 'classification' and not np.isfinite(labels).all():
        raise CohortError('a label is not finite; leave slides without a label out of the folds')
    if task == 'survival' and (dead := len(np.unique(case_ids[labels[:, 1] == 1]))) < parts:
        raise CohortError(
            f'{dead} cases with an event, fewer than the {parts} parts; use fewer parts or add '
            'cases: each part must hold a death'
        )
    if task != 'classification':
        return
    for name in np.unique(labels):
        of_class = len(np.unique(case_ids[labels == name]))
        if of_class < parts:
            raise CohortError(
                f'class {name} has {of_class} cases, fewer than the {parts} parts; use fewer '
                'parts, add cases, or merge the class with another'
            )


def _strata(case_ids: np.ndarray, labels: np.ndarray, task: str, parts: int) -> np.ndarray:
    """What to spread over the parts, [N]: classes, or integers."""
    if task == 'classification':
        return labels
    if task == 'regression':
        return _rank_strata(labels, parts, REGRESSION_STRATA)
    # Of cases and not of slides, so that each part has one of each.
    _, first, case_of_slide = np.unique(case_ids, return_index=True, return_inverse=True)
    times, events = labels[first].T
    strata = np.empty(len(first), int)
    for event in (0, 1):
        chosen = events == event
        thirds = _rank_strata(times[chosen], parts, SURVIVAL_STRATA)
        strata[chosen] = event * SURVIVAL_STRATA + thirds
    return strata[case_of_slide]


def _rank_strata(values: np.ndarray, parts: int, most: int) -> np.ndarray:
    """Equal shares of the values by rank, as many as leave each part one of each."""
    strata = max(1, min(most, len(values) // parts))
    rank = np.argsort(np.argsort(values, kind='stable'))
    return rank * strata // max(1, len(values))


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
    tested = np.array([_WORDS.get(cell.lower()) == 'test' for cell in cells])
    for entry, cell, in_test in zip(entries, cells, tested, strict=True):
        if not in_test and not re.fullmatch(r'\d*', cell):
            raise CohortError(
                f'slide {entry.slide_id!r}: fold is {cell!r}, expected the number of its part, '
                'test, or nothing'
            )
    numbers = sorted({int(cell) for cell in cells if cell.isdigit()})
    least, roles = (2, 'train and validate') if tested.any() else (3, 'train, validate and test')
    if len(numbers) < least:
        raise CohortError(
            f'column fold has {len(numbers)} parts; it takes {least} or more, to {roles}'
        )
    part = np.array([numbers.index(int(cell)) if cell.isdigit() else -1 for cell in cells])
    folds = _rotate(part, parts=len(numbers), train_parts=len(numbers) + 1 - least)
    if not tested.any():
        return folds
    return tuple(dataclasses.replace(fold, test=np.flatnonzero(tested)) for fold in folds)


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
