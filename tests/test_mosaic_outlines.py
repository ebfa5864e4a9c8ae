"""Outlines of lesions: CAMELYON16's polygons in, GeoJSON around cells out."""

import json

import numpy as np
import pytest
import skimage.draw

from nic_jax.patches.annotations import AnnotationError, read_annotations
from nic_jax.patches.coverage import inside, shares
from nic_jax.synthetic.mosaic_outlines import lesion_features, read_outlines


def shoelace(ring):
    x, y = np.asarray(ring, float).T
    return (x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2


def write_ncrf(path, rings, negative=()):
    content = {
        key: [{'name': f'Annotation {i}', 'vertices': ring} for i, ring in enumerate(value)]
        for key, value in (('positive', rings), ('negative', negative))
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def read_back(features, folder):
    path = folder / 'lesion.geojson'
    path.write_text(json.dumps(features))
    return read_annotations(path)


def test_reads_outlines_of_area_one_without_slivers(tmp_path):
    square = [[100, 100], [300, 100], [300, 300], [100, 300]]
    sliver = [[0, 0], [1000, 0], [1000, 3], [0, 3]]
    t = np.linspace(0, 2 * np.pi, 1000, endpoint=False)
    circle = np.stack([500 + 80 * np.cos(t), 900 + 80 * np.sin(t)], axis=1).tolist()
    write_ncrf(tmp_path / 'train' / 'Tumor_001.json', [square, sliver], negative=[square])
    write_ncrf(tmp_path / 'train' / 'Normal_001.json', [], negative=[square])
    write_ncrf(tmp_path / 'valid' / 'Tumor_002.json', [[[1, 1], [2, 2]], circle])
    first, second = read_outlines(tmp_path)
    np.testing.assert_allclose(first, [[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]])
    assert second.shape == (96, 2)
    assert shoelace(second) == pytest.approx(1)
    radius = np.hypot(*second.T)
    np.testing.assert_allclose(radius, 1 / np.sqrt(np.pi), rtol=0.01)  # a polygon of 96 sides


def test_says_which_file_is_broken_or_that_there_is_none(tmp_path):
    write_ncrf(tmp_path / 'Normal_001.json', [], negative=[[[0, 0], [9, 0], [9, 9]]])
    with pytest.raises(AnnotationError, match='no outline of a lesion'):
        read_outlines(tmp_path)
    (tmp_path / 'Tumor_001.json').write_text('{"positive": [{"name": "a"}]}')
    with pytest.raises(AnnotationError, match=r'Tumor_001\.json: positive polygon 0: no vertices'):
        read_outlines(tmp_path)
    write_ncrf(tmp_path / 'Tumor_001.json', [[[0, 0], [9, 'x'], [9, 9]]])
    with pytest.raises(AnnotationError, match=r'Tumor_001\.json: could not convert'):
        read_outlines(tmp_path)
    (tmp_path / 'Tumor_001.json').write_text('{')
    with pytest.raises(AnnotationError, match=r'Tumor_001\.json'):
        read_outlines(tmp_path)


def test_reads_the_outlines_of_camelyon16(shared):
    outlines = read_outlines(shared / 'data/annotations/camelyon16_ncrf_jsons.tar.xz')
    assert 2000 < len(outlines) < 2163  # of so many polygons, a few are slivers
    for outline in outlines:
        assert 3 <= len(outline) <= 96
        assert abs(shoelace(outline)) == pytest.approx(1)
        assert (outline.min(axis=0) <= 0).all()
        assert (outline.max(axis=0) >= 0).all()


# What touches at corners, has holes, and holes that touch at corners.
RING = ['11110', '10010', '10110', '11110']
PINCHED = ['1110', '1011', '1101', '0111']
DIAGONAL = ['100', '010', '001']


@pytest.mark.parametrize(
    ('rows', 'polygons', 'holes'), [(RING, 1, 1), (PINCHED, 1, 2), (DIAGONAL, 3, 0)]
)
def test_pieces_and_holes(rows, polygons, holes, tmp_path):
    cells = np.array([[int(cell) for cell in row] for row in rows], bool)
    features = lesion_features(cells, edges=np.arange(6) * 10, name='tumour')
    found = read_back(features, tmp_path)
    assert not found.notes()  # nothing passed over, nothing crosses
    assert len(found.regions) == polygons
    assert sum(len(region.holes) for region in found.regions) == holes
    assert {region.name for region in found.regions} == {'tumour'}


def test_outlines_follow_the_cells_whatever_their_shape(tmp_path):
    rng = np.random.default_rng(0)
    edges = np.clip(np.arange(13) * 6 - 2, 0, 68)  # the first and last cell are cut, as on slides
    centres = (edges[1:] + edges[:-1]) / 2
    y, x = np.meshgrid(centres, centres, indexing='ij')
    for density in (0.1, 0.3, 0.5, 0.7, 0.9, 1.0) * 5:
        cells = rng.random((12, 12)) < density
        features = lesion_features(cells, edges=edges, name='tumour')
        regions = read_back(features, tmp_path).regions
        points = np.stack([x.ravel(), y.ravel()], axis=1)
        np.testing.assert_array_equal(inside(regions, points).reshape(12, 12), cells)

        # The same by scikit-image, pixel by pixel, and by areas with signs.
        painted = np.zeros((68, 68), int)
        area = 0
        for feature in features['features']:
            outer, *holes = feature['geometry']['coordinates']
            for ring, sign in ((outer, 1), *((hole, -1) for hole in holes)):
                assert ring[0] == ring[-1]
                assert len({tuple(vertex) for vertex in ring}) == len(ring) - 1  # simple
                assert np.sign(shoelace(ring)) == sign
                pixels = np.asarray(ring)[:, ::-1] - 0.5  # (row, column) of corners between pixels
                painted += sign * skimage.draw.polygon2mask((68, 68), pixels)
                area += shoelace(ring)
        side = np.diff(edges)
        expected = np.repeat(np.repeat(cells, side, axis=0), side, axis=1)
        np.testing.assert_array_equal(painted, expected)
        assert area == expected.sum()
        pixels = np.argwhere(np.ones((68, 68)))[:, ::-1].astype(float)
        covered = shares(regions, pixels, (1, 1)).reshape(68, 68)
        np.testing.assert_array_equal(covered, expected)
