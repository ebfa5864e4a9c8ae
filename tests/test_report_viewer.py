import json
import math
import pathlib
import re
import shutil
import subprocess

import numpy as np
import pytest
import slide_files
from html_pages import HOSTILE, read
from PIL import Image

from nic_jax.patches.annotations import Region
from nic_jax.report import deep_zoom
from nic_jax.report.viewer import AGAINST, FOR, LIBRARY, saliency_image, write_viewer
from nic_jax.slides import SlideError, open_slide
from nic_jax.slides.resample import area_resample

REGION = Region(
    'tumour',
    np.array([[200.0, 300.0], [900.0, 300.0], [500.0, 900.0]]),
    (np.array([[450.0, 400.0], [550.0, 400.0], [500.0, 500.0]]),),
)


def attributes(stride=128.0):
    """Of a grid whose patches begin 64 px from the corner and overlap by half."""
    return {
        'origin_level0': [64.0, 64.0],
        'stride_level0': [stride, stride],
        'patch_level0': [2 * stride, 2 * stride],
        'level0_dimensions': [2220, 2967],
        'mpp_level0': 0.499,
    }


@pytest.fixture(scope='module')
def small_region(shared):
    return shared / 'data' / 'slides' / 'cmu-1-small-region.svs'


@pytest.fixture(scope='module')
def made(small_region, tmp_path_factory):
    """The viewer of a real slide."""
    rng = np.random.default_rng(0)
    maps = {
        name: rng.normal(size=(20, 16)).astype(np.float32) for name in ('occlusion', 'grad_cam')
    }
    maps['grad_cam'][:2] = np.nan
    folder = tmp_path_factory.mktemp('report') / 'slides' / 'slide'
    viewer = write_viewer(
        folder,
        small_region,
        maps,
        dict.fromkeys(maps, attributes()),
        slide_id=HOSTILE,
        told='is tumour',
        target='</script><b>',
        regions=[REGION],
    )
    return folder, maps, viewer


def joined(folder, level, size):
    """The tiles of a level beside each other."""
    width, height = size
    pixels = np.zeros((height, width, 3), np.uint8)
    for path in (folder / str(level)).glob('*.jpg'):
        column, row = map(int, path.stem.split('_'))
        tile = np.asarray(Image.open(path))
        top, left = row * deep_zoom.TILE, column * deep_zoom.TILE
        pixels[top : top + tile.shape[0], left : left + tile.shape[1]] = tile
    return pixels


def data_of(folder):
    text = (folder / 'index.html').read_text(encoding='utf-8')
    (found,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)
    return json.loads(found)


@pytest.mark.parametrize('step', [1, 4])
def test_tiles_are_the_slide(small_region, tmp_path, step):
    with open_slide(small_region) as slide:
        pyramid = deep_zoom.write_pyramid(slide, tmp_path, step=step)
        whole = slide.read(0, 0, 0, *slide.dimensions)
    size = math.ceil(2220 / step), math.ceil(2967 / step)
    assert (pyramid.width, pyramid.height) == size
    finest = math.ceil(math.log2(max(size)))
    expected = area_resample(
        whole, start_y=0, start_x=0, step_y=step, step_x=step, rows=size[1], columns=size[0]
    )
    for level in range(finest, finest - 4, -1):
        pixels = joined(tmp_path, level, expected.shape[1::-1]).astype(float)
        difference = np.abs(pixels - expected)
        assert difference.mean() < 6  # JPEG's
        assert np.abs(pixels[1:] - expected[:-1]).mean() > 1.5 * difference.mean()  # a pixel off
        assert np.abs(pixels.mean((0, 1)) - expected.mean((0, 1))).max() < 1
        expected = np.pad(
            expected, ((0, expected.shape[0] % 2), (0, expected.shape[1] % 2), (0, 0)), mode='edge'
        )
        expected = np.round(slide_files.halve(expected)).astype(np.uint8)
    paths = list(tmp_path.rglob('*.jpg'))
    assert pyramid.tiles == len(paths) == deep_zoom.count_tiles((2220, 2967), step=step)
    assert pyramid.megabytes == pytest.approx(sum(p.stat().st_size for p in paths) / 1e6)
    assert sorted(int(p.name) for p in tmp_path.iterdir()) == list(range(finest + 1))


def test_a_slide_with_bounds_is_shown_from_their_corner(tmp_path):
    image = slide_files.tissue_image(256, 320, seed=1)
    path = slide_files.write_leica(
        tmp_path / 'leica.scn', image, offset=(512, 256), canvas=(2048, 1024)
    )
    with open_slide(path) as slide:
        pyramid = deep_zoom.write_pyramid(slide, tmp_path / 'tiles', step=1)
    assert pyramid.origin == (512, 256)
    assert (pyramid.width, pyramid.height) == (320, 256)
    shown = joined(tmp_path / 'tiles', 9, (320, 256)).astype(float)
    assert np.abs(shown - image).mean() < 8


def test_the_coarsest_level_that_is_fine_enough_is_read(tmp_path, monkeypatch):
    image = slide_files.tissue_image(1100, 1300)
    path = slide_files.write_pyramid(tmp_path / 'a.tif', image, levels=4, compression='zlib')
    with open_slide(path) as slide:
        levels = []
        read = slide.read
        monkeypatch.setattr(
            slide, 'read', lambda level, *a: (levels.append(level), read(level, *a))[1]
        )
        pyramid = deep_zoom.write_pyramid(slide, tmp_path / 'tiles', step=4)
    assert set(levels) == {2}
    assert (pyramid.width, pyramid.height) == (325, 275)
    shown = joined(tmp_path / 'tiles', 9, (325, 275)).astype(float)
    expected = slide_files.halve(image, factor=4).astype(float)
    difference = np.abs(shown - expected).mean()
    assert difference < 8  # JPEG's, of noise
    assert np.abs(shown[1:] - expected[:-1]).mean() > 1.5 * difference


def test_the_finest_level_is_the_finest_with_few_enough_tiles():
    size = 100_000, 80_000
    step = deep_zoom.finest_step(size)
    assert deep_zoom.count_tiles(size, step=step) <= deep_zoom.MAX_TILES
    assert deep_zoom.count_tiles(size, step=step // 2) > deep_zoom.MAX_TILES
    assert deep_zoom.finest_step(size, max_tiles=10**6) == 1
    assert deep_zoom.finest_step(size, max_tiles=20) == 128


def test_the_folder_holds_all_that_its_page_shows(made):
    folder, _, viewer = made
    data, page = data_of(folder), read(folder / 'index.html')
    levels = math.ceil(math.log2(max(data['width'], data['height'])))
    for level in range(levels + 1):
        width, height = (math.ceil(data[n] / 2 ** (levels - level)) for n in ('width', 'height'))
        for column in range(math.ceil(width / data['tile'])):
            for row in range(math.ceil(height / data['tile'])):
                assert (folder / 'tiles' / str(level) / f'{column}_{row}.jpg').exists()
    assert viewer.tiles == len(list((folder / 'tiles').rglob('*.jpg')))
    assert f'{viewer.tiles} tiles, {viewer.megabytes:.1f} MB' in page.text
    scripts = [attrs.get('src') for attrs in page.all('script')]
    assert scripts == [None, LIBRARY, None]
    assert (folder / LIBRARY).stat().st_size > 300_000
    assert 'Redistributions of source code' in (folder / 'openseadragon.LICENSE.txt').read_text()
    own = (folder / 'index.html').read_text(encoding='utf-8')
    assert set(re.findall(r'https?://[^\'" ]*', own)) == {'http://www.w3.org/2000/svg'}


def test_maps_lie_where_their_cells_are(made):
    folder, maps, _ = made
    data = data_of(folder)
    assert [layer['name'] for layer in data['layers']] == ['Grad-CAM', 'Occlusion']
    for layer in data['layers']:
        # Squares of the stride in the middle of patches of twice that, of 20 rows and 16 columns.
        assert layer['box'] == [128, 128, 128 + 16 * 128, 128 + 20 * 128]
    pixels = np.asarray(Image.open(folder / data['layers'][0]['file']))
    np.testing.assert_array_equal(pixels, saliency_image(maps['grad_cam']))
    assert data['outlines'] == [[REGION.outer.tolist(), REGION.holes[0].tolist()]]
    assert data['mpp'] == pytest.approx(0.499)


def test_colours_tell_sign_and_strength():
    saliency = np.array([[2.0, 1.0, 0.0], [-2.0, -1.0, np.nan]])
    image = saliency_image(saliency)
    assert image[0, 0].tolist() == [*FOR, 255]
    assert image[1, 0].tolist() == [*AGAINST, 255]
    assert image[..., 3].tolist() == [[255, 128, 0], [255, 128, 0]]
    assert not saliency_image(np.full((2, 2), np.nan))[..., 3].any()
    assert not saliency_image(np.zeros((2, 2)))[..., 3].any()


def test_one_strong_cell_does_not_fade_the_others():
    saliency = np.full((40, 40), 1.0)
    saliency[0, 0] = 1e6
    assert np.median(saliency_image(saliency)[..., 3]) == 255


def test_names_are_escaped(made):
    page = read(made[0] / 'index.html')
    assert HOSTILE in page.text
    assert 'for </script><b>' in page.text
    assert not page.all('b')


def test_a_viewer_is_replaced_whole_and_only_if_the_slide_can_be_read(made, tmp_path):
    folder = tmp_path / 'slides' / 'slide'
    shutil.copytree(made[0], folder)
    (folder / 'older').touch()
    broken = slide_files.write_pyramid(tmp_path / 'a.tif', slide_files.tissue_image(256, 256))
    options = {'maps': {}, 'attributes': {}, 'slide_id': 'a'}
    write_viewer(folder, broken, **options)
    assert not (folder / 'older').exists()
    before = (folder / 'index.html').read_bytes()
    slide_files.corrupt_tile(broken, tile=5)
    with pytest.raises(SlideError, match=r'a\.tif: cannot read level 0'):
        write_viewer(folder, broken, **options)
    assert (folder / 'index.html').read_bytes() == before
    assert [each.name for each in folder.parent.iterdir()] == ['slide']
    with pytest.raises(ValueError, match='step=3 must be a power of two'):
        write_viewer(folder, broken, **options, step=3)


def test_a_browser_shows_it_from_disk(made, tmp_path):
    chromium = shutil.which('chromium') or shutil.which('chromium-browser')
    if chromium is None:
        pytest.skip('no chromium to look with')
    flags = ['--headless', '--no-sandbox', '--disable-gpu', '--no-first-run', '--hide-scrollbars']
    flags += ['--disable-background-networking', '--virtual-time-budget=6000']
    shot = tmp_path / 'shot.png'
    subprocess.run(
        [
            *(chromium, *flags, f'--user-data-dir={tmp_path / "profile"}'),
            *(f'--screenshot={shot}', '--window-size=1000,800', made[2].page.as_uri()),
        ],
        check=True,
        capture_output=True,
        timeout=120,
    )
    shown = np.asarray(Image.open(shot).convert('RGB')).astype(int)[100:700, 200:800]
    # The tissue's purples, and the outline's black, are there: tiles and overlay were drawn.
    assert (
        (shown[..., 0] - shown[..., 1] > 40) & (shown[..., 2] - shown[..., 1] > 20)
    ).mean() > 0.02
    assert (shown.max(-1) < 20).sum() > 200


def test_the_library_is_what_its_version_says():
    vendor = pathlib.Path(deep_zoom.__file__).parent / 'vendor'
    assert (vendor / LIBRARY).read_text(encoding='utf-8').startswith('//! openseadragon 6.1.1')
