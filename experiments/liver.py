"""Liver metastases: growth pattern and overall survival, of patients with several slides.

    python -m nic_jax.main --config=experiments/liver.py --workdir=runs/liver \
        --config.slides=slides.csv

`slides.csv` has the columns `slide_id, path, case_id, growth_pattern, os_days, os_event`; see
`nic_jax/challenges/liver.py`. The paper's cohort (Tellez et al., MIDL 2020) is not public. Tables
are checked first, and what was found is told.

Growth pattern is one of two words, survival is learned by the Cox partial likelihood. Four parts by
patient: two train, one validates, one tests, rotating. A patient's prediction is the mean over the
slides, and patients are what is scored: AUC, concordance index, Kaplan–Meier curves of the median
split of the risk with a log-rank test.

Variants, of which encoders are compared; each wants a workdir of its own:

- without one: the authors' BiGAN and their encoder of four tasks, which was trained with heavy
  colour augmentation.
- `light` and `strong`: a BiGAN and contrastive learning on patches of these slides, with light or
  heavy augmentation of colours (`patches/augmentation.py`). They see the pixels of all slides,
  those that test the networks too, but no outcome.
- `tasks`: one task against several. Train both on tables of tiles first, and with light and strong
  augmentation if you like:
  `experiments/patch_benchmark.py:gpu --workdir=runs/tasks --config.encoder=supervised,multitask
  --config.supervised.augmentation=strong --config.multitask.augmentation=strong`, then give
  `--config.encoder=runs/tasks/supervised,runs/tasks/multitask` here (the default of the variant).
- `debug` runs every stage in a minute or two, on a miniature that it writes.

Time: not known; see the README for patches a second.

Result: the cohort has not been run here. The paper's AUC for the growth pattern: BiGAN .775 to
.826, supervised with one task .834, multitask .895. Its Kaplan–Meier curves part with p < .01.
"""

from nic_jax import config as defaults


def get_config(variant: str = ''):
    """Returns the settings, or those of a variant."""
    if variant not in ('', 'light', 'strong', 'tasks', 'debug'):
        raise ValueError(
            f'no variant {variant!r} of this experiment; there are light, strong, tasks and debug'
        )
    config = defaults.cohort()
    config.encoder = 'nic_bigan,nic_multitask4'
    config.cohort.update(
        layout='liver',
        label='growth_pattern,survival',
        task='classification,survival',
        time='os_days',
        event='os_event',
    )
    config.evaluate.unit = 'case'
    config.model = 'spatial,cnn'
    config.cnn.update(schedule='plateau', epochs=200)  # as in the paper
    if variant in ('light', 'strong'):
        config.stages = ('patches', 'encoder', *config.stages)
        config.encoder = 'bigan,contrastive'
        for name in ('bigan', 'contrastive'):
            config[name].augmentation = variant
    elif variant == 'tasks':
        config.encoder = 'runs/tasks/supervised,runs/tasks/multitask'
    elif variant == 'debug':
        _debug(config)
    return config


def _debug(config) -> None:
    """Tiny networks and a miniature cohort."""
    defaults.make_miniature(config, 'liver', batch=8)
    config.encoder = 'mean_rgb'
