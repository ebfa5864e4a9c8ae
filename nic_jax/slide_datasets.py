"""Cohorts of slides as networks learn from them: labels, folds, and the grids there are."""

import pathlib
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections
import numpy as np

from nic_jax import (
    challenges,
    cohort,
    folds,
    hold_outs,
    options,
    progress,
    slide_labels,
    workdir,
)
from nic_jax.classifiers.cross_validation import Dataset
from nic_jax.compression.compress import grid_path
from nic_jax.compression.settings import CompressSettings, differences, encoder_attributes, request
from nic_jax.encoders.encoder import Encoder
from nic_jax.grids import VERSIONS, Grid, GridError, GridLike, schema
from nic_jax.grids import open as open_grid
from nic_jax.grids.cache import cached
from nic_jax.grids.shuffled import ShuffledGrid
from nic_jax.slide_encoders import asked_encoders

Config = ml_collections.ConfigDict

# What must be the same in all grids of one training.
_SAME_IN_ALL = ('encoder', 'mpp_target', 'patch_size', 'stride', 'versions')


def entries(
    config: Config, *, tell: bool = False, purpose: str = challenges.FOR_CLASSIFICATION
) -> tuple[cohort.SlideEntry, ...]:
    """The whole cohort; `tell` names the files of a folder that are no slides."""
    show = progress.console.print if tell else None
    if 'cohort' in config and config.cohort.layout != 'table':
        found = challenges.read(
            config.cohort.layout,
            pathlib.Path(config.slides),
            encoder_slides=config.cohort.encoder_slides,
            seed=config.seed,
            tell=show,
        )
    else:
        found, others = cohort.find_slides(config.slides)
        if others and tell:
            shown = ', '.join(map(str, others[:5])) + (' …' if len(others) > 5 else '')
            progress.console.print(f'{len(others)} files are no slides: {shown}')
    return challenges.used_for(found, purpose)


def check_labels(
    config: Config, found: Sequence[cohort.SlideEntry], encoders: Sequence[Encoder]
) -> None:
    """Reads labels and folds of all that is to be learned from the codes of encoders.

    Raises:
        ValueError: What is wrong in them, or a hold-out that an encoder has learned from.
    """
    tuned = [encoder for encoder in encoders if encoder.learned_from]
    # Of slides that are gone, the grids tell when they are read.
    sources = [_source(entry, None) if tuned else '' for entry in found]
    for label, task in options.labels(config):
        targets, _, has_label = _targets(config, found, label, task)
        split = _folds(config, found, label, task, targets, has_label)
        tested = [np.flatnonzero(has_label)[fold.test] for fold in split]
        for encoder in tuned:
            hold_outs.check_unseen(encoder, found, sources, tested, options.only_folds(config))


def datasets(config: Config, home: pathlib.Path, name: str) -> tuple[list[Dataset], bool]:
    """The grids of a cohort with each of its labels, and whether every slide has one with tissue.

    Folds are made of all slides with a label, before any is found to lack its grid, so that a
    slide that fails does not move the others from fold to fold.
    """
    found = entries(config)
    asked = next(each for each in asked_encoders(config) if each.folder == name)
    encoder = asked.load(home)
    grids = _open_grids(config, home, found, name, encoder, asked.settings)
    kept = np.array([index for index, grid in enumerate(grids) if grid is not None], int)
    present = [grids[index] for index in kept]
    _check_alike(present)
    attributes = present[0].attributes
    turned = attributes['encoder']['turn_invariant'] or present[0].layout_only
    shown = [found[index] for index in kept]
    # Those without a grid tell of their cases too.
    sources = [
        _source(entry, grid) if encoder.learned_from else ''
        for entry, grid in zip(found, grids, strict=True)
    ]
    common = {
        'grids': _as_read(config, present),
        'case_ids': [entry.case_id for entry in shown],
        'lesion_areas': _lesion_areas(shown, present),
        'groups': _groups(shown),
        'versions': VERSIONS if turned else tuple(range(attributes['versions'])),
        'identity': _identity(config, attributes),
    }
    made = []
    for label, task in options.labels(config):
        targets, class_names, has_label = _targets(config, found, label, task)
        split = _folds(config, found, label, task, targets, has_label)
        split = _with_grids(split, np.flatnonzero(has_label), kept, home / name)
        tested = [kept[fold.test] for fold in split]
        hold_outs.check_unseen(encoder, found, sources, tested, options.only_folds(config))
        made.append(
            Dataset(
                label_name=label,
                task=task,
                targets=targets[kept],
                has_label=has_label[kept],
                class_names=class_names,
                folds=split,
                **common,
            )
        )
    return made, len(kept) == len(found)


def _source(entry: cohort.SlideEntry, grid: Grid | None) -> str:
    """The fingerprint of a slide's file, as far as it is known."""
    if grid is not None:
        return grid.attributes['source']['fingerprint']
    return workdir.fingerprint(entry.path)['fingerprint'] if entry.path.exists() else ''


def _identity(config: Config, attributes: Mapping[str, Any]) -> dict[str, Any]:
    """What tells these grids, as they are read, from others."""
    identity = {key: attributes[key] for key in _SAME_IN_ALL}
    if config.cohort.shuffle_cells:
        identity['shuffle_cells'] = True
    if config.classifier.turn_grids:
        identity['turn_grids'] = True
    return identity


def _with_grids(
    split: Sequence[folds.Fold], labelled: np.ndarray, kept: np.ndarray, folder: pathlib.Path
) -> list[folds.Fold]:
    """Folds of labelled slides as indices of those slides that have a grid."""
    new_index = np.full(max(labelled.max(), kept.max()) + 1, -1)
    new_index[kept] = np.arange(len(kept))

    def present(part: np.ndarray) -> np.ndarray:
        indices = new_index[labelled[part]]
        return indices[indices >= 0]

    for number, fold in enumerate(split):
        for part, indices in (('training', fold.train), ('validation', fold.valid)):
            if not len(present(indices)):
                raise GridError(
                    f'{folder} holds no grid of the {len(indices)} {part} slides of fold '
                    f'{number}; see failures.csv'
                )
    return [
        folds.Fold(present(fold.train), present(fold.valid), present(fold.test)) for fold in split
    ]


def _as_read(config: Config, grids: Sequence[Grid]) -> Sequence[GridLike]:
    """Grids as networks read them: from memory as far as it goes; shuffled where it is asked."""
    kept = cached(grids, budget=int(config.classifier.cache_gb * 1e9))
    if not config.cohort.shuffle_cells:
        return kept
    # Seeded by name: what becomes of other slides moves no cell of this one.
    return [
        ShuffledGrid(grid, seed=(config.seed, zlib.crc32(grid.slide_id.encode()))) for grid in kept
    ]


def _lesion_areas(found: Sequence[cohort.SlideEntry], grids: Sequence[Grid]) -> np.ndarray | None:
    """Cells of lesion on each slide, of the table's column in cells or in mm²; NaN where unknown.

    Raises:
        CohortError: A cell that is no number.
    """
    columns = cohort.table_columns(found)
    for column in ('lesion_area', 'lesion_area_mm2'):
        if column in columns:
            areas = slide_labels.numbers(found, column)
            if column == 'lesion_area_mm2':
                sides = [each.attributes['stride'] * each.attributes['mpp'] for each in grids]
                areas = areas * 1e6 / np.square(sides)
            return areas
    return None


def _groups(found: Sequence[cohort.SlideEntry]) -> dict[str, np.ndarray]:
    """Subsets that are scored for themselves, of columns `group_NAME` of 0 and 1."""
    names = [name for name in cohort.table_columns(found) if name.startswith('group_')]
    return {name.removeprefix('group_'): slide_labels.numbers(found, name) == 1 for name in names}


def _targets(
    config: Config, found: Sequence[cohort.SlideEntry], label: str, task: str
) -> tuple[np.ndarray, tuple[str, ...] | None, np.ndarray]:
    """Targets, names of classes, and who has a label."""
    if task != 'survival':
        return slide_labels.labels(found, label, task=task)
    for key in ('time', 'event'):
        if config.cohort[key] is None:
            raise ValueError(f'survival needs a column: --config.cohort.{key}=COLUMN')
    targets, has_label = slide_labels.survival_labels(
        found, time=config.cohort.time, event=config.cohort.event
    )
    return targets, None, has_label


def _folds(
    config: Config,
    found: Sequence[cohort.SlideEntry],
    label: str,
    task: str,
    targets: np.ndarray,
    has_label: np.ndarray,
) -> Sequence[folds.Fold]:
    """The table's own folds or ours, as indices into the slides that have a label."""
    labelled = np.flatnonzero(has_label)
    if not len(labelled):
        raise cohort.CohortError(f'{config.slides}: no slide has a {label!r}')
    case_ids = [found[index].case_id for index in labelled]
    split = folds.given_folds([found[index] for index in labelled], case_ids)
    if split is None:
        split = folds.rotate_folds(
            case_ids,
            targets[labelled],
            task=task,
            parts=config.cohort.folds,
            train_parts=config.cohort.train_parts,
            seed=config.seed,
        )
    only = config.cohort.only_folds
    if not set(only) <= set(range(len(split))):
        raise ValueError(f'--config.cohort.only_folds={only}: the folds are 0 … {len(split) - 1}')
    return split


def _open_grids(
    config: Config,
    home: pathlib.Path,
    found: Sequence[cohort.SlideEntry],
    name: str,
    encoder: Encoder,
    settings: CompressSettings,
) -> list[Grid | None]:
    """Opens the grids that are there and are what is asked for; notes the others as failures.

    Where a slide is not at hand any more, its grid is taken as it is, but for the encoder.
    """
    grids: list[Grid | None] = []
    for entry in found:
        grid, reason = None, ''
        note = {'stage': 'classify', 'encoder': name, 'slide_id': entry.slide_id}
        try:
            path = grid_path(home / name, entry.slide_id)
            grid = open_grid(path, layout_only=config.classifier.turn_grids)
            wanted = {'encoder': encoder_attributes(encoder)}
            if entry.path.exists():
                wanted = request(entry, encoder, settings)
            if differing := differences(grid.attributes, wanted):
                raise GridError(schema.other_settings(path, differing))
            if not grid.encoded.any():
                grid, reason = None, 'its grid has no tissue'
        except GridError as error:
            grid, reason = None, str(error)
        if grid is None:
            progress.console.print(f'left out: {entry.slide_id}: {reason}')
            workdir.record_failure(home, path=entry.path, reason=reason, **note)
        else:
            workdir.clear_failure(home, **note)
        grids.append(grid)
    workdir.merge_failures(home)
    if not any(grids):
        raise GridError(f'{home / name} holds no grid of these slides; compress them first')
    return grids


def _check_alike(grids: Sequence[Grid]) -> None:
    first = grids[0]
    for grid in grids:
        for key in _SAME_IN_ALL:
            if grid.attributes[key] != first.attributes[key]:
                raise GridError(
                    f'{grid.path} has {key} {grid.attributes[key]!r}, {first.path} '
                    f'{first.attributes[key]!r}; compress all slides with the same settings'
                )
