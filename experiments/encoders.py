"""My slides: training patches from them, and encoders trained on those.

    python -m nic_jax.main --config=experiments/encoders.py --workdir=runs/encoders \
        --config.slides=slides.csv --config.encoder=vae,contrastive

`slides.csv` has the columns `slide_id, path` and, if you like, `case_id` (patients are never split
between training and validation), `mpp`, `mask`, `split` (train, valid; else a fifth of the cases
validates), and `annotation`: a file of polygons in ASAP's XML, QuPath's GeoJSON, or the JSON of
CAMELYON16's lesions that NCRF uses. Patches then carry the class that covers them, and
`--config.encoder=supervised` learns to tell the classes.

What is drawn: `--config.patches.per_slide` patches of each slide, as many of each class, where
there is tissue; for `contrastive`, pairs of one place, of places beside each other, and of
different slides. Look at `patches/slides/patches.png`, `pairs.png` and `positions/SLIDE_ID.png`.

Result: `runs/encoders/vae/encoder` and so on, with the training's curve and, of `vae` and `bigan`,
samples. Use them: `experiments/compress.py` and `experiments/cohort.py` take
`--config.encoder=runs/encoders/vae`.

Time: patches of 0.5 µm/px are read at some 1,000 a second on two cores. The papers' schedules (at
most 100,000 steps of 64 patches of 128 px, 200,000 for `bigan`) want a GPU; on a CPU give fewer,
`--config.vae.steps=3000 --config.vae.schedule=cosine`. The variant `debug` takes a minute.
"""

from nic_jax import config as defaults

_DEBUG = {'steps': 4, 'epoch_steps': 2, 'batch': 4, 'augmentation': 'light', 'decoder': 'small'}


def get_config(variant: str = ''):
    """Returns the settings; the variant `debug` takes a few steps on small patches."""
    config = defaults.slides()
    config.stages = ('patches', 'encoder')
    config.encoder = 'vae'
    if variant == 'debug':
        config.code_size = 8
        config.patches.update(
            patch_size=16, per_slide=40, train_pairs=60, valid_pairs=20, tissue_mpp=2.0
        )
        for name in defaults.PROTOCOLS:
            config[name].update(network='pyramid', **_DEBUG)
    elif variant:
        raise ValueError(f'no variant {variant!r} of this experiment; there is debug')
    return config
