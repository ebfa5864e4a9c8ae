"""Heat maps as OME-TIFF: every level shows every cell, and the metadata say what greys mean."""

import tracemalloc
from xml.etree import ElementTree

import numpy as np
import openslide
import pytest
import tifffile

from nic_jax.explanation import ome_tiff, write_heat_map

OME = {'ome': 'http://www.openmicroscopy.org/Schemas/OME/2016-06'}


def georeferenced(size, *, origin=(0.0, 0.0), stride=128.0, patch=128.0, mpp=0.25):
    return {
        'slide_id': '😐 <a&"b">',
        'level0_dimensions': list(size),
        'mpp_level0': mpp,
        'origin_level0': list(origin),
        'stride_level0': [stride, stride],
        'patch_level0': [patch, patch],
    }


def written(tmp_path, saliency, attributes, **options):
    path = tmp_path / 'map.ome.tiff'
    write_heat_map(path, saliency, attributes=attributes, method='grad_cam', **options)
    return path


def random_map(shape, seed=0):
    rng = np.random.default_rng(seed)
    saliency = rng.normal(size=shape).astype(np.float32)
    saliency[rng.random(shape) < 0.4] = np.nan
    return saliency


@pytest.mark.parametrize(
    ('origin', 'stride', 'patch'),
    [((0.0, 0.0), 128.0, 128.0), ((300.0, 200.0), 100.5, 201.0), ((7.0, 3.0), 160.0, 64.0)],
)
def test_every_level_shows_every_cell(tmp_path, origin, stride, patch):
    saliency = random_map((20, 31))
    attributes = georeferenced((5100, 3700), origin=origin, stride=stride, patch=patch)
    path = written(tmp_path, saliency, attributes)
    greys = np.nan_to_num(np.maximum(saliency, 0).astype(np.float64))
    greys = np.rint(255 * greys / greys.max()).astype(np.uint8)
    row, column = np.indices(saliency.shape).reshape(2, -1)
    x, y = (
        start + patch / 2 + stride * cell for start, cell in zip(origin, (column, row), strict=True)
    )
    inside = (x < 5100) & (y < 3700)
    with tifffile.TiffFile(path) as tiff:
        assert tiff.is_ome
        assert len(tiff.pages) == 1  # the others are its SubIFDs
        (series,) = tiff.series
        assert [level.shape for level in series.levels] == [
            (3700 >> level, 5100 >> level) for level in range(5)
        ]
        assert len(tiff.pages[0].pages) == 4
        for number, level in enumerate(series.levels):
            page = level.keyframe
            assert (page.is_tiled, page.compression.name) == (True, 'ADOBE_DEFLATE')
            assert page.is_reduced == (number > 0)
            pixels = level.asarray()
            at = tuple((each[inside] / 2**number).astype(int) for each in (y, x))
            np.testing.assert_array_equal(pixels[at], greys[row, column][inside])
    # All of level 0, pixel by pixel.
    whole = tifffile.imread(path)
    cells = [
        np.floor((np.arange(length) + 0.5 - start - (patch - stride) / 2) / stride).astype(int)
        for start, length in zip(reversed(origin), whole.shape, strict=True)
    ]
    known = [(each >= 0) & (each < count) for each, count in zip(cells, greys.shape, strict=True)]
    expected = greys[np.ix_(*(np.where(*each, 0) for each in zip(known, cells, strict=True)))]
    np.testing.assert_array_equal(whole, expected * np.outer(*known))


def test_the_ome_xml_tells_size_method_and_range(tmp_path):
    saliency = random_map((10, 12))
    path = written(tmp_path, saliency, georeferenced((1536, 1280)))
    with tifffile.TiffFile(path) as tiff:
        root = ElementTree.fromstring(tiff.ome_metadata)
        page = tiff.pages[0]
        assert page.resolutionunit == tifffile.RESUNIT.CENTIMETER
        np.testing.assert_allclose(page.resolution, 1e4 / 0.25)
    image = root.find('ome:Image', OME)
    assert image.get('Name') == 'grad_cam of 😐 <a&"b">'
    pixels = image.find('ome:Pixels', OME)
    told = {key: pixels.get(key) for key in ('SizeX', 'SizeY', 'SizeC', 'Type')}
    assert told == {'SizeX': '1536', 'SizeY': '1280', 'SizeC': '1', 'Type': 'uint8'}
    for axis in 'XY':
        assert float(pixels.get(f'PhysicalSize{axis}')) == 0.25
        assert pixels.get(f'PhysicalSize{axis}Unit') == 'µm'
    assert pixels.find('ome:Channel', OME).get('Name') == 'grad_cam'
    described = image.find('ome:Description', OME).text
    assert described.startswith('grad_cam of 😐 <a&"b">: saliency = grey / 255 * ')
    highest = float(np.nanmax(saliency))
    assert float(described.split('255 * ')[1].split(';')[0]) == highest
    values = {each.get('K'): each.text for each in root.iterfind('.//ome:M', OME)}
    assert values == {'method': 'grad_cam', 'minimum': '0', 'maximum': repr(highest)}
    # Greys give the map back, to half a step of them.
    at = (np.arange(10)[:, None] * 128 + 64, np.arange(12) * 128 + 64)
    greys = tifffile.imread(path)[at] / 255 * highest
    np.testing.assert_allclose(greys, np.nan_to_num(np.maximum(saliency, 0)), atol=highest / 509)


def test_openslide_opens_it(tmp_path):
    saliency = random_map((10, 12), seed=1)
    path = written(tmp_path, saliency, georeferenced((1536, 1280)))
    with openslide.OpenSlide(path) as slide:
        assert slide.dimensions == (1536, 1280)
        assert float(slide.properties['openslide.mpp-x']) == pytest.approx(0.25)
        pixels = np.asarray(slide.read_region((0, 0), 0, slide.dimensions))[..., 0]
    np.testing.assert_array_equal(pixels, tifffile.imread(path))


def test_maps_of_nothing_small_images_and_unknown_sizes(tmp_path):
    for saliency in (np.full((2, 3), np.nan), -np.ones((2, 3)), np.zeros((0, 3))):
        path = written(tmp_path, saliency, georeferenced((400, 300)))
        assert not tifffile.imread(path).any()
    path = written(tmp_path, np.ones((2, 3)), georeferenced((400, 300), mpp=None))
    with tifffile.TiffFile(path) as tiff:
        assert len(tiff.series[0].levels) == 1
        assert 'PhysicalSize' not in tiff.ome_metadata
    assert tifffile.imread(path)[:256, :384].min() == 255
    long = georeferenced((40, 5000))  # 64 px of level 0 a pixel: less than one across
    path = written(tmp_path, np.ones((39, 1)), long)
    with tifffile.TiffFile(path) as tiff:
        assert [level.shape for level in tiff.series[0].levels][-1] == (312, 2)


def test_memory_does_not_grow_with_the_slide(tmp_path):
    saliency = np.full((160, 160), np.nan, np.float32)
    saliency[60:80, 60:80] = random_map((20, 20), seed=2)
    path = tmp_path / 'map.ome.tiff'
    tracemalloc.start()
    try:
        write_heat_map(
            path, saliency, attributes=georeferenced((20480, 20480)), method='occlusion', workers=2
        )
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 32 << 20  # level 0 has 400 MiB
    assert path.stat().st_size < 2 << 20


def test_blank_tiles_are_compressed_once(tmp_path, monkeypatch):
    compressed = []
    compress = ome_tiff.zlib.compress
    monkeypatch.setattr(
        ome_tiff.zlib, 'compress', lambda *given: compressed.append(1) or compress(*given)
    )
    saliency = np.full((32, 32), np.nan, np.float32)
    saliency[3, 3] = 1
    written(tmp_path, saliency, georeferenced((4096, 4096)), workers=1)
    levels = 4  # 4096 … 512
    assert len(compressed) == 2 * levels  # one blank and one other of each
