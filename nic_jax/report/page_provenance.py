"""What a reader needs to trust or repeat the page: failures, times, settings, versions."""

import importlib.metadata
import pathlib
import platform
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

import nic_jax
from nic_jax.report.page_inputs import read_csv, stage_records
from nic_jax.report.page_parts import Folded, Part, Table

PACKAGES = ('jax', 'flax', 'optax', 'numpy', 'scipy', 'scikit-learn', 'openslide-bin', 'zarr')
_SHOWN = 100  # failures


def failures(path: pathlib.Path) -> list[Part]:
    """The slides that could not be used, and why."""
    rows = read_csv(path)
    if not rows:
        return []
    columns = [name for name in ('slide_id', 'stage', 'encoder', 'reason') if rows[0].get(name)]
    note = f'The first {_SHOWN}; all are in failures.csv.' if len(rows) > _SHOWN else ''
    return [
        Table(
            f'{len(rows)} slides failed; everything else was made without them.',
            ['slide' if name == 'slide_id' else name for name in columns],
            [[row[name] for name in columns] for row in rows[:_SHOWN]],
            note=note,
        )
    ]


def timings(path: pathlib.Path) -> list[Part]:
    """How much was done in each stage and how fast, from metrics.jsonl."""
    lines = []
    for stage, rate in (
        ('encoder', 'images_per_s'),
        ('compress', 'patches_per_s'),
        ('classify', 'steps_per_s'),
    ):
        groups: dict[tuple, list[Mapping[str, Any]]] = {}
        for record in stage_records(path, stage):
            names = (record.get(name, '') for name in ('encoder', 'label_name', 'model'))
            groups.setdefault(tuple(names), []).append(record)
        lines += [[stage, *_time(key, records, rate)] for key, records in groups.items()]
    if not lines:
        return []
    head = ['stage', 'what', 'done', 'speed, median', 'time']
    caption = 'What was done and how fast. Times are of processes, added up where several shared.'
    table = Table(caption, head, lines, frozenset({2, 3, 4}))
    return [table if len(lines) <= 12 else Folded(f'{len(lines)} trainings and encodings', [table])]


def settings(config: Mapping[str, Any]) -> list[Part]:
    """All settings as they were resolved, section by section, folded away."""
    plain = {key: value for key, value in config.items() if not isinstance(value, Mapping)}
    sections = {'': plain} | {
        key: value for key, value in config.items() if isinstance(value, Mapping)
    }
    lines = [
        [f'{name}.{key}' if name else key, _value(value)]
        for name, section in sections.items()
        for key, value in _flat(section)
    ]
    return [Folded(f'{len(lines)} settings', [Table('', ['setting', 'value'], lines)])]


def versions(config: Mapping[str, Any]) -> list[Part]:
    """The software and the machine that wrote the page, and the seed."""
    lines = [['nic_jax', nic_jax.__version__], ['Python', platform.python_version()]]
    for name in PACKAGES:
        try:
            lines.append([name, importlib.metadata.version(name)])
        except importlib.metadata.PackageNotFoundError:
            continue
    kinds = [device.device_kind for device in jax.devices()]
    devices = ', '.join(f'{kinds.count(kind)} × {kind}' for kind in dict.fromkeys(kinds))
    lines += [['device', f'{devices} ({jax.default_backend()})'], ['system', platform.platform()]]
    lines += [['seed', str(config.get('seed', ''))], ['precision', str(config.get('precision'))]]
    return [Table('Of the process that wrote this page.', ['', 'version'], lines)]


def _time(key: Sequence[str], records: Sequence[Mapping[str, Any]], rate: str) -> list[str]:
    what = ', '.join(filter(None, key))
    speeds = [record[rate] for record in records if record.get(rate)]
    unit = rate.removesuffix('_per_s')
    speed = f'{np.median(speeds):,.4g} {unit}/s' if speeds else '–'
    seconds = sum(record.get('seconds') or 0 for record in records)
    return [what, _done(records), speed, _duration(seconds) if seconds else '–']


def _done(records: Sequence[Mapping[str, Any]]) -> str:
    if 'patches' in records[0]:
        slides = {record.get('slide_id', '') for record in records}
        patches = sum(record['patches'] for record in records)
        return f'{len(slides):,} slides, {patches:,} patches'
    if 'epoch' in records[0]:
        trained = {(record['seed'], record['fold']) for record in records}
        epochs = {(record['seed'], record['fold'], record['epoch']) for record in records}
        networks = 'network' if len(trained) == 1 else 'networks'
        return f'{len(trained):,} {networks}, {len(epochs):,} epochs'
    if 'step' in records[0]:
        return f'{max(record["step"] for record in records):,} steps'
    return ', '.join(str(record['task']) for record in records if 'task' in record)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f'{seconds:.0f} s'
    return f'{seconds / 60:.0f} min' if seconds < 5400 else f'{seconds / 3600:.1f} h'


def _flat(section: Mapping[str, Any]):
    for key, value in section.items():
        if isinstance(value, Mapping) and value:
            yield from ((f'{key}.{name}', each) for name, each in _flat(value))
        else:
            yield key, value


def _value(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return '(' + ', '.join(map(_value, value)) + ')'
    return '–' if value is None else str(value)
