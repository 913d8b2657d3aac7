"""Replays a measured run: composes its deployment and simulates its requests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hermes_flow.config.schema import TraceWorkload
from hermes_flow.cost.regression import LITTLE_SUPPORT
from hermes_flow.errors import HermesFlowError
from hermes_flow.validation.description import RunDescription, other_requests
from hermes_flow.validation.measured import LATENCIES, Sample
from hermes_flow.workload.records.open_table import is_records

if TYPE_CHECKING:
    from hermes_flow.config.schema import Config
    from hermes_flow.metrics.result import Result

Edit = Callable[["Config"], "Config"]


@dataclass(frozen=True, slots=True)
class Replayed:
    """The simulated results: one sample and summary per pass, and the total failed requests and preemptions."""

    samples: tuple[Sample, ...]
    requests: int
    failed: int
    preemptions: int
    warnings: tuple[str, ...] = ()  # of the simulations, and what few measured steps determine
    summaries: tuple[dict[str, Any], ...] = ()


def replay(run: RunDescription, given: Sequence[str] = (), edit: Edit | None = None) -> Replayed:
    """Simulate the run; its own overrides apply first, then ``given``, then ``edit``.

    With several traces, each is replayed. Raises the errors of compose and compile.
    """
    traces = run.traces if run.requests is None else (run.requests,)
    other = other_requests(given) if traces else ""
    if other:
        raise HermesFlowError(other)
    passes = [_as_trace(trace) for trace in traces] or [[]]
    samples, summaries, requests, failed, preemptions = [], [], 0, 0, 0
    warnings: dict[str, None] = {}
    for workload in passes:
        result, told = _simulated([*workload[:1], *run.overrides, *given, *workload[1:]], edit)
        warnings |= dict.fromkeys(told)
        samples.append(_sample(result))
        summaries.append(result.summary)
        requests += result.summary["requests"]["submitted"]
        failed += result.summary["requests"]["failed"]
        preemptions += int(result.requests["preemptions"].sum())
    if all(np.isnan(sample.latencies["e2e"]).all() for sample in samples):
        raise HermesFlowError("none of its requests completes in the simulation")
    return Replayed(tuple(samples), requests, failed, preemptions, tuple(warnings), tuple(summaries))


def texts_counted_by(overrides: Sequence[str]) -> TraceWorkload | None:
    """Return a trace that counts texts as the overrides say, None where they say nothing of it."""
    given = dict(text.lstrip("+").split("=", 1) for text in overrides if "=" in text)
    tokenizer, characters = (given.get(f"workload.{key}") for key in ("tokenizer", "characters_per_token"))
    if tokenizer is None and characters is None:
        return None
    each = None if characters is None else float(characters)
    return TraceWorkload(kind="trace", name="log", path="", tokenizer=tokenizer, characters_per_token=each)


def _as_trace(path: Path) -> list[str]:
    """Return the overrides that replay a table, or a log as it was sent."""
    quoted = str(path.resolve()).replace("\\", "\\\\").replace("'", "\\'")
    layout = "auto" if is_records(str(path)) else "native"
    return ["workload=trace", f"workload.path='{quoted}'", f"workload.format={layout}"]


def _simulated(overrides: list[str], edit: Edit | None) -> tuple[Result, list[str]]:
    """Return the simulation, and what a reader of its errors should know."""
    from hermes_flow.compiler.compile import compile
    from hermes_flow.config.compose import compose
    from hermes_flow.simulation import simulate

    config = compose(overrides)
    program = compile(config if edit is None else edit(config))
    result = simulate(program)
    notes = [
        f"cluster.pools.{pool.name}: {note}"
        for pool in program.pools
        for note in getattr(pool, "notes", ())
        if note.startswith(LITTLE_SUPPORT)
    ]
    return result, [*result.summary["warnings"], *notes]


def _sample(result: Result) -> Sample:
    requests, summary = result.requests, result.summary
    latencies = {
        metric: requests[f"{metric}_s"].cast(float).fill_null(float("nan")).to_numpy() for metric in LATENCIES
    }
    known: dict[str, Any] = {**summary["throughput"]}
    return Sample(
        latencies,
        {name: value for name, value in known.items() if value is not None},
        {name: value for name, value in summary["itl_s"].items() if value is not None},
    )
