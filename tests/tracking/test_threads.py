"""Threads that do not change what comes out."""

from __future__ import annotations

import threading
import time

import pytest
import torch

from gafcore.tracking.threads import as_they_come, one_thread, side_by_side, workers


@pytest.mark.parametrize("cores", [None, 1, 2, 8])
def test_results_come_in_the_order_of_their_items(monkeypatch, cores):
    monkeypatch.setattr("os.cpu_count", lambda: cores)

    def late(i: int) -> int:
        time.sleep(0.002 * (5 - i))
        return i * i

    assert side_by_side(late, range(6)) == [0, 1, 4, 9, 16, 25]
    assert side_by_side(late, []) == []


def test_an_error_in_a_thread_is_the_callers():
    with pytest.raises(ZeroDivisionError):
        side_by_side(lambda i: 1 // i, [1, 0])


def test_torch_has_one_thread_inside_and_its_own_again_after():
    before = torch.get_num_threads()
    with one_thread():
        assert side_by_side(lambda _: torch.get_num_threads(), range(4)) == [1] * 4
    assert torch.get_num_threads() == before


def test_opencv_has_one_thread_inside_and_its_own_again_after():
    cv2 = pytest.importorskip("cv2", reason="tracking needs OpenCV: pip install 'gafcore[track]'")
    before = cv2.getNumThreads()
    try:
        cv2.setNumThreads(2)
        with one_thread():
            assert side_by_side(lambda _: cv2.getNumThreads(), range(4)) == [1] * 4
        assert cv2.getNumThreads() == 2
    finally:
        cv2.setNumThreads(before)


def test_two_callers_take_turns_and_the_number_is_the_users_again_after(threads):
    threads(2)
    inside, seen = threading.Event(), []

    def second() -> None:
        inside.wait(5)
        with one_thread():
            seen.append(torch.get_num_threads())

    other = threading.Thread(target=second)
    other.start()
    with one_thread():
        inside.set()
        other.join(0.1)
        assert not seen
        with one_thread():  # by the same caller
            pass
        assert torch.get_num_threads() == 1
    other.join(5)
    assert seen == [1] and torch.get_num_threads() == 2


def test_a_stream_is_drawn_in_order_on_the_callers_thread_and_a_few_ahead(threads):
    threads(2)
    drawn = []

    def source():
        for i in range(40):
            drawn.append(threading.get_ident())
            yield i

    def late(i: int) -> tuple[int, int]:
        time.sleep(0.001 * (i % 3))
        return i, torch.get_num_threads()

    with one_thread(), workers(40) as pool:
        results = as_they_come(pool, late, source())
        first = next(results)
        assert len(drawn) < 12
        assert [first, *results] == [(i, 1) for i in range(40)]
    assert set(drawn) == {threading.get_ident()} and torch.get_num_threads() == 2
