from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from gafcore.captures.cache import ImageCache


def block(value: int) -> np.ndarray:
    return np.full(100, value, np.uint8)


def test_limit_evicts_the_least_recently_used():
    cache = ImageCache(300)
    for key in "abc":
        cache.get(key, lambda key=key: block(ord(key)))
    cache.get("a", lambda: pytest.fail("a is held"))
    cache.get("d", lambda: block(0))
    cache.get("a", lambda: pytest.fail("a was used after b"))
    remade = []
    cache.get("b", lambda: remade.append(1) or block(1))
    assert remade == [1] and cache.bytes_used == 300 and len(cache) == 3


def test_what_is_larger_than_the_limit_is_not_held():
    cache = ImageCache(50)
    assert (cache.get("a", lambda: block(3)) == 3).all()
    assert cache.bytes_used == 0 and not cache.has_room(51) and cache.has_room(50)
    with pytest.raises(ValueError, match="limit_bytes must be >= 0, got -1"):
        ImageCache(-1)


def test_replacing_a_key_counts_its_bytes_once():
    cache = ImageCache(1000)
    cache.put("a", block(1))
    cache.put("a", block(2))
    assert cache.bytes_used == 100 and (cache.get("a", lambda: pytest.fail("held")) == 2).all()


def test_threads_decode_a_key_once_and_share_failures():
    cache, calls, barrier = ImageCache(1000), [], threading.Barrier(8)

    def decode():
        calls.append(1)
        time.sleep(0.05)
        return block(7)

    def use(results):
        barrier.wait()
        results.append(cache.get("a", decode))

    results: list[np.ndarray] = []
    workers = [threading.Thread(target=use, args=(results,)) for _ in range(8)]
    [w.start() for w in workers]
    [w.join() for w in workers]
    assert len(calls) == 1 and len({id(r) for r in results}) == 1 and len(results) == 8
    with pytest.raises(RuntimeError, match="no"):
        cache.get("b", lambda: (_ for _ in ()).throw(RuntimeError("no")))
    assert (cache.get("b", lambda: block(1)) == 1).all()  # a failure is not remembered
