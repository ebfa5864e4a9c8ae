"""Tables of labelled tiles → a set of patches: decoded once, in parts of a thousand."""

import collections
import dataclasses
import json
import pathlib
from collections.abc import Iterable, Mapping

from nic_jax import progress, workdir
from nic_jax.patches import store, tile_parts
from nic_jax.patches.store import PatchesError
from nic_jax.patches.tile_list import TileList, check_classes, read_tiles
from nic_jax.patches.tile_table import TileTable

MANY_SKIPPED = 0.05  # of the tiles; above, it is said loudly

_STAGE = 'patches'
_SUMMARY = 'tiles.json'


@dataclasses.dataclass(frozen=True)
class TileSummary:
    """What became of the tiles of a table.

    Attributes:
        made: Patches.
        converted: Of these, tiles by the mode that they were converted from.
        skipped: Tiles that gave no patch, by reason; failures.csv names each.
        without_label: Of the patches.
    """

    made: int
    converted: Mapping[str, int]
    skipped: Mapping[str, int]
    without_label: int

    def __str__(self) -> str:
        text = f'{self.made:,} tiles'
        if self.converted:
            text += f'; converted: {_listing(self.converted)}'
        if self.without_label:
            text += f'; {self.without_label:,} without label'
        if self.skipped:
            text += f'; {sum(self.skipped.values()):,} skipped: {_listing(self.skipped)}'
        return text


def check_table(table: TileTable, *, seed: int) -> TileList:
    """Checks a table before anything long starts; no image is opened.

    Returns:
        The tiles; `counts()` of them by subset and class, and `notes` that a user should be told.

    Raises:
        PatchesError: Naming file, line, value and remedy.
    """
    return read_tiles(table, seed=seed)


def make_tile_set(
    table: TileTable,
    folder: pathlib.Path,
    *,
    home: pathlib.Path,
    name: str,
    seed: int,
    workers: int,
) -> TileSummary:
    """Decodes all tiles of a table into a set of patches; parts that are there are kept.

    Tiles that cannot be decoded are skipped, counted, and noted among the workdir's failures.

    Args:
        table: What to read.
        folder: Of the set; what it holds was made of the same table, settings and seed.
        home: The workdir.
        name: Of the set, for messages.
        seed: Of the draw of subsets.
        workers: Threads that decode.

    Raises:
        PatchesError: The table or archive is in error, or what could be decoded is too little.
    """
    if (folder / 'patches.json').exists():
        return TileSummary(**json.loads((folder / _SUMMARY).read_text(encoding='utf-8')))
    tiles = read_tiles(table, seed=seed)
    for note in tiles.notes:
        progress.console.print(f'{name}: {note}')
    parts = tile_parts.make_parts(table, tiles, folder, name=name, workers=workers)
    notes = [tile_parts.read_notes(folder, part) for part in parts]
    rows = [row for part in parts for row in store.part_rows(folder, part)]
    skipped = {tile: reason for note in notes for tile, reason in note['skipped'].items()}
    seen = {row['name'] for row in rows} | skipped.keys()
    missing = f'not in {tiles.images.name}'
    skipped |= {tile: [missing, missing] for tile in tiles.tiles if tile not in seen}
    _note_skipped(home, tiles, {tile: reason for tile, (_, reason) in skipped.items()})
    made = collections.Counter((row['subset'], row['label']) for row in rows)
    summary = TileSummary(
        made=made.total(),
        converted=_add(note['converted'] for note in notes),
        skipped=_add({kind: 1} for kind, _ in skipped.values()),
        without_label=sum(count for (_, label), count in made.items() if not label),
    )
    _check_made(tiles, made, summary, pathlib.Path(table.tiles), home, name)
    workdir.write_atomically(folder / _SUMMARY, json.dumps(dataclasses.asdict(summary), indent=1))
    store.finish_set(folder, names=parts, classes=tiles.classes, mpp=table.mpp)
    return summary


def _check_made(
    tiles: TileList,
    made: Mapping[tuple[str, str], int],
    summary: TileSummary,
    path: pathlib.Path,
    home: pathlib.Path,
    name: str,
) -> None:
    """Refuses a set that nothing can be trained on, and says loudly if much was skipped."""
    total, lost = len(tiles.tiles), sum(summary.skipped.values())
    why = f' ({lost} of {total} skipped: {_listing(summary.skipped)})' if lost else ''
    if lost > MANY_SKIPPED * total:
        progress.console.print(
            f'WARNING: {name}: {lost:,} of {total:,} tiles ({lost / total:.0%}) were skipped: '
            f'{_listing(summary.skipped)}; {home / "failures.csv"} names each'
        )
    counts = {
        subset: {label: made[subset, label] for label in classes}
        for subset, classes in tiles.counts().items()
    }
    if not summary.made:
        raise PatchesError(f'{path}: no tile could be made into a patch{why}')
    check_classes(path, counts, why)


def _note_skipped(home: pathlib.Path, tiles: TileList, skipped: Mapping[str, str]) -> None:
    """Notes all skipped tiles among the failures, and forgets those that succeeded now."""
    for row in workdir.merge_failures(home):
        if row['stage'] == _STAGE and row['slide_id'] in tiles.tiles.keys() - skipped.keys():
            workdir.clear_failure(home, stage=_STAGE, slide_id=row['slide_id'])
    failures = {name: (tiles.images / name, reason) for name, reason in skipped.items()}
    workdir.record_failures(home, stage=_STAGE, failures=failures)


def _add(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """The sum of counts, the most frequent first."""
    total = collections.Counter()
    for each in counts:
        total.update(each)
    return dict(total.most_common())


def _listing(counts: Mapping[str, int]) -> str:
    return ', '.join(f'{count:,} {name}' for name, count in counts.items())
