"""The stored compressed slide: what is written is read back, by us and by others."""

import json
import pathlib

import numpy as np
import pytest
import xarray
import zarr

import nic_jax.grids
from nic_jax.grids import GridError, schema, turn, writing

SIDE = schema.SHARD_CELLS
SHAPE = (70, 130)  # 2 × 3 shards, those at the far edges cut off
C = 5
ENCODER = {'name': 'some', 'code_size': C, 'turn_invariant': False}


def attributes(**changes):
    return {
        'schema_version': schema.SCHEMA_VERSION,
        'slide_id': 'folder/slide µ 😐',
        'origin_level0': [10.0, 20.5],
        'stride_level0': [253.5, 256.25],
        'tissue': {'method': 'mask', 'threshold': 0.5},
        'encode_all': False,
        'encoder': ENCODER,
        'created_with': 'these tests',
        **changes,
    }


def tissue_of(shape, seed=0):
    return np.random.default_rng(seed).random(shape).astype(np.float16)


def codes_of(tissue, versions=8, seed=1):
    """Codes float16 [V, H, W, C], NaN where the share of tissue is at most 0.5."""
    rng = np.random.default_rng(seed)
    codes = rng.normal(size=(versions, *tissue.shape, C)).astype(np.float16)
    codes[:, tissue.astype(np.float32) <= 0.5] = np.nan
    return codes


def write(writer, codes, shards=None):
    for row, column in writer.missing if shards is None else shards:
        part = codes[:, row * SIDE : (row + 1) * SIDE, column * SIDE : (column + 1) * SIDE]
        writer.write((row, column), part).result()


def make(path, *, shape=SHAPE, versions=8, overwrite=False, seed=1, **changes):
    tissue = tissue_of(shape)
    codes = codes_of(tissue, versions, seed)
    writer = writing.open_writer(
        path,
        attributes=attributes(**changes),
        tissue=tissue,
        versions=versions,
        code_size=C,
        overwrite=overwrite,
    )
    write(writer, codes)
    writer.finish()
    return tissue, codes


def files_in(folder: pathlib.Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in folder.rglob('*')
        if file.is_file()
    }


@pytest.fixture(scope='module')
def made(tmp_path_factory):
    path = tmp_path_factory.mktemp('grids') / 'slide.zarr'
    return path, *make(path)


def test_what_is_written_is_read_back(made):
    path, tissue, codes = made
    grid = nic_jax.grids.open(str(path))
    assert grid.slide_id == 'folder/slide µ 😐'
    assert grid.shape == SHAPE
    assert grid.code_size == C
    assert grid.attributes == {**attributes(), 'complete': True}
    np.testing.assert_array_equal(grid.tissue, tissue)
    np.testing.assert_array_equal(grid.encoded, tissue.astype(np.float32) > 0.5)
    assert 0 < grid.encoded.mean() < 1
    zeros = np.where(np.isnan(codes), 0, codes).astype(np.float32)
    for version in range(8):
        read = grid.codes(version)
        assert read.dtype == np.float32
        np.testing.assert_array_equal(read, turn(zeros[version], version))


def test_zarr_alone_reads_the_same(made):
    path, tissue, codes = made
    group = zarr.open_group(path, mode='r')
    assert dict(group.attrs) == {**attributes(), 'complete': True}
    assert sorted(group.array_keys()) == ['codes', 'tissue']
    assert group['codes'].dtype == group['tissue'].dtype == np.float16
    assert group['codes'].metadata.dimension_names == ('version', 'y', 'x', 'feature')
    assert group['tissue'].metadata.dimension_names == ('y', 'x')
    assert group['codes'].chunks == (1, 32, 32, C)
    assert group['codes'].shards == (8, 64, 64, C)
    assert np.isnan(group['codes'].fill_value)
    np.testing.assert_array_equal(group['codes'][:], codes)
    np.testing.assert_array_equal(group['tissue'][:], tissue)


def test_xarray_alone_reads_the_same(made):
    path, tissue, codes = made
    with xarray.open_zarr(path, consolidated=False) as data:
        assert data.attrs == {**attributes(), 'complete': True}
        assert dict(data.sizes) == {'version': 8, 'y': 70, 'x': 130, 'feature': C}
        assert data['codes'].dims == ('version', 'y', 'x', 'feature')
        assert data['tissue'].dims == ('y', 'x')
        np.testing.assert_array_equal(data['codes'].values, codes)
        np.testing.assert_array_equal(data['tissue'].values, tissue)


def test_one_shard_is_one_file_and_empty_ones_are_there_too(tmp_path):
    path = tmp_path / 'slide.zarr'
    writer = writing.open_writer(
        path, attributes=attributes(), tissue=np.zeros(SHAPE), versions=8, code_size=C
    )
    assert writer.missing == ((0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2))
    write(writer, np.full((8, *SHAPE, C), np.nan, np.float16))
    files = set(files_in(path / 'codes'))
    assert files == {'zarr.json', *(f'c/0/{row}/{column}/0' for row, column in writer.missing)}
    writer.finish()
    assert not nic_jax.grids.open(path).codes(3).any()


def test_nan_only_where_nothing_is_encoded(made):
    path, tissue, _ = made
    stored = zarr.open_group(path, mode='r')['codes'][:]
    encoded = nic_jax.grids.open(path).encoded
    np.testing.assert_array_equal(np.isnan(stored).any(axis=(0, 3)), ~encoded)
    np.testing.assert_array_equal(np.isnan(stored).all(axis=(0, 3)), ~encoded)
    np.testing.assert_array_equal(encoded, tissue.astype(np.float32) > 0.5)


@pytest.mark.parametrize('version', range(8))
def test_crops_across_borders(made, version):
    path, _, codes = made
    grid = nic_jax.grids.open(path)
    margin = 40
    padded = np.pad(
        np.nan_to_num(codes[version].astype(np.float32)),
        ((margin, margin), (margin, margin), (0, 0)),
    )
    for top, left, size in (
        (0, 0, 20),
        (10, 50, 33),  # across chunks and shards
        (-7, -9, 20),
        (60, 120, 25),
        (-10, -20, 110),  # larger than the grid is high
        (-30, 5, 30),  # wholly above
        (70, 5, 30),
        (5, 130, 30),
        (69, 129, 1),
        (-40, 160, 10),
    ):
        crop = grid.crop(top, left, size, version)
        assert crop.shape == (size, size, C)
        assert crop.dtype == np.float32
        expected = np.zeros((size, size, C), np.float32)
        part = padded[
            max(top + margin, 0) : top + margin + size, max(left + margin, 0) : left + margin + size
        ]
        expected[: part.shape[0], : part.shape[1]] = part
        np.testing.assert_array_equal(crop, turn(expected, version))


def test_positions_are_the_corners_of_patches(made):
    grid = nic_jax.grids.open(made[0])
    positions = grid.positions()
    assert positions.shape == (*SHAPE, 2)
    assert positions[0, 0].tolist() == [10.0, 20.5]
    assert positions[3, 7].tolist() == [10.0 + 7 * 253.5, 20.5 + 3 * 256.25]


def test_codes_that_turning_does_not_change_are_stored_once(tmp_path):
    _, codes = make(
        tmp_path / 'slide.zarr', versions=1, encoder={**ENCODER, 'turn_invariant': True}
    )
    grid = nic_jax.grids.open(tmp_path / 'slide.zarr')
    zeros = np.nan_to_num(codes[0].astype(np.float32))
    for version in range(8):
        np.testing.assert_array_equal(grid.codes(version), turn(zeros, version))
        np.testing.assert_array_equal(
            grid.crop(3, 4, 20, version), turn(zeros[3:23, 4:24], version)
        )


def test_a_version_that_is_not_stored_is_refused(tmp_path):
    make(tmp_path / 'slide.zarr', versions=1)
    grid = nic_jax.grids.open(tmp_path / 'slide.zarr')
    assert grid.codes(0).shape == (*SHAPE, C)
    with pytest.raises(GridError, match=r'holds 1 version.*not version 3.*compress\.versions=8'):
        grid.codes(3)
    with pytest.raises(ValueError, match='0 … 7'):
        grid.crop(0, 0, 4, 8)


def test_all_cells_count_where_all_were_encoded(tmp_path):
    make(tmp_path / 'slide.zarr', shape=(3, 4), encode_all=True)
    assert nic_jax.grids.open(tmp_path / 'slide.zarr').encoded.all()


@pytest.mark.parametrize('shape', [(0, 0), (0, 7), (7, 0)])
def test_a_grid_without_cells(tmp_path, shape):
    path = tmp_path / 'slide.zarr'
    make(path, shape=shape)
    grid = nic_jax.grids.open(path)
    assert grid.shape == shape
    assert grid.codes().shape == (*shape, C)
    assert grid.codes(1).shape == (*shape[::-1], C)
    assert not grid.crop(-1, -1, 4, 5).any()
    assert grid.encoded.shape == shape
    assert grid.positions().shape == (*shape, 2)
    assert zarr.open_group(path, mode='r')['codes'].shape == (8, *shape, C)
    with xarray.open_zarr(path, consolidated=False) as data:
        assert data['tissue'].shape == shape


def test_an_incomplete_grid_is_refused_and_resumed(tmp_path):
    whole, cut = tmp_path / 'whole.zarr', tmp_path / 'cut.zarr'
    tissue, codes = make(whole)
    options = {'attributes': attributes(), 'tissue': tissue, 'versions': 8, 'code_size': C}
    write(writing.open_writer(cut, **options), codes, shards=[(0, 1), (1, 0)])
    with pytest.raises(GridError, match=r'cut\.zarr is not complete; run the compress stage'):
        nic_jax.grids.open(cut)
    writer = writing.open_writer(cut, **options)
    assert writer.missing == ((0, 0), (0, 2), (1, 1), (1, 2))
    write(writer, codes)
    assert writing.open_writer(cut, **options).missing == ()  # all but the mark
    writer.finish()
    assert files_in(cut) == files_in(whole)
    assert writing.open_writer(cut, **options) is None


def half(text: bytes) -> bytes:
    return text[: len(text) // 2]


def test_a_creation_that_was_cut_at_any_file_is_started_afresh(tmp_path):
    whole, cut = tmp_path / 'whole.zarr', tmp_path / 'cut.zarr'
    tissue, codes = make(whole)
    options = {'attributes': attributes(), 'tissue': tissue, 'versions': 8, 'code_size': C}
    made_first = ['codes/zarr.json', 'tissue/zarr.json', 'tissue/c/0/0', 'zarr.json.partial']
    contents = files_in(whole)
    contents['zarr.json.partial'] = contents['zarr.json']
    for stopped in range(len(made_first) + 1):
        for partly in (False, True):
            for name in made_first[:stopped]:
                file = cut / name
                file.parent.mkdir(parents=True, exist_ok=True)
                last = partly and name == made_first[stopped - 1]
                file.write_bytes(half(contents[name]) if last else contents[name])
            with pytest.raises(GridError, match='is not a grid'):
                nic_jax.grids.open(cut)
            writer = writing.open_writer(cut, **options)
            write(writer, codes)
            writer.finish()
            assert files_in(cut) == files_in(whole)
            (cut / 'zarr.json').unlink()


def test_a_finish_that_was_cut_is_done_again(tmp_path):
    whole, cut = tmp_path / 'whole.zarr', tmp_path / 'cut.zarr'
    tissue, codes = make(whole)
    options = {'attributes': attributes(), 'tissue': tissue, 'versions': 8, 'code_size': C}
    write(writing.open_writer(cut, **options), codes)
    (cut / 'zarr.json.partial').write_bytes(half((whole / 'zarr.json').read_bytes()))
    # TensorStore writes beside a shard and renames; a kill may leave what it wrote.
    shard = cut / 'codes/c/0/1/1/0'
    shard.rename(shard.with_name('0.__lock'))
    writer = writing.open_writer(cut, **options)
    assert writer.missing == ((1, 1),)
    write(writer, codes)
    writer.finish()
    assert files_in(cut) == files_in(whole)


def test_a_damaged_zarr_json_is_named(tmp_path):
    path = tmp_path / 'slide.zarr'
    tissue, _ = make(path)
    (path / 'zarr.json').write_bytes(half((path / 'zarr.json').read_bytes()))
    for attempt in (
        lambda: nic_jax.grids.open(path),
        lambda: writing.open_writer(
            path, attributes=attributes(), tissue=tissue, versions=8, code_size=C
        ),
    ):
        with pytest.raises(GridError, match=r'slide\.zarr: its zarr\.json cannot be read'):
            attempt()
    (path / 'zarr.json').write_bytes(b'\xff\xfe')
    with pytest.raises(GridError, match='cannot be read'):
        nic_jax.grids.open(path)


@pytest.mark.parametrize(
    ('change', 'named'),
    [
        ({'mpp_target': 0.25}, 'mpp_target: stored None, asked 0.25'),
        ({'encoder': {**ENCODER, 'name': 'other'}}, "encoder: stored .*'some'.*asked .*'other'"),
        ({'tissue': {'method': 'mask', 'threshold': 0.4}}, 'tissue: stored .*0.5.* asked .*0.4'),
    ],
)
def test_other_settings_are_refused_and_named(made, change, named):
    path, tissue, _ = made
    before = files_in(path)
    with pytest.raises(GridError, match=named) as caught:
        writing.open_writer(
            path, attributes=attributes(**change), tissue=tissue, versions=8, code_size=C
        )
    assert '--overwrite' in str(caught.value)
    assert 'slide_id' not in str(caught.value), 'only what differs is named'
    assert files_in(path) == before


def test_what_made_a_grid_may_change_and_tuples_are_lists(made):
    path, tissue, _ = made
    same = attributes(created_with='a later version', origin_level0=(10.0, 20.5))
    assert (
        writing.open_writer(path, attributes=same, tissue=tissue, versions=8, code_size=C) is None
    )


def test_overwriting_leaves_nothing_of_the_old_grid(tmp_path):
    path, fresh = tmp_path / 'slide.zarr', tmp_path / 'fresh.zarr'
    make(path)
    old = nic_jax.grids.open(path).codes()
    _, codes = make(path, shape=(40, 30), overwrite=True, seed=3, encode_all=True)
    make(fresh, shape=(40, 30), seed=3, encode_all=True)
    assert files_in(path) == files_in(fresh)
    grid = nic_jax.grids.open(path)
    assert grid.shape == (40, 30) != old.shape[:2]
    np.testing.assert_array_equal(grid.codes(), np.nan_to_num(codes[0].astype(np.float32)))


def test_overwriting_what_has_the_same_settings_does_nothing(made):
    path, tissue, _ = made
    before = files_in(path)
    options = {'attributes': attributes(), 'tissue': tissue, 'versions': 8, 'code_size': C}
    assert writing.open_writer(path, **options, overwrite=True) is None
    assert files_in(path) == before


def test_codes_that_float16_cannot_hold_are_refused():
    good = np.array([[1.0, -65504.0], [6e-8, 65519.0]], np.float32)
    rounded = writing.to_float16(good, 'slide.svs')
    assert rounded.dtype == np.float16
    assert rounded.tolist() == [[1.0, -65504.0], [np.float16(6e-8), 65504.0]]
    for bad in (65520.0, -1e9, np.inf, np.nan):
        with pytest.raises(GridError, match=r'slide\.svs: the encoder gave'):
            writing.to_float16(np.array([0.0, bad], np.float32), 'slide.svs')


def test_what_is_no_grid_is_said(tmp_path):
    for path in (tmp_path, tmp_path / 'nowhere.zarr'):
        with pytest.raises(GridError, match='is not a grid'):
            nic_jax.grids.open(path)
    make(tmp_path / 'later.zarr', shape=(2, 2), schema_version=99)
    with pytest.raises(GridError, match=r'schema_version 99.*reads 1'):
        nic_jax.grids.open(tmp_path / 'later.zarr')


def test_the_metadata_is_utf8_whatever_the_locale(made):
    text = (made[0] / 'zarr.json').read_bytes()
    assert json.loads(text.decode('utf-8'))['attributes']['slide_id'] == 'folder/slide µ 😐'
