"""Does independent work in this process and in others at once.

A process that starts needs about a second to import what it needs. So this process begins alone, and others start
when the work has taken ``START_AFTER_S`` and enough of it is left.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")

START_AFTER_S = 2.0
_AHEAD = 2  # items that wait in each other process, so that it never has to


def cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Workers:
    """This process and up to ``count`` − 1 others, which are started when they are worth it.

    ``prepare`` and its arguments are called in each process that starts. Use it in a ``with`` statement. A program
    that asks for more than one process must be importable, which a script with ``if __name__ == "__main__":`` is.
    A process that another one has started, as the launchers of sweeps do, starts none.
    """

    def __init__(self, count: int, prepare: Callable[..., None], *arguments: Any) -> None:
        # One that a launcher has started has others beside it already, and may not be able to start any (joblib's).
        alone = multiprocessing.current_process().name != "MainProcess"
        self._count, self._prepare, self._arguments = 1 if alone else count, prepare, arguments
        self._began = time.monotonic()
        self._executor: ProcessPoolExecutor | None = None

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._executor is None:
            return
        begun = list((getattr(self._executor, "_processes", None) or {}).values())
        self._executor.shutdown(wait=kind is None, cancel_futures=True)
        for process in (
            begun if kind is not None else ()
        ):  # Python would wait for the work that they have begun
            process.terminate()

    def map(
        self,
        work: Callable[[T], R],
        items: Sequence[T],
        *,
        until: Callable[[list[R]], bool] | None = None,
        on_result: Callable[[R], None] | None = None,
    ) -> list[R]:
        """Return the result of ``work`` for every item, in their order; ``work`` must not depend on the others.

        No item is begun once ``until`` returns true of the results so far. ``on_result`` is called with each.
        """
        left = deque(enumerate(items))
        found: dict[int, R] = {}
        running: dict[int, Future[R]] = {}

        def keep(number: int, result: R) -> None:
            found[number] = result
            if on_result is not None:
                on_result(result)

        def collect(wait: bool = False) -> None:
            for number in [number for number, each in running.items() if wait or each.done()]:
                keep(number, running.pop(number).result())

        while left:
            if until is not None and until(list(found.values())):
                break
            collect()
            executor = self._others(len(left))
            while executor is not None and len(left) > 1 and len(running) < _AHEAD * (self._count - 1):
                number, item = left.popleft()
                running[number] = executor.submit(work, item)
            number, item = left.popleft()
            keep(number, work(item))
        collect(wait=True)
        return [found[number] for number in sorted(found)]

    def _others(self, left: int) -> ProcessPoolExecutor | None:
        """Return the other processes; None while they are not worth their start."""
        worth = self._count > 1 and left > 2 and time.monotonic() - self._began > START_AFTER_S
        if self._executor is None and worth:
            self._executor = ProcessPoolExecutor(
                self._count - 1,
                multiprocessing.get_context("spawn"),
                initializer=_started,
                initargs=(self._prepare, self._arguments),
            )
        return self._executor


def _started(prepare: Callable[..., None], arguments: Sequence[Any]) -> None:
    """Get ready, and end silently with the process that started this one, whatever ends that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    prepare(*arguments)


def _end_with_parent() -> None:
    """Wait for the end of the process that started this one: a killed one cannot say that there is no more work."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(0)
