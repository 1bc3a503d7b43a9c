"""A thread brings items ahead, in order, and is gone afterwards."""

import threading
from collections.abc import Iterator

import pytest

from lib.utils.threads import ahead


def test_items_come_in_order() -> None:
    assert list(ahead(iter(range(50)), 3)) == list(range(50))
    assert list(ahead([], 3)) == []


def test_it_runs_ahead_but_not_farther_than_asked() -> None:
    taken: list[int] = []
    enough = threading.Event()

    def items() -> Iterator[int]:
        for index in range(50):
            taken.append(index)
            if index == 4:
                enough.set()
            yield index

    found = ahead(items(), 3)
    assert next(found) == 0
    assert enough.wait(10)  # one is taken, three wait, one is in hand
    found.close()
    assert max(taken) <= 5


def test_what_the_thread_raises_arrives_behind_what_it_brought() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise KeyError("gone")

    found = ahead(items(), 3)
    assert next(found) == 1
    with pytest.raises(KeyError, match="gone"):
        next(found)


@pytest.mark.parametrize("taken", [1, 5])
def test_closing_ends_the_thread_and_what_it_runs(taken: int) -> None:
    before, closed = threading.active_count(), []

    def items() -> Iterator[int]:
        try:
            yield from range(1000)
        finally:
            closed.append(threading.current_thread())

    found = ahead(items(), 2)
    for _ in range(taken):
        next(found)
    found.close()
    assert threading.active_count() == before
    assert len(closed) == 1
    assert closed[0] is not threading.current_thread()
