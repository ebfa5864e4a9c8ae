"""Where what was learned from an encoder's codes lies, and what it is called in tables.

ENCODER/classifier, ENCODER/explain                    on the codes of its grids
ENCODER/finetune/classifier, ENCODER/finetune/explain  trained together with the encoder
"""

import pathlib

from nic_jax.workdir import file_name

FINETUNED = 'finetune'


def folders(encoder: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    """The two folders of an encoder; the second is there after fine-tuning."""
    return encoder, encoder / FINETUNED


def encoder_of(folder: pathlib.Path) -> pathlib.Path:
    """The encoder's folder, in which the grids are, of either of `folders`."""
    return folder.parent if folder.name == FINETUNED else folder


def classifier(own: pathlib.Path, label_name: str, model: str) -> pathlib.Path:
    """Where a model's seeds and predictions are, in one of `folders`."""
    return own / 'classifier' / file_name(label_name) / file_name(model)


def network(seed: int, fold: int) -> str:
    """Where one network is, in a model's folder."""
    return f'seed_{seed}/fold_{fold}'


def named(encoder: str, folder: pathlib.Path) -> str:
    """What tables call the networks of either of `folders`.

    Args:
        encoder: The encoder's name.
        folder: One of its `folders`.
    """
    return f'{encoder}, fine-tuned' if folder.name == FINETUNED else encoder
