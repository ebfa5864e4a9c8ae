"""The stage that shows where networks looked, and measures it where lesions are known.

    ENCODER/explain/LABEL/MODEL/SLIDE_ID/   a slide: see `explanation.slide_exports`
    ENCODER/explain/LABEL/MODEL/test.zarr   synthetic images: maps [image, y, x] by method
    ENCODER/explain/LABEL/MODEL/validation/ maps that the post-processing is chosen by
    ENCODER/explain/LABEL/MODEL/localisation.csv, detections.csv

A slide is explained by the networks that never saw it: those of the folds that test it, or of all
folds where it has no label. Networks that were trained with their encoders have all this under
ENCODER/finetune; each sees the codes of its own encoder.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ml_collections
import numpy as np

from nic_jax import learned, options, progress, sweeps, workdir
from nic_jax.classifiers.cross_validation import Dataset
from nic_jax.classifiers.trained import RECORD, Trained, load_trained
from nic_jax.evaluation import predictions
from nic_jax.explanation.saliency import ExplainSettings, explain, methods_of
from nic_jax.grids import GridLike

Config = ml_collections.ConfigDict
Maps = Mapping[str, np.ndarray]  # by method, [H, W]
Recode = Callable[[int, int], GridLike]  # (index in the data set, fold) -> codes


@dataclasses.dataclass(frozen=True, eq=False)
class Reference:
    """What should be found on a slide, in cells.

    Attributes:
        mask: Of lesions, bool `[H, W]`; nothing in it where the slide has none.
        second: Of another region that the label depends on, or None.
    """

    mask: np.ndarray
    second: np.ndarray | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Unit:
    """A slide that is to be explained.

    Attributes:
        index: In the data set.
        subset: 'test', 'new' (without a label) or 'valid'.
        folds: Whose networks explain it.
        target: Number of the class that is explained; 0 for values and risks.
        prediction: The slide's row of predictions.csv; of those that validate, nothing.
    """

    index: int
    subset: str
    folds: tuple[int, ...]
    target: int
    prediction: Mapping[str, Any]

    @property
    def fold(self) -> int | str:
        """As in predictions.csv: '' for the mean of several."""
        return self.folds[0] if len(self.folds) == 1 else ''


@dataclasses.dataclass(frozen=True, eq=False)
class Explained:
    """A model on one label of one encoder's grids, whose slides are explained.

    Attributes:
        home: The workdir.
        folder: ENCODER/explain/LABEL/MODEL, or ENCODER/finetune/explain/LABEL/MODEL.
        grids: The encoder's folder, in which the grids are.
        encoder: As tables name it.
        model: Its name.
        dataset: The grids and what is known of them.
        networks: By fold.
        settings: Of the methods, those alone that the model has.
        units: What is to be explained.
        references: slide_id -> what should be found, or None where that is not known.
        recode: Encodes a slide, by its index in the data set, anew for the network of a fold; None
            where all see the grids.
    """

    home: pathlib.Path
    folder: pathlib.Path
    grids: pathlib.Path
    encoder: str
    model: str
    dataset: Dataset
    networks: Mapping[int, Trained]
    settings: ExplainSettings
    units: Sequence[Unit]
    references: Callable[[str], Reference | None]
    recode: Recode | None = None

    @property
    def title(self) -> str:
        """What it is called in messages."""
        return f'{self.encoder}, {self.dataset.label_name}, {self.model}'

    def maps(self, unit: Unit) -> Maps:
        """The maps of a slide: the mean of its networks', by method."""
        networks = [self.networks[fold] for fold in unit.folds]
        if self.recode is None:
            grid = self.dataset.grids[unit.index]
            return explain(networks, grid, self.settings, target=unit.target)
        by_fold = [
            explain([network], self.recode(unit.index, fold), self.settings, target=unit.target)
            for network, fold in zip(networks, unit.folds, strict=True)
        ]
        return {
            method: np.mean([maps[method] for maps in by_fold], axis=0)
            for method in self.settings.methods
        }

    def target_name(self, unit: Unit) -> str:
        """The class that is explained, or what else is."""
        names = self.dataset.class_names
        return names[unit.target] if names else _VALUES[self.dataset.task]


_VALUES = {'regression': 'value', 'survival': 'risk'}


def prepare(
    config: Config,
    home: pathlib.Path,
    own: pathlib.Path,
    dataset: Dataset,
    model: str,
    *,
    references: Callable[[str], Reference | None],
    recode: Recode | None = None,
    overwrite: bool,
) -> Explained | None:
    """Loads a model's networks and plans which slides they explain.

    None where no method fits the model, or no fold of it is fine-tuned.

    Args:
        config: The experiment's.
        home: The workdir.
        own: Where the model was trained: one of `learned.folders`.
        dataset: Its grids with a label.
        model: The model's name.
        references: As of `Explained`.
        recode: As of `Explained`.
        overwrite: Replace what was explained with other settings.

    Raises:
        ValueError: It is not trained yet, or its slides were explained with other settings.
    """
    place = learned.classifier(own, dataset.label_name, model + sweeps.suffix(config, model))
    seed = config.classifier.seeds[0]
    folds = dataset.chosen_folds(options.only_folds(config))
    if recode is not None:
        missing = [
            fold for fold in folds if not (place / learned.network(seed, fold) / RECORD).is_file()
        ]
        if missing:
            told = ', '.join(map(str, missing))
            progress.console.print(f'explain: {place}: seed {seed} fold {told} not fine-tuned')
        folds = tuple(fold for fold in folds if fold not in missing)
        if not folds:
            return None
    networks = {fold: load_trained(place / learned.network(seed, fold)) for fold in folds}
    settings = options.explain_settings(config)
    methods = tuple(methods_of(networks[folds[0]].network, settings.methods))
    if not methods:
        progress.console.print(f'explain: {model} has none of {", ".join(settings.methods)}')
        return None
    settings = dataclasses.replace(settings, methods=methods)
    folder = own.joinpath('explain', *place.parts[-2:])
    trained = {
        str(fold): workdir.fingerprint(place / learned.network(seed, fold) / RECORD)
        for fold in folds
    }
    made_with = dataclasses.asdict(settings) | {'target': config.explain.target, 'trained': trained}
    with workdir.lock(home, f'explain/{folder.relative_to(home)}', wait=True):
        workdir.begin(folder, made_with, overwrite=overwrite)
    rows = [row for row in predictions.read(place / 'predictions.csv') if row['seed'] == seed]
    units = _tested(config, dataset, folds, {row['slide_id']: row for row in rows})
    units += _validating(config, dataset, folds, references)
    return Explained(
        home,
        folder,
        learned.encoder_of(own),
        learned.named(learned.encoder_of(own).name, own),
        model,
        dataset,
        networks,
        settings,
        units,
        references,
        recode,
    )


def _tested(
    config: Config, dataset: Dataset, folds: Sequence[int], rows: Mapping[str, Mapping[str, Any]]
) -> list[Unit]:
    """Slides that have a prediction, by the networks that made it: all, or so many at random."""
    units = []
    for index, grid in enumerate(dataset.grids):
        if grid.slide_id not in rows:
            continue
        row, labelled = rows[grid.slide_id], dataset.has_label[index]
        own = tuple(fold for fold in folds if index in dataset.folds[fold].test)
        target = _target(config, dataset, index, foretold=row['prediction'])
        subset = 'test' if labelled else 'new'
        units.append(Unit(index, subset, own if labelled else tuple(folds), target, row))
    if not 0 < config.explain.slides < len(units):
        return units
    drawn = np.random.default_rng(config.seed).permutation(len(units))[: config.explain.slides]
    return [units[number] for number in np.sort(drawn)]


def _validating(
    config: Config,
    dataset: Dataset,
    folds: Sequence[int],
    references: Callable[[str], Reference | None],
) -> list[Unit]:
    """Slides with a lesion that validate in a fold, by its network: at most so many of each."""
    units = []
    for fold in folds:
        own = []
        for index in dataset.folds[fold].valid:
            if len(own) == config.explain.valid_slides:
                break
            reference = references(dataset.grids[index].slide_id)
            if reference is not None and reference.mask.any():
                target = _target(config, dataset, index, foretold=None)
                own.append(Unit(int(index), 'valid', (fold,), target, {}))
        units += own
    return units


def _target(config: Config, dataset: Dataset, index: int, *, foretold: Any) -> int:
    """The class to explain: the one that is asked for, the label's, or what is foretold."""
    names = dataset.class_names
    if not names:
        return 0
    if asked := options.explained_class(config, names):
        return names.index(asked)
    known = config.explain.target == options.LABEL or foretold is None
    if dataset.has_label[index] and known:
        return int(dataset.targets[index])
    return names.index(foretold)


def record(explained: Explained, unit: Unit) -> dict[str, Any]:
    """What is told of a slide beside its maps."""
    found = dict(unit.prediction)
    score = found.get(f'score_{explained.target_name(unit)}', found.get('prediction'))
    return columns(explained, unit) | {
        'encoder': explained.encoder,
        'folds': list(unit.folds),
        'methods': list(explained.settings.methods),
        'label': found.get('label', ''),
        'prediction': found.get('prediction', ''),
        'score': score,
    }


def columns(explained: Explained, unit: Unit) -> dict[str, Any]:
    """What localisation.csv tells of a slide beside figures."""
    dataset = explained.dataset
    return {
        'slide_id': dataset.grids[unit.index].slide_id,
        'case_id': dataset.case_ids[unit.index],
        'label_name': dataset.label_name,
        'model': explained.model,
        'seed': next(iter(explained.networks.values())).seed,
        'fold': unit.fold,
        'subset': unit.subset,
        'target': explained.target_name(unit),
    }
