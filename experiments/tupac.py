"""TUPAC16: how fast a breast cancer proliferates, a regression (Table 3 and the multitask paper).

    python -m nic_jax.main --config=experiments/tupac.py --workdir=runs/tupac \
        --config.slides=TUPAC16

`TUPAC16` is a folder that holds the challenge's slides (TUPAC-TR-001.svs …, TUPAC-TE-001.svs …) and
`training_ground_truth.csv`, in any folders below; see `nic_jax/challenges/tupac16.py`. All of it is
checked first, and what was found is told.

The paper's protocol (Tellez et al. 2019): 40 training slides are for encoders alone
(`--config.cohort.encoder_slides`), the others (452 in the paper, 460 in the release, which has 500
of its 492) make four parts: two train, one validates, one tests, rotating; Spearman's correlation
of all hold-outs. Test slides have no public score: they are predicted by the mean of the four
networks, and `report/submission_ENCODER_MODEL.csv` is the file that the challenge takes.

Variants:

- `multitask`, the protocol of the multitask paper (Tellez et al., MIDL 2020): three parts train and
  one validates, so that there are no hold-outs here, and only the challenge can score the
  submission. It takes the authors' encoders of four tasks and of none.
- `tasks`, codes of 16 and 128 features and 1 to 4 tasks. Train encoders on tables of tiles first,
  as `patch_benchmark.py` does (`--config.multitask.sets=a,b`, `--config.code_size=16`), one workdir
  each, and run this variant for each of them, in a workdir of its own:
  `--config.encoder=runs/tasks2/multitask`. It scores hold-outs (two parts train).
- `code_size`, C = 16 and 128 with a VAE of the cohort's own patches.
- `debug` runs every stage in a minute or two, on a miniature that it writes in the challenge's
  layout.

Time: not known. 821 slides are about 800 GB; for patches a second see the README. Encoders and
400×400 crops want a GPU.

Result: the full cohort has not been run here. The papers' Spearman correlations, of all hold-outs:
mean RGB .238, VAE .419, contrastive .390, BiGAN .522 (test set .558), supervised tumour .427; four
tasks .620 (test set .632); with C = 16, one to four tasks: .512, .566, .563, .588.
"""

from nic_jax import config as defaults


def get_config(variant: str = ''):
    """Returns the settings of Table 3, or those of a variant."""
    if variant not in ('', 'multitask', 'tasks', 'code_size', 'debug'):
        raise ValueError(
            f'no variant {variant!r} of this experiment; there are multitask, tasks, code_size and '
            'debug'
        )
    config = defaults.cohort()
    config.stages = ('patches', 'encoder', *config.stages)
    config.encoder = 'mean_rgb,vae,contrastive,bigan'
    config.cohort.update(layout='tupac16', label='proliferation', task='regression')
    config.model = 'spatial,cnn'
    config.cnn.update(schedule='plateau', epochs=200)  # as in the paper
    config.patches.per_slide = 1000
    if variant in ('multitask', 'tasks'):
        config.stages = defaults.cohort().stages
        config.encoder = 'nic_bigan,nic_multitask4'
    if variant == 'multitask':
        config.cohort.train_parts = 3
    elif variant == 'code_size':
        config.encoder = 'vae'
        defaults.sweep(config, 'code_size', (16, 128))
    elif variant == 'debug':
        _debug(config)
    return config


def _debug(config) -> None:
    """Tiny networks and a miniature cohort."""
    defaults.make_miniature(config, 'tupac16')
    config.encoder = 'mean_rgb,vae'
    config.code_size = 8
    config.patches.update(patch_size=16, mpp=10.0, tissue_mpp=20.0, per_slide=40, valid_share=0.5)
    config.vae.update(network='pyramid', decoder='small', augmentation='light')
    config.vae.update(steps=4, epoch_steps=2, batch=8)
