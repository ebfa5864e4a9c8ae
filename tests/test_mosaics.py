"""Cohorts of mosaics on disk: the ordinary reader opens them, and each cell is what was meant."""

import csv
import os
import pathlib
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from mosaic_files import check_slides, write_tile_set

from nic_jax.patches.store import PatchesError, open_set
from nic_jax.patches.tiles import TileTable, make_tile_set
from nic_jax.synthetic import mosaics
from nic_jax.synthetic.mosaic_layout import slide_id
from nic_jax.synthetic.mosaics import MosaicStudy, choose_tiles, deal_tiles, make_mosaics

SETTINGS = {
    'cells': 12,
    'parts': 2,
    'pitch': 48,
    'patch_size': 32,
    'lesion_max': 30,
    'arrangement_min': 4,
    'arrangement_max': 12,
}
STUDY = MosaicStudy(train_slides=4, test_slides=2, **SETTINGS)
SLIDES = [
    slide_id(label, subset, index)
    for label in ('presence', 'arrangement')
    for subset, count in (('train', 4), ('test', 2))
    for index in range(count)
]


@pytest.fixture(scope='module')
def tiles(tmp_path_factory) -> pathlib.Path:
    """A finished set of tiles: each class has 24 for training, 8 for validation, 20 for testing."""
    return write_tile_set(tmp_path_factory.mktemp('tiles'))


def make(study, tiles, folder, *, tumour='1', seed=0, workers=2, annotations=None, overwrite=False):
    return make_mosaics(
        study,
        tiles,
        folder,
        annotations=annotations,
        tumour=tumour,
        seed=seed,
        workers=workers,
        overwrite=overwrite,
    )


@pytest.fixture(scope='module')
def made(tiles, tmp_path_factory) -> pathlib.Path:
    """The table of a whole cohort."""
    return make(STUDY, tiles, tmp_path_factory.mktemp('made') / 'mosaics')


def contents(folder):
    """All files below a folder and what they hold."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob('*'))
        if path.is_file()
    }


def rows_of(table):
    with table.open(newline='', encoding='utf-8') as file:
        return list(csv.DictReader(file))


def test_slides_are_what_was_meant(made, tiles):
    # The tiles are smooth: at quality 90 JPEG changes them by a few grey levels (most by less than
    # 3), and different tiles differ by tens.
    seen = check_slides(made, STUDY, tiles, tumour='1', error=10, mean_error=2.5)
    subsets = open_set(tiles).columns['subset']
    assert {str(subsets[index]) for index in seen['test']} == {'test'}
    assert {str(subsets[index]) for index in seen['0'] | seen['1']} == {'train', 'valid'}
    assert not seen['0'] & seen['1']


def test_table(made):
    rows = rows_of(made)
    assert list(rows[0]) == [
        'slide_id', 'path', 'mask', 'annotation', 'presence', 'arrangement', 'lesion_area', 'fold',
    ]  # fmt: skip
    assert [row['slide_id'] for row in rows] == SLIDES
    for row in rows:
        label, name = row['slide_id'].split('/')
        assert row['path'] == f'slides/{row["slide_id"]}.tif'
        assert bool(row['presence']) == (label == 'presence')
        assert bool(row['arrangement']) == (label == 'arrangement')
        assert row['fold'] in (('test',) if name.startswith('test') else ('0', '1'))
        assert (row['lesion_area'] == '0') == (row['presence'] == 'normal')
        assert bool(row['annotation']) == (row['presence'] != 'normal')
    arrangement = [row for row in rows if row['arrangement']]
    for mass, scattered in zip(arrangement[::2], arrangement[1::2], strict=True):
        assert (mass['arrangement'], scattered['arrangement']) == ('mass', 'scattered')
        assert mass['lesion_area'] == scattered['lesion_area']
        assert mass['fold'] == scattered['fold']


def test_tiles_of_parts_are_disjoint_and_balanced(tiles):
    tile_set = open_set(tiles)
    pools = deal_tiles(tile_set, STUDY, tumour='1', seed=0)
    assert {key: len(pool) for key, pool in pools.items()} == {
        (part, positive): 20 if part is None else 16
        for part in (0, 1, None)
        for positive in (False, True)
    }
    everything = np.concatenate(list(pools.values()))
    assert len(np.unique(everything)) == len(everything) == len(tile_set)
    for (part, positive), pool in pools.items():
        assert (tile_set.labels[pool] == positive).all()
        assert ((tile_set.columns['subset'][pool] == 'test') == (part is None)).all()


def test_tiles_come_once_each_while_they_last(tiles):
    pools = deal_tiles(open_set(tiles), STUDY, tumour='1', seed=0)

    class Layout:
        slide_id, part = 'presence/train_0001', 1
        tissue = np.ones((6, 6), bool)
        lesion = np.eye(6, dtype=bool)  # 6 cells of 16 tiles; 30 others of 16

    chosen = choose_tiles(Layout, pools, seed=0).reshape(6, 6)
    tumour, normal = chosen[Layout.lesion], chosen[~Layout.lesion]
    assert len(set(tumour)) == 6
    assert set(tumour) <= set(pools[1, True])
    assert set(normal) == set(pools[1, False])
    assert np.unique(normal, return_counts=True)[1].max() == 2


def disk_is_full(*_):
    raise OSError('disk is full')


def test_more_slides_are_added_and_the_first_ones_stay(made, tiles, tmp_path, monkeypatch):
    more = MosaicStudy(train_slides=6, test_slides=2, **SETTINGS)
    make(STUDY, tiles, tmp_path / 'grown')
    before = contents(tmp_path / 'grown')
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / 'grown').rglob('*.tif')}
    with monkeypatch.context() as patched:
        patched.setattr(mosaics, 'write_slide', disk_is_full)
        with pytest.raises(OSError, match='disk is full'):
            make(more, tiles, tmp_path / 'grown')
    assert not (tmp_path / 'grown' / 'slides.csv').exists()  # it would lack the new slides
    table = make(more, tiles, tmp_path / 'grown')
    assert len(rows_of(table)) == 16
    after = contents(tmp_path / 'grown')
    assert {name for name in before if after[name] != before[name]} == {'slides.csv'}
    assert all(path.stat().st_mtime_ns == time for path, time in times.items())
    assert contents(make(more, tiles, tmp_path / 'at once', workers=1).parent) == after
    make(STUDY, tiles, tmp_path / 'grown')  # fewer again
    assert (tmp_path / 'grown' / 'slides.csv').read_bytes() == made.read_bytes()


def test_what_was_removed_is_written_again_alike(tiles, tmp_path, capsys):
    table = make(STUDY, tiles, tmp_path / 'mosaics')
    before = contents(table.parent)
    for name in ('presence/train_0001.tif', 'presence/test_0000_mask.png'):
        (table.parent / 'slides' / name).unlink()
    (table.parent / 'slides' / 'arrangement/train_0003.geojson').unlink()
    make(STUDY, tiles, table.parent)
    assert contents(table.parent) == before
    capsys.readouterr()
    make(STUDY, tiles, table.parent)
    assert 'is complete' in capsys.readouterr().out


def test_a_kill_leaves_nothing_half_done(made, tiles, tmp_path):
    """Killed while the fifth slide is being put in its place; run again, all is as it should be."""
    script = f"""
        import os, pathlib, signal
        from nic_jax.synthetic.mosaics import MosaicStudy, make_mosaics
        replace, written = os.replace, []
        def replace_or_die(source, target):
            written.append(target)
            if len([each for each in written if str(each).endswith('.tif')]) == 5:
                os.kill(os.getpid(), signal.SIGKILL)
            replace(source, target)
        os.replace = replace_or_die
        make_mosaics(
            MosaicStudy(train_slides=4, test_slides=2, **{SETTINGS!r}),
            pathlib.Path({str(tiles)!r}),
            pathlib.Path({str(tmp_path)!r}) / 'mosaics',
            annotations=None, tumour='1', seed=0, workers=1,
        )
    """
    done = subprocess.run([sys.executable, '-c', textwrap.dedent(script)], env=os.environ)
    assert done.returncode == -signal.SIGKILL
    folder = tmp_path / 'mosaics'
    assert len(list(folder.rglob('[!.]*.tif'))) == 4
    assert not (folder / 'slides.csv').exists()
    make(STUDY, tiles, folder)
    left = {name: data for name, data in contents(folder).items() if '.partial' not in name}
    assert left == contents(made.parent)


def test_refuses_other_settings_unless_they_may_replace(tiles, tmp_path):
    few = MosaicStudy(train_slides=2, test_slides=2, **SETTINGS)
    table = make(few, tiles, tmp_path / 'mosaics')
    before = contents(table.parent)
    with pytest.raises(ValueError, match='seed differ'):
        make(few, tiles, table.parent, seed=1)
    with pytest.raises(ValueError, match='lesion_max differ'):
        make(MosaicStudy(**{**SETTINGS, 'lesion_max': 20}), tiles, table.parent)
    assert contents(table.parent) == before
    make(few, tiles, table.parent, seed=1, overwrite=True)
    after = contents(table.parent)
    assert after.keys() >= {'slides.csv', 'slides/presence/train_0000.tif'}
    assert after['slides/presence/train_0000.tif'] != before['slides/presence/train_0000.tif']


def test_refuses_tiles_that_do_not_fit(tiles, tmp_path):
    with pytest.raises(PatchesError, match=r'96×96 px in colour; make them with patch_size=96'):
        make(MosaicStudy(), tiles, tmp_path / 'mosaics')
    with pytest.raises(PatchesError, match=r"no class 'tumour' among the tiles.*0, 1"):
        make(STUDY, tiles, tmp_path / 'mosaics', tumour='tumour')
    many = MosaicStudy(**{**SETTINGS, 'parts': 40})
    with pytest.raises(PatchesError, match=r'no (normal|tumour) tile for part'):
        make(many, tiles, tmp_path / 'mosaics')
    assert not (tmp_path / 'mosaics').exists()


def test_mosaics_of_real_tiles_and_real_outlines(shared, tmp_path):
    """Ten tiles of each class of CRC-VAL-HE-7K, of which epithelium of a carcinoma is tumour."""
    table = TileTable(str(shared / 'data/tiles/crc_val7k_70.csv'), patch_size=96, crop=192, mpp=1.0)
    make_tile_set(table, tmp_path / 'tiles', home=tmp_path, name='tiles', seed=0, workers=1)
    study = MosaicStudy(
        train_slides=2, test_slides=2, parts=1, cells=8, lesion_max=20, arrangement_max=20
    )
    made = make(
        study,
        tmp_path / 'tiles',
        tmp_path / 'mosaics',
        tumour='TUM',
        annotations=shared / 'data/annotations/camelyon16_ncrf_jsons.tar.xz',
    )
    # Real tissue is rough: quality 90 changes its pixels by 3 or 4 grey levels, a few by 30.
    check_slides(made, study, tmp_path / 'tiles', tumour='TUM', error=48, mean_error=7)
