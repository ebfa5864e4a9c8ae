"""CAMELYON16: metastases in lymph nodes, found from the slide's label alone (Table 2, Figs. 8, 9).

    python -m nic_jax.main --config=experiments/camelyon.py --workdir=runs/camelyon \
        --config.slides=CAMELYON16

`CAMELYON16` is the folder of the challenge's release: `training/normal`, `training/tumor`,
`training/lesion_annotations` (unpacked), `testing/images`, `testing/lesion_annotations` (unpacked)
and `testing/reference.csv`; `nic_jax/challenges/camelyon16.py` says what else will do, and what is
left out. All of it is checked first, and what was found is told.

The paper's protocol (Tellez et al. 2019): 60 training slides are for encoders alone
(`--config.cohort.encoder_slides`); the other training slides and the test slides, 340 in the paper
and 339 in today's release, make four parts by slide (no patients are told): two train, one
validates, one tests, rotating. Hold-outs of all four are scored together (All), and those of the
official test slides (Test) and of macro-metastases with all normal slides (Macro); `report/` has
them as groups, and the positives' mean probability over the lesion's size (Fig. 8). `cnn` is the
paper's network on grids, `spatial` ours.

Variants: `published` takes the authors' encoders and trains none; `stride`, `code_size` and
`train_size` are the sweeps of Fig. 9, with the supervised encoder on the first partition; `debug`
runs every stage in a minute or two, on a miniature that it writes in the challenge's layout.

Time: not known. 400 slides of 0.25 µm/px are 700 GB; for patches a second see the README. Five
encoders of up to 100,000 steps, and 400×400 crops, want a GPU.

Result: the full cohort has not been run here. The paper's AUCs, All / Test / Macro: mean RGB .582 /
.578 / .585, VAE .661 / .671 / .634, contrastive .608 / .651 / .606, BiGAN .725 / .704 / .720,
supervised .760 / .771 / .914 (means of two initialisations).
"""

from nic_jax import config as defaults

# Strides in px at 0.5 µm/px; features of a code; slides that train and validate.
SWEEPS = {
    'stride': ('tiling.stride', (64, 128, 256)),
    'code_size': ('code_size', (16, 32, 64, 128)),
    'train_size': ('classifier.train_slides', (32, 64, 128, 250)),
}


def get_config(variant: str = ''):
    """Returns the settings of Table 2, or those of a variant."""
    if variant not in ('', 'published', 'debug', *SWEEPS):
        raise ValueError(
            f'no variant {variant!r} of this experiment; there are published, {", ".join(SWEEPS)} '
            'and debug'
        )
    config = defaults.cohort()
    config.stages = ('patches', 'encoder', *config.stages)
    config.encoder = 'mean_rgb,vae,contrastive,bigan,supervised'
    config.cohort.layout = 'camelyon16'
    config.cohort.label = 'metastasis'
    config.explain.target = 'tumor'
    config.model = 'spatial,cnn'
    config.cnn.update(schedule='plateau', epochs=200)  # as in the paper
    # Patches of the slides that are set aside. What is not tumour inside one (`_2`, Exclusion) goes
    # first; what no outline touches is normal.
    config.patches.update(
        per_slide=1000,
        classes=('normal=_2+Exclusion', 'tumour=_0+_1+Tumor'),
        background='normal',
        unannotated='normal',
    )
    if variant == 'published':
        config.stages = defaults.cohort().stages
        config.encoder = 'nic_bigan,nic_multitask4'
    elif variant in SWEEPS:
        config.encoder = 'supervised'
        config.cohort.only_folds = (0,)
        defaults.sweep(config, *SWEEPS[variant])
    elif variant == 'debug':
        _debug(config)
    return config


def _debug(config) -> None:
    """Tiny networks and a miniature cohort of 10 µm/px, so that macro-metastases fit in it."""
    defaults.make_miniature(config, 'camelyon16')
    config.encoder = 'mean_rgb,supervised'
    config.code_size = 8
    config.patches.update(
        patch_size=16, mpp=10.0, tissue_mpp=20.0, per_slide=40, valid_share=0.5, label_threshold=0.3
    )
    config.supervised.update(network='pyramid', steps=4, epoch_steps=2, batch=8)
    config.supervised.augmentation = 'light'
