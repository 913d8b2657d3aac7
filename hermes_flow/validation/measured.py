"""Reads tables of measured or predicted requests, with a latency per request and metric."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hermes_flow.config.schema import TraceWorkload
from hermes_flow.errors import TraceError
from hermes_flow.program.units import NS_PER_S
from hermes_flow.workload.records import RecordTable, open_table
from hermes_flow.workload.traces.cells import TOKENS, Clock
from hermes_flow.workload.traces.files import CsvFile, TraceFile
from hermes_flow.workload.traces.format import Column

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

LATENCIES = ("ttft", "tpot", "e2e")
_UNITS = {"s": ("seconds", 0), "ms": ("milliseconds", 3), "us": ("microseconds", 6), "ns": ("nanoseconds", 9)}
_UNKNOWN = -1  # a blank latency: the request failed when it was measured
_SLACK_NS = 1_000.0  # clocks that count seconds since 1970 as floats are this coarse


@dataclass(frozen=True, slots=True)
class Sample:
    """The results of one pass over the requests.

    ``latencies`` has seconds per request and metric, in order of arrival, NaN where there is none; ``rates`` requests
    and output tokens per second; ``itl`` statistics of the gaps between tokens, in seconds, where they are known.
    """

    latencies: dict[str, Floats]
    rates: dict[str, float]
    itl: dict[str, float]

    def figure(self, metric: str, statistic: str) -> float | None:
        """Return a statistic of a metric, or None where it is not known; a rate has only its mean."""
        if metric == "itl":
            return self.itl.get(statistic)
        if metric not in self.latencies:
            return self.rates.get(metric)
        values = self.latencies[metric]
        values = values[~np.isnan(values)]
        if not len(values):
            return None
        return float(values.mean() if statistic == "mean" else np.percentile(values, float(statistic[1:])))

    def only(self, metric: str, kept: NDArray[np.bool_]) -> Sample:
        """Return one metric's latencies of the ``kept`` requests; the others are blank."""
        return Sample({metric: np.where(kept, self.latencies[metric], np.nan)}, {}, {})


@dataclass(frozen=True, slots=True)
class Measured:
    """The measured requests; ``order`` sorts the rows of other tables of the same requests by arrival."""

    sample: Sample
    output_tokens: Ints
    order: Ints


def read_measured(path: Path, workload: TraceWorkload | None = None) -> Measured:
    """Return a table's requests with their latencies, sorted by arrival.

    ``workload`` says how the texts of a log are counted, where it holds texts.

    It has the columns of a native trace, and of ``ttft``, ``tpot`` and ``e2e`` at least one, each with its unit as
    suffix (_s, _ms, _us, _ns). Of the three, the one that is missing follows from the other two. Raises TraceError,
    also where a row is cut off or its latencies contradict each other.
    """
    file = open_table(str(path), workload)
    arrival = _in_unit(file, "arrival", None)
    if arrival is None and isinstance(file, RecordTable) and file.load is not None:
        return _untimed(file)
    if arrival is None:
        raise _lacking(file, "arrival", "the trace's clock")
    columns = [arrival, Column("output_tokens", None, TOKENS)]
    missing = [name for name in ("input_tokens", "output_tokens") if name not in file.names]
    if missing:
        raise TraceError(str(path), file.header_line, f"no column {', '.join(missing)}; {_seen(file)}")
    latencies = _latency_columns(file)
    arrival_ns, tokens, *times = _read(file, [*columns, *latencies.values()])
    order = np.argsort(arrival_ns, kind="stable")
    _require_possible(file, latencies, times, tokens)
    found = _completed(dict(zip(latencies, map(_seconds, times), strict=True)), tokens)
    sample = _sample(
        {metric: values[order] for metric, values in found.items()}, arrival_ns[order], tokens[order]
    )
    return Measured(sample, tokens[order], order)


def _untimed(file: RecordTable) -> Measured:
    """Return the requests of a log without the times that it sent them at, in the order of the log."""
    latencies = _latency_columns(file)
    tokens, *times = _read(file, [Column("output_tokens", None, TOKENS), *latencies.values()])
    _require_possible(file, latencies, times, tokens)
    found = _completed(dict(zip(latencies, map(_seconds, times), strict=True)), tokens)
    rates: dict[str, float] = {}
    if file.run.duration_s:
        rates = {
            "requests_per_s": len(tokens) / file.run.duration_s,
            "output_tokens_per_s": int(tokens.sum()) / file.run.duration_s,
        }
    return Measured(Sample(found, rates, {}), tokens, np.arange(len(tokens)))


def read_predicted(path: Path, measured: Measured) -> Sample:
    """Return another simulator's latencies of the same requests, its rows in the order of the measured table's.

    Raises TraceError, also where the table has not as many rows.
    """
    file = open_table(str(path))
    columns = _latency_columns(file)
    times = _read(file, list(columns.values()))
    count = len(measured.order)
    if len(times[0]) != count:
        counts = f"has {len(times[0]):,} rows; expected the {count:,} requests that were measured"
        raise TraceError(str(path), None, counts)
    tokens = np.empty_like(measured.output_tokens)
    tokens[measured.order] = measured.output_tokens
    _require_possible(file, columns, times, tokens)
    sorted_times = {
        metric: _seconds(column)[measured.order] for metric, column in zip(columns, times, strict=True)
    }
    return Sample(_completed(sorted_times, measured.output_tokens), {}, {})


def _latency_columns(file: TraceFile) -> dict[str, Column]:
    found = {metric: _in_unit(file, metric, _UNKNOWN) for metric in LATENCIES}
    given = {metric: column for metric, column in found.items() if column is not None}
    if not given:
        raise _lacking(file, "ttft, tpot or e2e", "what was measured of each request")
    return given


def _in_unit(file: TraceFile, name: str, blank: int | None) -> Column | None:
    """Return the file's column of a time with its unit as suffix; raises TraceError where several fit."""
    fitting = [unit for unit in _UNITS if f"{name}_{unit}" in file.names]
    if len(fitting) > 1:
        both = " and ".join(f"{name}_{unit}" for unit in fitting)
        raise TraceError(str(file.path), file.header_line, f"has {both}; expected one of them")
    if not fitting:
        odd = [column for column in file.names if column == name or column.startswith(f"{name}_")]
        if odd:
            raise TraceError(
                str(file.path), file.header_line, f"{odd[0]} has no unit; expected {name}_s, _ms, _us or _ns"
            )
        return None
    return Column(f"{name}_{fitting[0]}", None, Clock(*_UNITS[fitting[0]]), blank=blank)


def _lacking(file: TraceFile, name: str, what: str) -> TraceError:
    problem = f"no column {name} with a unit as suffix (_s, _ms, _us, _ns), {what}; {_seen(file)}"
    return TraceError(str(file.path), file.header_line, problem)


def _seen(file: TraceFile) -> str:
    return f"the file has {', '.join(file.names)}"


def _read(file: TraceFile, columns: Sequence[Column]) -> list[Ints]:
    """Return the columns as integers; raises TraceError at the first cell that is not valid."""
    table = file.table([column.name for column in columns], None)
    if isinstance(file, CsvFile):
        file.require_whole_rows()
    if table.height == 0:
        raise TraceError(str(file.path), None, "has no requests")
    read = []
    for column in columns:
        values = column.read(table[column.name])
        if values.null_count():
            row = values.is_null().arg_max()
            assert row is not None
            line, words = file.place(row)
            raise TraceError(str(file.path), line, words + column.problem(table[column.name], row))
        read.append(values.to_numpy())
    return read


def _require_possible(
    file: TraceFile, columns: Mapping[str, Column], times: Sequence[Ints], tokens: Ints
) -> None:
    """Raise TraceError at the first row whose latencies cannot be those of one request, rounding allowed for.

    ``columns`` and ``times`` (ns, below 0 where blank) are by row of the file: E2E is neither below TTFT nor below
    TPOT · (tokens - 1), the time of the tokens after the first one.
    """
    known = dict(zip(columns, times, strict=True))
    if "e2e" not in known:
        return
    e2e_ns, e2e = known["e2e"], columns["e2e"].name
    for metric, factor in (("ttft", np.ones_like(tokens)), ("tpot", tokens - 1)):
        if metric not in known:
            continue
        name = columns[metric].name
        least_ns = known[metric] * factor.astype(float)
        slack_ns = _rounding_ns(name, known[metric]) * factor + _rounding_ns(e2e, e2e_ns) + _SLACK_NS
        wrong = (known[metric] != _UNKNOWN) & (e2e_ns != _UNKNOWN) & (e2e_ns < least_ns - slack_ns)
        if wrong.any():
            row = int(wrong.argmax())
            line, words = file.place(row)
            each = f" for each of the {factor[row]:,} tokens after the first" if metric == "tpot" else ""
            problem = (
                f"{e2e} is {_shown(e2e, e2e_ns[row])} and {name} {_shown(name, known[metric][row])}{each}; expected "
                f"an E2E of at least {_shown(e2e, least_ns[row])} {_unit(e2e)} (are both in their unit?)"
            )
            raise TraceError(str(file.path), line, words + problem)


def _rounding_ns(name: str, times_ns: Ints) -> float:
    """Return how far off rounding may have put a column's times: half of the last decimal place that it uses."""
    known = times_ns[times_ns != _UNKNOWN]
    place, most = 1, _unit_ns(name)
    while place < most and not (known % (10 * place)).any():
        place *= 10
    return place / 2


def _unit(name: str) -> str:
    return name.rpartition("_")[2]


def _unit_ns(name: str) -> int:
    return int(10 ** (9 - _UNITS[_unit(name)][1]))


def _shown(name: str, time_ns: float) -> str:
    return f"{time_ns / _unit_ns(name):.6g}"


def _seconds(times_ns: Ints) -> Floats:
    return np.where(times_ns == _UNKNOWN, np.nan, times_ns / NS_PER_S)


def _completed(given: dict[str, Floats], tokens: Ints) -> dict[str, Floats]:
    """Return the latencies with the third where two are given; TPOT is that of answers of two tokens or more."""
    found = dict(given)
    gaps = np.maximum(tokens - 1, 1)
    rest = np.where(tokens > 1, found["tpot"] * (tokens - 1), 0.0) if "tpot" in found else np.nan
    if "ttft" in found and "e2e" in found and "tpot" not in found:
        found["tpot"] = np.maximum(found["e2e"] - found["ttft"], 0.0) / gaps
    elif "ttft" in found and "tpot" in found and "e2e" not in found:
        found["e2e"] = found["ttft"] + rest
    elif "tpot" in found and "e2e" in found and "ttft" not in found:
        found["ttft"] = np.maximum(found["e2e"] - rest, 0.0)
    if "tpot" in found:
        found["tpot"] = np.where(tokens > 1, found["tpot"], np.nan)
    return {metric: found[metric] for metric in LATENCIES if metric in found}


def _sample(latencies: dict[str, Floats], arrival_ns: Ints, tokens: Ints) -> Sample:
    """Return the sample with its rates, from the first arrival to the last finish, where every request finished."""
    rates: dict[str, float] = {}
    finish_s = arrival_ns / NS_PER_S + latencies.get("e2e", np.nan)
    if not np.isnan(finish_s).any():
        span_s = float(finish_s.max()) - int(arrival_ns[0]) / NS_PER_S
        if span_s > 0:
            rates = {
                "requests_per_s": len(tokens) / span_s,
                "output_tokens_per_s": int(tokens.sum()) / span_s,
            }
    return Sample(latencies, rates, {})
