"""Turns the signals that end a command into one exception, so that it leaves its results in order."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_WORDS = {"SIGTERM": "terminated", "SIGHUP": "its terminal was closed"}


class Stopped(KeyboardInterrupt):
    """The command was told to end; ``status`` is its exit status, as a shell counts it."""

    def __init__(self, message: str = "interrupted", status: int = 130) -> None:
        self.status = status
        super().__init__(message)


@contextmanager
def stoppable() -> Iterator[None]:
    """Raise Stopped in this block when SIGTERM or SIGHUP arrives, as Python raises KeyboardInterrupt at Ctrl-C."""
    before = {}
    if threading.current_thread() is threading.main_thread():
        for name in _WORDS:
            number = getattr(signal, name, None)
            # A signal that is ignored stays so: nohup ignores SIGHUP.
            if number is not None and signal.getsignal(number) == signal.SIG_DFL:
                before[number] = signal.signal(number, _stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def keep_interrupts() -> None:
    """Let Python see every Ctrl-C from now on.

    Polars takes the signal over as it is imported, and forgets one that comes while it writes a small table.
    """
    import polars  # noqa: F401

    handler = signal.getsignal(signal.SIGINT)
    if handler is not None and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, handler)


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


def _stop(number: int, frame: FrameType | None) -> None:
    raise Stopped(_WORDS[signal.Signals(number).name], 128 + number)


def stopped_by(error: BaseException | None) -> KeyboardInterrupt | None:
    """Return the interrupt that ``error`` began with: a library may have caught it halfway through its own work."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error
