import struct

import openslide
import pytest

from nic_jax import dicom

UNDEFINED = 0xFFFFFFFF


def _element(group, element, form, value, length=None):
    length = len(value) if length is None else length
    long = form in (b'SQ', b'OB', b'UN')
    return (
        struct.pack('<HH', group, element)
        + form
        + struct.pack('<2xI' if long else '<H', length)
        + value
    )


def _mark(element, length=0):
    return struct.pack('<HHI', 0xFFFE, element, length)


UID = _element(0x20, 0x0E, b'UI', b'1.2.3\0')
DECOY = _element(0x20, 0x0E, b'UI', b'9.9.9\0')
HEAD = b'\0' * 128 + b'DICM' + _element(2, 1, b'OB', b'\0\1') + _element(8, 0x60, b'CS', b'SM')
AFTER = _element(0x28, 0x10, b'US', b'\1\0')


@pytest.mark.parametrize(
    'name', ['jpeg.dicom', 'multi_frame_jpeg_camelyon_challenge_image.dcm', 'sm_image.dcm']
)
def test_real_files_agree_with_openslide(shared, name):
    path = shared / 'data' / 'slides' / name
    with openslide.OpenSlide(path) as slide:
        assert dicom.series(path) == slide.properties['dicom.SeriesInstanceUID']


@pytest.mark.parametrize(
    'sequence',
    [
        b'',
        _element(8, 0x1115, b'SQ', _mark(0xE000, len(DECOY)) + DECOY),
        _element(8, 0x1115, b'SQ', _mark(0xE000, len(DECOY)) + DECOY + _mark(0xE0DD), UNDEFINED),
        _element(
            8,
            0x1115,
            b'SQ',
            _mark(0xE000, UNDEFINED) + DECOY + AFTER + _mark(0xE00D) + _mark(0xE0DD),
            UNDEFINED,
        ),
    ],
    ids=['none', 'defined', 'undefined', 'undefined items'],
)
def test_a_series_referred_to_in_a_sequence_is_not_the_files_own(tmp_path, sequence):
    path = tmp_path / 'a.dcm'
    path.write_bytes(HEAD + sequence + UID + AFTER)
    assert dicom.series(path) == '1.2.3'
    path.write_bytes(HEAD + sequence + AFTER)
    assert dicom.series(path) is None


@pytest.mark.parametrize(
    'data',
    [
        b'',
        b'not DICOM' * 50,
        HEAD,
        HEAD + UID[:6],
        HEAD + struct.pack('<HHI', 0x20, 0x0E, 6) + b'1.2.3\0',
    ],
    ids=['empty', 'other', 'cut', 'cut in an element', 'implicit types'],
)
def test_files_without_a_series(tmp_path, data):
    path = tmp_path / 'a.dcm'
    path.write_bytes(data)
    assert dicom.series(path) is None


def test_a_missing_file_has_no_series(tmp_path):
    assert dicom.series(tmp_path / 'missing.dcm') is None
