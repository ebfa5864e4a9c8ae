"""The eight versions, against loops over single elements."""

import jax.numpy as jnp
import numpy as np
import pytest

from nic_jax.compression.encode import turn_patches
from nic_jax.grids import VERSIONS, turn

# Version v, turned back by BACK[v], is the array itself: quarter turns go back, mirrors undo
# themselves.
BACK = (0, 3, 2, 1, 4, 5, 6, 7)


def turned_by_loops(array, version):
    """Mirrors and turns [h, w, ...] element by element."""
    height, width = array.shape[:2]
    if version >= 4:
        mirrored = np.empty_like(array)
        for y in range(height):
            for x in range(width):
                mirrored[y, width - 1 - x] = array[y, x]
        array = mirrored
    for _ in range(version % 4):
        height, width = array.shape[:2]
        turned = np.empty((width, height, *array.shape[2:]), array.dtype)
        for y in range(height):
            for x in range(width):
                turned[width - 1 - x, y] = array[y, x]  # the right edge becomes the top
        array = turned
    return array


@pytest.mark.parametrize('version', VERSIONS)
@pytest.mark.parametrize('shape', [(4, 4), (3, 5), (5, 2, 3), (1, 4)])
def test_turn_against_loops(version, shape):
    array = np.arange(np.prod(shape)).reshape(shape)
    np.testing.assert_array_equal(turn(array, version), turned_by_loops(array, version))


@pytest.mark.parametrize('version', VERSIONS)
def test_turn_in_the_plane_of_other_axes(version):
    stack = np.random.default_rng(0).integers(0, 9, (2, 3, 5, 4))
    for axes in ((1, 2), (-3, -2)):
        turned = turn(stack, version, axes=axes)
        for one, other in zip(turned, stack, strict=True):
            np.testing.assert_array_equal(one, turned_by_loops(other, version))


def test_eight_versions_and_all_distinct():
    array = np.arange(9).reshape(3, 3)
    assert VERSIONS == (0, 1, 2, 3, 4, 5, 6, 7)
    assert len({turn(array, version).tobytes() for version in VERSIONS}) == 8
    np.testing.assert_array_equal(turn(array, 0), array)
    np.testing.assert_array_equal(turn(array, 1), np.rot90(array))
    np.testing.assert_array_equal(turn(array, 4), array[:, ::-1])


@pytest.mark.parametrize('version', VERSIONS)
def test_every_version_can_be_turned_back(version):
    array = np.random.default_rng(0).normal(size=(3, 5, 2))
    np.testing.assert_array_equal(turn(turn(array, version), BACK[version]), array)


def test_versions_are_closed_under_composition():
    array = np.arange(9).reshape(3, 3)
    all_versions = {turn(array, version).tobytes() for version in VERSIONS}
    for first in VERSIONS:
        for second in VERSIONS:
            assert turn(turn(array, first), second).tobytes() in all_versions


@pytest.mark.parametrize('version', VERSIONS)
def test_patches_on_the_device_are_turned_alike(version):
    patches = np.random.default_rng(0).integers(0, 256, (3, 6, 6, 3)).astype(np.uint8)
    turned = np.asarray(turn_patches(jnp.asarray(patches), version))
    assert turned.dtype == np.uint8
    np.testing.assert_array_equal(turned, turn(patches, version, axes=(1, 2)))


@pytest.mark.parametrize('version', [-1, 8, 1.5, None])
def test_there_are_no_other_versions(version):
    with pytest.raises(ValueError, match='must be one of 0 … 7'):
        turn(np.zeros((2, 2)), version)
