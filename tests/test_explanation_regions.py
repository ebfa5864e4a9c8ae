"""Regions as QuPath reads them: the cells of the mask exactly, as valid polygons."""

import json

import numpy as np
import pytest
import slide_files
from scipy import ndimage

from nic_jax.explanation import regions, write_regions
from nic_jax.explanation.georeference import of_image
from nic_jax.explanation.regions import outlines
from nic_jax.patches.annotations import read_annotations
from nic_jax.patches.coverage import inside, shares
from nic_jax.slides import open_slide, tiling

CELL = 32
MASKS = {
    'corners that touch': ['1.', '.1'],
    'a hole': ['111', '1.1', '111'],
    'a hole that touches the outside': ['111', '1.1', '11.'],
    'holes that touch': ['11111', '1.111', '11.11', '11111'],
    'an island in a hole': ['11111', '1...1', '1.1.1', '1...1', '11111'],
    'an island that touches the rim': ['1111', '1..1', '1.1.', '111.', '...1'],
    'a chequerboard': ['1.1.1', '.1.1.', '1.1.1'],
    'a way round a corner': ['.11', '1.1', '111'],
    'all': ['11', '11'],
}


def as_mask(lines):
    return np.array([[each == '1' for each in line] for line in lines])


def georeferenced(shape, cell=CELL):
    height, width = shape
    return of_image('image', (width * cell, height * cell), patch_size=cell, stride=cell)


def area(ring):
    (x0, y0), (x1, y1) = ring.T, np.roll(ring, -1, axis=0).T
    return (x0 * y1 - x1 * y0).sum() / 2


def read_back(tmp_path, found):
    path = tmp_path / 'regions.geojson'
    path.write_text(json.dumps(found, allow_nan=False))
    return read_annotations(path)


def check(tmp_path, mask, found, origin=(0.0, 0.0), cell=CELL):
    """The polygons are valid, and cover the cells of the mask and nothing else."""
    drawn = read_back(tmp_path, found)
    assert drawn.crossing == 0
    assert not drawn.passed_over
    assert len(drawn.regions) == ndimage.label(mask)[1]
    for region in drawn.regions:
        assert area(region.outer) > 0
        for ring in (region.outer, *region.holes):
            assert len(np.unique(ring, axis=0)) == len(ring)  # comes to no corner twice
            sides = np.diff(np.vstack([ring, ring[:1]]), axis=0) != 0
            assert (sides.sum(axis=1) == 1).all()
            assert (sides[:, 0] != np.roll(sides[:, 0], 1)).all()  # no vertex without a bend
        assert all(area(hole) < 0 for hole in region.holes)
    total = sum(area(ring) for region in drawn.regions for ring in (region.outer, *region.holes))
    assert total == mask.sum() * cell**2
    row, column = np.indices(mask.shape).reshape(2, -1)
    corners = np.stack([column, row], axis=1) * float(cell) + origin
    np.testing.assert_array_equal(shares(drawn.regions, corners, (cell, cell)), mask.ravel())
    np.testing.assert_array_equal(inside(drawn.regions, corners + cell / 2), mask.ravel())
    return drawn


@pytest.mark.parametrize('name', MASKS)
def test_awkward_masks_become_valid_polygons(tmp_path, name):
    mask = as_mask(MASKS[name])
    found = regions(mask.astype(np.float32), attributes=georeferenced(mask.shape), quantiles=(0.0,))
    check(tmp_path, mask, found)


def test_holes_are_the_regions_own(tmp_path):
    mask = as_mask(MASKS['a hole that touches the outside'])
    found = regions(mask * 1.0, attributes=georeferenced(mask.shape), quantiles=(0.0,))
    (region,) = read_back(tmp_path, found).regions
    assert (len(region.outer), [len(hole) for hole in region.holes]) == (6, [4])
    (outer, hole) = outlines(mask.astype(int))
    assert (outer.hole, hole.hole) == (False, True)
    assert sorted(map(tuple, hole.corners.tolist())) == [(1, 1), (1, 2), (2, 1), (2, 2)]


@pytest.mark.parametrize('density', [0.3, 0.5, 0.6, 0.8])
def test_random_masks_come_back_cell_by_cell(tmp_path, density):
    mask = np.random.default_rng(int(100 * density)).random((40, 31)) < density
    found = regions(mask * 1.0, attributes=georeferenced(mask.shape), quantiles=(0.0,))
    drawn = check(tmp_path, mask, found)
    # Each polygon is one region of cells that share edges.
    labels, count = ndimage.label(mask)
    row, column = np.nonzero(mask)
    points = np.stack([column, row], axis=1) * float(CELL) + CELL / 2
    seen = [np.unique(labels[mask][inside([each], points)]).tolist() for each in drawn.regions]
    assert sorted(seen) == [[number] for number in range(1, count + 1)]


def test_quantiles_are_of_the_positive_values(tmp_path):
    rng = np.random.default_rng(0)
    saliency = rng.normal(size=(30, 20)).astype(np.float32)
    saliency[rng.random(saliency.shape) < 0.3] = np.nan
    attributes = georeferenced(saliency.shape) | {'mpp_level0': 0.5}
    write_regions(
        tmp_path / 'map.geojson', saliency, attributes=attributes, method='grad_cam',
        quantiles=(0.97, 0.5),
    )  # fmt: skip
    found = json.loads((tmp_path / 'map.geojson').read_text())
    known = np.nan_to_num(saliency.astype(np.float64))
    for quantile, name in ((0.5, 'grad_cam top 50 %'), (0.97, 'grad_cam top 3 %')):
        mask = known >= np.quantile(known[known > 0], quantile)
        chosen = [each for each in found['features']
                  if each['properties']['classification']['name'] == name]  # fmt: skip
        check(tmp_path, mask, {'type': 'FeatureCollection', 'features': chosen})
        labels, count = ndimage.label(mask)
        assert len(chosen) == count
        colours = {tuple(each['properties']['classification']['color']) for each in chosen}
        assert len(colours) == 1
        for number, each in enumerate(chosen, 1):
            assert each['properties']['objectType'] == 'annotation'
            values = known[labels == number]
            measured = each['properties']['measurements']
            assert measured['Cells'] == len(values)
            assert measured['Saliency mean'] == pytest.approx(values.mean())
            assert measured['Saliency max'] == values.max()
            assert measured['Area mm^2'] == pytest.approx(len(values) * (CELL * 0.5e-3) ** 2)
    assert len({tuple(each['properties']['classification']['color'])
                for each in found['features']}) == 2  # fmt: skip


def slide_map(path, *, edges='floor', stride=CELL):
    """An opened slide, its plan and the attributes that its grid would have."""
    slide = open_slide(path)
    plan = tiling.plan_grid(
        slide.levels, bounds=slide.bounds, mpp_level0=slide.mpp, mpp=slide.mpp,
        patch_size=CELL, stride=stride, edges=edges,
    )  # fmt: skip
    return slide, plan, {
        'level0_dimensions': list(slide.dimensions),
        'mpp_level0': slide.mpp,
        'origin_level0': [float(each) for each in plan.origin_level0],
        'stride_level0': [float(each) for each in plan.stride_level0],
        'patch_level0': [float(each) for each in plan.patch_level0],
    }  # fmt: skip


def test_qupath_counts_from_the_slides_bounds(tmp_path):
    image = slide_files.tissue_image(320, 256)
    path = slide_files.write_leica(tmp_path / 's.scn', image, offset=(640, 320), canvas=(1600, 960))
    slide, plan, attributes = slide_map(path)
    with slide:
        corner = slide.bounds[:2]
    assert corner == (640, 320)
    mask = np.zeros(plan.shape, bool)
    mask[2:5, 3] = mask[4, 4] = True
    for given in (corner, None):
        found = regions(mask * 1.0, attributes=attributes, quantiles=(0.0,), corner=given)
        drawn = check(tmp_path, mask, found)  # cell (0, 0) at (0, 0)
        assert drawn.from_bounds
    # As the product reads such a file for training: on level 0 the cells are where they were.
    moved = [region.moved(corner) for region in drawn.regions]
    cells = np.argwhere(mask)
    places = np.array([[float(each) for each in plan.position(*cell)] for cell in cells])
    assert shares(moved, places, (CELL, CELL)).tolist() == [1.0] * len(cells)
    in_level0 = regions(mask * 1.0, attributes=attributes, quantiles=(0.0,), corner=(0, 0))
    check(tmp_path, mask, in_level0, origin=corner)


def test_regions_end_at_the_slide(tmp_path):
    path = slide_files.write_pyramid(
        tmp_path / 's.tif', slide_files.tissue_image(80, 112), levels=1
    )
    slide, plan, attributes = slide_map(path, edges='pad')
    slide.close()
    assert plan.shape == (3, 4)
    found = regions(np.ones((3, 4)), attributes=attributes, quantiles=(0.0,))
    (region,) = read_back(tmp_path, found).regions
    assert area(region.outer) == 80 * 112
    measured = found['features'][0]['properties']['measurements']
    assert measured['Area mm^2'] == pytest.approx(80 * 112 * (0.5e-3) ** 2)


def test_maps_without_anything_positive_and_bad_quantiles(tmp_path):
    for saliency in (np.full((3, 3), np.nan), -np.ones((3, 3)), np.zeros((0, 3))):
        write_regions(tmp_path / 'map.geojson', saliency, attributes=georeferenced((3, 3)))
        assert read_annotations(tmp_path / 'map.geojson').regions == ()
    with pytest.raises(ValueError, match=r'1\.0 must be in'):
        regions(np.ones((3, 3)), attributes=georeferenced((3, 3)), quantiles=(1.0,))
