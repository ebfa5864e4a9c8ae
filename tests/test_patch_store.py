import numpy as np
import pytest

from nic_jax.patches import store
from nic_jax.patches.store import Parts, PatchesError


def _pixels(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 4, 4, 3), np.uint8)


def _rows(names, **columns):
    return [{'name': name, **columns} for name in names]


@pytest.mark.parametrize('lengths', [(5,), (3, 4), (0, 3, 0, 0, 4, 0), (1, 1, 1)])
def test_parts_are_indexed_as_if_they_were_one(lengths):
    arrays = [_pixels(length, seed) for seed, length in enumerate(lengths)]
    parts, whole = Parts(arrays), np.concatenate(arrays)
    assert (len(parts), parts.shape, parts.dtype) == (len(whole), whole.shape, whole.dtype)
    rng = np.random.default_rng(0)
    for shape in ((), (1,), (20,), (3, 5), (0,)):
        indices = rng.integers(0, len(whole), shape)
        np.testing.assert_array_equal(parts[indices], whole[indices])
    for cut in (slice(None), slice(1, 3), slice(None, None, -1), slice(2, 99), slice(-2, None)):
        np.testing.assert_array_equal(parts[cut], whole[cut])


def test_what_is_written_is_read(tmp_path):
    first, second = _pixels(3), _pixels(2, seed=1)
    store.write_part(tmp_path, 'a/1', first, _rows('xyz', subset='train', label='1', source='s'))
    store.write_part(tmp_path, 'none', first[:0], [])
    store.write_part(tmp_path, 'b', second, [{'name': 'v', 'subset': 'test', 'label': '10'}, {}])
    assert store.has_part(tmp_path, 'a/1')
    assert not store.has_part(tmp_path, 'a')
    made = store.finish_set(tmp_path, names=['a/1', 'none', 'b'], classes=['10', '1'], mpp=0.5)
    for patches in (made, store.open_set(tmp_path)):
        np.testing.assert_array_equal(patches.pixels[:], np.concatenate([first, second]))
        assert len(patches) == 5
        assert patches.labels.tolist() == [1, 1, 1, 0, -1]
        assert patches.columns['name'].tolist() == ['x', 'y', 'z', 'v', '']
        assert (patches.classes, patches.mpp) == (('10', '1'), 0.5)
        assert patches.indices('train').tolist() == [0, 1, 2]
        assert patches.indices('', labelled=True).tolist() == []
        assert patches.indices('').tolist() == [4]


def test_an_unfinished_or_empty_set_is_refused(tmp_path):
    store.write_part(tmp_path, 'a', _pixels(0), [])
    with pytest.raises(PatchesError, match='no finished patches; run the stage'):
        store.open_set(tmp_path)
    with pytest.raises(PatchesError, match=r'no patches; see failures\.csv'):
        store.finish_set(tmp_path, names=['a'], classes=['0', '1'], mpp=None)
    with pytest.raises(PatchesError, match='no finished patches'):
        store.open_set(tmp_path)


@pytest.mark.parametrize(
    ('pixels', 'count'),
    [(_pixels(2).astype(np.float32), 2), (_pixels(2)[0], 4), (_pixels(2), 1)],
)
def test_other_than_rows_of_uint8_patches_is_refused(tmp_path, pixels, count):
    with pytest.raises(ValueError, match=f'a: {count} rows for .* not uint8'):
        store.write_part(tmp_path, 'a', pixels, [{}] * count)
    assert not store.has_part(tmp_path, 'a')
