import numpy as np
import PIL.Image
import pytest
import scipy.ndimage
import skimage.filters
import slide_files
import tifffile

from nic_jax.slides import open_slide, thumbnail
from nic_jax.slides.tissue import check_mask_aspect, otsu_threshold, read_mask, tissue_mask

# Of tumor_001aaf.tif, as (left, top, right, bottom) in its pixels (about 7.8 µm/px).
NODES = {
    'upper left': (820, 2490, 950, 2880),
    'upper right': (1480, 2460, 1590, 2680),
    'right': (1920, 3860, 2230, 4150),
    'middle': (1560, 4030, 1710, 4190),
    'left, at the edge': (120, 4060, 310, 4160),
}
NO_TISSUE = {
    'cross on the left': (330, 330, 630, 620),
    'cross on the right': (2560, 310, 2860, 600),
    'pen loop': (1920, 410, 2370, 690),
    'upper edge of the glass': (0, 0, 3072, 450),
    'left edge of the glass': (0, 4500, 200, 6900),
    'lower edge of the glass': (0, 6500, 3072, 7168),
    'stitching gaps': (300, 900, 2600, 1650),
    'dust on the mounting medium': (500, 5300, 2900, 6800),
    'hair at the right': (2600, 3380, 2780, 3680),
}


@pytest.fixture(scope='module', params=[8.0, 16.0, 32.0])
def camelyon(shared, request):
    """The mask at some µm/px, and the size of its pixels in those of the boxes above."""
    with open_slide(shared / 'data/slides/tumor_001aaf.tif', mpp=7.8) as slide:
        image, step = thumbnail(slide, mpp=request.param)
    return tissue_mask(image, mpp=7.8 * step), step


def share(mask, step, box):
    left, top, right, bottom = (round(edge / step) for edge in box)
    return mask[top:bottom, left:right].mean()


@pytest.mark.parametrize('name', NODES)
def test_lymph_nodes_are_wholly_in(camelyon, name):
    assert share(*camelyon, NODES[name]) == 1


@pytest.mark.parametrize('name', NO_TISSUE)
def test_everything_else_is_out(camelyon, name):
    assert share(*camelyon, NO_TISSUE[name]) == 0


def test_little_but_tissue_is_found(camelyon):
    mask, step = camelyon
    assert 0.06 < mask.mean() < 0.09
    # All of it in the section, with its fat.
    rows, columns = np.nonzero(mask)
    assert rows.min() * step > 1800
    assert rows.max() * step < 5150
    assert columns.max() * step < 2750


def test_a_skin_section(shared):
    with open_slide(shared / 'data/slides/cmu-1-small-region.svs') as slide:
        image, step = thumbnail(slide, mpp=4)
        mask = tissue_mask(image, mpp=step * slide.mpp)
    # Against the plain view: what is darker than glass in green, smoothed.
    dark = scipy.ndimage.gaussian_filter(image[..., 1].astype(float), 4) < 220
    dark = scipy.ndimage.binary_fill_holes(dark)
    assert (mask & dark).sum() / (mask | dark).sum() > 0.9
    assert not mask[:100, :80].any()


def test_one_class_of_pixels_is_not_cut_in_two():
    for colour in (255, 230, 128, 5):
        grey = np.random.default_rng(0).normal(colour, 3, (200, 200, 1)).repeat(3, axis=2)
        grey = np.clip(grey, 0, 255).astype(np.uint8)
        assert not tissue_mask(grey, mpp=8).any()
    tinted_glass = np.full((200, 200, 3), (240, 231, 238), np.uint8)
    assert not tissue_mask(tinted_glass, mpp=8).any()
    assert tissue_mask(slide_files.tissue_image(200, 200), mpp=8).all()
    pale = np.full((200, 200, 3), (238, 212, 226), np.uint8)  # eosin, thinly
    assert tissue_mask(pale, mpp=8).all()


def test_two_stains_without_background_are_both_tissue():
    image = np.full((200, 200, 3), (235, 205, 222), np.uint8)
    image[:, 100:] = (110, 50, 130)
    assert tissue_mask(image, mpp=8).all()


def test_specks_go_and_holes_are_filled_by_their_area():
    image = np.full((1000, 1000, 3), 245, np.uint8)
    stained = (180, 100, 160)
    image[100:600, 100:600] = stained
    image[200:220, 200:220] = 245  # 160 µm wide: filled
    image[300:400, 300:400] = 245  # 800 µm wide: kept
    image[800:815, 800:815] = stained  # 120 µm wide: dropped
    image[900:950, 200:250] = stained  # 400 µm wide: kept
    mask = tissue_mask(image, mpp=8)
    assert mask[195:225, 195:225].all()
    assert not mask[310:390, 310:390].any()
    assert not mask[780:850, 780:850].any()
    assert mask[902:948, 202:248].all()
    expected = 500 * 500 - 100 * 100 + 50 * 50
    assert mask.sum() == pytest.approx(expected, rel=0.03)


def test_ink_is_no_tissue():
    image = np.full((400, 400, 3), 240, np.uint8)
    image[50:150, 50:150] = (30, 20, 28)  # black
    image[50:150, 250:350] = (20, 120, 60)  # green
    image[250:350, 250:350] = (150, 90, 60)  # a brown stain, which is tissue
    mask = tissue_mask(image, mpp=8)
    assert not mask[:230].any()
    assert mask[252:348, 252:348].all()


def test_small_pictures_have_tissue_too():
    image = slide_files.tissue_image(60, 80, margin=15)
    mask = tissue_mask(image, mpp=0.5, smoothing_um=1)
    assert mask[18:42, 18:62].all()
    assert not mask[:8].any()


@pytest.mark.parametrize('seed', range(5))
def test_otsu_equals_scikit_image(seed):
    generator = np.random.default_rng(seed)
    values = np.concatenate([generator.normal(30, 8, 3000), generator.normal(90, 20, 1000)])
    values = np.clip(np.floor(values), 0, 255).astype(np.uint8)
    # scikit-image gives the last value of the lower part; ours lies between the two parts.
    assert np.floor(otsu_threshold(values)) - 1 == pytest.approx(
        skimage.filters.threshold_otsu(values), abs=1
    )


@pytest.mark.parametrize(
    ('image', 'mpp'),
    [
        (np.zeros((5, 5), np.uint8), 1),
        (np.zeros((5, 5, 3)), 1),
        (np.zeros((5, 5, 3), np.uint8), 0),
    ],
)
def test_what_is_no_overview_is_refused(image, mpp):
    with pytest.raises(ValueError, match=r'expected uint8|mpp=0'):
        tissue_mask(image, mpp=mpp)


def test_masks_of_the_users_in_several_kinds(tmp_path):
    mask = np.zeros((60, 100), bool)
    mask[10:40, 20:90] = True
    kinds = {
        'grey.png': PIL.Image.fromarray(mask.astype(np.uint8) * 7),
        'bits.png': PIL.Image.fromarray(mask),
        'colours.png': PIL.Image.fromarray(mask[..., None] * np.array([0, 0, 200], np.uint8)),
        'alpha.png': PIL.Image.fromarray(
            np.dstack([mask * np.uint8(9)] * 3 + [np.full(mask.shape, 255, np.uint8)])
        ),
        'palette.png': PIL.Image.fromarray(mask.astype(np.uint8) * 255).convert('P'),
        'plain.tif': PIL.Image.fromarray(mask.astype(np.uint8)),
    }
    for name, image in kinds.items():
        image.save(tmp_path / name)
        read = read_mask(tmp_path / name, dimensions=(10_000, 6_000))
        assert read.dtype == bool, name
        np.testing.assert_array_equal(read, mask, err_msg=name)


@pytest.mark.parametrize('as_subifds', [True, False])
def test_of_a_pyramid_the_smallest_large_level_is_read(tmp_path, as_subifds):
    mask = np.zeros((2400, 3200), np.uint8)
    mask[400:1600, 800:2400] = 255
    with tifffile.TiffWriter(tmp_path / 'mask.tif') as writer:
        for level in range(4):  # 3200, 1600, 800, 400 px
            options = {'subifds': 3} if as_subifds and level == 0 else {}
            writer.write(
                mask[:: 2**level, :: 2**level],
                tile=(256, 256),
                compression='zlib',
                subfiletype=1 if level else 0,
                metadata=None,
                **options,
            )
    read = read_mask(tmp_path / 'mask.tif', dimensions=(32_000, 24_000))
    np.testing.assert_array_equal(read, mask[::4, ::4] > 0)


def test_masks_that_cannot_be_are_named(tmp_path):
    with pytest.raises(ValueError, match=r'none\.png: no such mask'):
        read_mask(tmp_path / 'none.png', dimensions=(10, 10))
    for name in ('text.png', 'text.tif'):
        (tmp_path / name).write_text('not an image')
        with pytest.raises(ValueError, match=rf'{name}: cannot be read as a mask'):
            read_mask(tmp_path / name, dimensions=(10, 10))
    PIL.Image.fromarray(np.zeros((100, 120), np.uint8)).save(tmp_path / 'wide.png')
    with pytest.raises(ValueError, match=r'wide\.png.*120x100 px and the slide 1000x1000.*20%'):
        read_mask(tmp_path / 'wide.png', dimensions=(1000, 1000))


def test_aspect_within_two_per_cent_or_a_rounded_pixel():
    check_mask_aspect('mask.png', (1000, 1015), dimensions=(50_000, 50_000))
    check_mask_aspect('mask.png', (10, 11), dimensions=(1049, 1000))
    with pytest.raises(ValueError, match='aspect'):
        check_mask_aspect('mask.png', (1000, 1025), dimensions=(50_000, 50_000))
    with pytest.raises(ValueError, match='aspect'):
        check_mask_aspect('mask.png', (1025, 1000), dimensions=(50_000, 50_000))
