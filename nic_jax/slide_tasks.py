"""Tasks of experiments on tiles whose patches are drawn from annotated slides."""

import collections
import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nic_jax import challenges, cohort, progress, workdir
from nic_jax.cohort import SlideEntry
from nic_jax.patches import store
from nic_jax.patches.slide_patches import annotation_files, make_slide_set
from nic_jax.patches.slide_plan import deal_quotas, deal_subsets, find_classes
from nic_jax.patches.slide_settings import SlideTask
from nic_jax.report.patch_sheets import draw_set


def read(
    task: SlideTask, *, tell: Callable[[str], None] | None = None
) -> tuple[tuple[SlideEntry, ...], Mapping[str, pathlib.Path | None]]:
    """The slides of a task, and slide_id to its file of annotations.

    Args:
        task: Where they lie.
        tell: Called with what a user should hear of.

    Raises:
        CohortError: What is wrong with table or files.
    """
    path = pathlib.Path(task.tiles)
    if task.layout == 'table':
        entries = cohort.read_table(path)
    else:
        entries = challenges.read(task.layout, path, tell=tell)
    annotations = annotation_files(entries, path)
    if not any(annotations.values()):
        raise cohort.CohortError(
            f'{path}: no slide has annotations; name their files in a column annotation'
        )
    return entries, annotations


def check(name: str, task: SlideTask, *, seed: int, probed: bool) -> None:
    """Checks slides and annotations before anything long starts, and tells what there is.

    Args:
        name: Of the task.
        task: What to check.
        seed: Of the draw of subsets.
        probed: Whether probes need patches to validate and to test.

    Raises:
        ValueError: No slides for a subset, or no two classes.
    """
    entries, annotations = read(task, tell=progress.console.print)
    subsets = deal_subsets(entries, task.patches, seed=seed)
    counts = collections.Counter(subsets.values())
    for subset in store.SUBSETS if probed else store.SUBSETS[:1]:
        if not counts[subset]:
            raise ValueError(
                f'{task.tiles}: no slides for {subset}; write {subset} for some in a column split, '
                f'or set --config.tasks.{name}.valid_share and test_share for more cases'
            )
    classes = find_classes(entries, annotations, task.patches)
    if len(classes.names) < 2:
        raise ValueError(
            f'{task.tiles}: the annotations are of {", ".join(classes.names) or "no class"}; two '
            'classes are needed to tell apart'
        )


def make(
    name: str,
    task: SlideTask,
    folder: pathlib.Path,
    *,
    home: pathlib.Path,
    seed: int,
    workers: int,
    pairs: bool,
    overwrite: bool,
) -> bool:
    """Draws the patches of a task; whether no slide failed. See `make_slide_set`.

    Args:
        name: Of the task.
        task: Where slides lie and how they are drawn from.
        folder: Of the set.
        home: The workdir.
        seed: Of all draws.
        workers: Threads that read.
        pairs: Whether an encoder is trained on pairs of this set.
        overwrite: Replace a set that was made with other settings.
    """
    settings = task.patches
    if not pairs:
        settings = dataclasses.replace(settings, train_pairs=0, valid_pairs=0)
    entries, annotations = read(task)
    summary = make_slide_set(
        entries,
        annotations,
        settings,
        folder,
        home=home,
        seed=seed,
        workers=workers,
        overwrite=overwrite,
    )
    if summary.done or not (folder / 'patches.png').exists():
        draw_set(folder, seed=seed)
    for note in summary.notes:
        progress.console.print(f'patches: {name}: {note}')
    progress.console.print(
        f'patches: {name}: {summary.done} slides read, {summary.skipped} were complete, '
        f'{summary.failed} failed, {summary.short} had fewer patches than asked; '
        f'{_listing(store.open_set(folder))} → {folder}'
    )
    if not summary.failed:
        workdir.finish(folder)
    return not summary.failed


def content(folder: pathlib.Path) -> dict[str, Any]:
    """What tells patches of slides from those of others, settings aside; of tiles, nothing."""
    path = folder / 'patches.csv'
    if not (folder / 'slides').is_dir() or not path.exists():
        return {}
    return {'slides': workdir.fingerprint(path)['fingerprint']}


def dry_run(name: str, task: SlideTask, *, seed: int) -> None:
    """Says how many slides of which classes there are, and at most how many patches."""
    entries, annotations = read(task, tell=progress.console.print)
    subsets = deal_subsets(entries, task.patches, seed=seed)
    classes = find_classes(entries, annotations, task.patches)
    quotas = deal_quotas(entries, annotations, subsets, classes, task.patches)
    for subset, count in sorted(collections.Counter(subsets.values()).items()):
        slides = [entry.slide_id for entry in entries if subsets[entry.slide_id] == subset]
        most = sum(sum(quotas[each]) if quotas else task.per_slide for each in slides)
        gigabytes = most * 3 * task.patch_size**2 / 1e9
        progress.console.print(
            f'{name}: {subset or "left out"}: {count} slides, at most {most:,} patches of '
            f'{len(classes.names)} classes, {gigabytes:.2g} GB'
        )


def _listing(found: store.PatchSet) -> str:
    def counts(subset: str) -> Sequence[str]:
        labels = collections.Counter(found.columns['label'][found.indices(subset)].tolist())
        return [f'{count:,} {label or "without label"}' for label, count in sorted(labels.items())]

    return '; '.join(f'{subset}: {", ".join(counts(subset)) or "none"}' for subset in store.SUBSETS)
