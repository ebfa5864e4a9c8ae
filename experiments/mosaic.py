"""Slides made of real tissue tiles, with lesions known to the cell: what each model can learn.

    python -m nic_jax.main --config=experiments/mosaic.py --workdir=runs/mosaic \
        --config.tiles.tiles=pcam_26k.csv

`tiles` is a table of labelled 96-px tiles at 1 µm/px, an archive or a folder (`TileTable`), with a
subset for testing, such as PatchCamelyon's. Each slide is a pyramidal TIFF of 40×40 tiles: normal
tissue of irregular outline and, where positive, a lesion of tumour tiles. P = 64 px are the centre
of a tile and the stride S = 96 px is its pitch, so no patch straddles two tiles. Lesions have the
outlines of CAMELYON16's where `--config.mosaic.annotations=` gives its polygons (a folder or an
archive of NCRF's JSON), else they are grown at random.

Two labels, 400 training and 200 test slides each: `presence` (a lesion of 1 to 300 tiles, drawn
log-uniformly, or none), which a bag of patches can tell; `arrangement` (8 to 150 tumour tiles, as
one mass or scattered), which no bag can. Test slides are made of test tiles, and each of the four
parts of the training slides of a quarter of the others: a part validates on tiles that no training
slide has. Test slides get the mean of the four folds' networks, with two initialisations.

The published encoders are fetched; other encoders are named by their folders
(`--config.encoder=mean_rgb,nic_bigan,nic_multitask4,runs/patches/vae`).

Variants: `models` (on one encoder: the spatial model, the paper's CNN, a small CNN with attention
pooling, gated-attention MIL, a set transformer, mean pooling), `shuffled` (the same, and once more
with the cells of every grid shuffled: arrangement must fall to chance), `train_size` (100 to 800
slides), `stride` (every tile, every second, every third), `debug` (a minute, learns nothing).

Time, on one core of two that were shared with other work: 2,000 slides are written at 3.5 a second,
10 GB; 500 patches a second are encoded with a published encoder, half an hour for the 1,200 slides
of the default study; `spatial` trains 6 steps a second, 9 minutes for the four folds of a label.

Result, test AUC on `nic_multitask4`, mean (sd) of two initialisations (PatchCamelyon, 400 training
slides, CAMELYON16's outlines): presence `spatial` .842 (.005), `abmil` .845 (.005), `mean` .814
(.007), `cnn` .741 (.029), `attention_cnn` .728 (.174), the first three ties; arrangement `spatial`
.936 (.008) (1.000 for 31 tiles and more, .81 for 8 to 30), all others at chance, as is `spatial`
(.534, one fold) with shuffled cells. `benchmarks/mosaic_bound.py` tells how much of that is lost in
the codes; the README, where the networks look. Of `train_size`, 100 to 400 slides were run
(README); 800, `stride` and `transformer` have not been run to the end yet.

End to end, from what `classify` has trained, half an hour an encoder on two cores:

    … --config.cohort.label=presence --config.classifier.seeds="(0,)" \
        --config.cohort.only_folds="(0,)" --config.classifier.train_slides=100 \
        --config.finetune.steps=120 --config.finetune.slides=3 --config.finetune.valid_every=40 \
        --config.finetune.hold=20 --config.finetune.warmup=10 --config.explain.slides=80 \
        --stages=compress,classify,finetune,explain,evaluate

Its result is in the README: AUC ties with the frozen encoder; a VAE looks at lesions better.
"""

from nic_jax import config as defaults

VARIANTS = ('models', 'shuffled', 'train_size', 'stride', 'debug')
MODELS = 'spatial,cnn,attention_cnn,abmil,transformer,mean'


def get_config(variant: str = ''):
    """Returns the settings: the spatial model on several encoders, or one of `VARIANTS`."""
    if variant not in ('', *VARIANTS):
        raise ValueError(
            f'no variant {variant!r} of this experiment; there are {", ".join(VARIANTS)}'
        )
    config = defaults.mosaic()
    config.encoder = 'nic_multitask4' if variant else 'mean_rgb,nic_bigan,nic_multitask4'
    config.tiling.update(mpp=1.0, patch_size=64, stride=96)
    # One version: eight times less to encode; the layout is turned in training instead.
    config.compress.versions = 1
    config.classifier.update(crop=40, turn_grids=True)
    config.explain.target = 'tumour'  # of presence; of arrangement what is foretold
    if variant in ('models', 'shuffled', 'train_size'):
        config.model = MODELS
    if variant == 'shuffled':
        defaults.sweep(config, 'cohort.shuffle_cells', (False, True))
    elif variant == 'train_size':
        config.mosaic.train_slides = 800
        defaults.sweep(config, 'classifier.train_slides', (100, 200, 400, 800))
    elif variant == 'stride':
        defaults.sweep(config, 'tiling.stride', (96, 192, 288))
    elif variant == 'debug':
        config.encoder = 'mean_rgb'
        config.model = MODELS
        config.mosaic.update(
            cells=14,
            train_slides=8,
            test_slides=4,
            parts=2,
            lesion_max=20,
            arrangement_min=4,
            arrangement_max=10,
        )
        config.classifier.update(crop=14, epochs=2, batch=4, seeds=(0,))
        config.cnn.update(widths=(8,) * 8, dense=8)
    return config
