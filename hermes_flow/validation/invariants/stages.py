"""Invariants of stages: the order of their times, what these add up to, and what a stage waits for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from hermes_flow.validation.invariants.invariant import Finding, Invariant, broken_rows, shown
from hermes_flow.validation.invariants.run_files import RunFiles

if TYPE_CHECKING:
    import polars as pl

_FILE = "stages.parquet"
_SUM_S = 4e-9  # four times of whole nanoseconds, each rounded to a float


def _times(run: RunFiles) -> Iterator[Finding]:
    import polars as pl

    frame = run.tables["stages"]
    yield from broken_rows(
        _FILE, frame, pl.col("ready_s").is_null(), lambda row: f"stage {row['stage']} has no ready_s"
    )
    for before, after in (("ready_s", "start_s"), ("start_s", "finish_s")):
        yield from broken_rows(
            _FILE,
            frame,
            pl.col(after) < pl.col(before),
            lambda row, before=before, after=after: (  # type: ignore[misc]
                f"{after} {shown(row[after])} is before {before} {shown(row[before])}"
            ),
        )


def _parts(run: RunFiles) -> Iterator[Finding]:
    import polars as pl

    frame = run.tables["stages"]
    for name in ("queue_s", "transfer_s", "service_s", "tokens", "bytes"):
        yield from broken_rows(
            _FILE,
            frame,
            pl.col(name) < 0,
            lambda row, name=name: f"{name} is {shown(row[name])}",  # type: ignore[misc]
        )
    begun = pl.col("ready_s") + pl.col("transfer_s") + pl.col("queue_s")
    yield from broken_rows(
        _FILE,
        frame,
        (begun - pl.col("start_s")).abs() > _SUM_S,
        lambda row: (
            f"ready_s {shown(row['ready_s'])} + transfer_s {shown(row['transfer_s'])} + queue_s "
            f"{shown(row['queue_s'])} is not start_s {shown(row['start_s'])}"
        ),
    )
    yield from broken_rows(
        _FILE,
        frame,
        (pl.col("start_s") + pl.col("service_s") - pl.col("finish_s")).abs() > _SUM_S,
        lambda row: (
            f"start_s {shown(row['start_s'])} + service_s {shown(row['service_s'])} is not "
            f"finish_s {shown(row['finish_s'])}"
        ),
    )


def _within_requests(run: RunFiles) -> Iterator[Finding]:
    import polars as pl

    requests = run.tables["requests"]
    own = requests.select("request", "arrival_s", "status", end="finish_s")
    away, off = (pl.col("from_site_s"), _SUM_S) if "from_site_s" in requests.columns else (pl.lit(0.0), 0.0)
    frame = run.tables["stages"].with_row_index("row")
    frame = frame.join(own, on="request", how="left", maintain_order="left")
    yield from broken_rows(
        _FILE,
        frame,
        pl.col("ready_s") < pl.col("arrival_s"),
        lambda row: (
            f"ready_s {shown(row['ready_s'])} is before request {row['request']} arrived at "
            f"{shown(row['arrival_s'])} s"
        ),
    )
    yield from broken_rows(
        _FILE,
        frame,
        pl.col("finish_s") > pl.col("end"),
        lambda row: (
            f"finish_s {shown(row['finish_s'])} is after request {row['request']} finished at "
            f"{shown(row['end'])} s"
        ),
    )
    ends = frame.group_by("request").agg(last=pl.col("finish_s").max())
    done = run.tables["requests"].with_row_index("row").filter(pl.col("status") == "completed")
    yield from broken_rows(
        "requests.parquet",
        done.join(ends, on="request", how="left", maintain_order="left"),
        pl.col("last").is_null() | ((pl.col("finish_s") - away - pl.col("last")).abs() > off),
        lambda row: (
            f"finish_s is {shown(row['finish_s'])}, and the last stage of request {row['request']} ends at "
            f"{shown(row['last'])} s"
        ),
    )
    yield from broken_rows(
        _FILE,
        frame,
        (pl.col("status") == "completed") & (pl.col("start_s").is_null() | pl.col("finish_s").is_null()),
        lambda row: f"request {row['request']} is completed, and its stage {row['stage']} is not",
    )


def _predecessors(run: RunFiles) -> Iterator[Finding]:
    """Compare each stage with those of its ``after`` of which the request has a row."""
    import polars as pl

    stages = _configured(run)
    frame = run.tables["stages"].with_row_index("row")
    there = set(frame["stage"].to_list())
    keys = ("request", "stage")
    frame = frame.with_columns(copy=pl.int_range(pl.len()).over(keys), copies=pl.len().over(keys))
    for name, stage in stages.items():
        after = stage.get("after") or ()
        for short in [after] if isinstance(after, str) else after:
            before = f"{stage['prefix']}{short}"
            if {name, before} <= there & stages.keys() and not _overlap(stage, stages[before], stages):
                later = frame.filter(pl.col("stage") == name)
                once = stage.get("repeat") is None and stage.get("kind") != "decode"
                yield from _early(later, frame.filter(pl.col("stage") == before), once)


def _early(later: pl.DataFrame, earlier: pl.DataFrame, once: bool) -> Iterator[Finding]:
    """Yield the rows of ``later`` that were ready before those of ``earlier`` were done.

    Where a request has as many rows of both, in a loop or in branches, each waits for its own. Otherwise a stage that
    runs ``once`` waits for all, and of one that is repeated the first row waits for the first. Decodes of answers of
    one token may have no row, so a stage is not compared with fewer decodes than it has rows.
    """
    import polars as pl

    done = earlier.select("request", "copy", own="finish_s").drop_nulls("own")
    all_done = earlier.group_by("request").agg(
        first=pl.col("finish_s").min(), last=pl.col("finish_s").max(), earlier=pl.len()
    )
    rows = later.join(all_done, on="request", maintain_order="left")
    if "decode" in earlier["kind"].to_list():
        rows = rows.filter(pl.col("copies") <= pl.col("earlier"))
    rows = rows.join(done, on=["request", "copy"], how="left", maintain_order="left")
    alike, alone = pl.col("copies") == pl.col("earlier"), (pl.col("copies") == 1) & once
    rows = rows.with_columns(done=pl.when(alike).then("own").when(alone).then("last").otherwise("first"))
    name = earlier["stage"][0]
    yield from broken_rows(
        _FILE,
        rows,
        pl.col("ready_s") < pl.col("done"),
        lambda row: (
            f"stage {row['stage']} of request {row['request']} is ready at {shown(row['ready_s'])} s, and "
            f"{name} before it ends at {shown(row['done'])} s"
        ),
    )


def _configured(run: RunFiles) -> dict[str, dict[str, Any]]:
    """Return the stages of the configuration by name; those of several pipelines begin with their part's."""
    found: dict[str, dict[str, Any]] = {}
    parts = run.setting("pipeline", "parts")
    groups: dict[str, Any] = {"": run.setting("pipeline", "stages")}
    if isinstance(parts, dict):
        groups |= {f"{name}.": part.get("stages") for name, part in parts.items() if isinstance(part, dict)}
    for prefix, stages in groups.items():
        if isinstance(stages, dict):
            found |= {
                prefix + name: {"prefix": prefix, **stage}
                for name, stage in stages.items()
                if isinstance(stage, dict)
            }
    return found


def _overlap(later: Mapping[str, Any], earlier: Mapping[str, Any], stages: Mapping[str, Any]) -> bool:
    """Return whether a stage may begin before the other one ends, or takes part in a decode that pauses."""
    pausing = any(stage.get("pause") is not None for stage in stages.values())
    return later.get("every_tokens") is not None or bool(
        pausing and (earlier.get("during") or later.get("during") or earlier.get("pause"))
    )


INVARIANTS = (
    Invariant(12, "times of stages", "Of every task: ready ≤ start ≤ finish.", ("stages",), _times),
    Invariant(
        13,
        "parts of stages",
        "ready + transfer + queue = start, start + service = finish, and no part is negative.",
        ("stages",),
        _parts,
    ),
    Invariant(
        14,
        "stages in requests",
        "The stages of a request lie between its arrival and its finish; a completed request finishes with the "
        "last of them.",
        ("requests", "stages"),
        _within_requests,
    ),
    Invariant(
        15,
        "predecessors",
        "A stage is ready when the stages it comes after have ended (guards that read a stream excepted).",
        ("stages", "config"),
        _predecessors,
    ),
)
