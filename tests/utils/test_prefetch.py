"""Prefetching: items are in order, their number is limited, and the thread ends."""

import threading
from collections.abc import Iterator

import pytest

from lib.utils.prefetch import prefetch


def test_items_are_yielded_in_order() -> None:
    assert list(prefetch(iter(range(50)), 3)) == list(range(50))
    assert list(prefetch([], 3)) == []


def test_at_most_count_items_are_computed_in_advance() -> None:
    computed: list[int] = []
    enough = threading.Event()

    def items() -> Iterator[int]:
        for index in range(50):
            computed.append(index)
            if index == 3:
                enough.set()
            yield index

    results = prefetch(items(), 3)
    assert next(results) == 0
    assert enough.wait(10)
    results.close()
    assert computed == [0, 1, 2, 3]


def test_an_exception_is_raised_after_the_items_before_it() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise KeyError("gone")

    results = prefetch(items(), 3)
    assert next(results) == 1
    with pytest.raises(KeyError, match="gone"):
        next(results)


@pytest.mark.parametrize("consumed", [1, 5])
def test_closing_ends_the_thread_and_closes_the_items(consumed: int) -> None:
    before, closed = threading.active_count(), []

    def items() -> Iterator[int]:
        try:
            yield from range(1000)
        finally:
            closed.append(threading.current_thread())

    results = prefetch(items(), 2)
    for _ in range(consumed):
        next(results)
    results.close()
    assert threading.active_count() == before
    assert len(closed) == 1
