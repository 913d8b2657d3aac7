"""The interface of record formats, and what they make of a file: runs of requests with their load."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from hermes_flow.config.registry import Registry
from hermes_flow.errors import TraceError


@dataclass(frozen=True, slots=True)
class Record:
    """One JSON object of a file, with its line where it stands on one."""

    line: int | None
    value: Any


@dataclass(frozen=True, slots=True)
class Source:
    """The file that records come from, and how to count the tokens of its texts, where it holds texts."""

    path: Path
    tokenizer: str | None = None
    characters_per_token: float | None = None

    def error(self, line: int | None, problem: str) -> TraceError:
        """Return the error of a record."""
        return TraceError(str(self.path), line, problem)


@dataclass(frozen=True, slots=True)
class Row:
    """One request as the columns of the native format have it; times in ns, None where the file has none.

    ``ttft_ns`` and ``e2e_ns`` are what a benchmark measured. ``delay_ns`` is how long after the answer of the
    session's row before it the request arrives.
    """

    input_tokens: int
    output_tokens: int
    arrival_ns: int | None = None
    session: str | None = None
    delay_ns: int | None = None
    prefix_hashes: tuple[int, ...] | None = None
    ttft_ns: int | None = None
    e2e_ns: int | None = None
    line: int | None = None


def in_sessions(rows: list[Row]) -> list[Row]:
    """Return the rows, without their sessions where every session has one request."""
    if len({row.session for row in rows}) < len(rows):
        return rows
    return [replace(row, session=None) for row in rows]


@dataclass(frozen=True, slots=True)
class Load:
    """How a benchmark sent its requests, where the recorded times do not say it: an arrival process and its rate."""

    arrivals: Mapping[str, Any] | str
    rate_per_s: float | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """The requests of one run, its load (None: as recorded), its length in s where known, and notes for the user."""

    rows: Sequence[Row]
    load: Load | None = None
    duration_s: float | None = None
    notes: Sequence[str] = field(default_factory=tuple)


class RecordFormat(Protocol):
    """The format of a file of records."""

    @staticmethod
    def fits(value: Any) -> bool:
        """Return whether a file whose first record (or whole document) is ``value`` has this format."""

    @staticmethod
    def runs(records: Sequence[Record], source: Source) -> list[Run]:
        """Return the runs of the file; raises TraceError."""


record_formats: Registry[RecordFormat] = Registry(
    "trace format", tag="format", package=__package__, methods=("fits", "runs")
)


def closed_loop(users: int) -> Load:
    """Return the load of a fixed number of users who wait for each answer; raises ValueError below 1."""
    if users < 1:
        raise ValueError(f"the number of users is {users}; expected 1 or more")
    return Load({"process": "closed_loop", "concurrency": users})
