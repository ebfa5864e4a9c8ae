"""Every encoder of the papers, trained on labelled tiles and compared patch by patch.

    python -m nic_jax.main --config=experiments/patch_benchmark.py --workdir=runs/patches \
        --config.tasks.pcam.tiles=pcam_26k.csv --config.tasks.lung.tiles=lc25000_lung_grouped.csv

The paper's Table 1, and more: encoders are trained here or given by name (`nic_bigan`,
`nic_multitask4`, a file, a workdir), frozen, and probed by an MLP, a linear classifier and nearest
neighbours. `report/` holds the table, confusion matrices, and maps of the codes; each encoder's
folder its curve and, of `vae` and `bigan`, samples. One of the two tasks alone will do.

Tables are CSVs with the columns `path, label, split` and the one or more that tell a tile's source,
which is never split. Without `valid` or `test` a fifth of the training sources is taken for each.
A folder or archive of class folders needs no table. Your own tiles:

    python -m nic_jax.main --config=experiments/patch_benchmark.py:own --workdir=runs/own \
        --config.tasks.own.tiles=PATH

Time: from 6 (`vae`) to 50 minutes (`vicreg`) of one core an encoder, two at a time; another ten for
codes, probes and report. Result, AUC of the MLP on PatchCamelyon's test tiles: mean RGB .804, VAE
.811, BiGAN .820, contrastive .858, VICReg .861, multitask .863, supervised .889; the published
BiGAN .874 and multitask-4 .890. `benchmarks/results/patch_benchmark.json` has all of it. The
variant `gpu`, with the papers' networks and up to 200,000 steps, has not been run.
"""

from nic_jax import config as defaults

# Tiles of 96 px at about 1 µm/px: the central 64 px.
PCAM = {'mpp': 1.0}
# Tiles of 224 px, about 20 turned and mirrored copies of each original in a cluster of its class.
LUNG = {'group': 'label+cluster', 'crop': 128, 'mpp': 1.0}
# What one core can do in 6 to 50 minutes an encoder.
CPU = {
    'supervised': {'steps': 8000, 'learning_rate': 2e-3, 'weight_decay': 0.01},
    'multitask': {'steps': 5000, 'learning_rate': 2e-3, 'weight_decay': 0.01},
    'vae': {'steps': 600, 'decoder': 'small'},
    'contrastive': {'steps': 1500, 'learning_rate': 2e-3, 'augmentation': 'strong'},
    'bigan': {'steps': 400, 'decoder': 'small', 'schedule': 'constant'},
    'vicreg': {'steps': 2500, 'batch': 128, 'learning_rate': 2e-3, 'augmentation': 'strong'},
}
_DEBUG = {'steps': 2, 'epoch_steps': 2, 'batch': 4}


def get_config(variant: str = ''):
    """Returns the settings for a CPU, or those of a variant.

    `gpu` has the papers' architectures and schedules; `own` is one task `own`, your tiles; `debug`
    takes two steps an encoder.
    """
    if variant not in ('', 'gpu', 'own', 'debug'):
        raise ValueError(f'no variant {variant!r} of this experiment; there are gpu, own and debug')
    config = defaults.tiles(**({'own': {}} if variant == 'own' else {'pcam': PCAM, 'lung': LUNG}))
    if variant == 'gpu':
        return config
    for name, changes in CPU.items():
        common = {'epoch_steps': 500, 'augmentation': 'mild', 'network': 'pyramid'}
        config[name].update({'schedule': 'cosine', **common, **changes})
        if variant == 'debug':
            config[name].update(_DEBUG)
    if variant == 'debug':
        config.code_size = 8
        config.probe.epochs = 2
        for task in config.tasks.values():
            task.update(patch_size=16, crop=64)
    return config
