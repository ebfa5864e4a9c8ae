"""Which images and digits the encoders, the CNN and the test see: disjoint, all of them."""

import dataclasses

import numpy as np

from nic_jax.synthetic.digits import DigitSet

# Test images are other layouts than training images, whatever their numbers.
_TEST_START = 10_000_000


@dataclasses.dataclass(frozen=True)
class Split:
    """Ranges of image numbers (method: supplement of Tellez et al. 2019).

    Attributes:
        encoder_train: Images whose cells train the encoders.
        encoder_valid: Images whose cells validate them.
        train: Images of the CNN, training and validation.
        valid_count: How many of `train`, the last, validate.
        test: Images that are scored.
    """

    encoder_train: range
    encoder_valid: range
    train: range
    valid_count: int
    test: range


def split_images(*, encoder_images: int, train_images: int, test_images: int) -> Split:
    """70 % of the encoders' images train and 30 % validate; 75 % and 25 % of the CNN's."""
    first = round(0.7 * encoder_images)
    return Split(
        encoder_train=range(first),
        encoder_valid=range(first, encoder_images),
        train=range(encoder_images, encoder_images + train_images),
        valid_count=round(0.25 * train_images),
        test=range(_TEST_START, _TEST_START + test_images),
    )


def split_digits(digits: DigitSet, *, seed: int) -> tuple[DigitSet, DigitSet]:
    """85 % of the training digits train the supervised encoder, the others validate it."""
    order = np.random.default_rng(seed).permutation(len(digits.labels))
    cut = round(0.85 * len(order))
    return tuple(
        DigitSet(digits.images[part], digits.labels[part]) for part in (order[:cut], order[cut:])
    )
