"""The workloads of ServeGen: for each client, windows of a rate and a pattern, and the lengths of its requests.

https://github.com/alibaba/ServeGen (Xiang et al., arXiv 2505.09999). chunk-N-trace.csv has no header: the second at
which a window begins, its rate per second, the coefficient of variation, Gamma or Weibull, and shape and scale of the
gaps. chunk-N-dataset.json has the probabilities of input_tokens and output_tokens by the second from which they hold.
"""

from __future__ import annotations

import ast
import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hermes_flow.config.documents import DocumentError, read_json
from hermes_flow.config.schema import TraceWorkload
from hermes_flow.errors import ConfigError, TraceError
from hermes_flow.program.requests import Requests
from hermes_flow.program.units import NS_PER_S, Ints
from hermes_flow.workload.arrivals.gamma import Gamma
from hermes_flow.workload.arrivals.process import RateProcess
from hermes_flow.workload.arrivals.stages import arrivals_within
from hermes_flow.workload.arrivals.weibull import Weibull
from hermes_flow.workload.drawn.drawn_format import drawn_formats
from hermes_flow.workload.number_checks import require_not_negative, require_positive
from hermes_flow.workload.streams import stream

_TRACE, _DATASET = "-trace.csv", "-dataset.json"
_FIELDS = 6
_MOST = 20_000_000  # requests that are drawn at once

Pmf = tuple[Ints, np.ndarray[Any, np.dtype[np.float64]]]


@dataclass(frozen=True, slots=True)
class _Window:
    """So many requests per second from ``begin_s`` to ``end_s``, with gaps of a shape."""

    begin_s: float
    end_s: float
    rate_per_s: float
    process: RateProcess


@drawn_formats.register("servegen")
class ServeGen:
    """ServeGen's clients: each draws its own arrivals and lengths; a folder has all of its clients at once."""

    @staticmethod
    def fits(path: Path, document: Any) -> bool:
        """Return whether it is the trace of a client, or a folder of such."""
        if path.is_dir():
            return any(path.glob(f"chunk-*{_TRACE}"))
        if document is not None or not path.name.endswith(_TRACE):
            return False
        with path.open(encoding="utf-8", errors="replace") as opened:
            first = next(csv.reader(opened), [])
        return len(first) == _FIELDS and all(_is_number(cell) for cell in first[:3])

    @staticmethod
    def draw(path: Path, document: Any, workload: TraceWorkload) -> Requests:
        """Draw the requests of all clients within the workload's window."""
        traces = sorted(path.glob(f"chunk-*{_TRACE}"), key=_chunk) if path.is_dir() else [path]
        begin, end = _span(workload)
        clients = [(trace, _windows(trace, begin, end)) for trace in traces]
        expected = math.fsum(
            (window.end_s - window.begin_s) * window.rate_per_s
            for _, windows in clients
            for window in windows
        )
        if expected * workload.rate_scale > _MOST:
            problem = f"gives about {expected * workload.rate_scale:,.0f} requests; set a shorter one"
            raise ConfigError("workload.duration", problem)
        parts = [_client(trace, windows, begin, workload) for trace, windows in clients if windows]
        arrival, inputs, outputs = (
            np.concatenate([part[place] for part in parts]) if parts else np.zeros(0, np.int64)
            for place in range(3)
        )
        if not len(arrival):
            raise TraceError(
                str(path), None, "has no request in this window; set workload.start and workload.duration"
            )
        order = np.argsort(arrival, kind="stable")
        return Requests(arrival[order], inputs[order], outputs[order])


def _span(workload: TraceWorkload) -> tuple[float, float]:
    if isinstance(workload.start, str):
        raise ConfigError("workload.start", f"{workload.start!r} is a date; expected seconds, as in the file")
    begin = workload.start or 0.0
    require_not_negative(begin, "workload.start", "seconds")
    if workload.duration is None:
        return begin, math.inf
    require_positive(workload.duration, "workload.duration", "seconds")
    return begin, begin + workload.duration


def _windows(path: Path, begin: float, end: float) -> list[_Window]:
    """Return the windows with requests that overlap the span, cut to it."""
    with path.open(encoding="utf-8", newline="") as opened:
        rows = [(number, row) for number, row in enumerate(csv.reader(opened), 1) if row]
    starts = [_number(path, line, row, 0) for line, row in rows]
    lasts = float(np.median(np.diff(starts))) if len(starts) > 1 else 600.0
    ends = [*starts[1:], starts[-1] + lasts] if starts else []
    found = []
    for (line, row), start, stop in zip(rows, starts, ends, strict=True):
        rate = _number(path, line, row, 1)
        if stop <= start:
            raise TraceError(
                str(path), line, f"the window begins at {start:g} s, and the next one at {stop:g} s"
            )
        if rate > 0 and start < end and stop > begin:
            process = _process(path, line, row)
            found.append(_Window(max(start, begin), min(stop, end), rate, process))
    return found


def _process(path: Path, line: int, row: list[str]) -> RateProcess:
    shape = _number(path, line, row, 4)
    pattern = row[3].strip().lower()
    if shape <= 0 or pattern not in ("gamma", "weibull"):
        raise TraceError(
            str(path), line, f"{row[3]!r} with shape {shape:g}; expected Gamma or Weibull, above 0"
        )
    if pattern == "gamma":
        return Gamma(1.0 / math.sqrt(shape))
    return Weibull(shape=shape)


def _client(
    trace: Path, windows: list[_Window], begin: float, workload: TraceWorkload
) -> tuple[Ints, Ints, Ints]:
    """Draw a client's arrivals (counted from ``begin``), prompts and answers."""
    lengths = _lengths(trace.with_name(trace.name.replace(_TRACE, _DATASET)))
    parts: list[tuple[Ints, Ints, Ints]] = []
    for window in windows:
        rng = stream(workload.seed, f"servegen {trace.name} {window.begin_s:g}")
        duration_ns = round((window.end_s - window.begin_s) * NS_PER_S)
        rate = window.rate_per_s * workload.rate_scale
        arrival = arrivals_within(window.process, duration_ns, rate, _MOST, rng)
        holds = [second for second in lengths if second <= window.begin_s] or [min(lengths)]
        drawn = [
            _drawn(lengths[max(holds)][name], len(arrival), rng) for name in ("input_tokens", "output_tokens")
        ]
        parts.append((arrival + round((window.begin_s - begin) * NS_PER_S), drawn[0], drawn[1]))
    columns = [np.concatenate([part[place] for part in parts]) for place in range(3)]
    return columns[0], columns[1], columns[2]


def _lengths(path: Path) -> dict[float, dict[str, Pmf]]:
    """Return the probabilities of lengths by the second from which they hold, without empty ones."""
    try:
        given = read_json(path.read_text(encoding="utf-8-sig"), finite=True)
    except DocumentError as error:
        raise TraceError(str(path), error.line, error.problem) from error
    except OSError as error:
        raise TraceError(str(path), None, f"cannot be read, and has the lengths: {error}") from error
    except ValueError as error:
        raise TraceError(str(path), None, f"cannot be read: {error}") from error
    found: dict[float, dict[str, Pmf]] = {}
    for second, fields in given.items() if isinstance(given, Mapping) else ():
        pmfs = {name: _pmf(path, name, fields) for name in ("input_tokens", "output_tokens")}
        if all(len(lengths) for lengths, _ in pmfs.values()):
            found[float(second)] = pmfs
    if not found:
        raise TraceError(str(path), None, "has no lengths; expected input_tokens and output_tokens by second")
    return found


def _pmf(path: Path, name: str, fields: Any) -> Pmf:
    given = fields.get(name) if isinstance(fields, Mapping) else None
    if given is None:
        raise TraceError(str(path), None, f"has no {name}; multimodal and reasoning lengths are not read")
    try:
        shares = ast.literal_eval(given) if isinstance(given, str) else given
        pairs = sorted((int(length), float(share)) for length, share in shares.items() if int(length) > 0)
    except (ValueError, SyntaxError, AttributeError, TypeError, MemoryError, RecursionError) as error:
        raise TraceError(str(path), None, f"{name} is no mapping of lengths to probabilities") from error
    return np.array([length for length, _ in pairs], np.int64), np.array([share for _, share in pairs])


def _drawn(pmf: Pmf, count: int, rng: np.random.Generator) -> Ints:
    lengths, shares = pmf
    upto = np.cumsum(shares)
    places = np.searchsorted(upto, rng.random(count) * upto[-1], side="right")
    found: Ints = lengths[np.minimum(places, len(lengths) - 1)]
    return found


def _chunk(path: Path) -> int:
    number = path.name[len("chunk-") : -len(_TRACE)]
    return int(number) if number.isdigit() else 0


def _is_number(cell: str) -> bool:
    try:
        return math.isfinite(float(cell))
    except ValueError:
        return False


def _number(path: Path, line: int, row: list[str], place: int) -> float:
    if len(row) != _FIELDS or not _is_number(row[place]) or float(row[place]) < 0:
        cell = row[place] if place < len(row) else "missing"
        raise TraceError(str(path), line, f"field {place + 1} is {cell!r}; expected a number of 0 or more")
    return float(row[place])
