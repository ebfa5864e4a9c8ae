"""Files of a folder or an archive, one after another; nothing is ever extracted to disk."""

import contextlib
import functools
import lzma
import pathlib
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator

from nic_jax import cohort
from nic_jax.patches.images import TileError
from nic_jax.patches.store import PatchesError

ARCHIVES = ('.tar.xz', '.tar', '.tar.gz', '.tgz', '.zip')

# A file's name, and what reads it: an archive's before the next is asked for, else at any time.
Member = tuple[str, Callable[[], bytes]]


def is_archive(path: pathlib.Path) -> bool:
    """Whether a file's name is an archive's."""
    return path.name.lower().endswith(ARCHIVES)


def names(path: pathlib.Path) -> list[str]:
    """The visible files below a folder or in an archive, in its order, '/' between folders."""
    if path.is_dir():
        return [file.relative_to(path).as_posix() for file in cohort.visible_files(path)]
    found = [name for name, _ in _members(path)]
    return [name for name in found if not any(part.startswith('.') for part in name.split('/'))]


def find(path: pathlib.Path, wanted: Collection[str]) -> Iterator[Member]:
    """Those files of a folder or archive that a table wants, under the table's names.

    A folder's come in the order of `wanted`, be they there or not; an archive's in its own order,
    front to back. All of an archive's may lie in a folder that the table does not know of, such as
    `tiles/` before the table's `train/0/1.png`.

    Raises:
        PatchesError: The archive is damaged, has a file twice, or two folders explain the table.
    """
    if path.is_dir():
        for name in wanted:
            yield name, functools.partial(_read_file, path, name)
        return
    above, seen = None, set()
    for member, read in _members(path):
        parts = member.split('/')
        tails = ('/'.join(parts[start:]) for start in range(len(parts)))
        known = next((tail for tail in tails if tail in wanted), None)  # the longest
        if known is None:
            continue
        here = member.removesuffix(known)
        above = here if above is None else above
        name = member.removeprefix(above)
        if not member.startswith(above) or name not in wanted:
            if above:
                raise PatchesError(
                    f'{path} has tiles of the table in {above!r} and, such as {member!r}, '
                    'elsewhere; write their whole paths into the table'
                )
            continue  # the table's paths are whole, and this file is none of them
        if name in seen:
            raise PatchesError(f'{path} holds {member!r} twice; pack it anew')
        seen.add(name)
        yield name, read


def check(path: pathlib.Path) -> None:
    """Looks at the head of an archive, or for a folder.

    Raises:
        PatchesError: It is not there, or not what its name says.
    """
    if not path.exists():
        raise PatchesError(f'{path} does not exist; give a folder or {", ".join(ARCHIVES)}')
    if not path.is_dir() and not is_archive(path):
        raise PatchesError(f'{path} is neither a folder nor one of {", ".join(ARCHIVES)}')
    if not path.is_dir():
        next(_members(path), None)


def _members(path: pathlib.Path) -> Iterator[Member]:
    members = _zip_members if path.suffix.lower() == '.zip' else _tar_members
    for name, read in members(path):
        name = name.removeprefix('./')
        # Never written anywhere, such names could do no harm; but no honest archive has them.
        if not name.startswith('/') and '..' not in name.split('/'):
            yield name, read


def _tar_members(path: pathlib.Path) -> Iterator[Member]:
    with _undamaged(path), tarfile.open(path, 'r|*') as tar:
        while (info := tar.next()) is not None:
            if info.isfile():
                yield info.name, functools.partial(_read_tar, path, tar, info)
            elif info.issym() or info.islnk():
                yield info.name, _refuse_link
            tar.members.clear()  # it would remember every member


def _zip_members(path: pathlib.Path) -> Iterator[Member]:
    with _undamaged(path), zipfile.ZipFile(path) as file:
        for info in file.infolist():
            if stat.S_ISLNK(info.external_attr >> 16):
                yield info.filename, _refuse_link
            elif not info.is_dir():
                yield info.filename, functools.partial(_read_zip, file, info)


@contextlib.contextmanager
def _undamaged(path: pathlib.Path) -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError) as error:
        raise PatchesError(f'{path} is damaged or cut short ({error}); fetch it again') from error


def _read_file(folder: pathlib.Path, name: str) -> bytes:
    try:
        return (folder / name).read_bytes()
    except FileNotFoundError:
        raise TileError(f'not in {folder.name}') from None
    except OSError as error:
        raise TileError('cannot be read', str(error)) from error


def _read_tar(path: pathlib.Path, tar: tarfile.TarFile, info: tarfile.TarInfo) -> bytes:
    with _undamaged(path):
        return tar.extractfile(info).read()


def _read_zip(file: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    try:
        return file.read(info)
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError) as error:
        raise TileError('corrupt', str(error)) from error
    except (RuntimeError, NotImplementedError) as error:  # encrypted, or packed in an odd way
        raise TileError('cannot be read', str(error)) from error


def _refuse_link() -> bytes:
    raise TileError('a link in an archive', 'pack the file itself')
