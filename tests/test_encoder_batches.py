"""Batches of training patches: what is in them, how often, and that the number decides."""

import numpy as np
import pytest

from nic_jax.encoders import batches
from nic_jax.encoders.batches import Source, _in_turn
from nic_jax.patches.store import Parts


def numbered(count, *, first=0, side=2):
    """Patches that show their own number, uint8 `[N, side, side, 1]`."""
    numbers = np.arange(first, first + count, dtype=np.uint8)
    return np.broadcast_to(numbers[:, None, None, None], (count, side, side, 1)).copy()


def numbers(patches):
    """The numbers that patches show."""
    assert (patches == patches[..., :1, :1, :]).all()
    return patches[..., 0, 0, 0].astype(int)


def labelled_source(train, valid, *, first=0, classes=('a', 'b', 'c')):
    """Patches with the labels of two lists."""
    labels = np.array([*train, *valid], np.int32)
    split = np.arange(len(labels))
    return Source(
        numbered(len(labels), first=first),
        split[: len(train)],
        split[len(train) :],
        labels=labels,
        classes=classes,
    )


def paired_source(count, *, first=0):
    """The first half trains; pairs of a patch with itself, and with the next."""
    half = count // 2
    pairs = {}
    for subset, start in (('train', 0), ('valid', half)):
        one = start + np.arange(half)
        other = np.where(np.arange(half) % 2, one, start + (np.arange(half) + 1) % half)
        pairs[subset] = np.stack([one, other, one == other], axis=1).astype(np.int32)
    return Source(
        numbered(count, first=first), np.arange(half), np.arange(half, count), pairs=pairs
    )


def same(left, right):
    assert left.keys() == right.keys()
    return all(np.array_equal(left[name], right[name]) for name in left)


def every_kind(seed):
    source = labelled_source([0, 1, 2] * 10, [0, 1, 2])
    settings = {'batch': 8, 'seed': seed, 'devices': 1}
    return {
        'plain': batches.plain(source, **settings),
        'labelled': batches.labelled([source, source], **settings),
        'paired': batches.paired(paired_source(40), **settings),
    }


@pytest.mark.parametrize('kind', ['plain', 'labelled', 'paired'])
def test_a_batch_depends_on_its_number_and_the_seed_alone(kind):
    first, again, other = (every_kind(seed)[kind] for seed in (0, 0, 1))
    for k in (5, 2, 5):  # in any order, as often as you like
        assert same(first.train(k), again.train(k))
    assert not same(first.train(5), first.train(6))
    assert not same(first.train(5), other.train(5))


def test_plain_batches_are_of_training_patches_evenly():
    source = Source(numbered(40), np.arange(5, 25), np.arange(25, 40))
    feed = batches.plain(source, batch=50, seed=0, devices=1)
    drawn = np.concatenate([numbers(feed.train(k)['patches']) for k in range(100)])
    assert feed.train(0)['patches'].shape == (50, 2, 2, 1)
    assert set(drawn.tolist()) == set(range(5, 25))
    counts = np.bincount(drawn)[5:]
    assert np.abs(counts - 250).max() < 5 * np.sqrt(250)
    (valid,) = [make() for make in feed.valid]
    assert numbers(valid['patches']).tolist() == list(range(25, 40))


def test_classes_and_tasks_are_balanced():
    # One class has a hundred patches, another two; unlabelled ones are never drawn.
    one = labelled_source([0] * 100 + [1] * 20 + [2] * 2 + [-1] * 20, [0, 1, -1, 2])
    two = labelled_source([0] * 3 + [1] * 30, [1, 0], first=200, classes=('x', 'y'))
    feed = batches.labelled([one, two], batch=90, seed=0, devices=1)
    found = [feed.train(k) for k in range(40)]
    assert found[0]['patches'].shape == (90, 2, 2, 2, 1)
    assert found[0]['labels'].shape == (90, 2)
    assert found[0]['labels'].dtype == np.int32
    labels = np.concatenate([batch['labels'] for batch in found])
    shown = np.concatenate([numbers(batch['patches']) for batch in found])
    for task, (source, count) in enumerate(((one, 3), (two, 2))):
        counts = np.bincount(labels[:, task], minlength=count)
        assert len(counts) == count
        assert np.abs(counts - 3600 / count).max() < 5 * np.sqrt(3600 / count)
        indices = shown[:, task] - 200 * task
        np.testing.assert_array_equal(source.labels[indices], labels[:, task])
        assert set(indices.tolist()) == set(source.train[source.labels[source.train] >= 0].tolist())


def test_validation_of_tasks_goes_side_by_side_and_the_smaller_begins_again():
    one = labelled_source([0, 1, 2], [0, -1, 1, 2, 0, 1])
    two = labelled_source([0, 1], [1, 0], first=100, classes=('x', 'y'))
    (valid,) = [make() for make in batches.labelled([one, two], batch=2, seed=0, devices=1).valid]
    shown = numbers(valid['patches'])
    assert shown[:, 0].tolist() == [3, 5, 6, 7, 8]  # 4 has no label
    assert shown[:, 1].tolist() == [102, 103, 102, 103, 102]
    assert valid['labels'].tolist() == [[0, 1], [1, 0], [2, 1], [0, 0], [1, 1]]


def test_pairs_are_two_patches_and_whether_they_are_one_place():
    feed = batches.paired(paired_source(40), batch=30, seed=0, devices=1)
    batch = feed.train(0)
    assert batch['pairs'].shape == (30, 2, 2, 2, 1)
    assert batch['same'].dtype == bool
    shown = numbers(batch['pairs'])
    np.testing.assert_array_equal(shown[:, 0] == shown[:, 1], batch['same'])
    assert 0 < batch['same'].mean() < 1
    assert shown.max() < 20
    (valid,) = [make() for make in feed.valid]
    shown = numbers(valid['pairs'])
    assert shown[:, 0].tolist() == list(range(20, 40))
    np.testing.assert_array_equal(shown[:, 0] == shown[:, 1], valid['same'])


def test_joined_sets_keep_their_patches_and_pairs():
    one, two = paired_source(20), paired_source(10, first=50)
    two = Source(Parts([two.pixels[:3], two.pixels[3:]]), two.train, two.valid, pairs=two.pairs)
    joined = batches.join([one, two])
    assert joined.pixels.shape == (30, 2, 2, 1)
    for name in ('train', 'valid'):
        expected = [*numbers(one.pixels[getattr(one, name)])]
        expected += [*numbers(two.pixels[getattr(two, name)])]
        assert numbers(joined.pixels[getattr(joined, name)]).tolist() == expected
        pairs = joined.pairs[name]
        shown = numbers(joined.pixels[pairs[:, :2]])
        own = np.concatenate([numbers(each.pixels[each.pairs[name][:, :2]]) for each in (one, two)])
        np.testing.assert_array_equal(shown, own)
        np.testing.assert_array_equal(shown[:, 0] == shown[:, 1], pairs[:, 2] == 1)


def test_joining():
    one = paired_source(20)
    assert batches.join([one]) is one
    without = Source(numbered(5), np.arange(3), np.arange(3, 5))
    assert batches.join([one, without]).pairs is None
    large = Source(numbered(5, side=3), np.arange(3), np.arange(3, 5))
    with pytest.raises(ValueError, match=r'different sizes, \[\(2, 2, 1\), \(3, 3, 1\)\]'):
        batches.join([one, large])


@pytest.mark.parametrize(
    ('train', 'valid', 'message'),
    [
        ([0, 0, 2], [0, 1, 2], 'no training patches of class b; add some'),
        ([-1, -1], [0, 1, 2], 'no training patches of class a, b, c'),
        ([0, 1, 2], [], 'no labelled patches to validate'),
        ([0, 1, 2], [-1, -1], 'no labelled patches to validate'),
    ],
)
def test_sets_that_lack_something_are_refused(train, valid, message):
    with pytest.raises(ValueError, match=message):
        batches.labelled([labelled_source(train, valid)], batch=2, seed=0, devices=1)


@pytest.mark.parametrize(
    ('count', 'devices', 'sizes'),
    [
        (1, 1, [1]),
        (2, 2, [2]),
        (5, 2, [4]),
        (512, 1, [512]),
        (513, 1, [256, 256]),
        (1024, 4, [512, 512]),
        (1030, 4, [340, 340, 340]),
        (1537, 8, [384, 384, 384, 384]),
    ],
)
def test_validation_comes_in_equal_parts_and_leaves_out_few(count, devices, sizes):
    indices = np.arange(count) + 7
    parts = _in_turn(indices, devices)
    assert [len(part) for part in parts] == sizes
    np.testing.assert_array_equal(np.concatenate(parts), indices[: sum(sizes)])
    assert count - sum(sizes) < len(sizes) * (devices + 1)
    assert max(sizes) <= batches.VALID_BATCH


@pytest.mark.parametrize(('count', 'devices'), [(0, 1), (3, 4)])
def test_too_few_to_validate_are_refused(count, devices):
    message = f'{count} patches to validate are fewer than the {devices} devices: give more'
    with pytest.raises(ValueError, match=message):
        _in_turn(np.arange(count), devices)
