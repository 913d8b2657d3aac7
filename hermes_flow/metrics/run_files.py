"""Reads the files of a run again: the summary, the tables and the program text, for reports and comparisons."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hermes_flow.config.documents import read_json
from hermes_flow.config.unreadable import unreadable
from hermes_flow.errors import HermesFlowError, reason

if TYPE_CHECKING:
    import polars as pl

    from hermes_flow.metrics.result import Result

SUMMARY = "summary.json"
_PARTS = (
    *("requests", "ttft_s", "tpot_s", "itl_s", "e2e_s", "throughput", "slo", "stages", "critical_path"),
    *("pools", "limits", "why", "energy", "cost", "warnings"),
)


@dataclass(frozen=True)
class RunFiles:
    """One finished run; a table is None if the run did not write it.

    ``name`` is that of the folder or of the program, ``overrides`` are those of the command line, and ``trace`` is
    the packed file of trace events.
    """

    name: str
    summary: dict[str, Any]
    requests: pl.DataFrame | None = None
    stages: pl.DataFrame | None = None
    clients: pl.DataFrame | None = None
    links: pl.DataFrame | None = None
    fleet: pl.DataFrame | None = None
    capacity: pl.DataFrame | None = None
    program: str = ""
    overrides: tuple[str, ...] = ()
    folder: Path | None = None
    trace: bytes | None = field(default=None, repr=False)

    @cached_property
    def stage_names(self) -> list[str]:
        """The stages in the order of the pipeline."""
        return list(self.summary.get("stages", {}))


def read_run(folder: str | Path) -> RunFiles:
    """Read the folder of a run. Raises HermesFlowError if it has no readable ``summary.json``."""
    folder = Path(folder)
    summary = read_summary(folder)
    trace = folder / "trace.json.gz"
    program = folder / "program.txt"
    return RunFiles(
        name=folder.resolve().name,
        summary=summary,
        **{
            name: _table(folder / f"{name}.parquet")
            for name in ("requests", "stages", "clients", "links", "fleet", "capacity")
        },
        program=program.read_text(encoding="utf-8") if program.is_file() else "",
        overrides=read_overrides(folder),
        folder=folder,
        trace=trace.read_bytes() if trace.is_file() else None,
    )


def require_simulation(run: RunFiles) -> RunFiles:
    """Return ``run``, if its summary is that of a simulation by this version; raises HermesFlowError if not."""
    missing = [name for name in _PARTS if name not in run.summary]
    if "requests" in missing:
        known = "; validation.html is the page of a validation" if "validation" in run.summary else ""
        raise HermesFlowError(f"{run.folder}: {SUMMARY} is not of a simulation, a sweep or a plan{known}")
    if missing:
        raise HermesFlowError(
            f"{run.folder}: {SUMMARY} has no {', '.join(repr(name) for name in missing)}; another version of "
            "hermes_flow wrote it. Run the simulation again"
        )
    return run


def run_of(result: Result, trace: bytes | None = None) -> RunFiles:
    """Return the files of a result in memory, as if it had been written and read again."""
    return RunFiles(
        name=result.program.name,
        summary=result.summary,
        requests=result.requests,
        stages=result.stages,
        clients=result.clients,
        links=result.links if result.program.network is not None or result.program.hosts else None,
        fleet=result.fleet if any(pool.fleet is not None for pool in result.program.pools) else None,
        program=str(result.program),
        trace=trace,
    )


def read_summary(folder: Path) -> dict[str, Any]:
    """Return ``summary.json`` of a folder. Raises HermesFlowError naming the file if it cannot be read."""
    path = folder / SUMMARY
    try:
        summary = read_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise HermesFlowError(f"{folder}: has no {SUMMARY}; expected the folder of a finished run") from None
    except (OSError, ValueError) as error:
        raise HermesFlowError(f"{path}: cannot be read: {reason(error)}") from error
    if not isinstance(summary, dict):
        raise HermesFlowError(f"{path}: is not the summary of a run")
    return summary


def read_overrides(folder: Path) -> tuple[str, ...]:
    """Return the overrides that a run was started with; none if the folder does not have them."""
    path = folder / ".hydra" / "overrides.yaml"
    if not path.is_file():
        return ()
    from hermes_flow.config.quick_yaml import read_plain

    entries = read_plain(path.read_text(encoding="utf-8"))
    return tuple(str(entry) for entry in entries) if isinstance(entries, list) else ()


def _table(path: Path) -> pl.DataFrame | None:
    if not path.is_file():
        return None
    import polars as pl

    try:
        return pl.read_parquet(path)
    except unreadable() as error:
        raise HermesFlowError(f"{path}: cannot be read: {reason(error)}") from error
