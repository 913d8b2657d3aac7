"""Opens a file of requests, whether it is a plain table or holds records in one of the known formats."""

from __future__ import annotations

import gzip
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hermes_flow.config.documents import DocumentError, read_json
from hermes_flow.config.schema import TraceWorkload
from hermes_flow.errors import ConfigError, TraceError, reason
from hermes_flow.program.units import NS_PER_S
from hermes_flow.workload.lengths.distribution import MAX_TOKENS
from hermes_flow.workload.records.record_format import Record, Run, Source, record_formats
from hermes_flow.workload.records.summaries import summary_of
from hermes_flow.workload.records.table import RecordTable
from hermes_flow.workload.traces.cells import INT64_MAX
from hermes_flow.workload.traces.files import CsvFile, TraceFile, is_file, json_lines, open_trace

_DOCUMENTS = (".json", ".json.gz")
_LINES = (".jsonl", ".jsonl.gz", ".ndjson", ".ndjson.gz")


def open_table(path: str, workload: TraceWorkload | None = None) -> TraceFile:
    """Return the table at ``path``; ``FILE@2`` is the second run of a file that holds several.

    ``workload`` says which format it has, and how texts are counted. Raises TraceError, also where a file holds
    several runs and none is chosen.
    """
    base, number = divided(path)
    given = "auto" if workload is None else workload.format
    found = _recognized(base, given, bool(workload and workload.columns))
    if found is None:
        if number is not None:
            raise TraceError(path, None, "is not a log of several runs; leave out the number")
        return open_trace(base)
    source = Source(Path(base).expanduser())
    if workload is not None:
        source = replace(
            source, tokenizer=workload.tokenizer, characters_per_token=workload.characters_per_token
        )
    runs = found.runs(source)
    if not runs or not any(run.rows for run in runs):
        raise TraceError(base, None, "has no requests that completed")
    if number is None and len(runs) > 1:
        choices = f"{base}@1 to {base}@{len(runs)}"
        raise TraceError(base, None, f"holds {len(runs)} runs; choose one of {choices}")
    if number is not None and not 1 <= number <= len(runs):
        raise TraceError(path, None, f"holds {len(runs)} runs")
    run = runs[(number or 1) - 1]
    if not run.rows:
        raise TraceError(path, None, "has no requests that completed")
    _require_order(run, path)
    return RecordTable(Path(path).expanduser(), _sorted(run))


def runs_in(path: Path) -> int:
    """Return how many runs of measured requests the file holds; 0 where it is no log of a known format."""
    try:
        found = _recognized(str(path), "auto", False)
        runs = [] if found is None else found.runs(Source(path))
    except (TraceError, ConfigError):
        return 0
    measured = [
        run for run in runs if any(row.ttft_ns is not None or row.e2e_ns is not None for row in run.rows)
    ]
    return len(runs) if measured else 0


def is_records(path: str) -> bool:
    """Return whether the file holds records in one of the known formats, and is no plain table."""
    return _recognized(divided(path)[0], "auto", False) is not None


def divided(path: str) -> tuple[str, int | None]:
    """Return the path without the number of a run, and that number, as in ``FILE@2``."""
    base, mark, number = path.rpartition("@")
    if mark and number.isdigit() and not is_file(Path(path).expanduser()):
        return base, int(number)
    return path, None


@dataclass(frozen=True, slots=True)
class _Found:
    """A record format with the records of a file."""

    name: str
    layout: Any
    records: list[Record]

    def runs(self, source: Source) -> list[Run]:
        """Return the runs; raises TraceError, also where the records have another structure than the format."""
        try:
            runs: list[Run] = self.layout.runs(self.records, source)
        except (AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError) as error:
            raise source.error(None, f"is not as the format {self.name} has it: {error}") from error
        return runs


def _recognized(path: str, given: str, mapped: bool) -> _Found | None:
    """Return the record format of the file, or None where it is a plain table; raises TraceError."""
    place = Path(path).expanduser()
    name = place.name.lower()
    names = record_formats.names
    if mapped or not (given == "auto" or given in names) or not is_file(place):
        if given in names and is_file(place):
            raise ConfigError(
                "workload.columns", f"workload.format={given} has no columns to map; leave it out"
            )
        return None
    formats = {known: record_formats.find(known, "workload.format") for known in names}
    if given != "auto":
        formats = {given: formats[given]}
    first, records = _first(place, name)
    for known, layout in formats.items():
        if first is not None and layout.fits(first):
            return _Found(known, layout, records() if callable(records) else records)
    if given != "auto":
        raise TraceError(str(place), None, f"is not of the format {given} (docs/workloads.md)")
    if name.endswith(_DOCUMENTS):
        summary = summary_of(first)
        if summary:
            raise TraceError(str(place), None, summary)
        known = ", ".join(names)
        raise TraceError(str(place), None, f"is a JSON document of no known format; expected one of: {known}")
    return None


def _first(place: Path, name: str) -> tuple[Any, Any]:
    """Return what tells the format, and the records or a function that reads them."""
    if name.endswith(_DOCUMENTS):
        document = _document(place)
        return document, [Record(None, document)]
    if name.endswith(_LINES):
        for line, text in json_lines(place):
            return _parsed(place, line, text), lambda: [
                Record(at, _parsed(place, at, found)) for at, found in json_lines(place)
            ]
        return None, []
    if name.endswith((".csv", ".csv.gz", ".tsv", ".tsv.gz")):
        file = open_trace(str(place))
        assert isinstance(file, CsvFile)
        return dict.fromkeys(file.names, ""), lambda: _csv_records(file)
    return None, []


def _csv_records(file: CsvFile) -> list[Record]:
    rows = file.table(file.names, None).to_dicts()
    return [Record(file.place(number)[0] if number < 1 else None, row) for number, row in enumerate(rows)]


def _document(place: Path) -> Any:
    try:
        raw = place.read_bytes()
        text = (gzip.decompress(raw) if place.name.lower().endswith(".gz") else raw).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise TraceError(str(place), None, f"is not UTF-8 text: {error.reason}") from error
    except (OSError, EOFError, zlib.error) as error:
        raise TraceError(str(place), None, f"cannot be read: {reason(error)}") from error
    return _parsed(place, None, text)


def _parsed(place: Path, line: int | None, text: str) -> Any:
    try:
        return read_json(text)
    except DocumentError as error:
        raise TraceError(str(place), error.line if line is None else line, error.problem) from error


def _require_order(run: Run, path: str) -> None:
    """Raise TraceError at the first request that was measured to end before it began, or that nobody can send."""
    for place, row in enumerate(run.rows, 1):
        tokens = max(row.input_tokens, row.output_tokens)
        if tokens > MAX_TOKENS:
            problem = f"request {place} has {tokens:.4g} tokens; expected at most {MAX_TOKENS:.0e}"
            raise TraceError(path, row.line, problem)
        times = (row.arrival_ns, row.delay_ns, row.ttft_ns, row.e2e_ns)
        if any(time is not None and abs(time) > INT64_MAX for time in times):
            raise TraceError(path, row.line, f"request {place} has a time of more than 292 years")
        ttft_ns, e2e_ns = row.ttft_ns or 0, row.e2e_ns
        if ttft_ns < 0 or (e2e_ns is not None and e2e_ns < ttft_ns):
            end = "" if e2e_ns is None else f", and its end {e2e_ns / NS_PER_S:g} s"
            raise TraceError(
                path,
                row.line,
                f"request {place} has its first token {ttft_ns / NS_PER_S:g} s{end} after its arrival",
            )


def _sorted(run: Run) -> Run:
    """Return the run with its rows in order of arrival, where every row has one."""
    if any(row.arrival_ns is None for row in run.rows):
        return run
    return replace(run, rows=sorted(run.rows, key=lambda row: row.arrival_ns or 0))
