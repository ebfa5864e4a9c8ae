"""Defaults of every setting, and the checks that fail before anything long starts.

An experiment file starts from one of these and changes what it needs; `--config.KEY=VALUE` changes
the rest. A setting that is None is filled in by what it stands for, as its comment says.
"""

import ml_collections
from ml_collections.config_dict import placeholder

PRECISIONS = ('default', 'highest')
TASKS = ('classification', 'regression')


def base() -> ml_collections.ConfigDict:
    """What every experiment has."""
    config = ml_collections.ConfigDict()
    config.stages = ()  # those that the experiment runs, in order
    config.encoder = 'mean_rgb'  # one, or several separated by commas
    config.seed = 0
    config.precision = 'default'  # of matrix products; 'highest' turns TF32 off on GPUs
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
    return config


def classifier() -> ml_collections.ConfigDict:
    """Defaults of the CNN on grids (Tellez et al. 2019, section 3.3)."""
    config = ml_collections.ConfigDict()
    config.model = 'cnn'
    config.seeds = (0,)  # random initialisations
    config.crop = 400  # R, cells
    config.widths = (128,) * 8
    config.dense = 128
    config.dropout = 0.2
    config.batch = 16
    config.epochs = 100
    config.learning_rate = 1e-2
    config.schedule = 'plateau'
    config.patience = 5  # epochs without gain before the learning rate falls tenfold
    config.l2 = 1e-5
    config.weight_decay = 0.0
    config.momentum = 0.99
    config.test_crops = 10
    return config


def check(config: ml_collections.ConfigDict, stages: tuple[str, ...]) -> None:
    """Checks what can be checked without opening a file.

    Raises:
        ValueError: A stage or value that is none; the message names the right ones.
    """
    for name in config.stages:
        if name not in stages:
            raise ValueError(f'no stage {name!r}; the stages are {", ".join(stages)}')
    if not config.stages:
        raise ValueError(f'no stages to run; name some of {", ".join(stages)} with --stages=a,b')
    _one_of(config, 'precision', PRECISIONS)
    if not [name for name in config.encoder.split(',') if name]:
        raise ValueError('--config.encoder is empty; name one, such as mean_rgb')
    if 'slides' in config:
        if config.slides is None:
            raise ValueError(
                'say which slides: --config.slides=PATH, a slide, a folder, or a CSV with columns '
                'slide_id, path[, mpp][, mask]'
            )
        _one_of(config, 'compress.versions', (1, 8))
        _one_of(config, 'tiling.edges', ('floor', 'pad'))
        for key in ('tiling.mpp', 'tiling.default_mpp', 'tiling.patch_size', 'tiling.stride'):
            _positive(config, key)
        for key in ('tissue.mpp', 'compress.batch'):
            _positive(config, key)
        if not 0 <= config.tissue.threshold < 1:
            raise ValueError(
                f'--config.tissue.threshold={config.tissue.threshold} is not in [0, 1)'
            )
    if 'cohort' in config:
        _one_of(config, 'cohort.task', TASKS)
        if 'classify' in config.stages and config.cohort.label is None:
            raise ValueError('say which column to learn: --config.cohort.label=COLUMN')


def _get(config: ml_collections.ConfigDict, key: str):
    value = config
    for part in key.split('.'):
        value = value[part]
    return value


def _one_of(config: ml_collections.ConfigDict, key: str, values: tuple) -> None:
    if _get(config, key) not in values:
        choice = ', '.join(map(str, values))
        raise ValueError(f'--config.{key}={_get(config, key)} must be one of {choice}')


def _positive(config: ml_collections.ConfigDict, key: str) -> None:
    value = _get(config, key)
    if value is not None and not value > 0:
        raise ValueError(f'--config.{key}={value} must be more than 0')
