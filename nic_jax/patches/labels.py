"""The class of a patch, from the annotated regions that it lies in."""

from collections.abc import Sequence

import numpy as np

from nic_jax.patches.annotations import Region
from nic_jax.patches.coverage import inside, shares

RULES = ('share', 'centre')


def label_positions(
    regions: Sequence[Region],
    positions: np.ndarray,
    size: tuple[float, float],
    *,
    classes: Sequence[str],
    rule: str = 'share',
    threshold: float = 0.5,
    background: str | None = None,
) -> np.ndarray:
    """Labels patches by what covers them.

    Args:
        regions: Of one slide; those whose name is none of the classes label nothing.
        positions: (x, y) of the patches' top-left corners, level-0 px, float64 `[N, 2]`.
        size: Width and height of a patch, level-0 px.
        classes: Names, in the order of their indices.
        rule: 'share': the class that covers most of the patch, if that is `threshold` of its area
            or more (within 1/64, see `coverage`); 'centre': the class in which the patch's centre
            lies. Of equals the first in `classes` wins, so put what is drawn inside another first.
        threshold: In (0, 1].
        background: The class of patches that no region touches, whatever its name (by the rule
            'centre': whose centre is in none); None leaves them without a label.

    Returns:
        Indices into `classes`, int32 `[N]`; −1 where there is no label.

    Raises:
        ValueError: An unknown rule, a threshold that is none, or a background that is no class.
    """
    if rule not in RULES:
        raise ValueError(f'{rule=} of labels must be one of {", ".join(RULES)}')
    if not 0 < threshold <= 1:
        raise ValueError(f'{threshold=} of labels must be in (0, 1]')
    if background is not None and background not in classes:
        raise ValueError(f'{background=} must be one of the classes: {", ".join(classes)}')
    positions = np.asarray(positions, np.float64)
    centres = positions + np.array(size) / 2

    def covered(some: Sequence[Region]) -> np.ndarray:
        if rule == 'centre':
            return inside(some, centres).astype(np.float64)
        return shares(some, positions, size)

    if not classes or not len(positions):
        return np.full(len(positions), -1, np.int32)
    by_class = np.stack([covered([r for r in regions if r.name == name]) for name in classes])
    # Sums of floats that should be equal are not quite.
    by_class = by_class.round(9)  # [classes, N]
    labels = by_class.argmax(axis=0).astype(np.int32)
    labels[by_class.max(axis=0) < threshold] = -1
    if background is not None:
        others = [region for region in regions if region.name not in classes]
        touched = np.maximum(by_class.max(axis=0), covered(others)) > 0
        labels[~touched] = classes.index(background)
    return labels
