"""Maps against lesions: what the stage explain measures, where lesions are known."""

import dataclasses
import itertools
import pathlib
import urllib.parse
from collections.abc import Callable, Sequence

from nic_jax import learned, workdir
from nic_jax.evaluation import detections, localisation, post_processing
from nic_jax.explain_stage import Explained, Maps, Reference, Unit, columns

_DETECTION_SIGMA = 0.5  # cells, at least: of the map whose maxima are detections


def localise(
    explained: Explained, read: Callable[[Unit], Maps], *, lesion_class: str | None
) -> pathlib.Path | None:
    """Measures the maps of test slides against their references, where there are any.

    The post-processing of each fold's maps is chosen on slides that validate in it; that of the
    mean of several folds' on those of all of these.

    Args:
        explained: All of its units have their maps.
        read: Gives them.
        lesion_class: The class whose slides have lesions, for detections; else None.

    Returns:
        The path of localisation.csv, or None.
    """
    tested = [unit for unit in explained.units if unit.subset == 'test']
    valid = [unit for unit in explained.units if unit.subset == 'valid']
    known = {unit: _reference(explained, unit) for unit in (*tested, *valid)}
    tested = [unit for unit in tested if known[unit] is not None]
    if not tested or not valid:
        return None
    maps = {unit: read(unit) for unit in (*tested, *valid)}
    rows, found = [], []
    for method in explained.settings.methods:
        chosen = {}
        for unit in (*valid, *tested):
            if unit.folds not in chosen:
                own = [each for each in valid if set(each.folds) <= set(unit.folds)]
                chosen[unit.folds], _ = post_processing.choose(
                    [maps[each][method] for each in own], [known[each].mask for each in own]
                )
            settings, reference = chosen[unit.folds], known[unit]
            grid = explained.dataset.grids[unit.index]
            told = columns(explained, unit) | {'method': method}
            rows.append(
                localisation.score_slide(
                    maps[unit][method],
                    reference.mask,
                    settings=settings,
                    second=reference.second,
                    **told,
                )
            )
            if unit.subset == 'test' and explained.target_name(unit) == lesion_class:
                found += detections.detection_rows(
                    maps[unit][method],
                    detections.number_lesions(reference.mask & grid.encoded),
                    sigma=max(settings.sigma, _DETECTION_SIGMA),
                    probability=unit.prediction[f'score_{lesion_class}'],
                    **told,
                )
        for folds, settings in chosen.items():
            workdir.log_metrics(
                explained.home,
                {'stage': 'explain', 'encoder': explained.encoder, 'model': explained.model}
                | {'label_name': explained.dataset.label_name, 'method': method, 'folds': folds}
                | {'post_processing': dataclasses.asdict(settings)},
            )
    localisation.write_rows(explained.folder / 'localisation.csv', rows)
    if found:
        detections.write_rows(explained.folder / 'detections.csv', found)
    return explained.folder / 'localisation.csv'


def read_measured(folders: Sequence[pathlib.Path]) -> tuple[list[dict], list[dict]]:
    """What `localise` has left in the folders of encoders, of networks that predict.

    Returns:
        Rows of all localisation.csv and of all detections.csv, each with its `encoder`,
        `label_name` and `model`; of a point of a sweep, names as its folders have.
    """
    rows, found = [], []
    for folder in folders:
        paths = (each.glob('explain/*/*/localisation.csv') for each in learned.folders(folder))
        for path in sorted(itertools.chain.from_iterable(paths)):
            label_name, model = (urllib.parse.unquote(part) for part in path.parts[-3:-1])
            own = path.parents[3]
            if not (learned.classifier(own, label_name, model) / 'predictions.csv').exists():
                continue  # of networks that have been replaced
            encoder = learned.named(folder.name, own)
            told = {'encoder': encoder, 'label_name': label_name, 'model': model}
            rows += [{**row, **told} for row in localisation.read_rows(path)]
            if (detected := path.with_name('detections.csv')).exists():
                found += [{**row, **told} for row in detections.read_rows(detected)]
    return rows, found


def _reference(explained: Explained, unit: Unit) -> Reference | None:
    return explained.references(explained.dataset.grids[unit.index].slide_id)
