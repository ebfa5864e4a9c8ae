"""The plan of a grid against arithmetic written anew, in fractions and in naive loops."""

import dataclasses
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nic_jax.slides import Level, tiling

# The same examples in every run, however slow the machine.
checked = settings(max_examples=40, deadline=None, derandomize=True, database=None)
MPP = st.integers(80, 2000).map(lambda thousandths: thousandths / 1000)
LENGTH = st.integers(1, 5000)
PIXELS = st.integers(1, 300)
RATIO = st.sampled_from([Fraction(1), Fraction(2), Fraction(4), Fraction('4.0058'), Fraction(7, 2)])


def one_level(width, height, ratio=Fraction(1), index=0):
    size = math.ceil(width / ratio), math.ceil(height / ratio)
    return Level(index, *size, Fraction(ratio), Fraction(ratio))


def pyramid(width, height, *ratios):
    return [one_level(width, height, Fraction(r), index) for index, r in enumerate(ratios)]


def plan(levels, *, mpp_level0=0.5, mpp=0.5, patch_size=128, stride=128, bounds=None, **options):
    bounds = bounds or (0, 0, levels[0].width, levels[0].height)
    return tiling.plan_grid(
        levels,
        bounds=bounds,
        mpp_level0=mpp_level0,
        mpp=mpp,
        patch_size=patch_size,
        stride=stride,
        **options,
    )


def decimal(value):
    return Fraction(str(value))


def expected_cells(pixels, patch_size, stride):
    """Counts whole patches one after another."""
    count = 0
    while count * stride + patch_size <= pixels:
        count += 1
    return count


@checked
@given(
    LENGTH,
    LENGTH,
    RATIO,
    MPP,
    MPP,
    PIXELS,
    PIXELS,
    st.integers(0, 500),
    st.integers(0, 500),
    st.data(),
)
def test_positions_are_exact_at_any_ratio(
    width, height, ratio, mpp_level0, mpp, patch_size, stride, x0, y0, data
):
    levels = pyramid(x0 + width, y0 + height, *sorted({Fraction(1), ratio}))
    made = plan(
        levels,
        bounds=(x0, y0, width, height),
        mpp_level0=mpp_level0,
        mpp=mpp,
        patch_size=patch_size,
        stride=stride,
        allow_upsampling=True,
    )
    level = levels[made.level]
    if made.resampled:
        pitch = decimal(mpp) / decimal(mpp_level0)  # level-0 px a grid pixel
        origin = Fraction(x0), Fraction(y0)
        assert decimal(mpp) == decimal(made.mpp)
    else:  # the level's own pixels, the first of them wholly inside the bounds
        pitch = level.ratio_x
        origin = tuple(math.ceil(start / pitch) * pitch for start in (x0, y0))
        assert made.mpp == pytest.approx(mpp_level0 * float(level.ratio_x), rel=1e-12)
    assert made.origin_level0 == origin
    assert made.stride_level0 == (pitch * stride, pitch * stride)
    assert made.patch_level0 == (pitch * patch_size, pitch * patch_size)
    row, column = data.draw(st.integers(0, 10**6)), data.draw(st.integers(0, 10**6))
    x, y = made.position(row, column)
    assert (x, y) == (origin[0] + column * stride * pitch, origin[1] + row * stride * pitch)
    assert made.cell_at(x, y) == (row, column)
    ends = x0 + width, y0 + height
    stored = level.width * level.ratio_x, level.height * level.ratio_y
    for axis, cells in enumerate(made.shape[::-1]):
        pixels = (min(ends[axis], stored[axis]) - origin[axis]) / pitch
        assert cells == expected_cells(pixels, patch_size, stride)


@checked
@given(RATIO, MPP, st.integers(1, 40), st.integers(1, 40), st.integers(0, 50), st.integers(0, 50))
def test_every_pixel_lies_in_the_cell_that_is_said(ratio, mpp, patch_size, stride, x0, y0):
    levels = pyramid(x0 + 90, y0 + 70, *sorted({Fraction(1), ratio}))
    made = plan(
        levels,
        bounds=(x0, y0, 90, 70),
        mpp=mpp,
        patch_size=patch_size,
        stride=stride,
        allow_upsampling=True,
    )
    dx, dy = made.stride_level0
    for y in range(y0, y0 + 70):
        for x in range(x0, x0 + 90, 7):
            row, column = made.cell_at(x, y)
            left, top = made.position(row, column)
            assert left <= x < left + dx
            assert top <= y < top + dy
            if row >= 0 and column >= 0 and stride <= patch_size:
                width, height = made.patch_level0
                assert x < left + width
                assert y < top + height


def test_nothing_drifts_over_a_hundred_thousand_cells():
    levels = [one_level(10**8, 1000)]
    made = plan(levels, mpp_level0=0.2527, mpp=0.5, patch_size=100, stride=100)
    assert made.shape == (5, 505_400)
    x, _ = made.position(0, 10**5)
    assert x == Fraction(10**5 * 50 * 10**4, 2527)
    assert made.cell_at(x, 0) == (0, 10**5)
    assert made.cell_at(x - Fraction(1, 10**9), 0) == (0, 10**5 - 1)
    # What rounding the pitch to whole pixels would have cost:
    assert abs(x - 10**5 * round(made.stride_level0[0])) > 1000


@checked
@given(LENGTH, PIXELS, PIXELS)
def test_padding_covers_every_pixel_with_no_cell_too_many(length, patch_size, stride):
    made = plan([one_level(length, length)], patch_size=patch_size, stride=stride, edges='pad')
    last = (made.shape[0] - 1) * stride
    assert last < length, 'the last patch begins inside'
    assert last + max(patch_size, stride) >= length, 'the last pixel is covered'
    if last > 0:
        assert last - stride + max(patch_size, stride) < length, 'one cell less would not do'


def test_sizes_smaller_than_a_patch():
    for width, height, floored, padded in (
        (127, 127, (0, 0), (1, 1)),
        (127, 300, (2, 0), (3, 1)),
        (128, 128, (1, 1), (1, 1)),
        (129, 128, (1, 1), (1, 2)),
        (1, 1, (0, 0), (1, 1)),
    ):
        levels = [one_level(width, height)]
        assert plan(levels).shape == floored
        assert plan(levels, edges='pad').shape == padded


@pytest.mark.parametrize(('stride', 'cells'), [(64, 15), (1, 897), (128, 8), (200, 5), (1024, 1)])
def test_stride_below_and_above_the_patch_size(stride, cells):
    made = plan([one_level(1024, 1024)], stride=stride)
    assert made.shape == (cells, cells)
    assert made.position(1, 2) == (2 * stride, stride)


@pytest.mark.parametrize(
    ('mpp_level0', 'ratios', 'mpp', 'level', 'resampled'),
    [
        (0.243, (1, 2, 4), 0.5, 1, False),  # CAMELYON16: 0.486
        (0.252, (1, 2, 4), 0.5, 1, False),  # TCGA at 40×: 0.504
        (0.2525, (1, '4.0004'), 0.5, 0, True),  # TCGA, whose second level is 1.01
        (0.504, (1, 4), 0.5, 0, False),
        (0.525, (1, 4), 0.5, 0, False),  # at the tolerance
        (0.475, (1, 4), 0.5, 0, False),
        (0.4749, (1, 4), 0.5, 0, True),
        (0.25, (1, '4.0058'), 1.0, 1, False),
        (0.25, (1, '4.0058'), 2.0, 1, True),
        (0.25, (1, 2, 4, 8), 0.97, 2, False),
        (0.25, (1, 2, 4, 8), 0.94, 1, True),  # 1.0 is 6 % too coarse
        (0.25, (1, 2, 4, 8), 7.8, 3, True),
    ],
)
def test_the_coarsest_level_within_the_tolerance(mpp_level0, ratios, mpp, level, resampled):
    levels = pyramid(20000, 10000, *map(Fraction, ratios))
    made = plan(levels, mpp_level0=mpp_level0, mpp=mpp)
    assert (made.level, made.resampled) == (level, resampled)
    stored = mpp_level0 * float(Fraction(ratios[level]))
    assert made.mpp == pytest.approx(mpp if resampled else stored, rel=1e-12)
    assert made.mpp_target == mpp
    # A patch spans what it should in micrometres, of the µm/px that is recorded.
    width, height = (float(side) * mpp_level0 for side in made.patch_level0)
    assert width == pytest.approx(128 * made.mpp)
    assert height == pytest.approx(128 * made.mpp)


def test_axes_of_different_ratios_are_kept_apart():
    level = Level(1, 500, 333, Fraction(4), Fraction('4.0058'))
    made = plan([one_level(2000, 1334), level], mpp_level0=0.25, mpp=1.0)
    assert made.level == 1
    assert not made.resampled
    assert made.stride_level0 == (512, 128 * Fraction('4.0058'))
    resampled = plan([one_level(2000, 1334), level], mpp_level0=0.25, mpp=1.5)
    assert resampled.stride_level0 == (768, 768)


def test_upsampling_is_refused_unless_allowed():
    levels = [one_level(1000, 1000)]
    with pytest.raises(tiling.TilingError, match=r'1 µm/px, coarser than the 0\.5 .*allow_upsamp'):
        plan(levels, mpp_level0=1.0)
    made = plan(levels, mpp_level0=1.0, allow_upsampling=True)
    assert made.resampled
    assert made.shape == (15, 15)
    assert made.patch_level0 == (64, 64)


@pytest.mark.parametrize(
    ('options', 'named'),
    [
        ({'patch_size': 0}, 'patch_size=0'),
        ({'patch_size': 2.5}, 'patch_size=2.5'),
        ({'stride': -1}, 'stride=-1'),
        ({'mpp': 0.0}, 'mpp=0.0'),
        ({'mpp': math.inf}, 'mpp=inf'),
        ({'mpp_level0': math.nan}, 'mpp_level0=nan'),
        ({'edges': 'crop'}, 'floor, pad'),
    ],
)
def test_what_makes_no_sense_is_named(options, named):
    with pytest.raises(tiling.TilingError, match=named):
        plan([one_level(1000, 1000)], **options)


def test_bounds_that_begin_between_the_pixels_of_a_level():
    levels = pyramid(3000, 2000, 1, 4)
    made = plan(levels, bounds=(401, 203, 1999, 1001), mpp_level0=0.25, mpp=1.0, patch_size=100)
    assert made.origin_level0 == (404, 204)
    # 2400 / 4 - 101 = 499 px and 1204 / 4 - 51 = 250 px
    assert made.shape == (2, 4)
    resampled = plan(levels, bounds=(401, 203, 1999, 1001), mpp_level0=0.25, mpp=2.0)
    assert resampled.origin_level0 == (401, 203)


@checked
@given(
    st.integers(1, 50),
    st.integers(1, 50),
    st.integers(2, 25),
    st.sampled_from([(0, 0, 8.0, 8.0), (3, 5, 6.5, 7.25), (-4, 0, 3.0, 11.0), (0, 0, 0.5, 0.75)]),
    st.sampled_from(['floor', 'pad']),
    st.integers(0, 2**32 - 1),
)
def test_tissue_share_against_a_naive_loop(width, height, stride, lattice, edges, seed):
    origin, step = lattice[:2], lattice[2:]
    made = plan([one_level(width, height)], patch_size=9, stride=stride, edges=edges)
    mask = np.random.default_rng(seed).random((9, 7)) < 0.5
    share = tiling.tissue_share(made, mask, origin=origin, step=step)
    assert share.dtype == np.float16
    assert share.shape == made.shape
    for row in range(made.shape[0]):
        for column in range(made.shape[1]):
            left, top = column * stride, row * stride
            area = 0.0
            for y, x in np.argwhere(mask):
                x0, y0 = origin[0] + x * step[0], origin[1] + y * step[1]
                across = min(left + 9, x0 + step[0]) - max(left, x0)
                down = min(top + 9, y0 + step[1]) - max(top, y0)
                area += max(0.0, across) * max(0.0, down)
            assert share[row, column] == pytest.approx(area / 81, abs=6e-4)


def test_tissue_share_of_all_and_none_is_exact():
    made = plan([one_level(1000, 700)], mpp_level0=0.2527, patch_size=32, stride=32)
    step = (8 / 0.2527, 8 / 0.2527)
    mask = np.ones((math.ceil(700 / step[1]), math.ceil(1000 / step[0])), bool)
    assert (tiling.tissue_share(made, mask, origin=(0, 0), step=step) == 1).all()
    assert (tiling.tissue_share(made, ~mask, origin=(0, 0), step=step) == 0).all()


@checked
@given(
    st.integers(1, 150),
    st.integers(1, 150),
    st.sampled_from([5, 16, 64]),
    st.sampled_from([(16, 16), (600, 600), (5000, 5000), (256, 16), (16, 200)]),
    st.sampled_from([0.0, 0.02, 0.5, 1.0]),
)
def test_blocks_cover_each_cell_once_inside_its_shard(rows, columns, side, sizes, share):
    patch_size, stride = sizes
    axis = tiling.Axis(Fraction(0), Fraction(1), Fraction(1), columns)
    made = tiling.Plan(
        level=0,
        resampled=False,
        patch_size=patch_size,
        stride=stride,
        mpp_target=0.5,
        mpp=0.5,
        x=axis,
        y=dataclasses.replace(axis, cells=rows),
    )
    encode = np.random.default_rng(rows * 1000 + columns).random((rows, columns)) < share
    seen = np.zeros((rows, columns), int)
    shards = list(tiling.shards(made, side))
    assert shards == [(i, j) for i in range(-(-rows // side)) for j in range(-(-columns // side))]
    for shard in shards:
        found = tiling.blocks(made, encode, shard, side)
        again = tiling.blocks(made, encode, shard, side)
        assert [block.tolist() for block in found] == [block.tolist() for block in again]
        for block in found:
            assert len(block) > 0
            assert (block // side == shard).all()
            assert block.tolist() == sorted(block.tolist())
            seen[block[:, 0], block[:, 1]] += 1
            # What is read at once, and what is cut out of it, stays small.
            extent = np.ptp(block, axis=0) * stride + patch_size
            assert (extent <= max(2 * tiling.BLOCK_PIXELS, patch_size)).all()
            assert len(block) * patch_size**2 <= max(tiling.BLOCK_PIXELS, patch_size) ** 2
    np.testing.assert_array_equal(seen, encode)
