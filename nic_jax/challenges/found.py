"""What a reader of a challenge's folder finds, and how it tells what is wrong: all at once."""

import dataclasses
import pathlib
import random
from collections.abc import Collection, Iterable, Sequence

from nic_jax.cohort import CohortError, SlideEntry

# The column that tells what a slide is for; empty: for everything.
USE = 'use'
FOR_ENCODERS, FOR_CLASSIFICATION = 'encoder', 'classifier'


@dataclasses.dataclass(frozen=True)
class Found:
    """A cohort.

    Attributes:
        entries: Its slides, in a fixed order.
        notes: What a user should hear of: how many there are, what is left out and why.
    """

    entries: tuple[SlideEntry, ...]
    notes: tuple[str, ...]


def refuse(what: str, place: pathlib.Path, problems: Sequence[str]) -> None:
    """Raises all problems of a cohort at once, if there are some.

    Raises:
        CohortError: A line for each.
    """
    if problems:
        lines = ''.join(f'\n  {number}. {text}' for number, text in enumerate(problems, 1))
        count = '1 problem' if len(problems) == 1 else f'{len(problems)} problems'
        raise CohortError(f'{place}: {count} with the files of {what}:{lines}')


def shown(names: Iterable[object], most: int = 5) -> str:
    """A list that does not get long."""
    names = list(map(str, names))
    return ', '.join(names[:most]) + (f' and {len(names) - most} more' * (len(names) > most))


def only(found: Collection[pathlib.Path], name: str, remedy: str, problems: list[str]):
    """The one file that there should be of a name, or None and a problem."""
    if not found:
        problems.append(f'no {name}; {remedy}')
    elif len({path.read_bytes() for path in found}) > 1:
        problems.append(f'several {name} that differ: {shown(found)}; keep the right one')
    else:
        return min(found)
    return None


def annotation_path(entry: SlideEntry, table: pathlib.Path) -> SlideEntry:
    """The slide with its column `annotation`, relative to the table's folder, made absolute."""
    cell = entry.row.get('annotation')
    if not cell:
        return entry
    path = str((table.parent / cell).absolute())
    return dataclasses.replace(entry, row={**entry.row, 'annotation': path})


def used_for(entries: Iterable[SlideEntry], purpose: str) -> tuple[SlideEntry, ...]:
    """The slides that are for encoders, or for classification, or for both."""
    return tuple(entry for entry in entries if entry.row.get(USE, '') in ('', purpose))


def set_aside(
    strata: Sequence[str], count: int | None, *, share: float, seed: int, problems: list[str]
) -> set[int]:
    """Draws the slides whose patches train encoders, as many of each stratum as is its share.

    Which ones the papers took is not published; ours are a draw that depends on seed and number.

    Args:
        strata: Of the slides that may be drawn; '' is one as well.
        count: How many; None: their `share`, two at least.
        share: The paper's number over all that were released.
        seed: Of the draw.
        problems: To which one is added where there are too few.

    Returns:
        Their indices.
    """
    if count is None:
        count = max(2, round(share * len(strata)))
    if not 0 <= count < max(1, len(strata)):
        problems.append(
            f'{count} slides are to be set aside for encoders, of {len(strata)} that could be; '
            'give more slides, or --config.cohort.encoder_slides=0'
        )
        return set()
    generator = random.Random(seed)
    members = {name: [] for name in sorted(set(strata))}
    for index, name in enumerate(strata):
        members[name].append(index)
    # Shuffled within strata and dealt in proportion: the k-th of n stands at (k + ½) / n.
    places = []
    for name, indices in members.items():
        generator.shuffle(indices)
        places += [((k + 0.5) / len(indices), name, i) for k, i in enumerate(indices)]
    return {index for _, _, index in sorted(places)[:count]}
