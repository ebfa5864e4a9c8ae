"""The files of a workdir that all stages share: metrics, failures, locks, fingerprints."""

import contextlib
import csv
import fcntl
import hashlib
import json
import os
import pathlib
import shutil
import tempfile
import urllib.parse
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

_MIB = 1 << 20
_UMASK = os.umask(0)
os.umask(_UMASK)
_MADE_WITH = 'made_with.json'
_FINISHED = 'finished'
_FAILURE_COLUMNS = ('slide_id', 'path', 'stage', 'encoder', 'reason')


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields a new file's path to write; it becomes `path`, whole, once the block has ended."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f'.{path.name}.', suffix='.partial', dir=path.parent)
    os.close(handle)
    os.chmod(name, 0o666 & ~_UMASK)  # mkstemp's files are for their owner alone
    try:
        yield pathlib.Path(name)
        os.replace(name, path)
    except BaseException:
        pathlib.Path(name).unlink(missing_ok=True)
        raise


def write_atomically(path: pathlib.Path, text: str) -> None:
    """Writes a text file so that a reader sees the old one or the new one, whole."""
    with replacing(path) as partial:
        partial.write_text(text, encoding='utf-8')


def save_array(path: pathlib.Path, array: np.ndarray) -> None:
    """Writes a NumPy file so that a reader sees the old one or the new one, whole."""
    with replacing(path) as partial, partial.open('wb') as file:
        np.save(file, array, allow_pickle=False)


def remove(folder: pathlib.Path) -> None:
    """Deletes a folder, if it is there; a kill in between leaves nothing of it to be resumed."""
    if folder.exists():
        aside = pathlib.Path(tempfile.mkdtemp(prefix='.removed.', dir=folder.parent))
        os.replace(folder, aside / 'folder')
        shutil.rmtree(aside)


def begin(folder: pathlib.Path, settings: Mapping[str, Any], *, overwrite: bool = False) -> bool:
    """Notes with what settings a folder is being made, or checks that they are the same.

    Returns:
        Whether the folder is finished. If not, what it holds was begun with these settings.

    Raises:
        ValueError: It was made with other settings, and `overwrite` is false; else it is emptied.
    """
    asked, stored = json.loads(json.dumps(settings)), made_with(folder)
    if stored is not None:
        differing = sorted(
            key for key in asked.keys() | stored.keys() if stored.get(key) != asked.get(key)
        )
        if not differing:
            return is_finished(folder)
        if not overwrite:
            raise ValueError(
                f'{folder} was made with other settings ({", ".join(differing)} differ); '
                'use another --workdir, or --overwrite to replace it'
            )
    remove(folder)  # made with other settings, or by a run killed before it noted its own
    write_atomically(folder / _MADE_WITH, json.dumps(asked, indent=1))
    return False


def is_finished(folder: pathlib.Path) -> bool:
    """Tells whether all of a folder was made."""
    return (folder / _FINISHED).exists()


def finish(folder: pathlib.Path) -> None:
    """Marks a folder as finished; the last thing written to it."""
    (folder / _FINISHED).touch()


def made_with(folder: pathlib.Path) -> dict[str, Any] | None:
    """The settings that a folder is made with, or None."""
    path = folder / _MADE_WITH
    return json.loads(path.read_text(encoding='utf-8')) if path.exists() else None


def log_metrics(workdir: pathlib.Path, record: Mapping[str, Any]) -> None:
    """Appends one JSON line to metrics.jsonl; what is not a number becomes null."""
    record = json.loads(json.dumps(record), parse_constant=lambda name: None)
    with (workdir / 'metrics.jsonl').open('a', encoding='utf-8') as file:
        file.write(json.dumps(record, ensure_ascii=False) + '\n')


def fingerprint(path: pathlib.Path) -> dict[str, Any]:
    """Name, size and a hash of the first and last MiB: tells files apart without reading them."""
    size = path.stat().st_size
    digest = hashlib.sha256()
    with path.open('rb') as file:
        digest.update(file.read(_MIB))
        file.seek(max(0, size - _MIB))
        digest.update(file.read(_MIB))
    return {'name': path.name, 'size': size, 'fingerprint': digest.hexdigest()}


@contextlib.contextmanager
def lock(workdir: pathlib.Path, name: str, *, wait: bool = False) -> Iterator[bool]:
    """Holds the lock of one unit of work; yields whether it was free, unless it may `wait`.

    The operating system releases it when the process ends, however it ends.

    Raises:
        OSError: The disk has no locks.
    """
    folder = workdir / '.locks'
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / file_name(name)).open('w') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            free = True
        except BlockingIOError:
            free = False
        except OSError as error:
            raise OSError(
                f'{workdir}: its disk has no file locks ({error}); use another'
            ) from error
        yield free


@contextlib.contextmanager
def alone(workdir: pathlib.Path, name: str) -> Iterator[None]:
    """Holds the lock of a unit of work that other processes must not join.

    Raises:
        ValueError: Another process holds it.
    """
    with lock(workdir, name) as free:
        if not free:
            raise ValueError(
                f'another process is at work on {name} in {workdir}; run this again when it is done'
            )
        yield


def record_failure(
    workdir: pathlib.Path,
    *,
    stage: str,
    slide_id: str,
    path: pathlib.Path,
    reason: str,
    encoder: str = '',
) -> None:
    """Notes that a slide failed in a stage. One file a slide, so that processes do not collide."""
    _write_note(workdir, stage, slide_id, path, reason, encoder)
    merge_failures(workdir)


def record_failures(
    workdir: pathlib.Path, *, stage: str, failures: Mapping[str, tuple[pathlib.Path, str]]
) -> None:
    """Notes that many things failed in a stage: their ids to path and reason."""
    for slide_id, (path, reason) in failures.items():
        _write_note(workdir, stage, slide_id, path, reason, '')
    merge_failures(workdir)


def clear_failure(workdir: pathlib.Path, *, stage: str, slide_id: str, encoder: str = '') -> None:
    """Forgets a failure, since the slide has succeeded now."""
    _note(workdir, stage, encoder, slide_id).unlink(missing_ok=True)


def merge_failures(workdir: pathlib.Path) -> list[dict[str, str]]:
    """Writes failures.csv from all processes' notes and returns its rows."""
    rows = []
    with lock(workdir, 'failures.csv', wait=True):
        for file in sorted((workdir / '.failures').glob('[!.]*')):
            with contextlib.suppress(FileNotFoundError):  # another process has just cleared it
                rows.append(json.loads(file.read_text(encoding='utf-8')))
        if rows or (workdir / 'failures.csv').exists():
            with (
                replacing(workdir / 'failures.csv') as partial,
                partial.open('w', newline='', encoding='utf-8') as file,
            ):
                writer = csv.DictWriter(file, _FAILURE_COLUMNS)
                writer.writeheader()
                writer.writerows(rows)
    return rows


def _write_note(workdir, stage, slide_id, path, reason, encoder) -> None:
    row = dict(zip(_FAILURE_COLUMNS, (slide_id, str(path), stage, encoder, reason), strict=True))
    write_atomically(_note(workdir, stage, encoder, slide_id), json.dumps(row))


def _note(workdir: pathlib.Path, stage: str, encoder: str, slide_id: str) -> pathlib.Path:
    """The file of one failure."""
    return workdir / '.failures' / file_name(f'{stage}/{encoder}/{slide_id}')


def file_name(name: str) -> str:
    """A file name for a name with slashes, different for different names."""
    flat = urllib.parse.quote(name, safe=' @=')
    if not flat.strip('.'):  # '..' would be the folder above
        flat = flat.replace('.', '%2E') or '%'
    if len(flat) > 200:
        flat = flat[:120] + hashlib.sha256(name.encode()).hexdigest()
    return flat
