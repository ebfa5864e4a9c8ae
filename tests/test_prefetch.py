"""Work done ahead: in order, no further than allowed, and nothing left behind."""

import threading
import time

import pytest

from nic_jax.prefetch import default_workers, map_ahead


@pytest.mark.parametrize(('workers', 'ahead'), [(1, 1), (1, 4), (3, 2), (4, 9)])
def test_results_come_in_order(workers, ahead):
    def slowly(item):
        time.sleep(0.002 * (item % 3))
        return item * item

    expected = [item * item for item in range(20)]
    assert list(map_ahead(slowly, range(20), workers=workers, ahead=ahead)) == expected
    assert list(map_ahead(slowly, [], workers=workers, ahead=ahead)) == []


@pytest.mark.parametrize(('workers', 'ahead'), [(1, 1), (2, 5)])
def test_no_more_is_begun_than_allowed(workers, ahead):
    begun = []
    results = map_ahead(begun.append, iter(range(30)), workers=workers, ahead=ahead)
    for received, _ in enumerate(results, start=1):
        time.sleep(0.005)
        assert len(begun) <= received + ahead - 1
    assert sorted(begun) == list(range(30))  # two threads may begin in either order


def test_an_exception_is_raised_at_its_items_turn():
    def fails_at_five(item):
        if item == 5:
            raise ValueError('five')
        return item

    before, came = threading.active_count(), []
    with pytest.raises(ValueError, match='five'):
        came.extend(map_ahead(fails_at_five, range(10), workers=3, ahead=8))
    assert came == [0, 1, 2, 3, 4]
    assert threading.active_count() == before


def test_stopping_early_cancels_and_waits():
    running, begun = threading.Semaphore(0), []

    def work(item):
        begun.append(item)
        running.release()
        time.sleep(0.02)
        return item

    before = threading.active_count()
    results = map_ahead(work, range(100), workers=2, ahead=10)
    assert next(results) == 0
    results.close()
    assert threading.active_count() == before
    assert len(begun) <= 5


def test_workers_are_few_and_at_least_one():
    assert 1 <= default_workers() <= 16
