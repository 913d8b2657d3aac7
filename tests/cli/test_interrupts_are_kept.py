"""Ctrl-C is neither lost nor shows a traceback, and what has to be whole is finished before it counts."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from benchmarks.fuzz.interrupts import interrupted
from hermes_flow.runs import stopping


@pytest.fixture(autouse=True)
def heeded() -> Iterator[None]:
    """Python's own answer to Ctrl-C: a shell may have started the tests with the signal ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


HANDLER = """
import ctypes

def handler():
    action = (ctypes.c_ubyte * 256)()
    ctypes.CDLL(None).sigaction(2, None, action)
    return bytes(action[:8])

before = handler()
import polars
taken = handler()
from hermes_flow.runs.stopping import keep_interrupts
keep_interrupts()
print(taken != before, handler() == before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the handler of C is read as Linux keeps it")
def test_the_handler_is_pythons_again_after_polars_has_taken_the_signal() -> None:
    found = subprocess.run([sys.executable, "-c", HANDLER], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["True", "True"]


WAITING = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have it ignored
from hermes_flow.runs.stopping import stoppable, uninterrupted

def signalled(number, times):
    done = 0
    try:
        with stoppable(), uninterrupted():
            for _ in range(times):
                signal.raise_signal(number)
                done += 1
    except KeyboardInterrupt as error:
        return type(error).__name__, done
    return "nothing", done

print(signalled(signal.SIGINT, 1), signalled(signal.SIGTERM, 1), signalled(signal.SIGINT, 3))
print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)
"""


def test_a_signal_waits_until_results_are_in_order_and_a_second_one_does_not_wait() -> None:
    found = subprocess.run([sys.executable, "-c", WAITING], capture_output=True, text=True, check=True)
    assert found.stdout.splitlines() == [
        "('Stopped', 1) ('Stopped', 1) ('Stopped', 1)",
        "True",
    ]


def test_a_signal_whose_exception_was_lost_is_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """CPython itself may lose it, where the message of another exception is being made."""
    monkeypatch.setattr(stopping, "_AGAIN_S", 0.01)

    def lose_the_first() -> None:
        with suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        time.sleep(60)

    began = time.monotonic()
    with pytest.raises(stopping.Stopped, match="interrupted"), stopping.stoppable():
        lose_the_first()
    assert time.monotonic() - began < 30  # in the middle of what the command waits for
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_signal_that_is_on_its_way_is_not_raised_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopping, "_AGAIN_S", 0.01)
    cleaned = []

    def clean_up() -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            time.sleep(0.1)
            cleaned.append(True)

    with pytest.raises(stopping.Stopped), stopping.stoppable():
        clean_up()
    assert cleaned


def test_a_signal_that_was_heard_is_not_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopping, "_AGAIN_S", 0.01)
    went_on = False
    with stopping.stoppable():
        with suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        stopping.heard()
        time.sleep(0.1)
        went_on = True
    assert went_on


@pytest.mark.parametrize(("name", "after_s"), [("sweep", 1.3), ("simulate", 0.2), ("simulate", 0.6)])
def test_a_command_that_is_interrupted_shows_no_traceback_and_loses_nothing(
    name: str, after_s: float, tmp_path: Path
) -> None:
    """``python -m benchmarks.fuzz.interrupts`` does so at hundreds of random moments."""
    sent, problem = interrupted(name, after_s, True, tmp_path / "work")
    assert problem is None
    assert sent or name != "sweep"  # eight jobs take longer than that


def test_an_error_that_is_its_own_cause_is_no_interrupt() -> None:
    error = ValueError("wrong")
    error.__cause__ = other = KeyError("x")
    other.__context__ = error
    assert stopping.stopped_by(error) is None
    other.__cause__ = interrupt = KeyboardInterrupt()
    assert stopping.stopped_by(error) is interrupt
