"""The progress bar: only where somebody sees it, and only for runs that take a while."""

from __future__ import annotations

import io
import time

import pytest

import hermes_flow as hf
from hermes_flow.report import progress
from hermes_flow.report.progress import progress_bar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def program() -> hf.Program:
    return hf.compile(hf.compose(["pipeline=llm", "workload.requests=5", "workload.rate_per_s=0.001"]))


def test_a_file_or_pipe_gets_no_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", io.StringIO())
    with progress_bar(program()) as advance:
        assert advance is None


def test_a_terminal_gets_a_bar_of_simulated_seconds_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setattr(progress, "_DELAY_S", 1e-9)
    compiled = program()
    with progress_bar(compiled) as advance:
        assert advance is not None
        time.sleep(0.15)  # a bar is drawn at most ten times a second
        advance(int(compiled.requests.arrival_ns[-1]) // 2)
        time.sleep(0.15)
        advance(int(compiled.requests.arrival_ns[-1]) * 2)  # the last answers come after the last arrival
    assert "simulated" in terminal.getvalue()
    assert "100 %" in terminal.getvalue()


def test_sessions_last_at_least_as_long_as_their_users_think(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setattr(progress, "_DELAY_S", 1e-9)
    turns = ["workload.turns=3", "workload.think_time_s=500"]
    apart = ["workload.sessions=4", "workload.arrivals=constant", "workload.rate_per_s=0.01"]
    compiled = hf.compile(hf.compose(["pipeline=llm", "workload=sessions", *turns, *apart]))
    with progress_bar(compiled) as advance:
        assert advance is not None
        time.sleep(0.15)
        advance(700 * 10**9)
    assert "700 of 1,400 s" in terminal.getvalue()


def test_a_short_run_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    with progress_bar(program()) as advance:
        assert advance is not None
        advance(1)
    assert terminal.getvalue().strip() == ""
