"""A cache of decoded tiles, bounded in bytes and shared by threads."""

import collections
import concurrent.futures
import threading
from collections.abc import Callable, Hashable

import numpy as np


class TileCache:
    """Keeps the tiles used last; the oldest go when their bytes exceed the capacity.

    Thread-safe. A tile that two threads ask for at once is decoded by the first, and the second
    waits for it.
    """

    def __init__(self, capacity: int = 256 << 20):
        self._capacity = capacity  # bytes
        self._size = 0
        self._tiles: collections.OrderedDict[Hashable, np.ndarray] = collections.OrderedDict()
        self._under_way: dict[Hashable, concurrent.futures.Future] = {}
        self._lock = threading.Lock()

    def get(self, key: Hashable, decode: Callable[[], np.ndarray]) -> np.ndarray:
        """The tile of that key, from the cache or else from `decode()`.

        The array belongs to the cache: do not write to it. What `decode` raises is passed on (to
        every thread that waits) and nothing is kept.
        """
        with self._lock:
            if key in self._tiles:
                self._tiles.move_to_end(key)
                return self._tiles[key]
            future = self._under_way.get(key)
            mine = future is None
            if mine:
                future = self._under_way[key] = concurrent.futures.Future()
        if mine:
            self._decode(key, decode, future)
        return future.result()

    def _decode(
        self,
        key: Hashable,
        decode: Callable[[], np.ndarray],
        future: concurrent.futures.Future,
    ) -> None:
        try:
            tile = decode()
        except BaseException as error:
            with self._lock:
                del self._under_way[key]
            future.set_exception(error)
            return
        with self._lock:
            del self._under_way[key]
            self._tiles[key] = tile
            self._size += tile.nbytes
            while self._size > self._capacity:
                _, oldest = self._tiles.popitem(last=False)
                self._size -= oldest.nbytes
        future.set_result(tile)
