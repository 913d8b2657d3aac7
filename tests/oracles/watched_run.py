"""A run of which every submission is noted down: which client got which task, when, and in what order."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

from hermes_flow.clients.llm import LLMClient
from hermes_flow.clients.sequential import SequentialClient
from hermes_flow.compiler.program import Program
from hermes_flow.metrics.recording import Recording
from hermes_flow.simulation import run

AnyClient = LLMClient | SequentialClient


@dataclass
class Served:
    """What one client was given, in order."""

    client: AnyClient
    tasks: list[int] = field(default_factory=list)
    submitted_ns: list[int] = field(default_factory=list)


@dataclass
class WatchedRun:
    """A recording, and every client that was given anything."""

    recording: Recording
    served: list[Served]


def watch(program: Program) -> WatchedRun:
    """Run ``program`` and keep the clients and what they were given."""
    served: dict[int, Served] = {}
    with _noting(LLMClient, served), _noting(SequentialClient, served):
        recording = run(program)
    return WatchedRun(recording, list(served.values()))


@contextmanager
def _noting(kind: type[AnyClient], served: dict[int, Served]) -> Iterator[None]:
    submit = kind.submit

    def noting(self: Any, task: int, now_ns: int) -> None:
        entry = served.setdefault(id(self), Served(self))
        entry.tasks.append(task)
        entry.submitted_ns.append(now_ns)
        submit(self, task, now_ns)

    with patch.object(kind, "submit", noting):
        yield
