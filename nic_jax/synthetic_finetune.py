"""What fine-tuning needs of an experiment on synthetic images: encoders, and the images' pixels."""

import contextlib
import pathlib
from collections.abc import Iterator

import ml_collections

from nic_jax.classifiers.cross_validation import Dataset
from nic_jax.encoders.encoder import Encoder
from nic_jax.finetuning.image_pixels import ImagePixels
from nic_jax.synthetic.rectangles import RectangleStudy
from nic_jax.synthetic_stages import digits_of, load, split_of

Config = ml_collections.ConfigDict


def encoder(config: Config, home: pathlib.Path, name: str) -> Encoder:
    """The encoder that has made a folder of grids.

    Args:
        config: The experiment's.
        home: The workdir.
        name: The folder's.

    Raises:
        EncoderError: It cannot be read.
    """
    del config
    return load(name, home)


@contextlib.contextmanager
def pixels(
    config: Config, home: pathlib.Path, name: str, dataset: Dataset
) -> Iterator[list[ImagePixels]]:
    """What draws the pixels of each image of a data set.

    Args:
        config: The experiment's.
        home: The workdir.
        name: The folder of the grids.
        dataset: Their data set.
    """
    del home, name  # an image is a function of its number, its digits and the seed
    study, split = RectangleStudy(**config.images), split_of(config)
    numbers = {'train': split.train, 'test': split.test}
    digits = {subset: digits_of(config, subset) for subset in numbers}

    def drawn(slide_id: str) -> ImagePixels:
        subset, index = slide_id.split('/')
        return ImagePixels(
            slide_id, study, digits[subset], config.seed, numbers[subset][int(index)]
        )

    yield [drawn(grid.slide_id) for grid in dataset.grids]
