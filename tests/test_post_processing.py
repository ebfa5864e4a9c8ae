import dataclasses
import os
import tarfile

import numpy as np
import pytest
from scipy import ndimage

from nic_jax.evaluation import post_processing
from nic_jax.evaluation.post_processing import GRID, PostProcessing, apply, choose, smooth
from nic_jax.patches.annotations import read_annotations
from nic_jax.patches.coverage import inside
from nic_jax.synthetic import digits, rectangles

NAN = np.nan


def jaccard(predicted, mask):
    return (predicted & mask).sum() / (predicted | mask).sum()


@pytest.fixture(scope='module')
def images():
    """Noisy maps of the synthetic study's own rectangles, 40×40 cells, and their masks."""
    study = rectangles.RectangleStudy(size=360, fill=0.012, lesion_min=54, lesion_max=180)
    known = digits.load_digits('sklearn', subset='train')
    rng = np.random.default_rng(0)
    drawn = [rectangles.draw(study, known, seed=1, index=index).mask for index in range(6)]
    maps = [(rng.normal(0, 0.7, mask.shape) + mask).astype(np.float32) for mask in drawn]
    for saliency in maps[3:]:
        saliency[:, :7] = NAN
    return maps, drawn


def test_what_is_encoded_alone_is_averaged():
    rng = np.random.default_rng(0)
    encoded = rng.random((30, 40)) < 0.6
    found = smooth(np.where(encoded, 3.0, NAN), sigma=2)
    np.testing.assert_allclose(found[encoded], 3)
    assert (found[~encoded] == 0).all()


def test_smoothing_is_a_gaussian_of_both_signs():
    single = np.zeros((31, 31), np.float32)
    single[15, 15] = 1
    expected = ndimage.gaussian_filter(single.astype(float), 1.5)
    np.testing.assert_allclose(smooth(single, sigma=1.5), expected, atol=1e-12)
    np.testing.assert_array_equal(smooth(single - 0.5, sigma=0), np.maximum(single - 0.5, 0))
    # A chessboard of evidence for and against says nothing.
    board = np.where(np.indices((31, 31)).sum(0) % 2, 1.0, -1.0)
    assert smooth(board, sigma=1.5)[5:-5, 5:-5].max() < 1e-3


def drawn(text):
    """'.' is 0, 'x' is not encoded, a digit is itself."""
    values = {'.': 0, 'x': NAN}
    return np.array([[values.get(c, c) for c in line.strip()] for line in text.split()], float)


MAP = drawn("""
    99999....1
    9...9....1
    9.x.9....1
    9...9.....
    99999....4
    .........4
    22.......4
""")


@pytest.mark.parametrize(
    ('threshold', 'min_share', 'fill', 'expected'),
    [
        (0.0, 0.0, False, MAP > 0),
        (0.3, 0.0, False, MAP > 2),
        (4 / 9, 0.0, False, MAP >= 4),  # the share itself is enough
        (0.0, 4 / 144, False, MAP > 1),  # sums: 144, 12, 4 and 3
        (0.0, 12 / 144, False, MAP > 2),
        (0.0, 1.0, False, MAP > 8),
    ],
)
def test_each_step_keeps_what_it_should(threshold, min_share, fill, expected):
    found = apply(MAP, PostProcessing(0, threshold, min_share, fill))
    np.testing.assert_array_equal(found, expected)


def test_holes_are_filled_but_for_what_is_not_encoded():
    found = apply(MAP, PostProcessing(0, 0.5, 1, fill=True))
    expected = np.zeros(MAP.shape, bool)
    expected[:5, :5] = True
    expected[2, 2] = False
    np.testing.assert_array_equal(found, expected)
    # A bay that is open to the border is no hole, nor one that is open over an edge.
    bay = MAP.copy()
    bay[0, 2] = 0
    np.testing.assert_array_equal(apply(bay, PostProcessing(0, 0.5, 1, fill=True)), bay > 8)


def test_parts_that_touch_at_a_corner_are_one():
    diagonal = drawn('1..... .1.... ..1... ...... 11....')
    found = apply(diagonal, PostProcessing(0, 0, 1, fill=False))
    np.testing.assert_array_equal(found, np.eye(5, 6, dtype=bool) & (diagonal > 0))


def test_the_unit_of_the_map_does_not_matter(images):
    saliency = images[0][3]
    found = apply(saliency, PostProcessing())
    assert 0 < found.sum() < found.size
    np.testing.assert_array_equal(apply(saliency * 2**-30, PostProcessing()), found)


@pytest.mark.parametrize('values', [NAN, 0, -1])
def test_where_nothing_is_positive_nothing_is_pointed_out(values):
    for sigma in (0, 1):
        found = apply(np.full((5, 6), values), PostProcessing(sigma, 0, 0))
        assert found.dtype == bool
        assert not found.any()


def test_the_best_settings_are_those_of_applying_all(images):
    maps, masks = images
    grid = GRID[::7]
    expected = [
        np.mean(
            [
                jaccard(apply(saliency, settings), mask & ~np.isnan(saliency))
                for saliency, mask in zip(maps, masks, strict=True)
            ]
        )
        for settings in grid
    ]
    settings, mean = choose(maps, masks, grid=grid)
    assert settings == grid[int(np.argmax(expected))]
    assert mean == pytest.approx(max(expected), rel=1e-12)
    best, of_all = choose(maps, masks)
    assert of_all >= mean
    plain = [jaccard(saliency > 0, mask) for saliency, mask in zip(maps, masks, strict=True)]
    assert best.sigma > 0
    assert of_all > np.mean(plain) + 0.3


def test_of_equal_settings_the_first_is_chosen():
    mask = MAP > 8
    equals = [PostProcessing(0, each, 0, fill=False) for each in (0.1, 0.9, 0.6, 0.7)]
    assert choose([MAP], [mask], grid=equals) == (equals[1], 1.0)
    assert choose([MAP], [mask], grid=equals[::-1]) == (equals[3], 1.0)


def test_images_without_lesions_choose_nothing(images):
    maps, masks = images
    nothing = np.zeros(maps[0].shape, bool)
    some = GRID[100:130]
    assert choose([*maps, maps[0]], [*masks, nothing], grid=some) == choose(maps, masks, grid=some)
    with pytest.raises(ValueError, match='none of 1 masks has a cell'):
        choose(maps[:1], [nothing])
    with pytest.raises(ValueError, match='none of 1 masks'):  # nor where it is not encoded
        choose([np.where(masks[0], NAN, maps[0])], masks[:1])


def test_real_lesions_are_found_in_noise(shared, tmp_path):
    """CAMELYON16's own outlines on cells of 64 µm: chosen on two slides, applied to two others."""
    names = [f'Tumor_{number}.json' for number in ('110', '101', '104', '108')]
    with tarfile.open(shared / 'data/annotations/camelyon16_ncrf_jsons.tar.xz') as archive:
        for member in archive:
            if (name := os.path.basename(member.name)) in names:
                member.name = name
                archive.extract(member, tmp_path, filter='data')
    rng = np.random.default_rng(0)
    maps, masks = [], []
    for name in names:
        regions = [
            region
            for region in read_annotations(tmp_path / name).regions
            if region.name == 'positive'
        ]
        corners = np.concatenate([region.outer for region in regions])
        low, step = corners.min(0) - 3000, 64 / 0.243
        width, height = np.ceil((np.ptp(corners, axis=0) + 6000) / step).astype(int)
        x, y = (np.arange(count) + 0.5 for count in (width, height))
        centres = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2) * step + low
        masks.append(inside(regions, centres).reshape(height, width))
        maps.append(masks[-1] + rng.normal(0, 0.5, masks[-1].shape))
    assert all(mask.sum() > 20 for mask in masks)
    settings, _ = choose(maps[:2], masks[:2])
    for saliency, mask in zip(maps[2:], masks[2:], strict=True):
        found = jaccard(apply(saliency, settings), mask)
        assert found > 0.6
        assert found > jaccard(saliency > 0.5, mask) + 0.1


@pytest.mark.parametrize(
    ('name', 'value'), [('sigma', -1), ('sigma', NAN), ('threshold', 1.1), ('min_share', -0.1)]
)
def test_settings_out_of_range_are_refused(name, value):
    with pytest.raises(ValueError, match=f'{name}={value} must be'):
        dataclasses.replace(post_processing.PostProcessing(), **{name: value})
