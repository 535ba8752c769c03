"""Work on a few threads whose result does not depend on how many there are."""

from __future__ import annotations

import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

_MAX_THREADS = 4  # the interpreter's lock is held between tensor operations, so more gain nothing

_AHEAD = 2 * _MAX_THREADS
_ALONE = threading.RLock()

A, B = TypeVar("A"), TypeVar("B")


def side_by_side(fn: Callable[[A], B], items: Sequence[A]) -> list[B]:
    """`[fn(item) for item in items]` on a few threads. Call it within `one_thread`; items must not depend on one another."""
    if min(len(items), _threads()) <= 1:
        return [fn(item) for item in items]
    with workers(len(items)) as pool:
        return list(pool.map(fn, items))


def as_they_come(pool: ThreadPoolExecutor, fn: Callable[[A], B], items: Iterable[A]) -> Iterator[B]:
    """`map(fn, items)` by a pool, in order. Items are drawn on the caller's thread, a few ahead: decoders go forwards, on one thread."""
    ahead: deque[Future[B]] = deque()
    for item in items:
        ahead.append(pool.submit(fn, item))
        if len(ahead) > _AHEAD:
            yield ahead.popleft().result()
    while ahead:
        yield ahead.popleft().result()


def workers(n_items: int) -> ThreadPoolExecutor:
    """A few threads for this many items, to be made within `one_thread`."""
    # A new thread takes over torch's number of threads only with its first parallel region. Matrix products are none, so the first ones
    # would run on OMP_NUM_THREADS and have that number's bits.
    return ThreadPoolExecutor(max(1, min(n_items, _threads())), initializer=torch.set_num_threads, initargs=(1,))


def _threads() -> int:
    return min(os.cpu_count() or 1, _MAX_THREADS)


@contextmanager
def one_thread() -> Iterator[None]:
    """Many small matrix products: torch's threads cost more than they give, and one of them makes the result the same everywhere.

    OpenCV, where it has been imported, has one thread as well: beside workers of ours its own wait for work that never comes, by turning
    over (a fifth of the processor time of mattes). The numbers are the process's, so one caller at a time: two clips tracked by two threads
    of a process take turns here. May be nested, but not within functions that `side_by_side` runs.
    """
    with _ALONE:
        cv2, n = sys.modules.get("cv2"), torch.get_num_threads()
        if not hasattr(cv2, "setNumThreads"):  # absent, or another thread is importing it
            cv2 = None
        n_opencv = cv2.getNumThreads() if cv2 else 0
        torch.set_num_threads(1)
        if cv2:
            cv2.setNumThreads(1)
        try:
            yield
        finally:
            torch.set_num_threads(n)
            if cv2:
                cv2.setNumThreads(n_opencv)
