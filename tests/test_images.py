"""Synthetic images into stacks of grids."""

import dataclasses

import numpy as np
import pytest
import zarr

from nic_jax.classifiers.batches import Draw
from nic_jax.compression.images import compress_images
from nic_jax.encoders.mean_rgb import mean_rgb
from nic_jax.finetuning.image_pixels import ImagePixels
from nic_jax.grids import GridError, stack, turn
from nic_jax.synthetic import rectangles
from nic_jax.synthetic.digits import load_digits
from nic_jax.synthetic.study import split_digits, split_images

STUDY = rectangles.RectangleStudy(size=90, fill=0.004, lesion_min=18, lesion_max=45)


@pytest.fixture(scope='module')
def digits():
    return load_digits('sklearn', subset='train')


def compress(path, digits, *, study=STUDY, stop=6, seed=0, overwrite=False):
    return compress_images(
        mean_rgb(channels=1),
        study,
        digits,
        indices=range(2, stop),
        seed=seed,
        path=path,
        workers=2,
        overwrite=overwrite,
    )


def test_stack_holds_the_code_of_every_cell(tmp_path, digits):
    assert compress(tmp_path / 'train.zarr', digits) == 4
    opened = stack.open_stack(tmp_path / 'train.zarr')
    for number, grid in enumerate(opened.grids()):
        image = rectangles.draw(STUDY, digits, seed=0, index=2 + number)
        cells = rectangles.cells(image.pixels, 9)
        expected = cells.mean(axis=(2, 3)) * 2 - 1  # pixels 0 and 1 on [−1, 1]
        np.testing.assert_allclose(grid.crop(0, 0, 10, 0)[..., 0], expected, atol=1e-3)
        assert opened.labels[number] == image.label
        np.testing.assert_array_equal(opened.masks[number], image.mask)
        # All versions are the layout turned; the codes of the cells stay.
        for version in range(8):
            np.testing.assert_array_equal(
                grid.crop(0, 0, 10, version), turn(grid.crop(0, 0, 10, 0), version)
            )
    padded = opened.grids()[0].crop(-3, -3, 16, 0)
    assert not padded[:3].any()
    assert not padded[13:].any()
    np.testing.assert_array_equal(padded[3:13, 3:13], opened.grids()[0].crop(0, 0, 10, 0))


@pytest.mark.parametrize('stride', [4, 18])
def test_a_stride_gives_whole_patches_at_its_steps(tmp_path, digits, stride):
    study = dataclasses.replace(STUDY, stride=stride)
    compress(tmp_path / 'train.zarr', digits, study=study)
    opened = stack.open_stack(tmp_path / 'train.zarr')
    firsts = range(0, 82, stride)  # 81 px is the last where 9 px fit into 90
    areas = []
    for number, grid in enumerate(opened.grids()):
        assert grid.shape == (len(firsts), len(firsts))
        image = rectangles.draw(study, digits, seed=0, index=2 + number)
        expected = [
            [image.pixels[top : top + 9, left : left + 9].mean() * 2 - 1 for left in firsts]
            for top in firsts
        ]
        codes = grid.crop(0, 0, len(firsts), 0)[..., 0]
        np.testing.assert_allclose(codes, expected, atol=1e-3)  # float16
        np.testing.assert_array_equal(opened.masks[number], image.grid_mask)
        areas.append(image.grid_mask.sum())
    np.testing.assert_array_equal(opened.lesion_areas(), areas)


def test_the_cell_s_own_stride_is_the_same_stack(tmp_path, digits):
    compress(tmp_path / 'train.zarr', digits)
    assert (
        compress(tmp_path / 'train.zarr', digits, study=dataclasses.replace(STUDY, stride=9)) == 0
    )
    assert 'stride' not in stack.open_stack(tmp_path / 'train.zarr').attributes['study']
    with pytest.raises(GridError, match='study'):
        compress(tmp_path / 'train.zarr', digits, study=dataclasses.replace(STUDY, stride=5))


def test_stack_opens_with_zarr_alone(tmp_path, digits):
    compress(tmp_path / 'train.zarr', digits)
    group = zarr.open_group(tmp_path / 'train.zarr', mode='r')
    assert group['codes'].shape == (4, 10, 10, 1)
    assert group['codes'].metadata.dimension_names == ('image', 'y', 'x', 'feature')
    assert group.attrs['complete'] is True


def test_a_second_run_does_nothing_and_other_settings_are_refused(tmp_path, digits):
    path = tmp_path / 'train.zarr'
    compress(path, digits)
    assert compress(path, digits) == 0
    with pytest.raises(GridError, match='seed: stored 0, asked 1'):
        compress(path, digits, seed=1)
    assert compress(path, digits, seed=1, overwrite=True) == 4


def test_an_interrupted_stack_is_resumed_to_the_same_bytes(tmp_path, digits, monkeypatch):
    monkeypatch.setattr(stack, '_SHARD_BYTES', 2 * 10 * 10 * 1)  # one image a shard
    compress(tmp_path / 'whole.zarr', digits)

    drawn = []
    generate = rectangles.generate

    def broken(*arguments, indices, **others):
        drawn.append(indices)
        if len(drawn) == 3:
            raise KeyboardInterrupt
        return generate(*arguments, indices=indices, **others)

    monkeypatch.setattr(rectangles, 'generate', broken)
    with pytest.raises(KeyboardInterrupt):
        compress(tmp_path / 'a' / 'whole.zarr', digits)
    with pytest.raises(GridError, match='not complete'):
        stack.open_stack(tmp_path / 'a' / 'whole.zarr')
    monkeypatch.setattr(rectangles, 'generate', generate)
    assert compress(tmp_path / 'a' / 'whole.zarr', digits) == 2  # the two that were missing
    for path in (tmp_path / 'whole.zarr').rglob('*'):
        if path.is_file():
            other = tmp_path / 'a' / path.relative_to(tmp_path)
            assert path.read_bytes() == other.read_bytes(), path


def test_splits_are_disjoint(digits):
    split = split_images(encoder_images=20, train_images=40, test_images=30)
    ranges = [split.encoder_train, split.encoder_valid, split.train, split.test]
    everything = [index for part in ranges for index in part]
    assert len(set(everything)) == len(everything) == 90
    assert (len(split.encoder_train), len(split.encoder_valid), split.valid_count) == (14, 6, 10)
    train, valid = split_digits(digits, seed=0)
    assert len(train.labels) + len(valid.labels) == len(digits.labels)


def test_a_stack_too_large_for_memory_reads_alike(tmp_path, digits, monkeypatch):
    compress(tmp_path / 'train.zarr', digits)
    small = stack.open_stack(tmp_path / 'train.zarr')
    monkeypatch.setattr(stack, 'MEMORY_BYTES', 0)
    large = stack.open_stack(tmp_path / 'train.zarr')
    assert not isinstance(large.codes, np.ndarray)
    np.testing.assert_array_equal(large.lesion_areas(), small.lesion_areas())
    assert large.lesion_areas().tolist() == [mask.sum() for mask in small.masks]
    for left, right in zip(large.grids(), small.grids(), strict=True):
        np.testing.assert_array_equal(left.crop(-1, 2, 9, 5), right.crop(-1, 2, 9, 5))


@pytest.mark.parametrize('stride', [9, 4])
@pytest.mark.parametrize('version', [0, 3, 5])
def test_fine_tuning_sees_the_patches_that_the_stack_has_codes_of(
    tmp_path, digits, version, stride
):
    """Digits stay upright, whatever the version of the layout."""
    study = dataclasses.replace(STUDY, stride=stride)
    compress(tmp_path / 'train.zarr', digits, study=study)
    grid = stack.open_stack(tmp_path / 'train.zarr').grids()[1]
    pixels = ImagePixels(grid.slide_id, study, digits, seed=0, index=3)
    np.testing.assert_array_equal(pixels.encoded, grid.encoded)
    patches = pixels.crop(Draw(0, -2, 1, version=version), size=7)
    found = np.zeros((49, 1), np.float32)
    read = patches.read(0, len(patches.cells))
    assert read.shape[1:] == pixels.patch_shape
    found[patches.cells] = mean_rgb(channels=1).apply({}, read)
    np.testing.assert_allclose(found.reshape(7, 7, 1), grid.crop(-2, 1, 7, version), atol=1e-3)
