"""Overlap: the order is kept, bounds hold, errors reach the caller."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from stylenet.applying import overlap


def test_looking_ahead_keeps_the_order_and_the_bound():
    begun = []
    results = overlap.look_ahead(range(10), lambda i: begun.append(i) or i, 3)
    assert next(results) == 0 and begun == [0, 1, 2, 3]
    assert next(results) == 1 and begun == [0, 1, 2, 3, 4]
    assert list(results) == list(range(2, 10)) and begun == list(range(10))


@pytest.mark.parametrize("n", [1, 2, 3, 100])
def test_batches_hold_one_kind_and_everything_once(n):
    items = [(7 * i * i) % 5 for i in range(50)]
    made = list(overlap.batches(enumerate(items), lambda item: item[1], n, 6))
    assert sorted(item for batch in made for item in batch) == list(enumerate(items))
    assert all(len(batch) <= n and len({kind for _, kind in batch}) == 1 for batch in made)


def test_batches_of_one_come_in_order_and_a_rare_kind_does_not_wait_for_ever():
    assert list(overlap.batches("abca", str, 1, 0)) == [["a"], ["b"], ["c"], ["a"]]
    taken = []

    def items():
        for i in range(1000):
            taken.append(i)
            yield "rare" if i == 0 else f"kind {i % 4}"

    made = overlap.batches(items(), str, 8, 12)
    assert next(made) == ["rare"] and len(taken) <= 14


def test_writing_is_bounded_and_noted_in_order_in_this_thread():
    running, most, noted = [], [], []

    def action(i):
        running.append(i)
        most.append(len(running))
        time.sleep(0.002 * (i % 3))
        running.remove(i)

    with ThreadPoolExecutor(4) as pool, overlap.Writer(pool, 2) as writer:
        for i in range(30):
            writer.submit(
                lambda i=i: action(i), lambda i=i: noted.append((i, threading.current_thread()))
            )
            assert len(writer.running) <= 2
    assert noted == [(i, threading.main_thread()) for i in range(30)] and max(most) <= 3


def test_an_error_is_raised_here_and_what_was_done_still_counts():
    noted = []

    def fail():
        raise OSError("disk full")

    with (
        pytest.raises(OSError, match="disk full"),
        ThreadPoolExecutor(1) as pool,
        overlap.Writer(pool, 2) as writer,
    ):
        for action in (int, fail, int, int, int, int):
            writer.submit(action, lambda: noted.append(1))
    assert noted
    with (
        pytest.raises(OSError, match="disk full"),
        ThreadPoolExecutor(1) as pool,
        overlap.Writer(pool, 9) as writer,
    ):
        writer.submit(fail, lambda: None)


def test_reading_and_writing_overlap_with_work():
    """Three steps of 20 ms each, ten times.

    One after another they take 600 ms; with overlap little more than 200 ms.
    """
    start = time.perf_counter()
    with ThreadPoolExecutor(4) as pool, overlap.Writer(pool, 4) as writer:
        for future in overlap.look_ahead(range(10), lambda i: pool.submit(time.sleep, 0.02), 4):
            future.result()
            time.sleep(0.02)
            writer.submit(lambda: time.sleep(0.02), lambda: None)
    assert time.perf_counter() - start < 0.45
