import math
import pathlib
from fractions import Fraction

import numpy as np
import openslide
import pytest
import slide_files

from nic_jax.slides import Level, SlideError, open_slide, thumbnail
from nic_jax.slides.resample import area_resample
from nic_jax.slides.slide import level_ratio
from nic_jax.slides.tiff_tiles import TiffTiles

# file: level 0, ratios of the levels, µm/px
REAL = {
    'boxes.tiff': ((300, 250), [1, 2, 4, 8], 352.7778),
    'cmu-1-small-region.svs': ((2220, 2967), [1], 0.499),
    'example.tif': ((1472, 690), [1, 2, 4], 0.9871973),
    'jpeg.dicom': ((957, 715), [1], 16.783),
    'multi_frame_jpeg_camelyon_challenge_image.dcm': ((1152, 700), [1], 28.9685),
    'sm_image.dcm': ((50, 50), [1], 0.499),
    'small.svs': ((16, 16), [1], 0.499),
    'tumor_001aaf.tif': ((3072, 7168), [1], None),
    '😐.svs': ((16, 16), [1], 0.499),
}
NO_SLIDES = [
    'slides/example.xml',
    'broken_slides/histolab_broken.svs',
    'broken_slides/no_image',
]


def openslide_pixels(path, level, x, y, width, height):
    """OpenSlide's answer in RGB, where everything is stored."""
    with openslide.OpenSlide(path) as slide:
        ratio = round(slide.level_downsamples[level])
        rgba = np.asarray(slide.read_region((x * ratio, y * ratio), level, (width, height)))
    assert (rgba[..., 3] == 255).all()
    return rgba[..., :3]


@pytest.fixture
def pyramid(tmp_path) -> pathlib.Path:
    return slide_files.write_pyramid(
        tmp_path / 'slide.tif', slide_files.tissue_image(300, 420), compression='zlib'
    )


@pytest.mark.parametrize('name', REAL)
def test_real_slides(shared, name):
    dimensions, ratios, mpp = REAL[name]
    with open_slide(shared / 'data/slides' / name) as slide:
        assert slide.dimensions == dimensions
        assert [level.ratio_x for level in slide.levels] == ratios
        assert [level.ratio_y for level in slide.levels] == ratios
        assert [level.index for level in slide.levels] == list(range(len(ratios)))
        assert slide.bounds == (0, 0, *dimensions)
        assert slide.background == (255, 255, 255)
        if mpp is not None:
            assert slide.mpp == pytest.approx(mpp, rel=1e-6)
        for level in slide.levels:
            pixels = slide.read(level.index, 0, 0, level.width, level.height)
            assert pixels.dtype == np.uint8
            expected = openslide_pixels(slide.path, level.index, 0, 0, level.width, level.height)
            np.testing.assert_array_equal(pixels, expected)


def test_every_file_is_in_the_table(shared):
    files = {file.name for file in (shared / 'data/slides').iterdir()}
    assert files == {*REAL, 'example.xml'}


@pytest.mark.parametrize('name', NO_SLIDES)
def test_what_is_no_slide_is_named_with_openslides_reason(shared, name):
    file = shared / 'data' / name
    with pytest.raises(SlideError, match='OpenSlide cannot open it: Unsupported') as caught:
        open_slide(file)
    assert str(file) in str(caught.value)


def test_a_missing_file_is_said_to_be_missing(tmp_path):
    with pytest.raises(SlideError, match=r'nothing\.svs: no such file'):
        open_slide(tmp_path / 'nothing.svs')


def test_unreadable_pixels_raise_and_go_on_raising(shared):
    file = shared / 'data/broken_slides/openslide-python_unreadable.svs'
    with open_slide(file) as slide:
        assert slide.dimensions == (16, 16)
        with pytest.raises(SlideError, match='level 0, region x=2 y=3 4x5') as caught:
            slide.read(0, 2, 3, 4, 5)
        assert str(file) in str(caught.value)
        with pytest.raises(SlideError, match='an earlier read failed'):
            slide.read(0, 0, 0, 4, 5)


def test_after_an_error_of_openslide_nothing_is_read(tmp_path):
    # The YCbCr variant of JPEG 2000 is read by OpenSlide, not by the fast path.
    path = slide_files.write_aperio_jp2k(
        tmp_path / 'slide.svs',
        slide_files.tissue_image(128, 128),
        compression=slide_files.APERIO_JP2K_YCBCR,
    )
    slide_files.corrupt_tile(path, tile=3)
    with open_slide(path) as slide:
        assert slide.read(0, 0, 0, 64, 64).shape == (64, 64, 3)
        with pytest.raises(SlideError, match=r'slide\.svs: cannot read level 0, region x=64 y=64'):
            slide.read(0, 64, 64, 10, 10)
        with pytest.raises(SlideError, match='an earlier read failed'):
            slide.read(0, 0, 0, 64, 64)


def test_missing_resolution_names_the_remedy(shared):
    path = shared / 'data/slides/tumor_001aaf.tif'
    remedy = r'tumor_001aaf\.tif.*`mpp`.*config\.tiling\.default_mpp'
    with open_slide(path) as slide, pytest.raises(SlideError, match=remedy):
        _ = slide.mpp
    with open_slide(path, mpp=7.8) as slide:
        assert slide.mpp == 7.8
    with open_slide(path, default_mpp=7.9) as slide:
        assert slide.mpp == 7.9


def test_a_given_resolution_overrides_the_stored_one(pyramid):
    with open_slide(pyramid) as slide:
        assert slide.mpp == pytest.approx(0.5)
    with open_slide(pyramid, mpp=0.25) as slide:
        assert slide.mpp == 0.25
    with open_slide(pyramid, default_mpp=0.25) as slide:
        assert slide.mpp == pytest.approx(0.5)


@pytest.mark.parametrize('mpp', [0, -1, float('nan'), float('inf')])
def test_an_impossible_resolution_is_refused(pyramid, mpp):
    with pytest.raises(SlideError, match='µm/px must be > 0'):
        open_slide(pyramid, mpp=mpp)


def test_unequal_resolutions(tmp_path):
    image = slide_files.tissue_image(64, 64)
    nearly = slide_files.write_pyramid(tmp_path / 'a.tif', image, levels=1, mpp=(0.5, 0.503))
    with open_slide(nearly) as slide:
        assert slide.mpp == pytest.approx(0.5015, rel=1e-5)
    unequal = slide_files.write_pyramid(tmp_path / 'b.tif', image, levels=1, mpp=(0.5, 0.6))
    with pytest.raises(SlideError, match=r'b\.tif.*more than 1 %.*mpp-x = 0\.5.*mpp-y = 0\.6'):
        open_slide(unequal)
    with open_slide(unequal, mpp=0.5) as slide:
        assert slide.mpp == 0.5


@pytest.mark.parametrize(
    ('size', 'ratio'),
    [
        ((500, 300), (2, 2)),  # exact
        ((250, 150), (4, 4)),
        ((31, 18), (32, 32)),  # rounded down: 31.25, 18.75
        ((63, 38), (16, 16)),  # rounded up: 62.5, 37.5
        ((1, 1), (512, 512)),  # much would do; a power of two
        ((333, 200), (3, 3)),
        ((400, 300), (Fraction(5, 2), 2)),  # no integer: axis by axis
    ],
)
def test_ratios(size, ratio):
    assert level_ratio((1000, 600), size) == ratio


def test_ratios_are_fractions(pyramid):
    with open_slide(pyramid) as slide:
        assert slide.levels[2] == Level(2, 105, 75, Fraction(4), Fraction(4))


@pytest.mark.parametrize('fast', [True, False])
def test_outside_a_level_is_background(pyramid, monkeypatch, fast):
    if not fast:
        monkeypatch.setattr(TiffTiles, 'serves', lambda self, level: False)
    with open_slide(pyramid) as slide:
        assert slide.decodes_tiles(1) == fast
        whole = slide.read(1, 0, 0, 210, 150)
        np.testing.assert_array_equal(whole, openslide_pixels(pyramid, 1, 0, 0, 210, 150))
        around = slide.read(1, -7, -5, 230, 170)
        np.testing.assert_array_equal(around[5:155, 7:217], whole)
        around[5:155, 7:217] = 255
        assert (around == 255).all()
        assert (slide.read(1, 500, 10, 4, 6) == 255).all()
        assert slide.read(1, 500, 10, 4, 6).shape == (6, 4, 3)


@pytest.mark.parametrize('region', [(3, 0, 0, 5, 5), (-1, 0, 0, 5, 5), (0, 0, 0, 0, 5)])
def test_no_such_region(pyramid, region):
    with (
        open_slide(pyramid) as slide,
        pytest.raises(SlideError, match=r'slide\.tif: no such region'),
    ):
        slide.read(*region)


@pytest.mark.parametrize('fast', [True, False])
def test_absent_tiles_are_background(tmp_path, monkeypatch, fast):
    if not fast:
        monkeypatch.setattr(TiffTiles, 'serves', lambda self, level: False)
    image = slide_files.tissue_image(150, 200)
    path = slide_files.write_pyramid(
        tmp_path / 'slide.tif', image, compression='zlib', absent=[(0, 1, 2)]
    )
    image[64:128, 128:192] = 255
    with open_slide(path) as slide:
        np.testing.assert_array_equal(slide.read(0, 0, 0, 200, 150), image)


def test_bounds_that_do_not_begin_at_zero(tmp_path):
    image = slide_files.tissue_image(128, 192)
    path = slide_files.write_leica(
        tmp_path / 'slide.scn', image, offset=(40, 24), canvas=(400, 300), mpp=0.5
    )
    with open_slide(path) as slide:
        assert slide.dimensions == (400, 300)
        assert slide.bounds == (40, 24, 192, 128)
        assert slide.mpp == pytest.approx(0.5)
        assert not slide.decodes_tiles(0)  # the pages are smaller than the levels
        pixels = slide.read(0, 0, 0, 400, 300)
        scanned = pixels[24:152, 40:232].copy()
        assert np.abs(scanned.astype(float) - image).mean() < 8  # JPEG
        pixels[24:152, 40:232] = 255
        assert (pixels == 255).all()
        overview, step = thumbnail(slide, mpp=0.75)
        assert step == pytest.approx(1.5)
        expected = area_resample(
            scanned, start_y=0, start_x=0, step_y=1.5, step_x=1.5, rows=85, columns=128
        )
        assert overview.shape == (86, 128, 3)
        np.testing.assert_allclose(overview[:85].astype(int), expected, atol=1)


@pytest.mark.parametrize(('mpp', 'level'), [(0.5, 0), (0.7, 0), (1.0, 1), (1.9, 1), (4.1, 2)])
def test_thumbnail_is_the_mean_over_areas(pyramid, mpp, level):
    with open_slide(pyramid) as slide:
        image, step = thumbnail(slide, mpp=mpp)
        at = slide.levels[level]
        pixels = slide.read(level, 0, 0, at.width, at.height)
    assert step == pytest.approx(mpp / 0.5)
    own_step = step / 2**level
    expected = area_resample(
        pixels,
        start_y=0,
        start_x=0,
        step_y=own_step,
        step_x=own_step,
        rows=image.shape[0],
        columns=image.shape[1],
    )
    assert image.shape[:2] == (math.ceil(300 / step), math.ceil(420 / step))
    np.testing.assert_allclose(image.astype(int), expected, atol=1)
    assert (image != expected).mean() < 0.001  # ties of rounding


def test_thumbnail_is_never_finer_than_level_0(pyramid):
    with open_slide(pyramid) as slide:
        image, step = thumbnail(slide, mpp=0.1)
        assert step == 1
        np.testing.assert_array_equal(image, slide.read(0, 0, 0, 420, 300))
        with pytest.raises(ValueError, match='mpp=0'):
            thumbnail(slide, mpp=0)


def test_thumbnail_in_pieces_is_the_same(pyramid, monkeypatch):
    with open_slide(pyramid) as slide:
        whole, _ = thumbnail(slide, mpp=0.8)
        monkeypatch.setattr('nic_jax.slides.overview.BLOCK', 64)
        pieces, _ = thumbnail(slide, mpp=0.8)
    np.testing.assert_allclose(pieces.astype(int), whole, atol=1)
    assert (pieces != whole).mean() < 0.001


def test_thumbnail_of_a_slide_that_cannot_be_read_raises(shared):
    file = shared / 'data/broken_slides/openslide-python_unreadable.svs'
    with open_slide(file) as slide, pytest.raises(SlideError, match='cannot read'):
        thumbnail(slide, mpp=1)


def test_a_closed_slide_says_so(pyramid):
    slide = open_slide(pyramid)
    slide.close()
    slide.close()
    with pytest.raises(SlideError, match='the slide was closed'):
        slide.read(0, 0, 0, 5, 5)
