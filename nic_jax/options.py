"""What the options of a config come to, and the checks that fail before anything long starts."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import ml_collections

from nic_jax.classifiers.models import NETWORKS
from nic_jax.classifiers.trained import TASKS, TrainSettings
from nic_jax.explanation.saliency import ExplainSettings
from nic_jax.finetuning.settings import FinetuneSettings

Config = ml_collections.ConfigDict

PRECISIONS = ('default', 'highest')
LABEL = 'label'  # of `explain.target`: the class that a slide is known to have


def names(text: str) -> list[str]:
    """What is separated by commas."""
    return [name.strip() for name in text.split(',')]


def get(config: Config, key: str) -> Any:
    """The setting of a dotted key."""
    value = config
    for part in key.split('.'):
        value = value[part]
    return value


def model_settings(config: Config, model: str) -> tuple[dict[str, Any], TrainSettings]:
    """The fields of a network and the settings of its training.

    What a network's own section says of the training goes before `config.classifier`.
    """
    own = config[model].to_dict()
    known = {field.name for field in dataclasses.fields(TrainSettings)}
    training = {name: config.classifier[name] for name in known}
    training |= {name: value for name, value in own.items() if name in known}
    fields = {name: value for name, value in own.items() if name not in known}
    return fields, TrainSettings(**training)


def models(config: Config) -> list[str]:
    """The networks on grids that are asked for.

    Raises:
        ValueError: One that does not exist.
    """
    asked = names(config.model)
    for name in asked:
        if name not in NETWORKS:
            raise ValueError(f'--config.model: no {name!r}; there are {", ".join(NETWORKS)}')
    return asked


def only_folds(config: Config) -> tuple[int, ...]:
    """The folds that are asked for, or none for all."""
    return tuple(config.cohort.only_folds) if 'cohort' in config else ()


def predict_unlabelled(config: Config) -> bool:
    """Whether slides without a label are predicted."""
    return 'cohort' not in config or config.cohort.predict_unlabelled


def explain_settings(config: Config) -> ExplainSettings:
    """How saliency is computed.

    Raises:
        ValueError: A method that does not exist, or a number that cannot be.
    """
    known = {field.name for field in dataclasses.fields(ExplainSettings)} - {'methods'}
    fields = {name: config.explain[name] for name in known}
    return ExplainSettings(methods=tuple(names(config.explain.methods)), **fields)


def explained_class(config: Config, class_names: Sequence[str]) -> str | None:
    """The class of a label that is asked to be explained, if one is."""
    asked = names(config.explain.target or '')
    return next((name for name in asked if name in class_names), None)


def labels(config: Config) -> list[tuple[str, str]]:
    """The labels of a cohort and the task of each.

    Raises:
        ValueError: No label, a task that is none, or as many tasks as cannot be.
    """
    if config.cohort.label is None:
        raise ValueError('say which column to learn: --config.cohort.label=COLUMN')
    asked, tasks = names(config.cohort.label), names(config.cohort.task)
    for task in tasks:
        if task not in TASKS:
            raise ValueError(f'--config.cohort.task={task} must be one of {", ".join(TASKS)}')
    if len(tasks) == 1:
        tasks *= len(asked)
    if len(tasks) != len(asked):
        raise ValueError(
            f'--config.cohort.task has {len(tasks)} tasks for the {len(asked)} labels of '
            f'--config.cohort.label={config.cohort.label}; give one for all, or one each'
        )
    return list(zip(asked, tasks, strict=True))


def check(config: Config, stages: tuple[str, ...]) -> None:
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
    if config.seed < 0:
        raise ValueError(f'--config.seed={config.seed} must not be negative')
    if not all(names(config.encoder)):
        raise ValueError(
            f'--config.encoder={config.encoder!r} names no encoder where one should be; '
            'name one, or several separated by commas'
        )
    _one_of(config, 'evaluate.unit', ('slide', 'case'))
    if 'slides' in config:
        if config.slides is None and not makes_slides(config):
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
        for key in ('tiling.mpp_tolerance', 'compress.workers'):
            if not get(config, key) >= 0:
                raise ValueError(f'--config.{key}={get(config, key)} must not be negative')
        if not 0 <= config.tissue.threshold < 1:
            raise ValueError(
                f'--config.tissue.threshold={config.tissue.threshold} is not in [0, 1)'
            )
    if 'cohort' in config and 'classify' in config.stages:
        labels(config)
    if 'finetune' in config and 'finetune' in config.stages:
        FinetuneSettings(**config.finetune)
    if 'explain' in config and 'explain' in config.stages:
        explain_settings(config)


def makes_slides(config: Config) -> bool:
    """Whether the experiment makes its own slides."""
    return 'mosaic' in config or 'miniature' in config


def _one_of(config: Config, key: str, values: tuple) -> None:
    if get(config, key) not in values:
        choice = ', '.join(map(str, values))
        raise ValueError(f'--config.{key}={get(config, key)} must be one of {choice}')


def _positive(config: Config, key: str) -> None:
    value = get(config, key)
    if value is not None and not value > 0:
        raise ValueError(f'--config.{key}={value} must be more than 0')
