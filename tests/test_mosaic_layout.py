"""Layouts of mosaics: cells of tissue and lesion, without a file."""

import collections
import math

import numpy as np
import pytest
import scipy.ndimage
import scipy.stats

from nic_jax.synthetic.mosaic_layout import VALUES, MosaicStudy, draw_layout
from nic_jax.synthetic.mosaic_shapes import draw_mass, draw_scattered, grow

STUDY = MosaicStudy()
_T = np.linspace(0, 2 * np.pi, 60, endpoint=False)
CIRCLE = np.stack([np.cos(_T), np.sin(_T)], axis=1) / math.sqrt(math.pi)  # of area 1
BAR = np.array([(-3, -0.5), (3, -0.5), (3, 0.5), (-3, 0.5)]) / math.sqrt(6)  # 6:1, of area 1


def draw(label, index, *, subset='train', study=STUDY, outlines=(CIRCLE, BAR), seed=3):
    return draw_layout(study, label=label, subset=subset, index=index, seed=seed, outlines=outlines)


def pieces(cells):
    """How many pieces cells form that are joined by sides."""
    return scipy.ndimage.label(cells)[1]


@pytest.mark.parametrize('outlines', [(CIRCLE, BAR), ()], ids=['outlines', 'grown'])
def test_tissue_and_lesions_have_the_numbers_asked_for(outlines):
    study = MosaicStudy(lesion_min=1, lesion_max=300, arrangement_min=8, arrangement_max=150)
    for label, low, high in (('presence', 1, 300), ('arrangement', 8, 150)):
        for index in range(16):
            layout = draw(label, index, study=study, outlines=outlines)
            assert layout.tissue.shape == layout.lesion.shape == (40, 40)
            assert 560 <= layout.tissue.sum() <= 960  # .35 and .6 of 1,600
            assert pieces(layout.tissue) == 1
            assert not (layout.lesion & ~layout.tissue).any()
            assert layout.lesion_area == layout.lesion.sum()
            if layout.value == 'normal':
                assert layout.lesion_area == 0
                continue
            assert low <= layout.lesion_area <= high
            if layout.value == 'scattered':
                assert pieces(layout.lesion) == layout.lesion_area  # none beside another
            else:
                assert pieces(layout.lesion) == 1


@pytest.mark.parametrize('label', VALUES)
@pytest.mark.parametrize('subset', ['train', 'test'])
def test_classes_are_balanced_in_every_part(label, subset):
    layouts = [draw(label, index, subset=subset) for index in range(16)]
    counts = collections.Counter((layout.part, layout.value) for layout in layouts)
    parts = range(4) if subset == 'train' else [None]
    assert counts == {(part, value): 8 / len(parts) for part in parts for value in VALUES[label]}
    assert len({layout.slide_id for layout in layouts}) == 16


def test_mass_and_scattered_are_paired_in_number_and_part():
    areas = []
    for index in range(0, 16, 2):
        mass, scattered = (draw('arrangement', number) for number in (index, index + 1))
        assert (mass.value, scattered.value) == ('mass', 'scattered')
        assert mass.lesion_area == scattered.lesion_area
        assert mass.part == scattered.part
        areas.append(mass.lesion_area)
    assert len(set(areas)) > 5


def test_is_a_function_of_seed_label_subset_and_index_alone():
    few, many = MosaicStudy(train_slides=2, test_slides=2), MosaicStudy(train_slides=800)
    first = draw('presence', 7, study=few)
    again = draw('presence', 7, study=many)
    assert first.part == again.part
    np.testing.assert_array_equal(first.tissue, again.tissue)
    np.testing.assert_array_equal(first.lesion, again.lesion)
    others = [
        draw('presence', 9),
        draw('presence', 7, subset='test'),
        draw('presence', 7, seed=4),
        draw('arrangement', 7),
    ]
    for other in others:
        assert (other.tissue != first.tissue).any()


def test_numbers_are_log_uniform():
    # Small slides, for speed; numbers of all slides are drawn alike.
    study = MosaicStudy(cells=4, lesion_max=12, arrangement_max=12, tissue_min=0.8, tissue_max=0.9)
    areas = [
        draw('presence', index, study=study, outlines=()).lesion_area for index in range(1, 800, 2)
    ]
    # A whole number n stands for [n, n + 1), and [1, 13) is divided by logarithms.
    numbers = np.arange(1, 13)
    expected = np.log((numbers + 1) / numbers) / math.log(13) * len(areas)
    observed = [areas.count(number) for number in numbers]
    assert scipy.stats.chisquare(observed, expected).pvalue > 0.001  # of this seed, ever the same


def test_a_mass_has_the_shape_of_an_outline():
    tissue, rng = np.ones((40, 40), bool), np.random.default_rng(0)
    for outline, low, high in ((CIRCLE, 1, 1.3), (BAR, 4, 8)):
        for _ in range(5):
            cells = np.argwhere(draw_mass(tissue, 150, [outline], rng))
            spread = np.linalg.eigvalsh(np.cov(cells.T))
            assert low <= math.sqrt(spread[1] / spread[0]) < high  # long to short axis


def test_a_mass_stays_in_tissue_that_is_too_narrow_for_it():
    tissue = np.zeros((20, 20), bool)
    tissue[:, 8:10] = True
    lesion = draw_mass(tissue, 30, [CIRCLE], np.random.default_rng(0))
    assert lesion.sum() == 30
    assert not (lesion & ~tissue).any()
    assert pieces(lesion) == 1


def test_scattered_cells_touch_only_where_there_is_no_other_room():
    tissue = np.ones((4, 4), bool)
    lesion = draw_scattered(tissue, 12, np.random.default_rng(0))
    assert lesion.sum() == 12
    all_of_it = draw_scattered(tissue, 16, np.random.default_rng(0))
    assert all_of_it.all()


def test_grows_to_the_most_wished_neighbours():
    wish = np.array([[9.0, 1.0, 8.0], [5.0, 0.0, 7.0], [4.0, 3.0, 6.0]])
    allowed = np.ones((3, 3), bool)
    np.testing.assert_array_equal(
        grow(wish, allowed, 4), [[True, False, False], [True, False, False], [True, True, False]]
    )
    allowed[2, 0] = False  # around by the other way
    np.testing.assert_array_equal(
        grow(wish, allowed, 4), [[True, True, True], [True, False, False], [False, False, False]]
    )


@pytest.mark.parametrize(
    ('settings', 'named'),
    [
        ({'train_slides': 401}, 'train_slides=401'),
        ({'test_slides': 0}, 'test_slides=0'),
        ({'parts': 0}, 'parts=0'),
        ({'patch_size': 128}, 'patch_size=128'),
        ({'patch_size': 60}, 'patch_size=60'),
        ({'pitch': 100, 'patch_size': 68}, 'pitch=100'),
        ({'mpp': 0.0}, 'mpp=0.0'),
        ({'lesion_max': 561}, 'lesion_max=561.* 560'),
        ({'arrangement_min': 0}, 'arrangement_min=0'),
        ({'tissue_min': 0.7}, 'tissue_min=0.7'),
    ],
)
def test_refuses_settings_that_cannot_be(settings, named):
    with pytest.raises(ValueError, match=named):
        MosaicStudy(**settings)


def test_refuses_labels_and_subsets_that_are_none():
    with pytest.raises(ValueError, match="label='grade'"):
        draw('grade', 0)
    with pytest.raises(ValueError, match="subset='valid'"):
        draw('presence', 0, subset='valid')
