"""Nine kinds of tissue in patches of the rectum: encoders compared by a probe (Task-2, Table 1).

    python -m nic_jax.main --config=experiments/rectum.py --workdir=runs/rectum \
        --config.tasks.rectum.tiles=slides.csv

`slides.csv` has the columns `slide_id, path, case_id, annotation`, the last of polygons of the nine
classes: blood cells, fatty tissue, epithelium, lymphocytes, mucus, muscle, necrosis, stroma,
tumour; see `nic_jax/challenges/rectum.py`. The paper's 74 slides are not public. Slides and
annotations are checked first, and what was found is told.

The paper's protocol (Tellez et al. 2019): ten parts by patient, of which five train, one validates
and four test; 15,000, 852 and 4,000 patches of each class, as far as the outlines hold that many.
Encoders are trained on the training patches, frozen, and probed by an MLP with two initialisations
(and by a linear classifier and nearest neighbours, which the paper does not have). The supervised
encoder learns the nine classes.

Any task of your own, of annotated slides: `--config.tasks.rectum.layout=table`, and
`--config.tasks.rectum.classes` of the names in your annotations. Variants: `published` probes the
authors' encoders beside the mean RGB and trains none; `debug` runs every stage in a minute or two,
on a miniature that it writes.

Time: not known. 180,000 patches of 128 px are 9 GB; encoders of up to 100,000 steps want a GPU.

Result: the cohort has not been run here. The paper's accuracies: mean RGB .504, VAE .639,
contrastive .520, BiGAN .765, supervised tumour .646, supervised tissue .904.
"""

from nic_jax import config as defaults
from nic_jax.challenges import rectum
from nic_jax.patches.slide_settings import SlideTask


def get_config(variant: str = ''):
    """Returns the settings of Task-2, or those of a variant."""
    if variant not in ('', 'published', 'debug'):
        raise ValueError(
            f'no variant {variant!r} of this experiment; there are published and debug'
        )
    config = defaults.tiles(rectum={})
    config.tasks.rectum = defaults.from_dataclass(
        SlideTask,
        layout='rectum',
        classes=rectum.CLASS_SETTING,
        per_class=(15_000, 852, 4000),
        valid_share=0.1,
        test_share=0.4,
        train_pairs=50_000,
        valid_pairs=10_000,
    )
    config.encoder = 'mean_rgb,vae,contrastive,bigan,supervised'
    if variant == 'published':
        config.stages = ('patches', 'compress', 'classify', 'evaluate')
        config.encoder = 'mean_rgb,nic_bigan,nic_multitask4'
    elif variant == 'debug':
        config.miniature = 'rectum'
        config.stages = ('slides', *config.stages)
        config.encoder = 'mean_rgb,supervised'
        config.code_size = 8
        config.tasks.rectum.update(patch_size=16, mpp=10.0, tissue_mpp=20.0, per_class=(40, 8, 30))
        config.supervised.update(network='pyramid', steps=4, epoch_steps=2, batch=8)
        config.supervised.augmentation = 'light'
        config.probe.update(epochs=2, seeds=(0,))
    return config
