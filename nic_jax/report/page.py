"""The report of a workdir: one page that can be sent, printed and read on a phone."""

import pathlib
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ml_collections

from nic_jax.report import (
    page_cohort,
    page_curves,
    page_findings,
    page_galleries,
    page_provenance,
    page_results,
    page_tables,
)
from nic_jax.report.galleries import Known
from nic_jax.report.page_inputs import read_csv
from nic_jax.report.page_parts import Folded, Gallery, Heading, Links, Part, Section, Text
from nic_jax.report.page_pictures import of_file
from nic_jax.report.page_template import templates
from nic_jax.workdir import file_name, write_atomically

Rows = Sequence[Mapping[str, Any]]

_CURVES = ('calibration', 'lesion_size', 'sweep', 'survival')
_NOUNS = {'slides': 'slides', 'tasks': 'tiles', 'images': 'images'}  # by a setting that tells
_LOCALISATION = {
    'localisation.csv': 'How well saliency agrees with annotated lesions, over hold-outs that have '
    'one. Jaccard index: of the cells pointed out; average precision: of all cells in the order of '
    'their saliency; pointing: share of slides whose strongest cell lies in a lesion. In brackets: '
    '95 % intervals, cases resampled.',
    'localisation_comparisons.csv': 'Methods, encoders and models against each other, on the same '
    'slides.',
}
_SECTION = {
    'results': 'Results',
    'comparisons': 'Comparisons',
    'cohort': 'Cohort',
    'curves': 'Curves',
    'confusion': 'Confusion matrices',
    'saliency': 'Saliency',
    'localisation': 'Localisation',
    'codes': 'Codes',
    'training': 'Training',
    'failures': 'Failures',
    'timings': 'Times',
    'settings': 'Settings',
    'versions': 'Versions',
    'files': 'Files',
}


def nothing_known(slide_id: str) -> None:
    """Of every slide: that nothing is known beside its maps."""
    del slide_id


def write_page(
    home: pathlib.Path,
    config: ml_collections.ConfigDict | Mapping[str, Any],
    *,
    rows: Rows,
    experiment: str = '',
    known_of: Callable[[str], Known | None] = nothing_known,
    viewer_tiles: int = 0,
) -> pathlib.Path:
    """Writes WORKDIR/report/index.html of what the workdir holds; what it lacks is left out.

    Args:
        home: The workdir; of its report/ the tables and pictures are taken that evaluation and
            explanation have written.
        config: The settings, resolved.
        rows: Of all predictions.csv, each with its `encoder`, and with a number `point` where a
            sweep was run.
        experiment: Its name, for the page's head.
        known_of: Pixels and lesions of a slide, for the galleries of saliency; it is asked about
            the slides alone that are shown.
        viewer_tiles: Of the viewer of each slide that is shown, at most (1,000 tiles of a slide are
            some 25 MB); 0 for no viewers.

    Returns:
        The page's path.
    """
    if isinstance(config, ml_collections.ConfigDict):
        config = config.to_dict()
    report, metrics = home / 'report', home / 'metrics.jsonl'
    table, pairs = read_csv(report / 'table.csv'), read_csv(report / 'comparisons.csv')
    unit = config.get('evaluate', {}).get('unit', 'slide')
    seed = config.get('seed', 0)
    noun = next((noun for key, noun in _NOUNS.items() if key in config), 'slides')
    swept = (config.get('sweep', {}).get('key') or 'point').split('.')[-1].replace('_', ' ')
    plain = [row for row in rows if row.get('point', '') == '']
    parts = {
        'results': page_results.hold_outs(table, noun=noun, swept=swept),
        'comparisons': page_findings.comparisons(pairs, swept=swept),
        'cohort': page_cohort.cohort(plain or rows, noun=noun) if rows else [],
        'curves': _curves(report, plain, unit=unit, seed=seed),
        'confusion': page_cohort.confusions(plain, unit=unit, noun=noun),
        'saliency': _saliency(
            page_galleries.galleries_of(
                home, rows=plain, known_of=known_of, seed=seed, viewer_tiles=viewer_tiles
            ),
            page_findings.best_models(table),
        ),
        'localisation': _localisation(report),
        'codes': _pictures(report, 'codes') + _pictures(report, 'image'),
        'training': [
            picture
            for stage in page_curves.TRAINED
            for picture in page_curves.trainings(metrics, stage)
        ],
        'failures': page_provenance.failures(home / 'failures.csv'),
        'timings': page_provenance.timings(metrics),
        'settings': page_provenance.settings(config),
        'versions': page_provenance.versions(config),
        'files': _files(report),
    }
    sections = [Section(name, _SECTION[name], each) for name, each in parts.items() if each]
    text = (
        templates()
        .get_template('page.html')
        .render(
            title=experiment or home.resolve().name,
            question=_question(rows),
            findings=page_findings.findings(table, pairs, noun=noun, swept=swept),
            sections=sections,
        )
    )
    path = report / 'index.html'
    write_atomically(path, text)
    return path


def _question(rows: Rows) -> str:
    """What was asked, in a sentence."""
    names = {
        key: list(dict.fromkeys(str(row[key]) for row in rows if row.get(key)))
        for key in ('label_name', 'model', 'encoder')
    }
    if not rows:
        return ''
    asked = f'{_and(names["label_name"])}, predicted by {_and(names["model"])}'
    return asked + (f' from codes of {_and(names["encoder"])}' if names['encoder'] else '')


def _and(names: Sequence[str]) -> str:
    if len(names) > 6:
        return f'{len(names)} ({", ".join(names[:5])}, …)'
    return ' and '.join(filter(None, (', '.join(names[:-1]), names[-1])))


def _curves(report: pathlib.Path, rows: Rows, *, unit: str, seed: int) -> list[Part]:
    """What is drawn of each label, one below the other; then what is of none of them."""
    labels = list(dict.fromkeys(row['label_name'] for row in rows))
    drawn = page_curves.predictions(rows, unit=unit, seed=seed)
    paths = [path for name in _CURVES for path in sorted(report.glob(f'{name}_*.png'))]
    of_label = {path: _label_of(path, labels) for path in paths}
    parts: list[Part] = []
    for label_name in labels:
        parts += [*([Heading(label_name)] if len(labels) > 1 else []), *drawn.get(label_name, [])]
        parts += [of_file(path) for path in paths if of_label[path] == label_name]
    return parts + [of_file(path) for path in paths if of_label[path] is None]


def _label_of(path: pathlib.Path, labels: Sequence[str]) -> str | None:
    """The label that a picture's name tells; a survival's goes on with encoder and model."""
    for label_name in sorted(labels, key=len, reverse=True):
        stems = [file_name(f'{name}_{label_name}') for name in _CURVES]
        if path.stem in stems or path.stem.startswith(f'{stems[-1]}_'):
            return label_name
    return None


def _pictures(report: pathlib.Path, name: str) -> list[Part]:
    return [of_file(path) for path in sorted(report.glob(f'{name}*.png'))]


def _saliency(
    found: Mapping[tuple[str, str], Sequence[Gallery]], best: Mapping[str, str]
) -> list[Part]:
    """The galleries of each label's best model; those of others are folded away."""
    parts: list[Part] = []
    for label_name in dict.fromkeys(label_name for label_name, _ in found):
        of_label = {model: each for (name, model), each in found.items() if name == label_name}
        first = best.get(label_name, '')
        first = first if first in of_label else next(iter(of_label))
        parts += [Heading(f'{label_name}, {first}'), *of_label.pop(first)]
        parts += [Folded(f'{label_name}, {model}', each) for model, each in of_label.items()]
    return parts


def _localisation(report: pathlib.Path) -> list[Part]:
    tables = [
        page_tables.any_table(report / name, caption)
        for name, caption in _LOCALISATION.items()
        if (report / name).exists()
    ]
    return [*tables, *_pictures(report, 'localisation'), *_pictures(report, 'froc')]


def _files(report: pathlib.Path) -> list[Part]:
    """The tables beside the page."""
    paths = sorted(report.glob('*.csv'))
    if not paths:
        return []
    links = Links([(path.name, urllib.parse.quote(path.name)) for path in paths])
    return [Text('Tables beside this page, for a spreadsheet:'), links]
