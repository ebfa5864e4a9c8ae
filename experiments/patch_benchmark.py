"""Every encoder of the papers, trained on labelled tiles and compared patch by patch.

    python -m nic_jax.main --config=experiments/patch_benchmark.py --workdir=runs/patches \
        --config.tasks.pcam.tiles=pcam_26k.csv --config.tasks.lung.tiles=lc25000_lung_grouped.csv
"""

from nic_jax import config as defaults

PCAM = {'mpp': 1.0}
LUNG = {'group': 'label+cluster', 'crop': 128, 'mpp': 1.0}


def get_config(variant: str = ''):
    config = defaults.tiles(pcam=PCAM, lung=LUNG)
    return config
