"""Compresses slides: my slides, this encoder, nothing else.

    python -m nic_jax.main --config=experiments/compress.py --workdir=runs/mine \
        --config.slides=PATH --config.encoder=mean_rgb

`slides` is a slide, a folder that is searched, or a CSV (slide_id, path[, mpp][, mask]).
`encoder` is mean_rgb, nic_bigan or nic_multitask4 (the authors', fetched once), the path of a
published Keras file (.h5), or the workdir of an encoder trained here; several are separated by
commas. `--dry_run` says first what it would take.

Result: a grid a slide, `runs/mine/ENCODER/grids/SLIDE_ID.zarr`, with a picture of its tissue and
cells beside it. Time: see the README's table of speeds.
"""

from nic_jax import config as defaults


def get_config(variant: str = ''):
    """Returns the settings; the variant `debug` stores one version and reads with one thread."""
    config = defaults.slides()
    config.stages = ('compress',)
    if variant == 'debug':
        config.compress.versions = 1
        config.compress.batch = 8
        config.compress.workers = 1
    elif variant:
        raise ValueError(f'no variant {variant!r} of this experiment; there is debug')
    return config
