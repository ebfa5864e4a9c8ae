"""Annotation files of every format, and what their regions cover."""

import itertools
import json
import tarfile

import matplotlib.path
import numpy as np
import pytest

from nic_jax.patches.annotations import AnnotationError, Region, read_annotations
from nic_jax.patches.coverage import crosses_itself, inside, shares
from nic_jax.patches.labels import label_positions

SQUARE = [[0, 0], [10, 0], [10, 10], [0, 10]]
HOLE = [[2, 2], [4, 2], [4, 4], [2, 4]]


def asap(*annotations, head=''):
    """ASAP's XML of (name, group, type, points)."""
    return (
        f'<?xml version="1.0"?>{head}<ASAP_Annotations><Annotations>'
        + ''.join(
            f'<Annotation Name="{name}" Type="{kind}" PartOfGroup="{group}"><Coordinates>'
            + ''.join(
                f'<Coordinate Order="{order}" X="{x}" Y="{y}" />'
                for order, (x, y) in enumerate(points)
            )
            + '</Coordinates></Annotation>'
            for name, group, kind, points in annotations
        )
        + '</Annotations></ASAP_Annotations>'
    )


def feature(coordinates, kind='Polygon', **properties):
    return {
        'type': 'Feature',
        'geometry': {'type': kind, 'coordinates': coordinates},
        'properties': properties,
    }


def read(tmp_path, content, name='slide.txt'):
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content), 'utf-8')
    return read_annotations(path)


def region(points, name='a', holes=()):
    return Region(name, np.array(points, float), tuple(np.array(hole, float) for hole in holes))


def test_asap_with_decimal_commas(shared):
    found = read_annotations(shared / 'data' / 'slides' / 'example.xml')
    (only,) = found.regions
    assert only.name == 'Annotation 0'
    assert only.outer.dtype == np.float64
    assert only.outer[:2].tolist() == [[543.020264, 335.044464], [524.654846, 346.957184]]
    assert len(only.outer) == 42
    assert found.notes() == ()


def test_polygons_of_camelyon16(shared, tmp_path):
    passed_over = {}
    with tarfile.open(shared / 'data/annotations/camelyon16_ncrf_jsons.tar.xz') as archive:
        for member in list(filter(tarfile.TarInfo.isfile, archive))[::4]:
            data = archive.extractfile(member).read()
            found = read(tmp_path, data)
            polygons = [
                (name, len(each['vertices']) - (each['vertices'][0] == each['vertices'][-1]))
                for name in ('positive', 'negative')
                for each in json.loads(data)[name]
            ]
            areas = [(name, count) for name, count in polygons if count >= 3]
            assert [(each.name, len(each.outer)) for each in found.regions] == areas
            if found.passed_over:
                passed_over[member.name] = found.passed_over
    slip = {'outlines of fewer than 3 vertices': 1}
    assert passed_over == {'jsons/train/Tumor_054.json': slip}


def test_asap_kinds_groups_and_order(tmp_path):
    scrambled = asap(('b', 'None', 'Polygon', SQUARE)).replace('Order="0"', 'Order="9"')
    found = read(tmp_path, scrambled, 'slide.geojson')  # the content tells, not the suffix
    assert found.regions[0].name == 'b'
    assert found.regions[0].outer.tolist() == [*SQUARE[1:], SQUARE[0]]
    found = read(
        tmp_path,
        asap(
            ('x', 'tumour', 'Spline', SQUARE),
            ('', '', 'Rectangle', SQUARE),
            ('p', 'tumour', 'Dot', SQUARE[:1]),
            ('q', 'None', 'PointSet', SQUARE),
            ('r', 'None', 'PointSet', SQUARE[:2]),
        ),
    )
    assert [each.name for each in found.regions] == ['tumour', 'unnamed']
    assert found.passed_over == {'Dot': 1, 'PointSet': 2}
    assert found.notes() == ('1 Dot passed over', '2 PointSet passed over')
    text = asap(('ü', 'None', 'Polygon', SQUARE)).replace('?>', ' encoding="utf-16"?>', 1)
    assert read(tmp_path, text.encode('utf-16')).regions[0].name == 'ü'


@pytest.mark.parametrize('wrap', [lambda f: f, lambda f: [f], lambda f: collection(f)])
def test_geojson_of_qupath(tmp_path, wrap):
    closed = [[*ring, ring[0]] for ring in (SQUARE, HOLE)]
    drawn = feature(closed, classification={'name': 'Tumor', 'color': [200, 0, 0]}, name='mine')
    (only,) = read(tmp_path, wrap(drawn)).regions
    assert only.name == 'Tumor'
    assert only.outer.tolist() == SQUARE
    assert [hole.tolist() for hole in only.holes] == [HOLE]


def collection(*features):
    return {'type': 'FeatureCollection', 'features': features}


def test_geojson_kinds_and_names(tmp_path):
    far = [[x + 100, y] for x, y in SQUARE]
    found = read(
        tmp_path,
        b'\xef\xbb\xbf'
        + json.dumps(
            collection(
                feature([[SQUARE, HOLE], [far]], 'MultiPolygon', name='own'),
                feature([SQUARE], classification={'names': ['Tumor', 'Positive']}),
                feature([SQUARE], classification=None),
                feature([1, 2], 'Point'),
                feature([[1, 2], [3, 4]], 'LineString'),
                {'type': 'Feature', 'geometry': None, 'properties': None},
            )
        ).encode(),
    )
    assert [each.name for each in found.regions] == ['own', 'own', 'Tumor: Positive', 'unnamed']
    assert [len(each.holes) for each in found.regions] == [1, 0, 0, 0]
    assert found.passed_over == {'Point': 1, 'LineString': 1, 'features without geometry': 1}


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ('', 'neither XML nor JSON'),
        ('{"shapes": []}', 'neither GeoJSON features nor polygons'),
        ('3', 'neither GeoJSON features nor polygons'),
        ('<ASAP_Annotations><Annot', 'broken XML'),
        ('<svg/>', r'XML of <svg>, expected <ASAP_Annotations>'),
        (asap(head='<!DOCTYPE x [<!ENTITY a "aa"><!ENTITY b "&a;&a;">]>'), 'DOCTYPE'),
        (asap(('t', 'g', 'Polygon', [*SQUARE, ('1.234,5', '3')])), r"annotation 0 \('t'\)"),
        (asap(('t', 'g', 'Polygon', [*SQUARE, ('nan', '3')])), 'not finite'),
        (asap(('t', 'g', 'Polygon', SQUARE)).replace('X="0"', ''), 'without X or Y'),
        (collection(feature([[*SQUARE, [1, 'x']]])), r"feature 0 \('unnamed'\): a vertex is not"),
        (collection(feature([[*SQUARE, [1]]])), 'a vertex is not a pair'),
        (collection(feature([[*SQUARE, [1, float('inf')]]])), 'not finite'),
        (collection(feature(None)), 'feature 0'),
        (collection({'type': 'Feature', 'geometry': {'type': 'Polygon'}}), 'no coordinates'),
        ({'positive': [{'name': 'a'}]}, 'positive polygon 0: no vertices'),
    ],
)
def test_what_is_wrong_is_said_with_file_and_annotation(tmp_path, content, message):
    with pytest.raises(AnnotationError, match=message) as error:
        read(tmp_path, content)
    assert 'slide.txt' in str(error.value)


def test_outlines_without_area_are_passed_over(tmp_path):
    back = [*SQUARE[:2], SQUARE[0]]
    closed = [[*SQUARE, SQUARE[0]], back, [*HOLE, HOLE[0]]]
    found = read(tmp_path, collection(feature([back]), feature(closed), feature([[]])))
    (only,) = found.regions
    assert [hole.tolist() for hole in only.holes] == [HOLE]
    assert found.passed_over == {'outlines of fewer than 3 vertices': 3}


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(AnnotationError, match=r'none\.xml: cannot be read'):
        read_annotations(tmp_path / 'none.xml')


def test_outlines_that_cross_themselves_are_counted_and_filled(tmp_path):
    overshot = [[0, 0], [10, 0], [10, 10], [0, 10], [0, -0.1], [1, -0.1], [1, 0.1]]
    found = read(
        tmp_path, {'positive': [{'vertices': overshot}], 'negative': [{'vertices': SQUARE}]}
    )
    assert found.crossing == 1
    assert found.notes() == ('1 outlines cross themselves',)
    share = shares(found.regions[:1], np.array([[0.0, 0.0]]), (10, 10))
    assert share[0] == pytest.approx(1, abs=0.01)


def test_crossing_is_found_as_by_brute_force():
    rng = np.random.default_rng(0)

    def sign(a, b, c):
        return np.sign((b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0]))

    answers = []
    for count in rng.integers(3, 7, 300):
        ring = rng.integers(0, 8, (count, 2)).astype(float)
        edges = [(ring[i], ring[(i + 1) % count]) for i in range(count)]
        expected = any(
            sign(a, b, c) * sign(a, b, d) < 0 and sign(c, d, a) * sign(c, d, b) < 0
            for (a, b), (c, d) in itertools.combinations(edges, 2)
        )
        assert crosses_itself(ring) == expected
        answers.append(expected)
    assert 50 < sum(answers) < 250


def test_areas_of_rectangles_are_exact():
    # x as one likes; y at multiples of 1/32 of the patch
    only = region([[3.3, 4], [27.7, 4], [27.7, 20], [3.3, 20]])
    grid = np.array([[x, y] for y in (0.0, 16.0) for x in (0.0, 16.0)])
    expected = [12.7 * 12, 11.7 * 12, 12.7 * 4, 11.7 * 4]
    np.testing.assert_allclose(shares([only], grid, (16, 16)) * 256, expected, rtol=1e-12)
    assert shares([], grid, (16, 16)).tolist() == [0] * 4
    anywhere = region([[3.3, 4.2], [27.7, 4.2], [27.7, 19.9], [3.3, 19.9]])
    error = shares([anywhere], grid[:2], (16, 16)) - np.array([12.7, 11.7]) * 11.8 / 256
    assert np.abs(error).max() <= 1 / 64


def test_areas_of_triangles_are_exact_and_winding_does_not_matter():
    triangle = [[0, 0], [32, 0], [0, 32]]
    grid = np.array([[x, y] for y in (0.0, 16.0) for x in (0.0, 16.0)])
    for points in (triangle, triangle[::-1]):
        found = shares([region(points)], grid, (16, 16))
        np.testing.assert_allclose(found, [1, 0.5, 0.5, 0], atol=1e-12)


def test_areas_of_random_polygons_are_those_of_sampled_points():
    rng = np.random.default_rng(1)
    angle = np.sort(rng.uniform(0, 2 * np.pi, 200))
    radius = 300 * (1 + 0.3 * np.sin(5 * angle))
    outer = np.stack([400 + radius * np.cos(angle), 400 + radius * np.sin(angle)], axis=1)
    hole = 400 + (outer - 400) * 0.4
    positions = rng.uniform(0, 750, (500, 2))
    found = shares([region(outer, holes=[hole])], positions, (40, 30))
    offsets = np.stack(
        np.meshgrid((np.arange(64) + 0.5) / 64 * 40, (np.arange(64) + 0.5) / 64 * 30)
    )
    points = (positions[:, None] + offsets.reshape(2, -1).T).reshape(-1, 2)
    outer_path, hole_path = matplotlib.path.Path(outer), matplotlib.path.Path(hole)
    covered = outer_path.contains_points(points) & ~hole_path.contains_points(points)
    expected = covered.reshape(500, -1).mean(axis=1)
    assert np.abs(found - expected).max() < 0.01
    assert 0.1 < found.mean() < 0.9

    centres = inside([region(outer, holes=[hole])], points[:20000])
    assert (centres == covered[:20000]).all()


def test_overlap_counts_once_and_curls_are_filled():
    left, right = (
        region([[0, 0], [8, 0], [8, 8], [0, 8]]),
        region([[4, 0], [12, 0], [12, 8], [4, 8]]),
    )
    here = np.array([[0.0, 0.0]])
    assert shares([left, right], here, (16, 8))[0] == 0.75
    turn = np.arange(5) * 4 * np.pi / 5
    star = region(np.stack([10 * np.sin(turn), 10 * np.cos(turn)], axis=1))
    assert inside([star], np.zeros((1, 2))).all()  # its middle is wound around twice
    assert shares([star], np.array([[-1.0, -1.0]]), (2, 2))[0] == 1


def labels(regions, positions, **settings):
    asked = {'classes': ('a', 'b'), **settings}
    return label_positions(regions, np.array(positions, float), (8, 8), **asked).tolist()


def test_labels_by_share_and_by_centre():
    a, b = (
        region([[0, 0], [12, 0], [12, 8], [0, 8]]),
        region([[12, 0], [32, 0], [32, 8], [12, 8]], 'b'),
    )
    row = [[0, 0], [8, 0], [16, 0], [28, 0], [29, 0], [40, 0]]
    assert labels([a, b], row) == [0, 0, 1, 1, -1, -1]  # half covered is covered; of equals, a
    assert labels([a, b], row, classes=('b', 'a')) == [1, 0, 0, 0, -1, -1]
    assert labels([a, b], row, threshold=0.51) == [0, -1, 1, -1, -1, -1]
    assert labels([a, b], row, classes=('a', 'b', 'n'), background='n') == [0, 0, 1, 1, -1, 2]
    assert labels([a, b], row, classes=('a', 'n'), background='n') == [0, 0, -1, -1, -1, 1]
    assert labels([a, b], row, rule='centre') == [0, 1, 1, -1, -1, -1]
    assert labels([a, b], row, rule='centre', classes=('a', 'b', 'n'), background='n') == [
        0, 1, 1, 2, 2, 2,
    ]  # fmt: skip
    assert labels([], row) == [-1] * 6
    assert labels([], row, classes=('n',), background='n') == [0] * 6
    assert labels([a], np.zeros((0, 2))) == []


def test_the_greatest_share_wins_and_holes_are_empty():
    a = region([[0, 0], [8, 0], [8, 8], [0, 8]], holes=[[[0, 0], [8, 0], [8, 5], [0, 5]]])
    b = region([[0, 0], [8, 0], [8, 5], [0, 5]], 'b')
    assert labels([a, b], [[0, 0]]) == [1]
    assert labels([a, b], [[0, 3]], threshold=0.25) == [0]  # 3 of 8 rows are a's, 2 b's
    assert labels([a], [[0, 0]]) == [-1]


@pytest.mark.parametrize(
    ('wrong', 'message'),
    [
        ({'rule': 'most'}, 'rule='),
        ({'threshold': 0}, 'threshold='),
        ({'background': 'n'}, 'one of'),
    ],
)
def test_settings_of_labels_are_checked(wrong, message):
    with pytest.raises(ValueError, match=message):
        labels([], [[0, 0]], **wrong)


def test_a_hundred_thousand_patches_and_ten_thousand_vertices():
    angle = np.linspace(0, 2 * np.pi, 10_000, endpoint=False)
    radius = 30_000 * (1 + 0.1 * np.sin(7 * angle))
    outer = np.stack([40_000 + radius * np.cos(angle), 40_000 + radius * np.sin(angle)], axis=1)
    side = np.arange(316) * 256.0
    positions = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
    found = shares([region(outer)], positions, (256, 256))
    x, y = outer.T
    area = 0.5 * np.abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))
    assert found.sum() * 256**2 == pytest.approx(area, rel=1e-6)
