"""The Result of a simulation: tables and summary, built when first asked for, and the files of a run."""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hermes_flow.metrics.energy import Energies, energies, energies_of
from hermes_flow.metrics.files import write_parquet, write_pieces, write_text
from hermes_flow.metrics.latency import Latencies, latencies
from hermes_flow.metrics.objectives import bound_results
from hermes_flow.metrics.phases import phases_frame
from hermes_flow.metrics.rows import forget, ranges, rows_of
from hermes_flow.metrics.summary import summarize
from hermes_flow.metrics.tables.clients import clients_frame
from hermes_flow.metrics.tables.links import fleet_frame, links_frame
from hermes_flow.metrics.tables.requests import requests_frame
from hermes_flow.metrics.tables.stages import stages_frame
from hermes_flow.metrics.tables.steps import steps_frame
from hermes_flow.metrics.why.explain import Why, explain
from hermes_flow.program.freed_memory import MANY_REQUESTS, give_back
from hermes_flow.program.program import Program
from hermes_flow.recording.recording import Recording

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import polars as pl

# The tables of a long run are written in pieces of so many requests, and are never whole in memory.
_ROWS_PER_PIECE = 1 << 16


class Result:
    """The results of a simulation; everything is computed from ``recording``."""

    def __init__(self, recording: Recording) -> None:
        self.recording = recording

    def __repr__(self) -> str:
        return f"Result({self.program.name!r}, {len(self.program.requests)} requests)"

    @property
    def program(self) -> Program:
        """The program that ran."""
        return self.recording.program

    @cached_property
    def energies(self) -> Energies:
        """The energy of clients and requests, from which the tables take theirs (see metrics/energy.py)."""
        found = energies(self.recording)
        self._free()
        return found

    @cached_property
    def latencies(self) -> Latencies:
        """The latencies of every request as arrays (see metrics/latency.py)."""
        found = latencies(self.recording)
        self._free()
        return found

    @cached_property
    def bounds(self) -> dict[str, dict[str, Any]]:
        """Every bound of the SLO with its limit, its value and whether it is met (see metrics/objectives.py)."""
        found = bound_results(self.recording, self.latencies)
        self._free()
        return found

    @cached_property
    def why(self) -> Why:
        """Why the SLO is missed, or the headroom if it is met, and the saturation of pools (see metrics/why)."""
        found = explain(self.recording, self.latencies, self.bounds)
        self._free()
        return found

    @cached_property
    def requests(self) -> pl.DataFrame:
        """One row per request: sizes, latencies, status (see metrics/tables/requests.py)."""
        if self._is_long:
            return self._in_pieces(requests_frame)
        return requests_frame(self.recording, self.energies, self.latencies)

    @cached_property
    def stages(self) -> pl.DataFrame:
        """One row per request and stage: when it was ready, started and finished, and where."""
        if self._is_long:
            return self._in_pieces(stages_frame)
        return stages_frame(self.recording, self.energies)

    @cached_property
    def clients(self) -> pl.DataFrame:
        """One row per client: its load and its cost."""
        table = clients_frame(self.recording, self.energies)
        self._free()
        return table

    @cached_property
    def links(self) -> pl.DataFrame:
        """One row per used link; the table is empty if nothing moves between clients."""
        return links_frame(self.recording)

    @cached_property
    def fleet(self) -> pl.DataFrame:
        """One row per stretch of time in one state, of the clients that come and go; empty without such clients."""
        return fleet_frame(self.recording)

    @cached_property
    def steps(self) -> pl.DataFrame:
        """One row per LLM step; large, so built only on request."""
        return steps_frame(self.recording)

    @cached_property
    def phases(self) -> pl.DataFrame:
        """One row per phase of a staged load; the table is empty where the load has no phases."""
        return phases_frame(self.summary.get("phases", {}))

    @cached_property
    def summary(self) -> dict[str, Any]:
        """The figures of the run as a plain, JSON-safe dict (see metrics/summary.py)."""
        known = (self.energies, self.bounds, self.why, self.latencies)
        found = summarize(self.recording, lambda: self.requests, self.clients, *known)
        self._free()
        return found

    def write(self, folder: str | Path, trace: bool = False) -> list[Path]:
        """Write the files of the run into ``folder`` (created if missing) and return their paths.

        ``links.parquet`` is among them if anything moves between clients, ``phases.parquet`` if the load has phases,
        ``fleet.parquet`` if clients come and go,
        ``steps.parquet`` if the program records steps, ``trace.json.gz`` (Perfetto) if ``trace``. Each file is
        replaced whole, and those among these that only an earlier result had are removed; equal inputs give equal
        Parquet files, byte by byte. Raises HermesFlowError naming the path that cannot be written.
        """
        folder = Path(folder)
        written = self._write_long_tables(folder)
        tables = {"clients": self.clients}
        if self.program.network is not None or self.program.hosts:
            tables["links"] = self.links
        if self.program.phases:
            tables["phases"] = self.phases
        if any(pool.fleet is not None for pool in self.program.pools):
            tables["fleet"] = self.fleet
        if self.program.record_steps:
            tables["steps"] = self.steps
        written += [write_parquet(table, folder / f"{name}.parquet") for name, table in tables.items()]
        summary = json.dumps(self.summary, indent=2, allow_nan=False, ensure_ascii=False)
        written.append(write_text(summary + "\n", folder / "summary.json"))
        written.append(write_text(str(self.program).rstrip("\n") + "\n", folder / "program.txt"))
        if trace:
            from hermes_flow.metrics.trace_events import write_trace_events

            written.append(write_trace_events(self.recording, folder / "trace.json.gz"))
        for name in ("links.parquet", "phases.parquet", "fleet.parquet", "steps.parquet", "trace.json.gz"):
            if folder / name not in written:
                (folder / name).unlink(missing_ok=True)
        return written

    def _write_long_tables(self, folder: Path) -> list[Path]:
        """Write the tables with rows for each request: of a long run piece by piece."""
        if not self._is_long:
            return [
                write_parquet(self.requests, folder / "requests.parquet"),
                write_parquet(self.stages, folder / "stages.parquet"),
            ]
        return [
            write_pieces(self._pieces(requests_frame), folder / "requests.parquet"),
            write_pieces(self._pieces(stages_frame), folder / "stages.parquet"),
        ]

    @property
    def _is_long(self) -> bool:
        return len(self.recording.status) >= MANY_REQUESTS

    def _free(self) -> None:
        """Give memory back that the last figures of a long run took on their way."""
        forget(self.recording)
        give_back(len(self.recording.status))

    def _in_pieces(self, build: Callable[..., pl.DataFrame]) -> pl.DataFrame:
        """Return a table that is made piece by piece, so that little else is in memory with it."""
        import polars as pl

        table = pl.concat(self._pieces(build), rechunk=False)
        give_back(len(table))
        return table

    def _pieces(self, build: Callable[..., pl.DataFrame]) -> Iterator[pl.DataFrame]:
        """Yield a table in pieces, each of so many requests."""
        for first, last in ranges(len(self.recording.status), _ROWS_PER_PIECE):
            energy = energies_of(self.energies, first, last)
            yield build(rows_of(self.recording, first, last), energy, first=first)
            forget(self.recording)

    def report(self, path: str | Path) -> Path:
        """Write the page of the run, one HTML file, and return its path.

        ``path`` is the file, or a folder, which gets ``report.html``. Runs of at most 20,000 requests have their
        trace in the page. Raises HermesFlowError naming the path that cannot be written.
        """
        from hermes_flow.report.pages.folder import write_result_page

        return write_result_page(self, Path(path))
