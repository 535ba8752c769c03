"""Decoded images kept within a memory limit, shared by the frames of a capture and by the threads that read them."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future

import numpy as np

DEFAULT_BYTES = 1_000_000_000  # about 1270 pictures of 512x512 as 8-bit RGB


class ImageCache:
    """Arrays up to `limit_bytes` in all; the least recently used go first. Threads may share it; no two decode the same key at once."""

    def __init__(self, limit_bytes: int = DEFAULT_BYTES) -> None:
        if limit_bytes < 0:
            raise ValueError(f"limit_bytes must be >= 0, got {limit_bytes}")
        self.limit_bytes = limit_bytes
        self._entries: OrderedDict[Hashable, np.ndarray] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()
        self._decoding: dict[Hashable, Future[np.ndarray]] = {}

    @property
    def bytes_used(self) -> int:
        return self._bytes

    def __len__(self) -> int:
        return len(self._entries)

    def has_room(self, n_bytes: int) -> bool:
        """Whether `n_bytes` more fit without evicting anything."""
        return self._bytes + n_bytes <= self.limit_bytes

    def get(self, key: Hashable, decode: Callable[[], np.ndarray]) -> np.ndarray:
        """The array of `key`, made by `decode()` when it is not held. The array is shared: callers must not write to it."""
        with self._lock:
            if key in self._entries:
                self._entries.move_to_end(key)
                return self._entries[key]
            others = self._decoding.get(key)
            mine: Future[np.ndarray] = Future()
            if others is None:
                self._decoding[key] = mine
        if others is not None:
            return others.result()
        try:
            array = decode()
        except BaseException as error:
            with self._lock:
                del self._decoding[key]
            mine.set_exception(error)
            raise
        self._store(key, array)
        mine.set_result(array)
        return array

    def put(self, key: Hashable, array: np.ndarray) -> None:
        """Hold an array that was decoded on the way to another one."""
        self._store(key, array)

    def _store(self, key: Hashable, array: np.ndarray) -> None:
        with self._lock:
            self._decoding.pop(key, None)
            previous = self._entries.pop(key, None)
            self._bytes -= previous.nbytes if previous is not None else 0
            if array.nbytes > self.limit_bytes:
                return
            self._entries[key] = array
            self._bytes += array.nbytes
            while self._bytes > self.limit_bytes:
                _, evicted = self._entries.popitem(last=False)
                self._bytes -= evicted.nbytes
