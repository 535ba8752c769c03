"""Work on a few threads whose result does not depend on how many there are."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

_MAX_THREADS = 4  # the interpreter's lock is held between tensor operations, so more gain nothing

_ALONE = threading.RLock()

A, B = TypeVar("A"), TypeVar("B")


def side_by_side(fn: Callable[[A], B], items: Sequence[A]) -> list[B]:
    """`[fn(item) for item in items]` on a few threads. Call it within `one_thread`; items must not depend on one another."""
    n = min(len(items), os.cpu_count() or 1, _MAX_THREADS)
    if n <= 1:
        return [fn(item) for item in items]
    # A new thread takes over torch's number of threads only with its first parallel region. Matrix products are none, so the first ones
    # would run on OMP_NUM_THREADS and have that number's bits.
    with ThreadPoolExecutor(n, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        return list(pool.map(fn, items))


@contextmanager
def one_thread() -> Iterator[None]:
    """Many small matrix products: torch's threads cost more than they give, and one of them makes the result the same everywhere.

    The number is the process's, so one caller at a time: two clips tracked by two threads of a process take turns here. May be nested,
    but not within functions that `side_by_side` runs.
    """
    with _ALONE:
        n = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(n)
