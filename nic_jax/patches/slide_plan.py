"""What is known of a set of slides' patches before a slide is opened: subsets and classes."""

import contextlib
import dataclasses
import pathlib
from collections.abc import Mapping, Sequence

from nic_jax import cohort, folds
from nic_jax.cohort import SlideEntry
from nic_jax.patches import store
from nic_jax.patches.annotations import AnnotationError, read_annotations
from nic_jax.patches.slide_settings import SlidePatches
from nic_jax.patches.subsets import share_out


@dataclasses.dataclass(frozen=True)
class Classes:
    """The classes of a set.

    Attributes:
        names: In the order of their indices; none: patches are not labelled.
        of: Annotations' names to the class that they are of; names that are not there are of none.
    """

    names: tuple[str, ...] = ()
    of: Mapping[str, str] = dataclasses.field(default_factory=dict)


def case_of(entry: SlideEntry) -> str:
    """Whose slide it is; its own where that is not told."""
    return entry.case_id or entry.slide_id


def deal_subsets(
    entries: Sequence[SlideEntry], settings: SlidePatches, *, seed: int
) -> dict[str, str]:
    """slide_id to its subset, '' where the table leaves it out. Cases are not split.

    Raises:
        CohortError: The column `split` has unknown words, or a case on two sides.
    """
    cases = list(map(case_of, entries))
    found = dict.fromkeys((entry.slide_id for entry in entries), '')
    if 'split' in cohort.table_columns(entries):
        (fold,) = folds.given_folds(entries, cases)
        for subset in store.SUBSETS:
            found |= {entries[index].slide_id: subset for index in getattr(fold, subset)}
        return found
    # An external test set trains no encoder, whatever the shares.
    tests = [entry.row.get('fold', '').strip().lower() in ('test', 'testing') for entry in entries]
    dealt = [slide_id for slide_id, test in zip(found, tests, strict=True) if not test]
    of_dealt = [case for case, test in zip(cases, tests, strict=True) if not test]
    found |= dict.fromkeys(found.keys() - dealt, 'test')
    held_out = {'valid': settings.valid_share, 'test': settings.test_share}
    shares = {'train': 1 - sum(held_out.values()), **held_out}
    shares = {subset: share for subset, share in shares.items() if share}
    subsets = share_out(of_dealt, [''] * len(dealt), shares=shares, seed=seed)
    return found | dict(zip(dealt, subsets, strict=True))


def check_cases(
    entries: Sequence[SlideEntry], subsets: Mapping[str, str], settings: SlidePatches
) -> None:
    """Refuses pairs of different slides where there is but one case.

    Raises:
        PatchesError: With the remedy.
    """
    for subset, count in settings.pairs.items():
        cases = {case_of(entry) for entry in entries if subsets[entry.slide_id] == subset}
        if count and len(cases) < 2:
            raise store.PatchesError(
                f'{len(cases)} cases for {subset}: no pairs of different slides; give more slides, '
                f'divide them by a column split or another valid_share, or set {subset}_pairs=0'
            )


def find_classes(
    entries: Sequence[SlideEntry],
    annotations: Mapping[str, pathlib.Path | None],
    settings: SlidePatches,
) -> Classes:
    """The classes asked for, or all that the annotations name, sorted.

    Raises:
        PatchesError: Classes are asked for, and there are no annotations.
    """
    files = [file for entry in entries if (file := annotations.get(entry.slide_id))]
    if settings.classes and not files:
        raise store.PatchesError(
            f'classes {", ".join(settings.classes)}, but no slide has annotations; name their '
            'files in a column annotation of the table'
        )
    of = {}
    for text in settings.classes:
        name, _, members = text.partition('=')
        of |= dict.fromkeys((members or name).split('+'), name)
    if not settings.classes:
        names = set().union(*map(_drawn_names, files))
        of = {name: name for name in sorted(names)}
    names = [*of.values(), settings.background, settings.unannotated]
    return Classes(tuple(dict.fromkeys(filter(None, names))), of)


def deal_quotas(
    entries: Sequence[SlideEntry],
    annotations: Mapping[str, pathlib.Path | None],
    subsets: Mapping[str, str],
    classes: Classes,
    settings: SlidePatches,
) -> dict[str, tuple[int, ...]]:
    """slide_id to how many patches of each class are drawn, by `per_class`; else nothing.

    Each subset's number of a class is shared out evenly over the subset's slides that have it, one
    more for the first few.
    """
    quotas = {entry.slide_id: [0] * len(classes.names) for entry in entries}
    if not settings.per_class:
        return {}
    holds = {}
    for entry in entries:
        file = annotations.get(entry.slide_id)
        names = {classes.of.get(name) for name in _drawn_names(file)} if file else set()
        holds[entry.slide_id] = names | {settings.background if file else settings.unannotated}
    for subset, total in zip(store.SUBSETS, settings.per_class, strict=True):
        slides = [entry.slide_id for entry in entries if subsets[entry.slide_id] == subset]
        for number, name in enumerate(classes.names):
            holders = [slide for slide in slides if name in holds[slide]]
            for rank, slide in enumerate(holders):
                share, extra = divmod(total, len(holders))
                quotas[slide][number] = share + (rank < extra)
    return {slide: tuple(numbers) for slide, numbers in quotas.items()}


def _drawn_names(file: pathlib.Path) -> set[str]:
    """The names in a file of annotations; none where it cannot be read."""
    with contextlib.suppress(AnnotationError):  # its slide's failure, when its turn comes
        return {region.name for region in read_annotations(file).regions}
    return set()
