"""Patches that are easy to learn from, and networks small enough for a test."""

import jax
import numpy as np

from nic_jax.encoders.batches import Source

NETWORK = {
    'kind': 'conv',
    'widths': (6,),
    'code_size': 3,
    'dense': 8,
    'padding': 'SAME',
    'norm_after': False,
    'slope': 0.2,
    'epsilon': 1e-3,
    'input_size': 9,
    'averaged': False,
    'channels': 1,
}
DECODER = {'start': 8, 'widths': (8, 4)}


def bars(count, seed):
    """Patches with a horizontal (0) or vertical (1) bar on noise, uint8 `[N, 9, 9, 1]`; labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(2, size=count)
    patches = rng.integers(0, 60, (count, 9, 9, 1), np.uint8)
    for patch, label in zip(patches, labels, strict=True):
        place = rng.integers(2, 7)
        patch[(slice(None), place) if label else (place, slice(None))] = 255
    return patches, labels.astype(np.int32)


def source(train=400, valid=100, *, seed=1):
    """Bars with labels, and pairs: half of them one patch, half a lying and a standing bar."""
    patches, labels = bars(train + valid, seed)
    pairs, rng = {}, np.random.default_rng(seed)
    parts = {'train': np.arange(train), 'valid': np.arange(train, train + valid)}
    for subset, members in parts.items():
        same = np.arange(len(members)) % 2 == 0
        other = [rng.choice(members[labels[members] != labels[one]]) for one in members]
        second = np.where(same, members, other)
        pairs[subset] = np.stack([members, second, same], axis=1).astype(np.int32)
    return Source(patches, **parts, labels=labels, classes=('lying', 'standing'), pairs=pairs)


def unchanged(key, patches):
    """An augmentation that does nothing."""
    del key
    return patches


def noisy(key, patches):
    """An augmentation that is soon compiled."""
    return patches + 0.05 * jax.random.normal(key, patches.shape)


def same(left, right):
    """Whether two trees hold the same bits."""
    leaves = zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True)
    return all(np.array_equal(a, b) for a, b in leaves)
