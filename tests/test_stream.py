"""Patches that are streamed, against slices of the arrays that were stored."""

import dataclasses
import threading
import time
from fractions import Fraction

import numpy as np
import pytest
import slide_files
from hypothesis import given, settings
from hypothesis import strategies as st

from nic_jax.slides import Level, SlideError, open_slide, stream, tiling

WHITE = 255


@dataclasses.dataclass
class ArraySlide:
    """A slide of one level in memory, which notes what is read, and when."""

    pixels: np.ndarray  # [H, W, 3]
    delay: float = 0.0
    started: int = 0
    at_once: int = 0
    most_at_once: int = 0
    fails_at: int | None = None

    def __post_init__(self):
        self.lock = threading.Lock()
        self.levels = (Level(0, *self.pixels.shape[1::-1], Fraction(1), Fraction(1)),)

    def read(self, level, x, y, width, height):
        with self.lock:
            self.started += 1
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
            number = self.started
        time.sleep(self.delay * (1 + number % 3))
        with self.lock:
            self.at_once -= 1
        if number == self.fails_at:
            raise SlideError('a tile is damaged')
        return white_around(self.pixels, height, width)[y : y + height, x : x + width]


def white_around(image, below, right):
    return np.pad(image, ((0, below), (0, right), (0, 0)), constant_values=WHITE)


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def lay(slide, **options):
    whole = (0, 0, slide.levels[0].width, slide.levels[0].height)
    defaults = {'mpp_level0': 0.5, 'mpp': 0.5, 'patch_size': 16, 'stride': 16, 'bounds': whole}
    return tiling.plan_grid(slide.levels, **{**defaults, **options})


def batches_of(slide, plan, encode=None, *, side=4, batch=5, workers=2, shards=None):
    encode = np.ones(plan.shape, bool) if encode is None else encode
    shards = list(tiling.shards(plan, side)) if shards is None else shards
    return stream.stream(
        slide, plan, encode, shards=shards, shard_side=side, batch=batch, workers=workers
    )


def assembled(plan, batches):
    """All patches by cell, uint8 [H, W, P, P, 3], and how often each cell came."""
    size = plan.patch_size
    patches = np.zeros((*plan.shape, size, size, 3), np.uint8)
    times = np.zeros(plan.shape, int)
    for batch in batches:
        rows, columns = batch.cells.T
        patches[rows, columns] = batch.patches[: len(batch.cells)]
        times[rows, columns] += 1
    return patches, times


def cut(image, plan, first=(0, 0)):
    """Slices of an image that begins `first` (x, y) pixels before the first cell."""
    size, stride = plan.patch_size, plan.stride
    padded = white_around(image, size + stride, size + stride)
    return np.array(
        [
            [
                padded[
                    first[1] + row * stride : first[1] + row * stride + size,
                    first[0] + column * stride : first[0] + column * stride + size,
                ]
                for column in range(plan.shape[1])
            ]
            for row in range(plan.shape[0])
        ]
    )


def resampled(image, up, down):
    """Area means at a ratio of `down` / `up` pixels, float64, by repeating each pixel."""
    fine = np.repeat(np.repeat(image.astype(np.float64), up, 0), up, 1)
    height, width = fine.shape[0] // down, fine.shape[1] // down
    fine = fine[: height * down, : width * down]
    return fine.reshape(height, down, width, down, 3).mean(axis=(1, 3))


@pytest.fixture(scope='module')
def image():
    return slide_files.tissue_image(300, 420)


@pytest.fixture(scope='module')
def path(tmp_path_factory, image):
    folder = tmp_path_factory.mktemp('slides')
    return slide_files.write_pyramid(folder / 'slide.tif', image, compression='zlib')


@pytest.mark.parametrize(
    ('level', 'patch_size', 'stride', 'edges'),
    [
        (0, 16, 16, 'floor'),
        (0, 32, 16, 'floor'),
        (0, 16, 30, 'floor'),
        (1, 16, 16, 'floor'),
        (1, 24, 7, 'pad'),
        (2, 16, 16, 'pad'),
        (0, 512, 512, 'pad'),
    ],
)
def test_stored_pixels_are_streamed_as_they_are(image, path, level, patch_size, stride, edges):
    stored = image
    for _ in range(level):
        stored = slide_files.halve(stored)
    with open_slide(path) as slide:
        plan = lay(slide, mpp=0.5 * 2**level, patch_size=patch_size, stride=stride, edges=edges)
        assert (plan.level, plan.resampled) == (level, False)
        patches, times = assembled(plan, batches_of(slide, plan))
    assert (times == 1).all()
    np.testing.assert_array_equal(patches, cut(stored, plan))


@pytest.mark.parametrize(
    ('mpp', 'up', 'down', 'level', 'edges'),
    [
        (0.8, 5, 8, 0, 'floor'),
        (0.8, 5, 8, 0, 'pad'),
        (1.3, 10, 13, 1, 'floor'),
        (1.3, 10, 13, 1, 'pad'),
        (5.0, 2, 5, 2, 'pad'),
        (0.25, 2, 1, 0, 'floor'),  # magnified
    ],
)
def test_resampled_pixels_are_means_of_what_they_cover(image, path, mpp, up, down, level, edges):
    stored = image
    for _ in range(level):
        stored = slide_files.halve(stored)
    with open_slide(path) as slide:
        plan = lay(slide, mpp=mpp, stride=20, edges=edges, allow_upsampling=True)
        assert (plan.level, plan.resampled) == (level, True)
        patches, times = assembled(plan, batches_of(slide, plan))
    assert (times == 1).all()
    needed = (max(plan.shape) * plan.stride + plan.patch_size) * down // up + 2
    expected = cut(resampled(white_around(stored, needed, needed), up, down), plan)
    assert patches.size
    assert np.abs(patches.astype(np.float64) - expected).max() <= 0.5 + 1e-3  # rounding alone


def test_patches_of_a_scanned_part_that_begins_elsewhere(tmp_path, image):
    path = slide_files.write_leica(
        tmp_path / 'slide.scn', image, offset=(130, 70), canvas=(700, 500)
    )
    with open_slide(path) as slide:
        assert slide.bounds == (130, 70, 420, 300)
        plan = lay(slide, bounds=slide.bounds)
        whole = slide.read(0, 130, 70, 420, 300)
        patches, _ = assembled(plan, batches_of(slide, plan))
        np.testing.assert_array_equal(patches, cut(whole, plan))
        assert np.abs(whole.astype(int) - image).mean() < 20  # it is that image, as JPEG

        plan = lay(slide, bounds=slide.bounds, mpp=0.8)
        patches, _ = assembled(plan, batches_of(slide, plan))
        expected = cut(resampled(whole, 5, 8), plan)
        assert np.abs(patches.astype(np.float64) - expected).max() <= 0.5 + 1e-3


@settings(max_examples=40, deadline=None, derandomize=True, database=None)
@given(
    st.integers(1, 90),
    st.integers(1, 90),
    st.integers(1, 12),
    st.integers(1, 12),
    st.integers(1, 9),
    st.integers(1, 9),
    st.sampled_from([0.0, 0.1, 0.6, 1.0]),
    st.sampled_from(['floor', 'pad']),
)
def test_any_plan_any_cells(height, width, patch_size, stride, side, batch, share, edges):
    slide = ArraySlide(noise(height, width))
    plan = lay(slide, patch_size=patch_size, stride=stride, edges=edges)
    encode = np.random.default_rng(1).random(plan.shape) < share
    shards = list(tiling.shards(plan, side))
    came = list(batches_of(slide, plan, encode, side=side, batch=batch, shards=shards))
    patches, times = assembled(plan, came)
    np.testing.assert_array_equal(times, encode)
    if encode.any():
        np.testing.assert_array_equal(patches[encode], cut(slide.pixels, plan)[encode])
    # Shards in order, each ending once, none without a batch; batches full but for the last.
    assert [batch.shard for batch in came if batch.last] == shards
    assert sorted({batch.shard for batch in came}) == shards
    ended = 0
    for one in came:
        assert one.shard == shards[ended]
        assert (one.cells // side == one.shard).all()
        assert one.patches.shape == (batch, patch_size, patch_size, 3)
        assert not one.patches[len(one.cells) :].any()
        assert len(one.cells) == batch or one.last
        ended += one.last


def test_a_shard_without_cells_yields_one_empty_batch():
    slide = ArraySlide(noise(160, 160))
    plan = lay(slide)
    encode = np.zeros(plan.shape, bool)
    encode[9, 9] = True
    came = list(batches_of(slide, plan, encode, side=4))
    assert [(batch.shard, len(batch.cells), batch.last) for batch in came] == [
        ((row, column), int(row == column == 2), True) for row in range(3) for column in range(3)
    ]
    assert slide.started == 1


def test_the_shards_asked_for_come_and_no_others():
    slide = ArraySlide(noise(160, 160))
    plan = lay(slide)
    all_batches = list(batches_of(slide, plan))
    asked = [(0, 2), (2, 1)]
    some = list(batches_of(slide, plan, shards=asked))
    expected = [batch for batch in all_batches if batch.shard in asked]
    assert len(some) == len(expected) > 2
    for one, other in zip(some, expected, strict=True):
        assert (one.shard, one.last) == (other.shard, other.last)
        np.testing.assert_array_equal(one.cells, other.cells)
        np.testing.assert_array_equal(one.patches, other.patches)


def test_the_order_does_not_depend_on_threads_and_their_speed():
    runs = []
    for workers, delay in ((1, 0.0), (4, 0.001), (3, 0.002)):
        slide = ArraySlide(noise(200, 200), delay=delay)
        plan = lay(slide, stride=12)
        runs.append(list(batches_of(slide, plan, workers=workers)))
    for run in runs[1:]:
        for one, other in zip(runs[0], run, strict=True):
            assert (one.shard, one.last) == (other.shard, other.last)
            np.testing.assert_array_equal(one.cells, other.cells)
            np.testing.assert_array_equal(one.patches, other.patches)


@pytest.mark.parametrize('workers', [1, 3])
def test_no_more_blocks_wait_than_allowed(workers):
    slide = ArraySlide(noise(16 * 30, 16 * 4))
    plan = lay(slide)
    # Shards of 2×2 cells are a block each, and a batch each.
    received = 0
    for _ in batches_of(slide, plan, side=2, batch=4, workers=workers):
        received += 1
        if received in (1, 2, 10, 20):
            time.sleep(0.05)  # time to run ahead for threads that are not held back
        assert slide.started <= received + workers + 2
    assert received == slide.started == 30
    assert slide.most_at_once <= workers


def test_a_region_that_cannot_be_read_raises_at_its_turn(tmp_path, image):
    path = slide_files.write_pyramid(
        tmp_path / 'slide.tif', image[:256, :256], levels=1, tile=64, compression='zlib'
    )
    slide_files.corrupt_tile(path, tile=9)  # row 2, column 1
    before = threading.active_count()
    came = []
    with open_slide(path) as slide:
        plan = lay(slide, patch_size=64, stride=64)
        with pytest.raises(SlideError, match=r'slide\.tif: cannot read level 0, region') as caught:
            came.extend(batches_of(slide, plan, side=1, batch=1))
        assert 'x=64 y=128' in str(caught.value)
        assert threading.active_count() == before
    assert [batch.shard for batch in came] == [divmod(index, 4) for index in range(9)]


def test_what_was_read_before_a_failure_is_delivered():
    slide = ArraySlide(noise(160, 16), fails_at=6)
    before = threading.active_count()
    came = []
    with pytest.raises(SlideError, match='a tile is damaged'):
        came.extend(batches_of(slide, lay(slide), side=1, batch=1, workers=1))
    assert [batch.shard for batch in came] == [(row, 0) for row in range(5)]
    assert threading.active_count() == before


def test_threads_end_when_the_caller_stops_early():
    slide = ArraySlide(noise(1600, 16), delay=0.002)
    before = threading.active_count()
    batches = batches_of(slide, lay(slide), side=1, batch=1, workers=3)
    next(batches)
    assert threading.active_count() > before
    batches.close()
    assert threading.active_count() == before
    assert slide.started < 10
