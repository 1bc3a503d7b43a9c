"""Prefetching: a thread computes the next items while the caller uses the current one."""

from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")


def prefetch(items: Iterable[T], count: int) -> Generator[T, None, None]:
    """Yield the items in order; a thread computes up to `count` of them ahead.

    An exception of `items` is raised here, after the items before it. Closing this generator, or
    exhausting it, also closes `items` if that is a generator, and ends the thread.
    """
    iterator, end = iter(items), object()
    with ThreadPoolExecutor(max_workers=1) as executor:
        pending: deque[Future[Any]] = deque(
            executor.submit(next, iterator, end) for _ in range(count)
        )
        try:
            while (item := pending.popleft().result()) is not end:
                pending.append(executor.submit(next, iterator, end))
                yield item
        finally:
            for future in pending:
                future.cancel()
            if isinstance(iterator, Generator):
                executor.submit(iterator.close).result()
