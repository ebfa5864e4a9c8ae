"""Small labelled tiles on disk for tests: image files and the tables that list them."""

import csv
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

# Colours that even the mean of a tile tells apart.
COLOURS = {'0': (170, 90, 160), '1': (90, 60, 150), 'aca': (200, 120, 170), 'n': (230, 190, 210)}
SIZE = 64


def tile_image(label: str, *, seed: int) -> Image.Image:
    """A tile of its class's colour with stripes of its own, RGB of 64×64 px."""
    rng = np.random.default_rng(seed)
    stripes = np.sin(np.arange(SIZE) / rng.uniform(2, 6))[:, None, None]
    noise = rng.normal(size=(SIZE, SIZE, 3))
    pixels = np.array(COLOURS[label]) + 12 * stripes + 8 * noise
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def write_tiles(folder: pathlib.Path, labels: Mapping[str, str]) -> None:
    """Writes a tile for each name of `labels`; the name's suffix tells the format."""
    for number, (name, label) in enumerate(labels.items()):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        tile_image(label, seed=number).save(path)


def write_csv(path: pathlib.Path, rows: Sequence[Mapping[str, str]]) -> pathlib.Path:
    """Writes a table; returns its path."""
    with path.open('w', encoding='utf-8', newline='') as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def read_csv(path: pathlib.Path) -> list[dict[str, str]]:
    """Reads a table."""
    with path.open(encoding='utf-8', newline='') as file:
        return list(csv.DictReader(file))
