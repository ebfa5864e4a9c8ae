"""Slides into grids, from files on disk to files on disk."""

import csv
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import openslide
import PIL.Image
import pytest
import slide_files

import nic_jax.grids
from nic_jax import workdir
from nic_jax.cohort import SlideEntry, find_slides
from nic_jax.compression import prepare
from nic_jax.compression.compress import compress_cohort, grid_path
from nic_jax.compression.encode import batch_encoder
from nic_jax.compression.settings import CompressSettings
from nic_jax.encoders.encoder import Encoder, EncoderError
from nic_jax.encoders.keras_import import load_keras
from nic_jax.encoders.mean_rgb import mean_rgb
from nic_jax.grids import turn

ROOT = pathlib.Path(__file__).parents[1]
TOO_COARSE = r'coarser than the 0\.5 µm/px asked for; set --config\.tiling\.mpp'
# file: rows and columns at 0.5 µm/px in patches of 128 px, or why there are none
OF_ITS_OWN_MPP = {
    'slides/cmu-1-small-region.svs': (23, 17),
    'slides/sm_image.dcm': (0, 0),
    'slides/small.svs': (0, 0),
    'slides/😐.svs': (0, 0),
    'slides/boxes.tiff': TOO_COARSE,
    'slides/example.tif': TOO_COARSE,
    'slides/jpeg.dicom': TOO_COARSE,
    'slides/multi_frame_jpeg_camelyon_challenge_image.dcm': TOO_COARSE,
    'slides/tumor_001aaf.tif': r'does not tell its µm/px; give it in the column `mpp`',
    'slides/example.xml': 'OpenSlide cannot open it',
    'broken_slides/histolab_broken.svs': 'OpenSlide cannot open it',
    'broken_slides/no_image': 'OpenSlide cannot open it',
    'broken_slides/openslide-python_unreadable.svs': 'cannot read level 0, region',
}
# The same with 0.5 µm/px given in the table, in patches of 16 px every 128 px.
GIVEN_MPP = {
    'slides/cmu-1-small-region.svs': (24, 18),
    'slides/sm_image.dcm': (1, 1),
    'slides/small.svs': (1, 1),
    'slides/😐.svs': (1, 1),
    'slides/boxes.tiff': (2, 3),
    'slides/example.tif': (6, 12),
    'slides/jpeg.dicom': (6, 8),
    'slides/multi_frame_jpeg_camelyon_challenge_image.dcm': (6, 9),
    'slides/tumor_001aaf.tif': (56, 24),
}


def settings(**changes):
    return CompressSettings(**{'patch_size': 16, 'stride': 16, 'mpp': 0.5, 'batch': 64, **changes})


def compress(folder, entries, encoder=None, *, overwrite=False, **changes):
    return compress_cohort(
        entries,
        encoder or mean_rgb(),
        folder=folder,
        settings=settings(**changes),
        overwrite=overwrite,
    )


def entry(path, **changes):
    return SlideEntry(slide_id=path.stem, path=path, **changes)


def failures(home):
    with (home / 'failures.csv').open(newline='', encoding='utf-8') as file:
        return {row['slide_id']: row for row in csv.DictReader(file)}


def open_grid(folder, slide_id):
    return nic_jax.grids.open(grid_path(folder, slide_id))


def files_in(folder):
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in folder.rglob('*')
        if file.is_file()
    }


@pytest.fixture
def image():
    return slide_files.tissue_image(16 * 9, 16 * 7, seed=3)


@pytest.fixture
def slide(tmp_path, image):
    return slide_files.write_pyramid(tmp_path / 'slide.tif', image, levels=1, compression='zlib')


def test_every_real_file_gives_a_grid_or_says_why_not(shared, tmp_path):
    data = shared / 'data'
    files = [*(data / 'slides').iterdir(), *(data / 'broken_slides').iterdir()]
    assert {str(file.relative_to(data)) for file in files} == OF_ITS_OWN_MPP.keys()
    entries = [SlideEntry(slide_id=name, path=data / name) for name in OF_ITS_OWN_MPP]
    folder = tmp_path / 'mean_rgb'
    summary = compress(folder, entries, patch_size=128, stride=128)
    reasons = failures(tmp_path)
    for name, expected in OF_ITS_OWN_MPP.items():
        if isinstance(expected, tuple):
            grid = open_grid(folder, name)
            assert grid.shape == expected, name
            assert np.isfinite(grid.codes()).all()
            assert grid_path(folder, name).with_suffix('.png').exists()
        else:
            assert str(data / name) in reasons[name]['path']
            assert pytest.raises(ValueError, match=expected).matches(
                ValueError(reasons[name]['reason'])
            ), (name, reasons[name]['reason'])
            with pytest.raises(nic_jax.grids.GridError):
                open_grid(folder, name)
    assert (summary.done, summary.failed, summary.skipped) == (4, 9, 0)
    assert len(reasons) == 9
    grid = open_grid(folder, 'slides/cmu-1-small-region.svs')
    assert 0.3 < grid.encoded.mean() < 0.8
    assert summary.patches == grid.encoded.sum()
    assert summary.without_tissue == 3


def test_with_its_mpp_given_every_readable_file_compresses(shared, tmp_path):
    data, folder = shared / 'data', tmp_path / 'mean_rgb'
    entries = [SlideEntry(slide_id=name, path=data / name, mpp=0.5) for name in GIVEN_MPP]
    summary = compress(folder, entries, stride=128, encode_all=True)
    assert (summary.done, summary.failed) == (len(GIVEN_MPP), 0)
    for name, shape in GIVEN_MPP.items():
        grid = open_grid(folder, name)
        assert grid.shape == shape, name
        assert grid.attributes['mpp_level0'] == grid.attributes['mpp'] == 0.5
        with openslide.OpenSlide(data / name) as reference:
            whole = reference.read_region((0, 0), 0, reference.dimensions)
        pixels = np.asarray(whole)[..., :3] / 127.5 - 1
        expected = [
            [
                pixels[y : y + 16, x : x + 16].mean(axis=(0, 1))
                for x in range(0, 128 * shape[1], 128)
            ]
            for y in range(0, 128 * shape[0], 128)
        ]
        # float16 holds [-1, 1] to within 2.5e-4
        np.testing.assert_allclose(grid.codes(), expected, atol=3e-4)


@pytest.fixture(scope='module')
def bigan(shared):
    return load_keras(shared / 'reference/encoder_bigan.h5')


@pytest.fixture(scope='module')
def keras(shared):
    return np.load(shared / 'reference/encoder_bigan_ref.npz')


@pytest.fixture(scope='module')
def region_patches(shared):
    """All 23 × 17 patches of the small region, by OpenSlide alone, uint8 [391, 128, 128, 3]."""
    with openslide.OpenSlide(shared / 'data/slides/cmu-1-small-region.svs') as reference:
        pixels = np.asarray(reference.read_region((0, 0), 0, (17 * 128, 23 * 128)))[..., :3]
    patches = pixels.reshape(23, 128, 17, 128, 3).swapaxes(1, 2)
    return np.ascontiguousarray(patches.reshape(-1, 128, 128, 3))


@pytest.fixture(scope='module')
def region_grid(shared, bigan, tmp_path_factory):
    """The small region in all eight versions, every cell encoded."""
    folder = tmp_path_factory.mktemp('region') / 'bigan'
    path = shared / 'data/slides/cmu-1-small-region.svs'
    options = {'patch_size': 128, 'stride': 128, 'encode_all': True}
    summary = compress(folder, [entry(path)], bigan, **options)
    assert (summary.done, summary.patches) == (1, 391)
    return open_grid(folder, 'cmu-1-small-region')


def within_float16(codes, expected, error=1e-4):
    """Whether codes are the expected ones, known to `error`, rounded to float16."""
    half_ulp = np.spacing(np.abs(expected).astype(np.float16)).astype(np.float32) / 2
    return (np.abs(codes - expected) <= half_ulp + error).all()


def test_codes_before_storage_are_those_of_keras(bigan, keras, region_patches):
    encode = batch_encoder(bigan, versions=2)
    patches = np.concatenate([region_patches, np.zeros((1, 128, 128, 3), np.uint8)])
    codes = np.concatenate([np.asarray(encode(part)) for part in np.split(patches, 7)], axis=1)[
        :, :-1
    ]
    codes = codes.reshape(2, 23, 17, 128)
    np.testing.assert_allclose(codes[0], keras['grid'], atol=1e-4)
    np.testing.assert_allclose(turn(codes[1], 1), keras['grid_rot90'], atol=1e-4)


def test_stored_grids_are_those_of_keras_rounded(keras, region_grid):
    assert region_grid.encoded.all()
    assert region_grid.codes(0).shape == (23, 17, 128)
    assert within_float16(region_grid.codes(0), keras['grid'])
    assert region_grid.codes(1).shape == (17, 23, 128)
    assert within_float16(region_grid.codes(1), keras['grid_rot90'])
    assert not within_float16(region_grid.codes(2), turn(keras['grid'], 2))


def test_all_versions_are_the_codes_of_turned_patches(bigan, region_grid, region_patches):
    encode = jax.jit(bigan.apply)
    chosen = np.array([0, 5, 100, 201, 202, 203, 333, 390])
    for version in range(8):
        turned = np.ascontiguousarray(turn(region_patches[chosen], version, axes=(1, 2)))
        expected = np.asarray(encode(bigan.variables, turned))
        in_place = turn(region_grid.codes(version), (0, 3, 2, 1, 4, 5, 6, 7)[version])
        assert within_float16(in_place.reshape(391, 128)[chosen], expected, 1e-5), version


def test_attributes_tell_where_cells_lie_and_what_made_them(shared, bigan, region_grid):
    told = region_grid.attributes
    assert told['level0_dimensions'] == [2220, 2967]
    assert (told['mpp_level0'], told['mpp'], told['mpp_target']) == (0.499, 0.499, 0.5)
    assert (told['level'], told['resampled']) == (0, False)
    assert told['stride_level0'] == told['patch_level0'] == [128, 128]
    assert told['origin_level0'] == [0, 0]
    assert told['encoder'] == {
        'name': 'encoder_bigan',
        'sha256': bigan.sha256(),
        'code_size': 128,
        'input': [[128, 0.5], [64, 1.0]],
        'turn_invariant': False,
    }
    source = shared / 'data/slides/cmu-1-small-region.svs'
    assert told['source']['size'] == source.stat().st_size
    np.testing.assert_array_equal(region_grid.positions()[22, 16], [2048, 2816])


def test_a_second_run_opens_no_slide(tmp_path, slide, monkeypatch):
    folder = tmp_path / 'mean_rgb'
    assert compress(folder, [entry(slide)]).done == 1
    before = files_in(tmp_path)

    def refuse(*arguments, **options):
        raise AssertionError('a slide was opened')

    monkeypatch.setattr(prepare, 'open_slide', refuse)
    summary = compress(folder, [entry(slide)])
    assert (summary.done, summary.skipped, summary.failed, summary.patches) == (0, 1, 0, 0)
    assert files_in(tmp_path) == before


KILLED = """
import pathlib, sys, time
sys.path.insert(0, {tests!r})
from nic_jax.slides import stream
import test_compress

read_cells = stream.read_cells

def slowly(*arguments):
    time.sleep(0.4)
    return read_cells(*arguments)

stream.read_cells = slowly
test_compress.compress(pathlib.Path({folder!r}), [test_compress.entry(pathlib.Path({slide!r}))])
"""


def test_a_killed_run_is_resumed_to_the_same_bytes(tmp_path):
    slide = slide_files.write_pyramid(
        tmp_path / 'slide.tif',
        slide_files.tissue_image(16 * 100, 16 * 70, margin=100),
        tile=256,
        levels=1,
        compression='lzw',
    )
    whole, cut = tmp_path / 'whole/mean_rgb', tmp_path / 'cut/mean_rgb'
    assert compress(whole, [entry(slide)]).done == 1
    script = KILLED.format(tests=str(ROOT / 'tests'), folder=str(cut), slide=str(slide))
    process = subprocess.Popen([sys.executable, '-c', script])
    shards = grid_path(cut, 'slide') / 'codes/c/0'
    try:
        until = time.monotonic() + 60
        while not list(shards.glob('*/*/0')) and time.monotonic() < until:
            time.sleep(0.01)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    done = len(list(shards.glob('*/*/0')))
    assert 1 <= done < 4
    with pytest.raises(nic_jax.grids.GridError, match='not complete'):
        open_grid(cut, 'slide')
    summary = compress(cut, [entry(slide)])
    assert summary.done == 1
    assert 0 < summary.patches < open_grid(whole, 'slide').encoded.sum()
    assert files_in(cut / 'grids') == files_in(whole / 'grids')


def main(*arguments):
    return subprocess.run(
        [
            sys.executable,
            '-m',
            'nic_jax.main',
            '--config=experiments/compress.py:debug',
            *arguments,
        ],
        cwd=ROOT,
        env={**os.environ, 'JAX_PLATFORMS': 'cpu'},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_changed_setting_is_refused_by_name(tmp_path, slide, image):
    home = tmp_path / 'run'
    asked = [f'--workdir={home}', f'--config.slides={slide}', '--config.tiling.patch_size=16']
    first = main(*asked)
    assert first.returncode == 0, first.stderr
    assert '1 slides compressed' in first.stdout
    assert json.loads((home / 'config.json').read_text())['tiling']['patch_size'] == 16
    (folder,) = (path.parent for path in home.glob('*/grids'))
    before = files_in(folder)
    second = main(*asked, '--config.tissue.threshold=0.25', '--config.compress.encode_all=True')
    assert second.returncode == 1, second.stderr
    reason = failures(home)['slide']['reason']
    assert 'encode_all: stored False, asked True' in reason
    assert "'threshold': 0.25" in reason
    assert 'patch_size' not in reason
    assert '--overwrite' in reason
    assert reason in second.stdout
    assert files_in(folder) == before

    changes = {'tissue_threshold': 0.25, 'encode_all': True, 'versions': 1, 'batch': 8}
    assert compress(folder, [entry(slide)], overwrite=True, **changes).done == 1
    grid = open_grid(folder, 'slide')
    assert grid.attributes['tissue']['threshold'] == 0.25
    assert grid.encoded.all()
    assert failures(home) == {}


def test_a_broken_slide_is_listed_and_the_others_are_done(tmp_path, image):
    folder, names = tmp_path / 'run/mean_rgb', ('a', 'b', 'c')
    slides = tmp_path / 'slides'
    slides.mkdir()
    for seed, name in enumerate(names):
        shown = slide_files.tissue_image(144, 112, seed=seed)
        slide_files.write_pyramid(slides / f'{name}.tif', shown, levels=1, compression='zlib')
    good = (slides / 'b.tif').read_bytes()
    slide_files.corrupt_tile(slides / 'b.tif', tile=1)
    entries, others = find_slides(slides)
    assert [one.slide_id for one in entries] == ['a', 'b', 'c']
    assert others == ()
    summary = compress(folder, entries)
    assert (summary.done, summary.failed) == (2, 1)
    (row,) = failures(folder.parent).values()
    assert (row['slide_id'], row['stage'], row['encoder']) == ('b', 'compress', 'mean_rgb')
    assert row['path'] == str(slides / 'b.tif')
    assert 'cannot read level 0' in row['reason']
    for name in 'ac':
        assert open_grid(folder, name).shape == (9, 7)

    (slides / 'b.tif').write_bytes(good)
    summary = compress(folder, entries)
    assert (summary.done, summary.skipped, summary.failed) == (1, 2, 0)
    assert failures(folder.parent) == {}
    assert open_grid(folder, 'b').encoded.any()


def test_one_encoders_success_does_not_hide_anothers_failure(tmp_path, slide):
    def too_large(variables, patches):
        return mean_rgb().apply(variables, patches) + 1e6

    bad = Encoder('bad', too_large, {}, {'kind': 'bad'}, (), 3, 3)
    assert compress(tmp_path / 'bad', [entry(slide)], bad).failed == 1
    assert compress(tmp_path / 'mean_rgb', [entry(slide)]).done == 1
    row = failures(tmp_path)['slide']
    assert row['encoder'] == 'bad'
    assert 'float16 cannot hold' in row['reason']
    with pytest.raises(nic_jax.grids.GridError, match='not complete'):
        open_grid(tmp_path / 'bad', 'slide')


def test_mpp_and_mask_of_the_table_win(tmp_path, slide, image):
    mask = np.zeros((9, 7), np.uint8)
    mask[2:5, 3:6] = 255
    PIL.Image.fromarray(mask).save(tmp_path / 'mask.png')
    (tmp_path / 'table.csv').write_text(
        'slide_id,path,mpp,mask\n'
        'plain,slide.tif,,\n'
        'coarse,slide.tif,1.0,\n'
        'fine,slide.tif,0.25,\n'
        'masked,slide.tif,,mask.png\n'
        'missing,slide.tif,,nowhere.png\n'
    )
    entries, _ = find_slides(tmp_path / 'table.csv')
    folder = tmp_path / 'run/mean_rgb'
    summary = compress(folder, entries, default_mpp=3.0)
    assert (summary.done, summary.failed) == (3, 2)
    rows = failures(folder.parent)
    assert rows.keys() == {'coarse', 'missing'}
    assert 'finest level has 1 µm/px' in rows['coarse']['reason']
    assert 'nowhere.png' in rows['missing']['reason']
    plain, fine, masked = (open_grid(folder, name) for name in ('plain', 'fine', 'masked'))
    assert plain.attributes['mpp_level0'] == pytest.approx(0.5)
    assert plain.shape == masked.shape == (9, 7)
    assert plain.encoded.all()
    assert (fine.shape, fine.attributes['mpp_level0'], fine.attributes['mpp']) == (
        (4, 3),
        0.25,
        0.5,
    )
    np.testing.assert_array_equal(masked.encoded, mask > 0)
    np.testing.assert_array_equal(masked.codes()[mask > 0], plain.codes()[mask > 0])
    assert not masked.codes()[mask == 0].any()
    # 0.5 from 0.25 µm/px: a patch is 32 px of level 0
    expected = image[:128, :96].reshape(4, 32, 3, 32, 3).mean(axis=(1, 3)) / 127.5 - 1
    np.testing.assert_allclose(fine.codes(), expected, atol=5e-3)


def test_a_changed_slide_or_mask_is_refused(tmp_path, slide, image):
    PIL.Image.fromarray(np.full((9, 7), 255, np.uint8)).save(tmp_path / 'mask.png')
    folder, listed = tmp_path / 'run/mean_rgb', [entry(slide, mask=tmp_path / 'mask.png')]
    assert compress(folder, listed).done == 1
    PIL.Image.fromarray(np.eye(9, 7, dtype=np.uint8)).save(tmp_path / 'mask.png')
    assert compress(folder, listed).failed == 1
    assert 'tissue: stored' in failures(folder.parent)['slide']['reason']
    other = tmp_path / 'elsewhere'
    shutil.copytree(folder, other / 'mean_rgb')
    slide_files.write_pyramid(slide, 255 - image, levels=1, compression='zlib')
    assert compress(other / 'mean_rgb', [entry(slide)]).failed == 1
    assert 'source: stored' in failures(other)['slide']['reason']


def test_a_slide_that_another_holds_is_left_to_it(tmp_path, slide):
    home = tmp_path / 'run'
    entries = [entry(slide), SlideEntry(slide_id='other', path=slide)]
    with workdir.lock(home, 'mean_rgb/slide') as free:
        assert free
        summary = compress(home / 'mean_rgb', entries)
    assert (summary.done, summary.elsewhere, summary.failed) == (1, 1, 0)
    assert not grid_path(home / 'mean_rgb', 'slide').exists()
    summary = compress(home / 'mean_rgb', entries)
    assert (summary.done, summary.skipped, summary.elsewhere) == (1, 1, 0)


def test_batches_of_any_size_store_the_same(tmp_path, slide):
    grids = []
    for batch, workers in ((1, 1), (7, 3), (64, 2)):
        folder = tmp_path / f'batch_{batch}' / 'mean_rgb'
        compress(folder, [entry(slide)], batch=batch, workers=workers)
        grids.append(files_in(folder / 'grids'))
    assert grids[0] == grids[1] == grids[2]


def test_patches_the_encoder_cannot_take_are_refused_at_once(tmp_path, bigan, slide):
    with pytest.raises(EncoderError, match='takes patches of 128 px'):
        compress(tmp_path / 'bigan', [entry(slide)], bigan)
    assert not (tmp_path / 'bigan').exists()


def test_a_default_for_missing_mpp_leaves_slides_that_tell_theirs_alone(tmp_path, slide):
    compress(tmp_path / 'm', [entry(slide)])
    summary = compress(tmp_path / 'm', [entry(slide)], default_mpp=0.7, allow_upsampling=True)
    assert (summary.skipped, summary.failed) == (1, 0)
