"""Maps on disk: what xarray and zarr read, what is refused, and where cells lie."""

import numpy as np
import pytest
import xarray
import zarr
from small_grids import write_grid

import nic_jax.grids
from nic_jax.explanation import cell_edges, open_saliency, write_saliency
from nic_jax.explanation import stored as stored_module
from nic_jax.explanation.georeference import of_image

ATTRIBUTES = {
    'schema_version': 1,
    'slide_id': 'folder/😐',
    'level0_dimensions': [1000, 700],
    'mpp_level0': 0.25,
    'origin_level0': [10.5, 20.0],
    'stride_level0': [128.25, 128.25],
    'patch_level0': [256.5, 256.5],
    'patch_size': 128,
    'stride': 64,
    'encoder': {'name': 'mean_rgb'},
    'complete': True,
}
DETAILS = {'target': 'tumour', 'folds': [0, 2], 'score': 0.75, 'label': None}


def maps(seed=0, shape=(4, 6)):
    rng = np.random.default_rng(seed)
    found = {name: rng.normal(size=shape).astype(np.float32) for name in ('grad_cam', 'occlusion')}
    for each in found.values():
        each[1, 2:4] = np.nan
    return found


def write(path, found=None, **changes):
    found = maps() if found is None else found
    write_saliency(path, found, **({'attributes': ATTRIBUTES, 'details': DETAILS} | changes))
    return found


def test_maps_come_back_with_their_georeference_and_details(tmp_path):
    written = write(tmp_path / 'saliency.zarr')
    found, attributes = open_saliency(tmp_path / 'saliency.zarr')
    assert list(found) == ['grad_cam', 'occlusion']
    for name, saliency in found.items():
        assert saliency.dtype == np.float32
        np.testing.assert_array_equal(saliency, written[name])
    assert attributes['details'] == DETAILS
    for key in ('slide_id', 'mpp_level0', 'origin_level0', 'stride_level0', 'patch_level0'):
        assert attributes[key] == ATTRIBUTES[key]
    assert 'encoder' not in attributes
    assert cell_edges((4, 6), attributes)[0].tolist() == cell_edges((4, 6), ATTRIBUTES)[0].tolist()


def test_xarray_and_zarr_read_them_alone(tmp_path):
    written = write(tmp_path / 'saliency.zarr')
    data = xarray.open_zarr(tmp_path / 'saliency.zarr', consolidated=False)
    assert data['grad_cam'].dims == ('y', 'x')
    np.testing.assert_array_equal(data['grad_cam'].values, written['grad_cam'])
    assert data.attrs['slide_id'] == 'folder/😐'
    group = zarr.open_group(tmp_path / 'saliency.zarr', mode='r')
    assert sorted(group.array_keys()) == ['grad_cam', 'occlusion']
    np.testing.assert_array_equal(group['occlusion'][:], written['occlusion'])
    assert np.isnan(group['occlusion'].fill_value)


def test_what_was_there_is_replaced_whole(tmp_path):
    path = tmp_path / 'saliency.zarr'
    write(path)
    open_saliency(path)
    again = {'attention': maps(1, (3, 3))['grad_cam'], 'grad_cam': maps(2, (3, 3))['grad_cam']}
    write(path, again)
    found, _ = open_saliency(path)
    assert list(found) == ['attention', 'grad_cam']
    np.testing.assert_array_equal(found['grad_cam'], again['grad_cam'])
    assert sorted(each.name for each in path.iterdir()) == ['attention', 'grad_cam', 'zarr.json']
    assert [each.name for each in tmp_path.iterdir() if not each.name.startswith('.')] == [
        path.name
    ]


def test_an_interrupted_writing_is_refused(tmp_path, monkeypatch):
    path, create = tmp_path / 'saliency.zarr', stored_module.arrays.create
    write(path)

    def stop_at_the_second(where, **options):
        if where.name == 'occlusion':
            raise KeyboardInterrupt
        return create(where, **options)

    monkeypatch.setattr(stored_module.arrays, 'create', stop_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        write(path, maps(1))
    with pytest.raises(ValueError, match=r'saliency\.zarr is not complete; run the explain stage'):
        open_saliency(path)
    monkeypatch.undo()
    written = write(path, maps(3))
    np.testing.assert_array_equal(open_saliency(path)[0]['occlusion'], written['occlusion'])


def test_grids_and_maps_are_not_taken_for_each_other(tmp_path):
    grid = write_grid(tmp_path / 'slide.zarr', np.ones((1, 2, 2, 3), np.float32))
    write(tmp_path / 'saliency.zarr')
    for path in (grid.path, tmp_path / 'nothing.zarr'):
        with pytest.raises(ValueError, match='holds no maps of saliency'):
            open_saliency(path)
    with pytest.raises(nic_jax.grids.GridError):
        nic_jax.grids.open(tmp_path / 'saliency.zarr')


@pytest.mark.parametrize('name', ['../away', 'zarr.json', '', 'a/b', '.hidden'])
def test_names_that_leave_the_folder_are_refused(tmp_path, name):
    with pytest.raises(ValueError, match='cannot name a method'):
        write(tmp_path / 'saliency.zarr', {name: np.zeros((2, 2), np.float32)})
    assert list(tmp_path.iterdir()) == []


def test_maps_of_different_shapes_are_refused(tmp_path):
    one = np.zeros((2, 2), np.float32)
    for found in ({}, {'grad_cam': one, 'occlusion': one[:1]}, {'grad_cam': one[0]}):
        with pytest.raises(ValueError, match='one shape'):
            write(tmp_path / 'saliency.zarr', found)


def test_a_grid_without_cells(tmp_path):
    write(tmp_path / 'saliency.zarr', {'grad_cam': np.zeros((0, 3), np.float32)})
    assert open_saliency(tmp_path / 'saliency.zarr')[0]['grad_cam'].shape == (0, 3)


def test_cells_are_squares_of_the_stride_in_the_middle_of_their_patch():
    x, y = cell_edges((2, 3), ATTRIBUTES)
    np.testing.assert_allclose(x, 10.5 + 64.125 + 128.25 * np.arange(4))
    np.testing.assert_allclose(y, 20 + 64.125 + 128.25 * np.arange(3))
    patch = np.array(ATTRIBUTES['origin_level0']) + 128.25 * np.array([2, 1]) + 256.5 / 2
    np.testing.assert_allclose([(x[2] + x[3]) / 2, (y[1] + y[2]) / 2], patch)


def test_cells_end_at_the_slide():
    spread = ATTRIBUTES | {'origin_level0': [0.0, 0.0], 'stride_level0': [400.0, 300.0]}
    x, y = cell_edges((3, 3), spread)  # patches that do not touch: the first cell begins outside
    assert x.tolist() == [0, 328.25, 728.25, 1000]
    assert y.tolist() == [0, 278.25, 578.25, 700]
    x, _ = cell_edges((3, 3), spread, clip=False)
    assert x.tolist() == [-71.75, 328.25, 728.25, 1128.25]


def test_an_image_without_slide():
    attributes = of_image('image', (90, 45), patch_size=9, stride=9)
    x, y = cell_edges((5, 10), attributes)
    assert (x[-1], y[-1]) == (90, 45)
