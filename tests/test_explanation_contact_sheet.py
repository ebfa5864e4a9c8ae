"""Top patches lie apart, and the sheet shows the pixels that the encoder saw."""

import itertools

import numpy as np
import pytest
import slide_files
from PIL import Image

from nic_jax.compression import settings
from nic_jax.explanation import top_patches, write_contact_sheet
from nic_jax.slides import open_slide, stream, tiling


def overlapping(stride=32.0, patch=128.0):
    return {'stride_level0': [stride, stride], 'patch_level0': [patch, patch]}


def grid_of(slide, *, mpp, patch_size, stride):
    """The plan of a slide's grid, and the attributes as compression writes them."""
    plan = tiling.plan_grid(
        slide.levels, bounds=slide.bounds, mpp_level0=slide.mpp, mpp=mpp,
        patch_size=patch_size, stride=stride,
    )  # fmt: skip
    asked = {'slide_id': slide.path.stem, 'mpp_target': mpp, 'mpp_tolerance': 0.05}
    asked |= {'patch_size': patch_size, 'stride': stride, 'edges': 'floor'}
    asked |= {'allow_upsampling': False, 'mpp_default': None}
    return plan, settings.attributes(asked, slide, plan)


def patches_of(picture, pixels):
    """Where a patch's pixels stand in a picture: (row, column) of its corner."""
    windows = np.lib.stride_tricks.sliding_window_view(picture[..., 0], pixels.shape[:2])
    line = np.argwhere((windows[:, :, 0] == pixels[0, :, 0]).all(axis=-1))
    return [
        (top, left)
        for top, left in line.tolist()
        if (picture[top : top + len(pixels), left : left + pixels.shape[1]] == pixels).all()
    ]


@pytest.mark.parametrize(('stride', 'patch'), [(128, 128), (32, 128), (40, 128), (200, 128)])
def test_patches_do_not_overlap_and_none_is_passed_over(stride, patch):
    saliency = np.random.default_rng(stride).normal(size=(20, 30))
    saliency[:, ::7] = np.nan
    cells = top_patches(saliency, 1000, attributes=overlapping(float(stride), float(patch)))
    near = lambda one, other: all(  # noqa: E731
        abs(a - b) * stride < patch for a, b in zip(one, other, strict=True)
    )
    assert not any(near(*pair) for pair in itertools.combinations(cells, 2))
    values = [saliency[cell] for cell in cells]
    assert values == sorted(values, reverse=True)
    assert min(values) > 0
    for cell in map(tuple, np.argwhere(saliency > 0).tolist()):
        chosen = [other for other in cells if near(cell, other)]
        assert chosen  # itself, or one at least as strong
        assert max(saliency[other] for other in chosen) >= saliency[cell]
    assert cells[:5] == top_patches(
        saliency, 5, attributes=overlapping(float(stride), float(patch))
    )


def test_patches_that_only_touch_are_apart_whatever_the_rounding():
    saliency = np.ones((1, 9))
    exact = overlapping(128 / 3, 128.0)  # three strides are a patch, but for rounding
    assert top_patches(saliency, 9, attributes=exact) == [(0, 0), (0, 3), (0, 6)]
    assert top_patches(saliency, 9, attributes=exact, apart=2) == [(0, 0), (0, 6)]
    assert len(top_patches(saliency, 9, attributes=exact, apart=0)) == 9
    with pytest.raises(ValueError, match='apart=-1'):
        top_patches(saliency, 9, attributes=exact, apart=-1)


def test_nothing_positive_gives_no_patches(tmp_path):
    for saliency in (np.full((3, 3), np.nan), -np.ones((3, 3)), np.ones((0, 3))):
        assert top_patches(saliency, 3, attributes=overlapping()) == []


def test_the_sheet_shows_the_real_pixels(shared, tmp_path):
    with open_slide(shared / 'data/slides/cmu-1-small-region.svs') as slide:
        plan, attributes = grid_of(slide, mpp=0.5, patch_size=128, stride=64)
        saliency = np.zeros(plan.shape, np.float32)
        cells = [(20, 11), (30, 14), (6, 12)]
        for rank, cell in enumerate(cells):
            saliency[cell] = 1 - 0.1 * rank
        assert top_patches(saliency, 3, attributes=attributes) == cells
        write_contact_sheet(
            tmp_path / 'p.png', slide, cells, saliency=saliency, attributes=attributes, columns=2,
            title='grad_cam of é, µ',
        )  # fmt: skip
        real = [slide.read(0, 64 * column, 64 * row, 128, 128) for row, column in cells]
    picture = np.asarray(Image.open(tmp_path / 'p.png'))
    places = [patches_of(picture, each.repeat(2, axis=0).repeat(2, axis=1)) for each in real]
    assert [len(each) for each in places] == [1, 1, 1]
    (first,), (second,), (third,) = places
    assert first[0] == second[0] < third[0]  # two a line
    assert first[1] == third[1] < second[1]
    assert second[1] >= first[1] + 256
    below = picture[first[0] + 256 : third[0], first[1] : first[1] + 256]
    assert (below < 128).any()  # rank, saliency and place


def test_resampled_grids_show_resampled_patches(tmp_path):
    path = slide_files.write_pyramid(
        tmp_path / 's.tif', slide_files.tissue_image(512, 640), levels=2, mpp=0.25
    )
    with open_slide(path) as slide:
        plan, attributes = grid_of(slide, mpp=0.4, patch_size=48, stride=48)
        assert plan.resampled
        saliency = np.ones(plan.shape, np.float32)
        write_contact_sheet(
            tmp_path / 'p.png', slide, [(2, 3)], saliency=saliency, attributes=attributes
        )
        (patch,) = stream.read_cells(slide, plan, np.array([(2, 3)]))
    picture = np.asarray(Image.open(tmp_path / 'p.png'))
    assert len(patches_of(picture, patch.repeat(4, axis=0).repeat(4, axis=1))) == 1


def test_another_slide_is_refused_and_no_cells_are_said(tmp_path):
    for name, height in (('one', 256), ('other', 320)):
        slide_files.write_pyramid(
            tmp_path / f'{name}.tif', slide_files.tissue_image(height, 256), levels=1
        )
    with open_slide(tmp_path / 'one.tif') as one, open_slide(tmp_path / 'other.tif') as other:
        plan, attributes = grid_of(one, mpp=0.5, patch_size=64, stride=64)
        saliency = np.full(plan.shape, np.nan)
        given = {'saliency': saliency, 'attributes': attributes}
        write_contact_sheet(tmp_path / 'none.png', one, [], **given)
        assert (np.asarray(Image.open(tmp_path / 'none.png')) < 128).any()
        with pytest.raises(ValueError, match=r'other\.tif: dimensions \[256, 320\]'):
            write_contact_sheet(tmp_path / 'p.png', other, [(0, 0)], **given)
    assert not (tmp_path / 'p.png').exists()
