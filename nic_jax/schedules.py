"""Learning rates as pure functions of what has happened."""

import math
from collections.abc import Sequence


def plateau(
    losses: Sequence[float], *, initial: float, patience: int, minimum: float
) -> float | None:
    """Divides the rate by ten whenever `patience` losses in a row are not below the best.

    Args:
        losses: Of the validation, one an epoch so far.
        initial: The first rate.
        patience: Epochs.
        minimum: The last rate.

    Returns:
        The rate of the next epoch; None where it would be below `minimum`: training is over.
    """
    best, waited, drops = math.inf, 0, 0
    for loss in losses:
        waited += 1
        if loss < best:
            best, waited = loss, 0
        if waited == patience:
            drops, waited = drops + 1, 0
    rate = initial / 10**drops
    return rate if rate >= minimum * (1 - 1e-6) else None


def cosine(step: int, *, steps: int, initial: float, minimum: float) -> float:
    """Falls from `initial` at step 0 to `minimum` at the last of `steps`."""
    progress = step / max(1, steps - 1)
    return minimum + (initial - minimum) * (1 + math.cos(math.pi * progress)) / 2
