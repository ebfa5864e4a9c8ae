"""What a training is told and what it gives: settings, weights, and their folder."""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from nic_jax import checkpoints
from nic_jax.classifiers.models import build_network
from nic_jax.workdir import remove, write_atomically

TASKS = ('classification', 'regression', 'survival')
SCHEDULES = ('plateau', 'cosine')
RECORD = 'classifier.json'
WEIGHTS = 'weights'
UNFINISHED = 'unfinished'  # the folder of a training that goes on


@dataclasses.dataclass(frozen=True)
class TrainSettings:
    """How a network on grids is trained; the defaults are the paper's where it says.

    Attributes:
        crop: R, cells along the side of a crop.
        batch: B, divisible by the number of devices.
        steps_per_epoch: None for one pass over the training examples.
        epochs: At most.
        learning_rate: The first one, of Adam.
        schedule: 'plateau': a tenth whenever the validation loss has not improved for `patience`
            epochs, stopping below `min_learning_rate`. 'cosine': down to `min_learning_rate` over
            all steps.
        patience: Epochs; the paper does not say it.
        min_learning_rate: Where the schedule ends.
        l2: Times the sum of squares of convolution and dense kernels, added to the loss.
        weight_decay: Decoupled from the gradient (AdamW), on the same kernels.
        versions: Of the grids, drawn from in training.
        valid_crops: Crops of each slide, version 0, in the validation after each epoch.
        test_crops: T, crops of each slide in prediction.
        checkpoint_every: Epochs between checkpoints.
    """

    crop: int = 400
    batch: int = 16
    steps_per_epoch: int | None = None
    epochs: int = 200
    learning_rate: float = 1e-2
    schedule: str = 'plateau'
    patience: int = 10
    min_learning_rate: float = 1e-5
    l2: float = 1e-5
    weight_decay: float = 0.0
    versions: tuple[int, ...] = tuple(range(8))
    valid_crops: int = 1
    test_crops: int = 10
    checkpoint_every: int = 1

    def __post_init__(self):
        if self.schedule not in SCHEDULES:
            raise ValueError(f'schedule={self.schedule!r} must be one of {SCHEDULES}')
        for name in ('batch', 'epochs', 'patience', 'valid_crops', 'test_crops'):
            if getattr(self, name) < 1:
                raise ValueError(f'{name}={getattr(self, name)} must be at least 1')
        if not self.versions or not set(self.versions) <= set(range(8)):
            raise ValueError(f'versions={self.versions} must be some of 0 … 7')


@dataclasses.dataclass(frozen=True, eq=False)
class Trained:
    """A trained network on grids.

    Attributes:
        model: Its name, one of `models.NETWORKS`.
        fields: Of the network, where they differ from the defaults.
        settings: It was trained with.
        task: One of `TASKS`.
        classes: K; 1 for a regression or survival.
        code_size: C of the grids it takes.
        seed: Of its weights, batches and dropout.
        offset: The training targets' mean, added to what a regression gives; else 0.
        scale: Their standard deviation, multiplied before that; else 1.
        variables: The weights of the best validation loss, as NumPy arrays.
        best_epoch: The one they are from.
        history: A record for each epoch.
        identity: What the caller wants told apart: encoder, label, fold, and so on.
    """

    model: str
    fields: Mapping[str, Any]
    settings: TrainSettings
    task: str
    classes: int
    code_size: int
    seed: int
    offset: float
    scale: float
    variables: Any
    best_epoch: int
    history: list[dict[str, float]]
    identity: Mapping[str, Any]

    @property
    def network(self) -> nn.Module:
        """The Flax module that `variables` belong to."""
        return build_network(self.model, self.fields, outputs=self.classes, crop=self.settings.crop)


@functools.partial(jax.jit, static_argnames=('network', 'crop', 'code_size'))
def initial_variables(network: nn.Module, key: jax.Array, *, crop: int, code_size: int) -> Any:
    """Returns new weights and batch statistics."""
    return network.init(key, jnp.zeros((1, crop, crop, code_size), jnp.float32))


def save_trained(folder: pathlib.Path, trained: Trained, record: Mapping[str, Any]) -> None:
    """Writes weights, then the record that marks the folder as finished."""
    checkpoints.save(folder / WEIGHTS, trained.variables)
    result = {
        'offset': trained.offset,
        'scale': trained.scale,
        'best_epoch': trained.best_epoch,
        'history': trained.history,
    }
    write_atomically(folder / RECORD, json.dumps({**record, 'result': result}, indent=1))


def load_trained(folder: pathlib.Path) -> Trained:
    """Reads a finished training.

    Raises:
        ValueError: it is not finished, or its files do not belong together.
    """
    path = folder / RECORD
    if not path.is_file():
        raise ValueError(f'{folder} holds no finished classifier ({RECORD} is absent): train it')
    record = json.loads(path.read_text(encoding='utf-8'))
    settings = TrainSettings(
        **{
            name: tuple(value) if isinstance(value, list) else value
            for name, value in record['settings'].items()
        }
    )
    network = build_network(
        record['model'], record['network'], outputs=record['classes'], crop=settings.crop
    )
    like = jax.eval_shape(
        lambda: initial_variables(
            network, jax.random.key(0), crop=settings.crop, code_size=record['code_size']
        )
    )
    return Trained(
        model=record['model'],
        fields=record['network'],
        settings=settings,
        task=record['task'],
        classes=record['classes'],
        code_size=record['code_size'],
        seed=record['seed'],
        variables=checkpoints.restore(folder / WEIGHTS, like),
        identity=record['identity'],
        **record['result'],
    )


def begin(folder: pathlib.Path, record: Mapping[str, Any], *, overwrite: bool) -> bool:
    """Readies a folder for a training, and tells whether it is finished already.

    What `unfinished/` holds then was begun with the same record.

    Raises:
        ValueError: The folder was made with another record, and `overwrite` is false.
    """
    unfinished = folder / UNFINISHED
    for path in (folder / RECORD, unfinished / RECORD):
        if path.exists():
            try:
                check_same(path, record)
            except ValueError:
                if not overwrite:
                    raise
                remove(folder)
    if (folder / RECORD).exists():
        return True
    if not (unfinished / RECORD).exists():
        remove(unfinished)  # what a run left that was killed before it noted its settings
        write_atomically(unfinished / RECORD, json.dumps(record))
    return False


def check_same(path: pathlib.Path, record: Mapping[str, Any]) -> None:
    """Refuses a folder that was made with another record.

    Raises:
        ValueError: naming the keys that differ.
    """
    stored = _flatten(json.loads(path.read_text(encoding='utf-8')))
    stored = {name: value for name, value in stored.items() if not name.startswith('result.')}
    wanted = _flatten(json.loads(json.dumps(record)))
    differing = [
        f'{name} (there {stored.get(name)!r}, now {wanted.get(name)!r})'
        for name in sorted(stored | wanted)
        if stored.get(name) != wanted.get(name)
    ]
    if differing:
        raise ValueError(
            f'{path.parent} was made with other settings: {", ".join(differing)}; '
            'use another folder, or remove it (--overwrite)'
        )


def _flatten(record: Mapping[str, Any], prefix: str = '') -> dict[str, Any]:
    """{'a': {'b': 1}} -> {'a.b': 1}."""
    flat = {}
    for name, value in record.items():
        if isinstance(value, dict):
            flat.update(_flatten(value, f'{prefix}{name}.'))
        else:
            flat[prefix + name] = value
    return flat
