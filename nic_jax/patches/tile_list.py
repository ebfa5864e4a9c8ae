"""All tiles of a table, each in a subset: checked, before any image is opened."""

import collections
import dataclasses
import math
import pathlib
from collections.abc import Mapping, Sequence

from nic_jax.patches import archives
from nic_jax.patches.store import SUBSETS, PatchesError
from nic_jax.patches.subsets import share_out
from nic_jax.patches.tile_table import Tile, TileTable, found, listed


@dataclasses.dataclass(frozen=True)
class TileList:
    """All tiles of a table.

    Attributes:
        tiles: By name, in the table's order.
        classes: Of their labels, numbers sorted as numbers.
        images: The folder or archive that they are in.
        notes: What a user should be told of.
    """

    tiles: Mapping[str, Tile]
    classes: tuple[str, ...]
    images: pathlib.Path
    notes: tuple[str, ...]

    def counts(self) -> dict[str, dict[str, int]]:
        """Tiles of each subset and class; '' stands for those without a label."""
        count = collections.Counter((tile.subset, tile.label) for tile in self.tiles.values())
        names = [*self.classes, *([''] if any(label == '' for _, label in count) else [])]
        return {subset: {name: count[subset, name] for name in names} for subset in SUBSETS}


def read_tiles(table: TileTable, *, seed: int) -> TileList:
    """Reads a table, or looks through a folder or archive; no image is opened.

    Raises:
        PatchesError: Naming file, line, value and remedy.
    """
    _check_settings(table)
    path, notes = pathlib.Path(table.tiles), []
    if path.suffix.lower() == '.csv':
        images, tiles = _images_of(table, path), list(listed(table, path, notes))
        archives.check(images)
        if images.is_dir() and not any((images / tile.name).exists() for tile in tiles):
            raise PatchesError(
                f'{path}: none of its {len(tiles)} tiles is in {images}, e.g. {tiles[0].name}; '
                'set images to the folder or archive that the paths start from'
            )
    elif table.images or table.group:
        raise PatchesError(f'{path}: images and group are for tables; make tiles a .csv')
    else:
        archives.check(path)
        images, tiles = path, found(path, notes)
    _check_sources(path, tiles)
    tiles = _draw(table, tiles, notes, seed=seed)
    classes = _classes(tiles)
    _note_empty(tiles, classes, notes)
    tile_list = TileList({tile.name: tile for tile in tiles}, classes, images, tuple(notes))
    check_classes(path, tile_list.counts())
    return tile_list


def check_classes(
    path: pathlib.Path, counts: Mapping[str, Mapping[str, int]], why: str = ''
) -> None:
    """Refuses counts, as of `TileList.counts`, that nothing can be trained on."""
    train = counts['train']
    if len([name for name in train if name]) < 2:
        raise PatchesError(
            f'{path}: one class or none ({", ".join(filter(None, train)) or "no labels"}); '
            f'training needs tiles of two or more{why}'
        )
    if sum(train.values()) < 2:
        raise PatchesError(
            f'{path}: {sum(train.values())} tiles for training; it needs two or more{why}'
        )
    empty = [name for name, count in train.items() if name and not count]
    if empty:
        raise PatchesError(
            f'{path}: no tile of class {empty[0]!r} is left for training; '
            f'add some, or leave the class out{why}'
        )


def _check_settings(table: TileTable) -> None:
    crop = table.patch_size if table.crop is None else table.crop
    if not 0 < table.patch_size <= crop:
        raise PatchesError(
            f'patches of {table.patch_size} px from the central {crop} px of a tile would have '
            'pixels that no tile has; give 0 < patch_size <= crop'
        )
    if table.mpp is not None and not table.mpp > 0:
        raise PatchesError(f'mpp is {table.mpp}, expected µm/px above 0, or None')
    shares = (table.valid_share, table.test_share)
    if min(shares) < 0 or not sum(shares) < 1:
        raise PatchesError(f'valid_share and test_share are {shares}; at least 0, below 1 together')


def _images_of(table: TileTable, path: pathlib.Path) -> pathlib.Path:
    if table.images is not None:
        return pathlib.Path(table.images)
    beside = [path.with_suffix(suffix) for suffix in (*archives.ARCHIVES, '')]
    return next((each for each in beside if each.exists()), path.parent)


def _check_sources(path: pathlib.Path, tiles: Sequence[Tile]) -> None:
    subset = {}
    for tile in tiles:
        other = subset.setdefault(tile.source, tile)
        if other.subset != tile.subset:
            raise PatchesError(
                f'{path}: source {tile.source!r} is in {other.subset} ({other.name}) and '
                f'{tile.subset} ({tile.name}); a source must not be split, and if its name is '
                "not unique, join columns by '+' in group"
            )


def _draw(table: TileTable, tiles: list[Tile], notes: list[str], *, seed: int) -> list[Tile]:
    """Takes validation and test tiles out of the training ones, where the table has none."""
    given = {tile.subset for tile in tiles} - {''}
    shares = {'valid': table.valid_share, 'test': table.test_share}
    shares = {name: share for name, share in shares.items() if share and name not in given}
    pool = [index for index, tile in enumerate(tiles) if tile.subset in ('', 'train')]
    if not pool:
        raise PatchesError(f'{table.tiles}: no tile is for training; see its {table.subset!r}')
    subsets = share_out(
        [tiles[index].source for index in pool],
        [tiles[index].label for index in pool],
        shares={'train': 1 - math.fsum(shares.values()), **shares},
        seed=seed,
    )
    for subset in shares:
        if subset not in subsets:
            sources = len({tiles[index].source for index in pool})
            raise PatchesError(
                f'{table.tiles}: {sources} sources of training tiles are too few to take '
                f'{shares[subset]:.0%} for {subset}; raise {subset}_share, or set it to 0'
            )
    if shares and not table.group:
        notes.append(
            f'{table.tiles}: drawn tile by tile ({", ".join(shares)}), so tiles of one slide may '
            'be in several subsets; name the column of slides or patients as group if there is one'
        )
    drawn = dict(zip(pool, subsets, strict=True))
    return [
        dataclasses.replace(tile, subset=drawn.get(index, tile.subset))
        for index, tile in enumerate(tiles)
    ]


def _note_empty(tiles: Sequence[Tile], classes: Sequence[str], notes: list[str]) -> None:
    there = {(tile.subset, tile.label) for tile in tiles}
    for subset in {subset for subset, _ in there} & {'valid', 'test'}:
        empty = [name for name in classes if (subset, name) not in there]
        if empty:
            notes.append(f'{subset} has no tile of class {", ".join(empty)}')


def _classes(tiles: Sequence[Tile]) -> tuple[str, ...]:
    names = sorted({tile.label for tile in tiles} - {''})
    try:
        return tuple(sorted(names, key=float))
    except ValueError:
        return tuple(names)
