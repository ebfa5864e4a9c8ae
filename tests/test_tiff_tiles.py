import concurrent.futures
import threading
import time

import numpy as np
import openslide
import pytest
import slide_files
import tifffile

from nic_jax.slides import SlideError, open_slide
from nic_jax.slides.tiff_tiles import TiffTiles
from nic_jax.slides.tile_cache import TileCache


def assert_equal_to_openslide(path, level, regions):
    """Regions (x, y, width, height) of a level, which must be read by the fast path."""
    with open_slide(path) as slide, openslide.OpenSlide(path) as reference:
        assert slide.decodes_tiles(level)
        ratio = round(reference.level_downsamples[level])
        for x, y, width, height in regions:
            expected = reference.read_region((x * ratio, y * ratio), level, (width, height))
            expected = np.asarray(expected)
            stored = expected[..., 3] == 255
            pixels = slide.read(level, x, y, width, height)
            np.testing.assert_array_equal(pixels[stored], expected[..., :3][stored])
            assert (pixels[~stored] == 255).all()


@pytest.mark.parametrize(
    ('name', 'level', 'regions'),
    [
        ('cmu-1-small-region.svs', 0, [(0, 0, 2220, 2967), (700, 1100, 513, 241)]),
        ('example.tif', 0, [(0, 0, 1472, 690), (500, 100, 300, 500)]),
        ('example.tif', 1, [(0, 0, 736, 345), (37, 11, 500, 200)]),
        ('example.tif', 2, [(0, 0, 368, 172)]),
        ('boxes.tiff', 0, [(0, 0, 300, 250), (63, 63, 2, 2)]),
        ('boxes.tiff', 1, [(0, 0, 150, 125)]),
        ('boxes.tiff', 2, [(0, 0, 75, 62)]),
        ('boxes.tiff', 3, [(0, 0, 37, 31)]),
        (
            'tumor_001aaf.tif',
            0,
            [(511, 2047, 514, 3), (300, 2500, 700, 900), (2900, 7000, 172, 168)],
        ),
    ],
)
def test_real_slides(shared, name, level, regions):
    assert_equal_to_openslide(shared / 'data/slides' / name, level, regions)


@pytest.mark.parametrize('compression', ['jpeg', 'zlib', 'lzw', None])
def test_pyramids(tmp_path, compression):
    image = slide_files.tissue_image(333, 471)
    path = slide_files.write_pyramid(
        tmp_path / 'slide.tif', image, compression=compression, absent=[(0, 0, 1), (1, 1, 1)]
    )
    assert_equal_to_openslide(path, 0, [(0, 0, 471, 333), (60, 5, 70, 70)])
    assert_equal_to_openslide(path, 1, [(0, 0, 235, 166)])
    assert_equal_to_openslide(path, 2, [(0, 0, 117, 83)])


@pytest.mark.parametrize('compression', [slide_files.APERIO_JP2K_RGB, 'jpeg'])
def test_aperio(tmp_path, compression):
    image = slide_files.tissue_image(256, 320)
    path = slide_files.write_aperio_jp2k(
        tmp_path / 'slide.svs', image, levels=2, compression=compression
    )
    with tifffile.TiffFile(path) as tiff:
        assert tiff.pages[0].compression == (7 if compression == 'jpeg' else 33005)
    assert_equal_to_openslide(path, 0, [(0, 0, 320, 256), (60, 70, 100, 110)])
    assert_equal_to_openslide(path, 1, [(0, 0, 80, 64), (3, 5, 70, 50)])
    if compression != 'jpeg':
        with open_slide(path) as slide:
            np.testing.assert_array_equal(slide.read(0, 0, 0, 320, 256), image)


def test_philips_pads_its_pages(tmp_path):
    path = slide_files.write_philips(tmp_path / 'slide.tif', slide_files.tissue_image(256, 320))
    with tifffile.TiffFile(path) as tiff:
        assert tiff.pages[2].shape[:2] == (64, 128)
    assert_equal_to_openslide(path, 0, [(0, 0, 320, 256)])
    assert_equal_to_openslide(path, 1, [(0, 0, 160, 128), (150, 100, 10, 28)])
    assert_equal_to_openslide(path, 2, [(0, 0, 80, 64)])


def test_steps_aside_where_pixels_differ(tmp_path):
    path = slide_files.write_aperio_jp2k(
        tmp_path / 'slide.svs',
        slide_files.tissue_image(128, 128),
        compression=slide_files.APERIO_JP2K_YCBCR,
    )
    with open_slide(path) as slide, openslide.OpenSlide(path) as reference:
        assert not slide.decodes_tiles(0)
        expected = np.asarray(reference.read_region((5, 6), 0, (100, 90)))[..., :3]
        np.testing.assert_array_equal(slide.read(0, 5, 6, 100, 90), expected)


def test_steps_aside_where_openslide_paints_from_a_finer_level(tmp_path):
    image = slide_files.tissue_image(512, 512)
    path = slide_files.write_aperio_jp2k(
        tmp_path / 'slide.svs', image, levels=2, compression='jpeg', absent=[(1, 0, 1)]
    )
    with open_slide(path) as slide:
        assert slide.decodes_tiles(0)
        assert not slide.decodes_tiles(1)
        painted = slide.read(1, 64, 0, 64, 64).astype(float)
        assert np.abs(painted - slide_files.halve(image, factor=4)[:64, 64:]).mean() < 10


def test_steps_aside_for_what_is_no_tiled_tiff(shared, tmp_path):
    for name in ('jpeg.dicom', 'sm_image.dcm'):
        with open_slide(shared / 'data/slides' / name) as slide:
            assert not slide.decodes_tiles(0)


def test_the_tile_compared_may_lie_far_from_the_origin_of_a_blended_level(shared):
    # OpenSlide's ratio is 4.0058 there: away from (0, 0) its pixels are mixtures.
    path = shared / 'data/slides/example.tif'
    with open_slide(path) as slide, openslide.OpenSlide(path) as reference:
        stored = np.asarray(reference.read_region((0, 0), 2, (368, 172)))[..., :3]
        np.testing.assert_array_equal(slide.read(2, 201, 90, 100, 50), stored[90:140, 201:301])
        blended = np.asarray(reference.read_region((804, 360), 2, (100, 50)))[..., :3]
        assert (blended != stored[90:140, 201:301]).any()


@pytest.mark.parametrize('compression', ['jpeg', 'zlib', slide_files.APERIO_JP2K_RGB])
def test_a_corrupt_tile_raises_and_the_others_are_read(tmp_path, compression):
    image = slide_files.tissue_image(192, 192)
    image[:64, :64] = 200  # not the most detailed tile, so not the one that is compared
    path = slide_files.write_pyramid(tmp_path / 'a.tif', image, levels=1, compression='zlib')
    if compression == slide_files.APERIO_JP2K_RGB:
        path = slide_files.write_aperio_jp2k(tmp_path / 'slide.svs', image)
    else:
        path = slide_files.write_pyramid(
            tmp_path / 'slide.tif', image, levels=1, compression=compression
        )
    slide_files.corrupt_tile(path, tile=0)
    with open_slide(path) as slide:
        assert slide.decodes_tiles(0)
        for _ in range(2):
            with pytest.raises(
                SlideError, match=r'cannot read level 0, region x=60 y=10 30x20: tile 0'
            ):
                slide.read(0, 60, 10, 30, 20)
        assert slide.read(0, 64, 0, 64, 64).shape == (64, 64, 3)


def test_a_stream_without_its_end_raises(tmp_path):
    image = slide_files.tissue_image(128, 128)
    image[:64, :64] = slide_files.tissue_image(64, 64)[..., :1] // 4 + 100
    path = slide_files.write_pyramid(tmp_path / 'slide.tif', image, levels=1)
    with tifffile.TiffFile(path) as tiff:
        offset, count = tiff.pages[0].dataoffsets[0], tiff.pages[0].databytecounts[0]
    with open(path, 'r+b') as file:
        file.seek(offset + count // 2)
        file.write(bytes(count - count // 2))
    with open_slide(path) as slide, pytest.raises(SlideError, match='no end marker'):
        slide.read(0, 0, 0, 64, 64)


def test_a_tile_beyond_the_end_of_the_file_raises(tmp_path):
    image = slide_files.tissue_image(128, 128)
    image[64:, 64:] = 200
    path = slide_files.write_pyramid(tmp_path / 'slide.tif', image, levels=2, compression='zlib')
    size = path.stat().st_size
    with tifffile.TiffFile(path, mode='r+') as tiff:
        page = tiff.pages[0]
        page.tags['TileOffsets'].overwrite([*page.dataoffsets[:3], size - 5])
    with open_slide(path) as slide:
        assert slide.decodes_tiles(0)
        np.testing.assert_array_equal(slide.read(0, 0, 0, 128, 64), image[:64])
        with pytest.raises(SlideError, match='tile 3 is cut off: 5 of its'):
            slide.read(0, 64, 64, 64, 64)


@pytest.mark.parametrize('capacity', [0, 100_000, 256 << 20])
def test_threads_read_the_same(tmp_path, capacity):
    image = slide_files.tissue_image(512, 512)
    path = slide_files.write_pyramid(tmp_path / 'slide.tif', image, compression='zlib', levels=1)
    corners = [(x, y) for y in range(0, 400, 23) for x in range(0, 400, 31)]
    with openslide.OpenSlide(path) as reference:
        tiles = TiffTiles(path, reference, cache=TileCache(capacity))
    assert tiles.serves(0)

    def equal(corner):
        x, y = corner
        region = tiles.read(0, x, y, 100, 90)
        return np.array_equal(region, image[y : y + 90, x : x + 100])

    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        assert all(threads.map(equal, corners))
    tiles.close()


def test_what_is_returned_may_be_written_to(tmp_path):
    path = slide_files.write_pyramid(
        tmp_path / 'slide.tif', slide_files.tissue_image(64, 64), levels=1
    )
    with open_slide(path) as slide:
        first = slide.read(0, 0, 0, 64, 64)
        kept = first.copy()
        first[:] = 0
        np.testing.assert_array_equal(slide.read(0, 0, 0, 64, 64), kept)


def test_cache_keeps_the_last_used_within_its_capacity():
    cache = TileCache(capacity=30)
    decoded = []

    def get(key):
        def decode():
            decoded.append(key)
            return np.zeros(10, np.uint8)

        return cache.get(key, decode)

    for key in 'abcad':  # d drives out b, the oldest used
        get(key)
    assert decoded == list('abcd')
    get('a')
    get('b')
    assert decoded == list('abcdb')


def test_cache_decodes_once_for_threads_that_ask_together():
    cache = TileCache()
    decoded = []
    together = threading.Barrier(4)

    def decode():
        time.sleep(0.05)
        decoded.append(1)
        return np.zeros(1)

    def get(_):
        together.wait()
        return cache.get('tile', decode)

    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        list(threads.map(get, range(4)))
    assert len(decoded) == 1


def test_cache_keeps_no_failures():
    cache = TileCache()

    def fail():
        raise ValueError('corrupt')

    with pytest.raises(ValueError, match='corrupt'):
        cache.get('tile', fail)
    assert cache.get('tile', lambda: np.ones(1)) == 1
