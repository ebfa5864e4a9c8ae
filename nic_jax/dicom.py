"""The one thing to know of a DICOM file before it is opened: which series it belongs to.

OpenSlide tells it too, but looks into every file of the folder each time that it opens one, which
takes minutes for a folder of a thousand files.
"""

import pathlib
import struct
from typing import BinaryIO

_SERIES_INSTANCE_UID = (0x0020, 0x000E)
_LONG_FORMS = frozenset(
    (b'OB', b'OD', b'OF', b'OL', b'OV', b'OW', b'SQ', b'SV', b'UC', b'UN', b'UR', b'UT', b'UV')
)
_ITEMS = 0xFFFE  # group of the marks that begin and end items and sequences
_ITEM_END, _SEQUENCE_END = 0xE00D, 0xE0DD
_UNDEFINED = 0xFFFFFFFF


def series(path: pathlib.Path) -> str | None:
    """The SeriesInstanceUID of a file.

    None where there is none to be had: the file cannot be read, is not DICOM, is cut short, or does
    not spell out its elements' types (all whole-slide images do). Whoever opens it will say why.
    """
    try:
        with open(path, 'rb') as file:
            return _find_series(file) if file.read(132)[128:] == b'DICM' else None
    except (OSError, struct.error):  # no file, or it ends within an element
        return None


def _find_series(file: BinaryIO) -> str | None:
    """Walks the elements of PS3.5, section 7.1.2, in the ascending order of their tags."""
    depth = 0  # open sequences and items of undefined length, whose elements are passed over
    while True:
        group, element = struct.unpack('<HH', file.read(4))
        if group == _ITEMS:
            (length,) = struct.unpack('<I', file.read(4))
            depth -= element in (_ITEM_END, _SEQUENCE_END)
        else:
            form = file.read(2)
            if not form.isalpha():
                return None
            layout = '<2xI' if form in _LONG_FORMS else '<H'
            (length,) = struct.unpack(layout, file.read(struct.calcsize(layout)))
            if depth == 0 and (group, element) == _SERIES_INSTANCE_UID:
                return file.read(length).rstrip(b'\0 ').decode('ascii', 'replace')
            if depth == 0 and (group, element) > _SERIES_INSTANCE_UID:
                return None
        if length == _UNDEFINED:
            depth += 1
        else:
            file.seek(length, 1)
