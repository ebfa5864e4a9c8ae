"""Drawing validation and test tiles out of the training ones, by whole sources."""

from collections.abc import Mapping, Sequence

import numpy as np


def share_out(
    sources: Sequence[str], labels: Sequence[str], *, shares: Mapping[str, float], seed: int
) -> list[str]:
    """Deals sources out to subsets so that each has its share of every class.

    The largest sources are dealt first, those of one size in a random order, each to the subset
    where it lessens the squared error of the classes' counts most, relative to what is due. With
    sources of one tile that is Sainte-Laguë's apportionment: no class is off by more than one tile.
    A tie goes to the subset named first; so the only source of a class does, if its share is the
    largest.

    Args:
        sources: Of each tile, `[N]`; never split.
        labels: Of each tile, `[N]`; '' is a class here as well.
        shares: Subset to its share, above 0; they sum to 1.
        seed: Of the order.

    Returns:
        The subset of each tile, `[N]`.
    """
    groups, group = np.unique(np.array(sources), return_inverse=True)
    classes, label = np.unique(np.array(labels), return_inverse=True)
    counts = np.zeros((len(groups), len(classes)))
    np.add.at(counts, (group, label), 1)
    due = np.array(list(shares.values()))[:, None] * counts.sum(axis=0)  # [subsets, classes]
    dealt = np.zeros_like(due)
    chosen = np.empty(len(groups), int)
    order = np.random.default_rng(seed).permutation(len(groups))
    for number in order[np.argsort(-counts[order].sum(axis=1), kind='stable')]:
        change = counts[number] * (2 * (dealt - due) + counts[number]) / due  # of squared errors
        chosen[number] = np.argmin(np.round(change.sum(axis=1), 9))  # rounding must not break ties
        dealt[chosen[number]] += counts[number]
    subsets = list(shares)
    return [subsets[index] for index in chosen[group]]
