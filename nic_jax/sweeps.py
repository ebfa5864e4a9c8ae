"""A declared list of numbers for one setting, run one after another in one workdir, and resumed.

An experiment declares `config.sweep.key`, a dotted key, and `config.sweep.values`, a tuple. Every
point runs the stages of an experiment without a sweep. Names keep apart what points make
differently; what they share is made by the first and found complete by the others. A point's own
folders, by key:

- `classifier.X`, `cohort.folds`, `cohort.train_parts`, `cohort.shuffle_cells`:
  `ENCODER/classifier/LABEL/MODEL@X=VALUE`.
  Patches, encoders and grids are shared.
- `MODEL.X`, of a network's own section: the same, of this model alone; other models are shared too.
- `code_size`: `ENCODER-cVALUE` of encoders that are trained here, with weights, grids and
  classifiers. Patches and other encoders are shared.
- `tiling.stride`: `ENCODER-sVALUE` with grids and classifiers, plain `ENCODER` where the stride is
  the patch size. Patches and weights are shared.
- `images.stride`, `images.lesion_min`, `images.lesion_max`: `ENCODER@X=VALUE` with grids and
  classifiers. Patches and weights are shared: they are made from the images as they are without
  the sweep. With `images.stride` the crop follows: it is the whole image's grid.
"""

import copy
import pathlib
import urllib.parse
from collections.abc import Callable, Sequence
from typing import Any

import ml_collections

from nic_jax import learned, options
from nic_jax.evaluation import predictions
from nic_jax.synthetic.rectangles import RectangleStudy

Config = ml_collections.ConfigDict

_COHORT = ('cohort.folds', 'cohort.train_parts', 'cohort.shuffle_cells')
_GRIDS = ('images.stride', 'images.lesion_min', 'images.lesion_max')


def keys(config: Config) -> list[str]:
    """The settings that this experiment may sweep: single numbers, and what is true or false."""
    sections = [name for name in ('classifier', *_models(config)) if name in config]
    found = [f'{section}.{name}' for section in sections for name in config[section]]
    found += [*_COHORT, 'tiling.stride', *_GRIDS]
    if 'tasks' not in config:  # tables of tiles are compared with probes, one code size at a time
        found.append('code_size')
    return [key for key in found if _kind(config, key) in (bool, int, float)]


def points(config: Config) -> list[tuple[float | None, Config]]:
    """Every value of the sweep, and the config in which the key has it.

    Without a sweep, the one point is the config itself and its value None.

    Raises:
        ValueError: A key that cannot be swept or that a network's own section takes from it; values
            that are not of its type, twice the same, or none.
    """
    key = _key(config)
    asked = config.sweep['values'] if 'sweep' in config else ()  # .values is a dict's method
    if key is None:
        if len(asked):
            raise ValueError(
                f'--config.sweep.values={asked} are values of no key: give --config.sweep.key'
            )
        return [(None, copy.deepcopy(config))]
    if key not in (known := keys(config)):
        raise ValueError(
            f'--config.sweep.key={key} cannot be swept; this experiment can sweep '
            f'{", ".join(known) or "nothing"}'
        )
    section, _, name = key.rpartition('.')
    if section == 'classifier' and (
        own := [each for each in _models(config) if name in config[each]]
    ):
        raise ValueError(
            f'--config.sweep.key={key} does not reach {", ".join(own)}: a section of its own has '
            f'its {name}; sweep --config.sweep.key={own[0]}.{name}'
        )
    if not len(asked):
        raise ValueError(f'no values of {key} to sweep: give --config.sweep.values=(1, 2)')
    values = [_checked(key, value, _kind(config, key)) for value in asked]
    if len(set(values)) < len(values):
        raise ValueError(f'--config.sweep.values={asked} has a value twice')
    return [(value, _point(config, key, value)) for value in values]


def suffix(config: Config, model: str) -> str:
    """What a point's folder of classifiers has behind the model's name.

    Args:
        config: A point.
        model: Its name; a sweep of another model's own section does not touch it.
    """
    key = _key(config) or ''
    if key in _COHORT or key.split('.')[0] in ('classifier', model):
        return _named(config, key)
    return ''


def encoder_suffix(config: Config) -> str:
    """What a point's folders of encoders that are trained here have behind their names."""
    return f'-c{config.code_size}' if _key(config) == 'code_size' else ''


def grid_suffix(config: Config) -> str:
    """What a point's folders of synthetic images' grids have behind the encoder's folder's name."""
    return _named(config, _key(config)) if _key(config) in _GRIDS else ''


def without_suffix(name: str) -> str:
    """The name of a folder without what `suffix` or `grid_suffix` put behind it."""
    return name.split('@')[0]


def base_images(config: Config) -> dict[str, Any]:
    """The settings of the synthetic images that encoders are trained on: those before the sweep."""
    images = config.images.to_dict()
    if _key(config) in _GRIDS and 'base' in config.sweep:
        images[_key(config).split('.')[1]] = config.sweep.base
    return images


def read_points(
    config: Config,
    home: pathlib.Path,
    folders: Callable[[Config, pathlib.Path], Sequence[pathlib.Path]],
) -> list[dict[str, Any]]:
    """The rows of all predictions that a sweep, or an experiment without one, has left.

    Args:
        config: The experiment, not one of its points.
        home: The workdir.
        folders: A config and workdir -> the folder of each encoder asked for.

    Returns:
        Rows of predictions.csv. In each, `encoder` is what `learned.named` calls it and `model` the
        model's name, both as without the sweep, and `point` is the value where there is a sweep.
        What points share is given once a point.
    """
    unswept = copy.deepcopy(config)
    if 'sweep' in unswept:
        unswept.sweep.key = None
    encoders = [folder.name for folder in folders(unswept, home)]
    rows = []
    for value, point in points(config):
        for encoder, folder in zip(encoders, folders(point, home), strict=True):
            for path in sorted(
                path
                for each in learned.folders(folder)
                for path in each.glob('classifier/*/*/predictions.csv')
            ):
                name = urllib.parse.unquote(path.parent.name)  # undoes workdir.file_name
                model = without_suffix(name)
                if name != model + suffix(point, model):
                    continue  # of another sweep, another point, or none
                told = {'encoder': learned.named(encoder, path.parents[3]), 'model': model}
                if value is not None:
                    told['point'] = value
                rows += [{**row, **told} for row in predictions.read(path)]
    return rows


def _key(config: Config) -> str | None:
    return config.sweep.key if 'sweep' in config else None


def _point(config: Config, key: str, value: float) -> Config:
    point = copy.deepcopy(config)
    with point.unlocked():
        point.sweep.base = options.get(config, key)
    *path, name = key.split('.')
    section = point[path[0]] if path else point
    section[name] = value
    if key == 'images.stride':
        for each in ('classifier', *_models(config)):
            if 'crop' in point[each]:
                point[each].crop = RectangleStudy(**point.images).grid_cells
    return point


def _models(config: Config) -> list[str]:
    return options.names(config.model) if 'model' in config else []


def _kind(config: Config, key: str) -> type | None:
    """The type of a setting; None where the experiment has none of this name."""
    *path, name = key.split('.')
    section = config.get(path[0]) if path else config
    return section.get_type(name) if section is not None and name in section else None


def _checked(key: str, value: Any, kind: type) -> float:
    """The value, as the type that the key has."""
    allowed = {bool: (bool,), int: (int,), float: (int, float)}[kind]
    if type(value) not in allowed:  # True is an int, and no number of anything
        raise ValueError(
            f'--config.sweep.values has {value!r}; values of {key} must be {kind.__name__}'
        )
    return kind(value)


def _named(config: Config, key: str) -> str:
    """'@X=VALUE', different for different values."""
    return f'@{key.split(".")[-1]}={options.get(config, key)}'
