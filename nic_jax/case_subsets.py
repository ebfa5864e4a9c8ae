"""Fewer cases than there are, fairly."""

import collections
from collections.abc import Sequence

import numpy as np


def nested_subset(
    indices: np.ndarray,
    case_ids: Sequence[str],
    classes: np.ndarray,
    *,
    slides: int,
    seed: int | tuple[int, ...],
) -> np.ndarray:
    """Takes whole cases that hold about so many slides, classes keeping their proportion.

    All cases stand in one sequence, which the seed alone decides, and the first are taken: those of
    a smaller number are among those of a larger one. It begins with a case of each class, which are
    taken whatever the number. The sum nearest to the number is taken.

    Args:
        indices: int [n], of the slides to choose from.
        case_ids: the case of each of N slides.
        classes: the class of each, [N].
        slides: how many to take.
        seed: of the sequence.

    Returns:
        Some of the indices, ascending.
    """
    members = collections.defaultdict(list)
    for index in indices:
        members[case_ids[index]].append(index)
    # Cases whose slides are of several classes are spread for themselves.
    kinds = collections.defaultdict(list)
    for case in sorted(members):
        kinds[tuple(np.unique(classes[members[case]]))].append(case)
    rng = np.random.default_rng(seed)
    place, first_of_class = {}, {}
    for kind, cases in kinds.items():
        cases = [cases[k] for k in rng.permutation(len(cases))]
        # Evenly from 0 to 1, so that every beginning of the sequence has all kinds in proportion.
        sizes = np.array([len(members[case]) for case in cases])
        middles = (np.cumsum(sizes) - sizes / 2) / sizes.sum()
        place |= dict(zip(cases, middles, strict=True))
        for name in kind:
            first_of_class.setdefault(name, cases[0])
    needed = set(first_of_class.values())
    taken = []
    for case in sorted(place, key=lambda case: (case not in needed, place[case])):
        if case not in needed and len(taken) + len(members[case]) / 2 > slides:
            break
        taken += members[case]
    return np.sort(np.array(taken, int))
