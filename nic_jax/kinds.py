"""What differs between experiments on slides, on tables of tiles and on synthetic images."""

import ml_collections

from nic_jax import (
    slide_explain,
    slide_finetune,
    slide_stages,
    synthetic_explain,
    synthetic_finetune,
    synthetic_stages,
    tile_stages,
)

Config = ml_collections.ConfigDict


def stages(config: Config):
    """The stages that slides, tables of tiles or synthetic images have to themselves."""
    if 'slides' in config:
        return slide_stages
    return tile_stages if 'tasks' in config else synthetic_stages


def explaining(config: Config):
    """What explains networks on slides or on synthetic images."""
    return slide_explain if 'slides' in config else synthetic_explain


def finetuning(config: Config):
    """What reads the pixels of slides or draws those of synthetic images."""
    return slide_finetune if 'slides' in config else synthetic_finetune
