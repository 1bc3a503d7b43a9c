"""Work that a thread does while this one waits for something else."""

import queue
import threading
from collections.abc import Generator, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def ahead(items: Iterable[T], most: int) -> Iterator[T]:
    """Yield items that a thread brings, up to `most` ahead; what it raises is raised here.

    Close the iterator, or exhaust it, and the thread ends before the call does.
    """
    waiting: queue.Queue = queue.Queue(most)
    stopping = threading.Event()

    def put(entry: tuple[T | None, BaseException | None]) -> bool:
        while not stopping.is_set():
            try:
                waiting.put(entry, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def bring() -> None:
        error: BaseException | None = None
        try:
            for item in items:
                if not put((item, None)):
                    return
        except BaseException as raised:
            error = raised
        put((None, error or StopIteration()))

    def bring_and_close() -> None:
        try:
            bring()
        finally:
            if isinstance(items, Generator):
                items.close()  # here, where it ran

    thread = threading.Thread(target=bring_and_close, daemon=True)
    thread.start()
    try:
        while True:
            item, error = waiting.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield item
    finally:
        stopping.set()
        thread.join()
