"""Defaults of every setting.

An experiment file starts from one of these and changes what it needs; `--config.KEY=VALUE` changes
the rest. A setting that is None is filled in by what it stands for, as its comment says.
"""

import dataclasses
from typing import Any

import ml_collections
from ml_collections.config_dict import placeholder

from nic_jax.classifiers.models import NETWORKS, network_fields
from nic_jax.classifiers.probe import PROBES, ProbeSettings
from nic_jax.classifiers.trained import TrainSettings
from nic_jax.encoders.training import EncoderSettings
from nic_jax.explanation.saliency import ExplainSettings
from nic_jax.finetuning.settings import FinetuneSettings
from nic_jax.patches.slide_settings import SlidePatches
from nic_jax.patches.tile_table import TileTable
from nic_jax.synthetic.mosaic_layout import MosaicStudy
from nic_jax.synthetic.rectangles import RectangleStudy

# How the papers train each encoder (Tellez et al. 2019, supplement; MIDL 2020), where they say it;
# `steps` is the most that is taken. VICReg's is ours.
PROTOCOLS = {
    'supervised': {'learning_rate': 1e-2, 'steps': 100_000, 'epoch_steps': 1000},
    'multitask': {'batch': 32, 'steps': 100_000, 'epoch_steps': 1000},
    'vae': {'steps': 100_000, 'epoch_steps': 1000},
    'contrastive': {'learning_rate': 1e-2, 'steps': 100_000, 'epoch_steps': 1000},
    'bigan': {
        'learning_rate': 2e-4,
        'schedule': 'constant',
        'steps': 200_000,
        'epoch_steps': 2000,
    },
    'vicreg': {
        'batch': 256,
        'schedule': 'cosine',
        'steps': 50_000,
        'epoch_steps': 500,
        'weight_decay': 1e-4,
    },
}
# How networks are trained on a few hundred slides: strong decay, a rate that falls; chosen on the
# validation folds of experiments/mosaic.py. CNNs have decay, and the paper's its rate, their own.
RECIPE = {
    'epochs': 40,
    'learning_rate': 1e-3,
    'schedule': 'cosine',
    'l2': 0.0,
    'weight_decay': 0.1,
}


def base() -> ml_collections.ConfigDict:
    """What every experiment has."""
    config = ml_collections.ConfigDict()
    config.stages = ()  # those that the experiment runs, in order
    config.encoder = 'mean_rgb'  # one, or several separated by commas
    config.seed = 0
    config.precision = 'default'  # of matrix products; 'highest' turns TF32 off on GPUs

    config.evaluate = ml_collections.ConfigDict()
    config.evaluate.unit = 'slide'  # what is scored; 'case': the mean over a patient's slides
    # Tiles of each slide of the report's galleries, to look into it; 1,000 take 25 to 50 MB.
    config.evaluate.viewer_tiles = 0

    config.sweep = ml_collections.ConfigDict()  # see sweeps.py
    config.sweep.key = placeholder(str)  # the setting that is swept, such as 'code_size'
    config.sweep['values'] = ()  # what it is set to, one after the other
    return config


def slides() -> ml_collections.ConfigDict:
    """Defaults of experiments on whole slides."""
    config = base()
    config.slides = placeholder(str)  # a slide, a folder, or a CSV (slide_id, path[, mpp][, mask])
    config.shard = '0/1'  # i/n: the i-th of n equal parts of the table, for job arrays

    config.tiling = ml_collections.ConfigDict()
    config.tiling.mpp = placeholder(float)  # µm/px of the patches; None: the encoder's own
    config.tiling.patch_size = placeholder(int)  # px; None: the encoder's own
    config.tiling.stride = placeholder(int)  # px; None: the patch size
    config.tiling.default_mpp = placeholder(float)  # of slides that do not tell theirs
    config.tiling.mpp_tolerance = 0.05  # a level this near the target is taken as it is
    config.tiling.edges = 'floor'  # whole patches only; 'pad' reaches over the edge
    config.tiling.allow_upsampling = False

    config.tissue = ml_collections.ConfigDict()
    config.tissue.mpp = 8.0  # µm/px of the overview in which tissue is sought
    config.tissue.threshold = 0.6  # share of tissue above which a patch is encoded

    config.compress = ml_collections.ConfigDict()
    config.compress.versions = 8  # of the patch: turned and mirrored; 1 or 8
    config.compress.encode_all = False  # background too
    config.compress.batch = 64  # patches; each is encoded in all its versions
    config.compress.workers = 0  # threads that read; 0: one a core

    # Encoders that are trained here, on patches of the same slides: those named in `encoder`.
    config.code_size = 128
    config.patches = from_dataclass(SlidePatches, train_pairs=50_000, valid_pairs=10_000)
    for name in PROTOCOLS:
        config[name] = encoder(name, sets='slides')
    return config


def cohort() -> ml_collections.ConfigDict:
    """Defaults of experiments that learn from slides and a table of labels."""
    config = slides()
    config.stages = ('compress', 'classify', 'explain', 'evaluate')
    config.cohort = ml_collections.ConfigDict()
    config.cohort.layout = 'table'  # how slides and labels lie: 'table', or one of `challenges`
    config.cohort.label = placeholder(str)  # a column to learn, or several separated by commas
    config.cohort.task = 'classification'  # of all labels, or one for each
    config.cohort.time = placeholder(str)  # of a survival: the column of times, in any unit
    config.cohort.event = placeholder(str)  # ... and that of events: 1 died, 0 censored
    config.cohort.encoder_slides = placeholder(int)  # for encoders alone; None: as in the paper
    config.cohort.folds = 4  # parts by case; each is tested once
    config.cohort.train_parts = 2  # of them train, the others but one validate
    config.cohort.only_folds = ()  # numbers of the folds to train; () for all
    config.cohort.predict_unlabelled = True  # slides without a label, by the mean of the folds
    config.cohort.shuffle_cells = False  # a control: what is left without arrangement
    _add_models(config, 'spatial')
    config.classifier.update(RECIPE)
    config.cnn.update(learning_rate=1e-2, l2=1e-5, weight_decay=0.0, momentum=0.9)
    config.attention_cnn.update(weight_decay=1e-2)
    return config


def mosaic(**tiles: Any) -> ml_collections.ConfigDict:
    """Defaults of cohorts whose slides are made here of labelled tiles.

    Args:
        tiles: Fields of `TileTable`.
    """
    config = cohort()
    config.stages = ('slides', 'compress', 'classify', 'explain', 'evaluate')
    config.mosaic = from_dataclass(MosaicStudy)
    config.mosaic.tumour = '1'  # the tiles' class that lesions are made of
    config.mosaic.annotations = placeholder(str)  # lesions' outlines; None: grown at random
    config.tiles = from_dataclass(TileTable, **{'tiles': None, **tiles})
    config.cohort.label = 'presence,arrangement'
    config.cohort.predict_unlabelled = False  # a slide is for one of the labels
    return config


def make_miniature(config: ml_collections.ConfigDict, layout: str, *, batch: int = 4) -> None:
    """Turns a cohort's settings into those of a miniature that is made first: tiny networks.

    Args:
        config: Changed in place.
        layout: One of `challenges.LAYOUTS`.
        batch: Slides a training step.
    """
    config.miniature = layout
    config.stages = ('slides', *config.stages)
    config.tiling.update(mpp=10.0, patch_size=16)  # so that a macro-metastasis fits in
    config.tissue.mpp = 20.0
    config.compress.versions = 1
    config.classifier.update(
        crop=16,
        epochs=3,
        steps_per_epoch=10,
        batch=batch,
        learning_rate=0.02,
        test_crops=2,
        seeds=(0,),
    )
    config.cnn.update(widths=(8,) * 8, dense=8, epochs=3)
    config.spatial.update(width=8, units=8)


def sweep(config: ml_collections.ConfigDict, key: str, values: tuple) -> None:
    """Turns settings into those of a sweep, whose many networks are not explained one by one.

    Args:
        config: Changed in place.
        key: The setting that is swept.
        values: What it is set to, one after the other.
    """
    config.sweep.update({'key': key, 'values': values})
    config.stages = tuple(name for name in config.stages if name != 'explain')


def synthetic() -> ml_collections.ConfigDict:
    """Defaults of the study of digits and rectangles, at the paper's scale (supplement)."""
    config = base()
    config.stages = ('patches', 'encoder', 'compress', 'classify', 'explain', 'evaluate')
    config.encoder = 'supervised,vae,mean'
    config.code_size = 16
    config.workers = 0  # threads that draw images; 0: one a core
    config.images = from_dataclass(RectangleStudy)

    config.data = ml_collections.ConfigDict()
    config.data.digits = 'openml'  # MNIST, fetched once; 'sklearn': its own 8×8 digits
    config.data.mnist = placeholder(str)  # a folder with MNIST's idx files, instead of `digits`
    config.data.encoder_images = 2500  # the last 30 % of them validate
    config.data.train_images = 22500  # the last 25 % of them validate
    config.data.test_images = 25000
    config.data.patches = 1_000_000  # for the encoders

    for name in PROTOCOLS:
        config[name] = encoder(name, sets='cells', augmentation='cells')
    for name in ('supervised', 'multitask'):
        config[name].sets = 'digits'
    _add_models(config, 'cnn')
    config.explain.target = 'label'  # what the image's digit is seen by, right or wrong
    return config


def tiles(**tasks: dict[str, Any]) -> ml_collections.ConfigDict:
    """Defaults of experiments that compare encoders on tables of labelled tiles.

    Args:
        tasks: A name to fields of `TileTable` for every task; `tiles` may be left to the user.
    """
    config = base()
    config.stages = ('patches', 'encoder', 'compress', 'classify', 'evaluate')
    config.encoder = 'mean_rgb,' + ','.join(PROTOCOLS)
    config.code_size = 128
    config.workers = 0  # threads that decode; 0: one a core
    config.tasks = ml_collections.ConfigDict()
    for name, fields in tasks.items():
        config.tasks[name] = from_dataclass(TileTable, **{'tiles': None, **fields})
    for name in PROTOCOLS:
        config[name] = encoder(name, sets=','.join(tasks))
    config.supervised.sets = next(iter(tasks))
    config.probe = from_dataclass(ProbeSettings)
    config.probe.models = ','.join(PROBES)
    config.probe.seeds = (0, 1)  # initialisations of the MLP; as many as the paper's
    return config


def encoder(name: str, *, sets: str, **changes: Any) -> ml_collections.ConfigDict:
    """The papers' protocol of an objective.

    Args:
        name: One of `PROTOCOLS`.
        sets: The sets of patches that it learns from, separated by commas.
        changes: Of `EncoderSettings`.
    """
    config = from_dataclass(EncoderSettings, **(PROTOCOLS[name] | changes))
    config.sets = sets
    return config


def _add_models(config: ml_collections.ConfigDict, model: str) -> None:
    """Adds how networks on grids are trained, and the settings of each of them."""
    config.model = model  # one of `NETWORKS`, or several separated by commas
    config.classifier = from_dataclass(TrainSettings)
    config.classifier.seeds = (0, 1)  # random initialisations; tables give mean and sd
    config.classifier.train_slides = 0  # how many train and validate in a fold; 0 for all
    config.classifier.cache_gb = 4.0  # memory for codes that have been read
    config.classifier.turn_grids = False  # of grids in one version: turn the layout, not the codes
    config.explain = from_dataclass(ExplainSettings, methods='grad_cam')  # several by commas
    # The class to explain, 'label' for each slide's own, or several separated by commas, of which
    # one is in a label's classes; None: what is foretold.
    config.explain.target = placeholder(str)
    config.explain.slides = 0  # at most, at random, beside those that validate; 0 for all
    config.explain.patches = 12  # the strongest of each slide, in its sheet
    config.explain.heat_map = False  # at the slide's full resolution too, as OME-TIFF
    config.explain.valid_slides = 50  # of each fold, that the post-processing is chosen on
    config.finetune = from_dataclass(FinetuneSettings)  # of the stage that is not run unasked
    for name in NETWORKS:
        config[name] = ml_collections.ConfigDict()
        for field, default in network_fields(name).items():
            config[name][field] = placeholder(tuple) if default is None else default


def from_dataclass(settings: type, **changes: Any) -> ml_collections.ConfigDict:
    """The fields of a dataclass and their defaults; its docstring tells what they mean."""
    config = ml_collections.ConfigDict()
    types = {
        'str': str,
        'str | None': str,
        'int | None': int,
        'float | None': float,
        'tuple[int, ...] | None': tuple,
    }
    for field in dataclasses.fields(settings):
        default = None if field.default is dataclasses.MISSING else field.default
        value = changes.pop(field.name, default)
        kind = field.type.__name__ if isinstance(field.type, type) else str(field.type)
        config[field.name] = placeholder(types[kind]) if value is None else value
    if changes:
        raise ValueError(f'{settings.__name__} has no {", ".join(changes)}')
    return config
