"""What fine-tuning needs of an experiment on slides: encoders, and pixels of the slides' files."""

import contextlib
import functools
import pathlib
from collections.abc import Iterator

import ml_collections

from nic_jax import cohort
from nic_jax.classifiers.cross_validation import Dataset
from nic_jax.compression.compress import grid_path
from nic_jax.encoders.encoder import Encoder
from nic_jax.finetuning.pixels import PixelCache
from nic_jax.finetuning.slide_pixels import OpenSlides, SlidePixels
from nic_jax.grids import open as open_grid
from nic_jax.slide_datasets import entries
from nic_jax.slide_encoders import asked_encoders
from nic_jax.slides.slide import open_slide

Config = ml_collections.ConfigDict


def encoder(config: Config, home: pathlib.Path, name: str) -> Encoder:
    """The encoder that has made a folder of grids.

    Args:
        config: The experiment's, which asks for it.
        home: The workdir.
        name: The folder's.

    Raises:
        EncoderError: It cannot be read.
    """
    return next(asked for asked in asked_encoders(config) if asked.folder == name).load(home)


@contextlib.contextmanager
def pixels(
    config: Config, home: pathlib.Path, name: str, dataset: Dataset
) -> Iterator[list[SlidePixels]]:
    """What reads the pixels of each slide of a data set, as long as it is entered.

    Args:
        config: The experiment's.
        home: The workdir.
        name: The folder of the grids.
        dataset: Their data set.
    """
    found = {entry.slide_id: entry for entry in entries(config)}
    cache = PixelCache(int(config.finetune.cache_gb * 1e9))

    def reader(entry: cohort.SlideEntry) -> SlidePixels:
        grid = open_grid(grid_path(home / name, entry.slide_id))
        opener = functools.partial(open_slide, entry.path, mpp=grid.attributes['mpp_level0'])
        get = functools.partial(opened.get, entry.slide_id, opener)
        return SlidePixels(entry.slide_id, get, grid.encoded, grid.attributes, cache)

    with contextlib.closing(OpenSlides()) as opened:
        yield [reader(found[grid.slide_id]) for grid in dataset.grids]
