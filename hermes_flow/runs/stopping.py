"""Turns the signals that end a command into one exception, so that it leaves its results in order."""

from __future__ import annotations

import _thread
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_WORDS = {"SIGINT": "interrupted", "SIGTERM": "terminated", "SIGHUP": "its terminal was closed"}
_AGAIN_S = 1.0


class Stopped(KeyboardInterrupt):
    """The command was told to end; ``status`` is its exit status, as a shell counts it.

    ``so_far`` is the answer that it had found until then, as text for the terminal; empty where it had none.
    """

    def __init__(self, message: str = "interrupted", status: int = 130, so_far: str = "") -> None:
        self.status, self.so_far = status, so_far
        super().__init__(message)


@contextmanager
def stoppable() -> Iterator[None]:
    """Raise Stopped in this block at Ctrl-C, SIGTERM and SIGHUP, and again until it has left it or is heard."""
    before = {}
    if threading.current_thread() is threading.main_thread():
        for name in _WORDS:
            number = getattr(signal, name, None)
            # A signal that is ignored stays so: nohup ignores SIGHUP.
            if number is not None and signal.getsignal(number) in (
                signal.SIG_DFL,
                signal.default_int_handler,
            ):
                before[number] = signal.signal(number, _stop)
    try:
        yield
    finally:
        heard()
        for number, handler in before.items():
            signal.signal(number, handler)


def keep_interrupts() -> None:
    """Let Python see every Ctrl-C from now on.

    Polars takes the signal over as it is imported, and forgets one that comes while it writes a small table.
    """
    with uninterrupted():  # of what is imported halfway, nothing works
        import polars  # noqa: F401

        handler = signal.getsignal(signal.SIGINT)
        if handler is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, handler)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Let the first signal that ends a command wait for the end of this block; a second one does not wait.

    The block has to be short: it brings results in order, or imports what they need.
    """
    before: dict[int, Callable[[int, FrameType | None], Any]] = {}
    waiting: list[int] = []

    def keep(number: int, frame: FrameType | None) -> None:
        if waiting:
            before[number](number, frame)
        waiting.append(number)

    if threading.current_thread() is threading.main_thread():
        for number in (getattr(signal, name, None) for name in _WORDS):
            handler = None if number is None else signal.getsignal(number)
            if callable(handler) and number is not None:
                before[number] = handler
                signal.signal(number, keep)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if waiting:
            before[waiting[0]](waiting[0], None)


@contextmanager
def workers_undisturbed() -> Iterator[None]:
    """Keep Ctrl-C from the processes that this block starts; only this process ends by it, and then ends them.

    The block runs in the main thread and must not wait for a lock without end: another thread, which has to exist
    already, takes the signal, and the main thread sees it when it next runs.
    """
    block = getattr(signal, "pthread_sigmask", None)  # Windows has none
    if block is None or threading.active_count() < 2:
        yield
        return
    block(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        block(signal.SIG_UNBLOCK, {signal.SIGINT})


class _Asked:
    """Whether the command was told to end and nobody has heard it yet, and whether a signal is the second of one."""

    waiting: object | None = None
    again = False


def heard() -> None:
    """Say that the exception of the last signal has arrived where it is answered."""
    _Asked.waiting = None


def _stop(number: int, frame: FrameType | None) -> None:
    again, _Asked.again = _Asked.again, False
    if again and (_Asked.waiting is None or stopped_by(sys.exc_info()[1]) is not None):
        return  # the first exception is on its way
    if _Asked.waiting is None:
        _Asked.waiting = object()
        _thread.start_new_thread(_insist, (number, _Asked.waiting))
    raise Stopped(_WORDS[signal.Signals(number).name], 128 + number)


def _insist(number: int, asked: object) -> None:
    """Send the signal again and again until it is heard.

    An exception that a signal raises can be lost: CPython 3.11 puts another one in its place where it comes while the
    message of that one is made, as in ``int("x")``, which configurations do thousands of times.
    """
    while True:
        time.sleep(_AGAIN_S)
        if _Asked.waiting is not asked:
            return
        _Asked.again = True
        if hasattr(signal, "pthread_sigmask"):
            os.kill(os.getpid(), number)  # a real signal also ends what the main thread waits for
        else:
            _thread.interrupt_main(signal.Signals(number))


def with_answer(stopped: KeyboardInterrupt, so_far: str) -> Stopped:
    """Return what stopped a command with the answer that it had found until then."""
    return Stopped(str(stopped) or "interrupted", getattr(stopped, "status", 130), so_far)


def stopped_by(error: BaseException | None) -> KeyboardInterrupt | None:
    """Return the interrupt that ``error`` began with: a library may have caught it halfway through its own work."""
    seen: set[int] = set()  # an error may be the cause of its own cause
    while error is not None and not isinstance(error, KeyboardInterrupt):
        if id(error) in seen:
            return None
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return error
