"""Pairs of contrastive training: their shares, and what never is a pair."""

import numpy as np
import pytest

from nic_jax.patches import pairs as pairs_
from nic_jax.patches import store
from nic_jax.patches.pairs import count_kinds, draw_pairs
from nic_jax.patches.store import PatchesError

PITCH = (128.5, 64.25)


def make_set(folder, slides, *, pixels=2):
    """A set of (slide, case, subset, cells), at positions that are no whole numbers."""
    for number, (slide, case, subset, cells) in enumerate(slides):
        rows = [
            {
                'source': case,
                'name': slide,
                'subset': subset,
                'x': 1000 * number + column * PITCH[0],
                'y': 3.25 + row * PITCH[1],
            }
            for row, column in cells
        ]
        store.write_part(folder, slide, np.zeros((len(rows), pixels, pixels, 3), np.uint8), rows)
    return store.finish_set(folder, names=[each[0] for each in slides], classes=(), mpp=0.5)


def block(height, width):
    return [(row, column) for row in range(height) for column in range(width)]


@pytest.fixture
def patches(tmp_path):
    return make_set(
        tmp_path / 'set',
        [
            ('s0', 'a', 'train', block(6, 5)),
            ('s1', 'a', 'train', block(3, 3)),
            ('s2', 'b', 'train', [(0, 0), (5, 5), (9, 0), (9, 1)]),
            ('s3', 'c', 'valid', block(4, 4)),
            ('s4', 'd', 'valid', block(2, 4)),
            ('s5', 'e', 'train', []),
        ],
    )


@pytest.fixture
def pitch():
    return dict.fromkeys(('s0', 's1', 's2', 's3', 's4', 's5'), PITCH)


def test_shares_are_the_papers():
    assert count_kinds(50_000) == (25_000, 18_750, 6_250)
    assert count_kinds(25_000) == (12_500, 9_375, 3_125)
    assert count_kinds(100, adjacent=False) == (50, 0, 50)
    for count in range(50):
        assert sum(count_kinds(count)) == count


@pytest.mark.parametrize('count', [1, 7, 40, 1000])
@pytest.mark.parametrize('subset', ['train', 'valid'])
def test_every_kind_is_what_it_says(patches, pitch, count, subset):
    drawn = draw_pairs(patches, subset, count, seed=0, pitch=pitch)
    assert drawn.indices.shape == (count, 3)
    assert drawn.indices.dtype == np.int32
    one, other, same = drawn.indices.T
    columns = patches.columns
    assert (columns['subset'][drawn.indices[:, :2]] == subset).all()
    assert ((one == other) == (same == 1)).all()
    in_one_slide = (columns['name'][one] == columns['name'][other]) & (same == 0)
    apart = (same == 0) & ~in_one_slide
    assert (np.sum(same), in_one_slide.sum(), apart.sum()) == drawn.counts == count_kinds(count)
    assert (columns['source'][one[apart]] != columns['source'][other[apart]]).all()
    steps = np.stack(
        [
            np.abs(columns[axis][one].astype(float) - columns[axis][other].astype(float)) / step
            for axis, step in zip('xy', PITCH, strict=True)
        ]
    )[:, in_one_slide]
    assert np.isin(steps, (0, 1)).all()  # whole patches apart: they do not overlap
    assert (steps.max(axis=0) == 1).all()


def test_all_neighbours_are_found_once(patches, pitch):
    members = patches.indices('train')
    found = pairs_.adjacent_pairs(patches, members, pitch)
    x, y = (patches.columns[axis][members].astype(float) for axis in 'xy')
    names = patches.columns['name'][members]
    expected = {
        (i, j)
        for i in range(len(members))
        for j in range(i)
        if names[i] == names[j]
        and abs(x[i] - x[j]) < 1.5 * PITCH[0]
        and abs(y[i] - y[j]) < 1.5 * PITCH[1]
    }
    assert {(max(pair), min(pair)) for pair in found.tolist()} == expected
    assert len(found) == len(expected)


def test_locations_and_neighbours_are_used_evenly(patches, pitch):
    drawn = draw_pairs(patches, 'train', 1000, seed=0, pitch=pitch)
    one, other, same = drawn.indices.T
    uses = np.bincount(one[same == 1])[patches.indices('train')]
    assert np.ptp(uses) <= 1
    in_one_slide = (same == 0) & (patches.columns['name'][one] == patches.columns['name'][other])
    beside = np.sort(drawn.indices[in_one_slide, :2], axis=1)
    _, uses = np.unique(beside, axis=0, return_counts=True)
    assert np.ptp(uses) <= 1
    assert 'pairs beside each other are drawn from' in drawn.notes[0]
    assert draw_pairs(patches, 'train', 40, seed=0, pitch=pitch).notes == ()


def test_a_pure_function_of_set_and_seed(patches, pitch):
    first, again, other = (
        draw_pairs(patches, 'train', 200, seed=seed, pitch=pitch).indices for seed in (0, 0, 1)
    )
    assert (first == again).all()
    assert (first != other).any()


def test_sources_apart_are_equally_likely_partners(patches, pitch):
    drawn = draw_pairs(patches, 'valid', 80_000, seed=0, pitch=pitch)
    one, other, same = drawn.indices.T
    apart = (same == 0) & (patches.columns['name'][one] != patches.columns['name'][other])
    partner = np.where(patches.columns['name'][one] == 's3', other, one)[apart]
    counts = np.bincount(partner)[patches.columns['name'][: partner.max() + 1] == 's4']
    assert len(counts) == 8
    assert np.abs(counts - counts.mean()).max() < 5 * np.sqrt(counts.mean())


def test_tiles_without_positions_are_paired_across_sources(tmp_path):
    folder = tmp_path / 'tiles'
    rows = [{'source': f'p{i // 3}', 'name': f't{i}.png', 'subset': 'train'} for i in range(12)]
    store.write_part(folder, '0', np.zeros((12, 2, 2, 3), np.uint8), rows)
    tiles = store.finish_set(folder, names=['0'], classes=(), mpp=None)
    drawn = draw_pairs(tiles, 'train', 400, seed=0)
    one, other, same = drawn.indices.T
    assert drawn.counts == (200, 0, 200)
    sources = tiles.columns['source']
    assert (sources[one] == sources[other]).sum() == 200 == same.sum()
    assert drawn.notes[0].startswith('positions are not known')


def test_what_cannot_be_paired_is_refused_with_the_remedy(tmp_path):
    lonely = [('s0', 'a', 'train', [(0, 0), (4, 4)]), ('s1', 'a', 'valid', block(2, 2))]
    patches = make_set(tmp_path / 'set', lonely)
    pitch = dict.fromkeys(('s0', 's1'), PITCH)
    with pytest.raises(PatchesError, match='no two patches for train lie beside each other; raise'):
        draw_pairs(patches, 'train', 10, seed=0, pitch=pitch)
    with pytest.raises(PatchesError, match=r"all patches for valid are of 'a'.*two cases"):
        draw_pairs(patches, 'valid', 10, seed=0, pitch=pitch)
    with pytest.raises(PatchesError, match='no patches for test'):
        draw_pairs(patches, 'test', 10, seed=0, pitch=pitch)


def test_saved_and_loaded(patches, pitch, tmp_path):
    drawn = draw_pairs(patches, 'train', 20, seed=0, pitch=pitch)
    pairs_.save_pairs(tmp_path, 'train', drawn)
    assert (pairs_.load_pairs(tmp_path, 'train') == drawn.indices).all()
    assert drawn.indices[:, 2].sum() == 10
    assert pairs_.has_pairs(tmp_path, 'train')
    assert not pairs_.has_pairs(tmp_path, 'valid')
