import multiprocessing
import pathlib
import signal
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nic_jax import checkpoints


def _tree(value=0.0):
    params = {'layer': {'kernel': jnp.full((3, 4), float(value)), 'bias': jnp.arange(4.0) + value}}
    return {
        'params': params,
        'optimizer': optax.adam(0.1).init(params),
        'history': np.full((2, 3), np.nan, np.float64),
        'empty': {},
    }


def test_what_is_restored_is_what_was_saved(tmp_path):
    tree = _tree(1.5)
    checkpoints.save(tmp_path / 'a', tree)
    restored = checkpoints.restore(tmp_path / 'a', tree)
    assert jax.tree.structure(restored) == jax.tree.structure(tree)
    jax.tree.map(np.testing.assert_array_equal, restored, tree)
    assert restored['history'].dtype == np.float64


def test_only_the_latest_is_kept(tmp_path):
    for value in range(3):
        checkpoints.save(tmp_path, _tree(value))
    assert [path.name for path in tmp_path.iterdir()] == ['2']
    assert checkpoints.restore(tmp_path, _tree())['params']['layer']['bias'][0] == 2


def test_nothing_there(tmp_path):
    assert not checkpoints.exists(tmp_path)
    assert not checkpoints.exists(tmp_path / 'never')
    with pytest.raises(checkpoints.CheckpointError, match='holds no checkpoint'):
        checkpoints.restore(tmp_path, _tree())


def test_another_tree_is_refused_by_name(tmp_path):
    checkpoints.save(tmp_path, _tree())
    other = _tree()
    other['params']['layer']['kernel'] = jnp.zeros((3, 5))
    with pytest.raises(checkpoints.CheckpointError, match=r'params.layer.kernel is .*\[3, 4\]'):
        checkpoints.restore(tmp_path, other)
    del other['params']
    with pytest.raises(checkpoints.CheckpointError, match='but absent was expected'):
        checkpoints.restore(tmp_path, other)


def test_an_unfinished_save_is_ignored_and_cleaned(tmp_path):
    checkpoints.save(tmp_path, _tree(7))
    (tmp_path / '1.orbax-checkpoint-tmp').mkdir()
    assert checkpoints.restore(tmp_path, _tree())['params']['layer']['bias'][0] == 7


def _save_for_ever(folder):
    for value in range(1_000_000):
        checkpoints.save(folder, {'x': np.full(50_000, value)})


def test_a_kill_leaves_a_whole_checkpoint(tmp_path):
    process = multiprocessing.get_context('spawn').Process(target=_save_for_ever, args=(tmp_path,))
    process.start()
    deadline = time.monotonic() + 30
    while not checkpoints.exists(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.234)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    x = checkpoints.restore(tmp_path, {'x': np.empty(50_000, np.int64)})['x']
    assert (x == x[0]).all()
    checkpoints.save(tmp_path, {'x': np.zeros(3)})
    assert len(list(pathlib.Path(tmp_path).iterdir())) == 1
