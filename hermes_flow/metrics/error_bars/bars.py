"""The error bars of a run: how far its mean latencies may be from those of the real system."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from hermes_flow.metrics.error_bars.kinds import Kind, kind_of, why_none
from hermes_flow.metrics.error_bars.table import Interval, error_table
from hermes_flow.program.pools import Pool
from hermes_flow.program.program import Program
from hermes_flow.program.quick_dataclass import dataclass

METRICS = ("ttft", "tpot", "e2e")
NONE = "no error bar"
_FOUND = 0.05  # of the prompt tokens: from here on a prefix cache holds prompts
_NO_STEPS = {"endpoint": "its times are those that are given for an API"}
_GIVEN = "its step times are given"
_QUEUED = "requests wait at the gateway for {share:.0%} of the time, and that wait grows much more than the steps do"
_BACKLOG = "which depend on the length of the run, because its backlog grows"
_HELD = 0.05  # of E2E: from here on the wait at a gateway is more than the error of the steps
_BUSY = 0.45  # of the work that a pool can do: errors of TTFT grow from here on


@dataclass(frozen=True, slots=True)
class StepTimes:
    """The factors of all step times at the ends of an error bar, and the kind of the prediction."""

    low: float
    high: float
    kind: str

    def as_dict(self) -> dict[str, Any]:
        """Return the entries as they stand in a summary."""
        return asdict(self)


def step_times(summary: Mapping[str, Any]) -> StepTimes | None:
    """Return by how much the steps of a run may be shorter or longer, from its summary; None where not known.

    The factors are those of the mean TPOT, which grows as the steps do.
    """
    bar, mean = summary.get("error", {}).get("tpot_s"), summary.get("tpot_s", {}).get("mean")
    if bar is None or bar["low"] is None or not mean:
        return None
    return StepTimes(bar["low"] / mean, bar["high"] / mean, bar["kind"])


def error_summary(
    program: Program,
    means: Mapping[str, float | None],
    shares: Mapping[str, float] | None,
    hit_share: float | None,
    work: float | None,
    backlog_grows: bool = False,
) -> dict[str, Any]:
    """Return the entry ``error`` of the summary.

    ``means`` are the mean TTFT, TPOT and E2E in seconds, ``shares`` those of the stages in the mean critical path,
    ``hit_share`` the share of prompt tokens that a prefix cache held (None: no cache), ``work`` the arriving work as
    a share of what the busiest pool can do. The interval of a metric is that of the left-out runs of its kind. It
    widens or narrows only the part of the time that LLM clients take. While the backlog grows (``backlog_grows``),
    TTFT and E2E grow with the length of the run, and nothing is known of their errors. The same holds where requests
    wait at a gateway: steps that are a little longer make that queue much longer.
    """
    kind, reason = _kind(program, hit_share, work)
    if kind is None:
        return {f"{metric}_s": _nothing(f"{NONE}: {reason}") for metric in METRICS}
    others = _other_stages(program, shares or {})
    held = (shares or {}).get("gateway", 0.0)
    found: dict[str, Any] = {}
    for metric in METRICS:
        mean, interval = means.get(metric), kind.intervals.get(metric)
        if metric != "tpot" and backlog_grows:
            found[f"{metric}_s"] = _nothing(f"{NONE}: {_BACKLOG}")
            continue
        if metric != "tpot" and held > _HELD:
            found[f"{metric}_s"] = _nothing(f"{NONE}: {_QUEUED.format(share=held)}")
            continue
        if mean is None or interval is None:
            found[f"{metric}_s"] = _nothing(kind.text)
            continue
        rest_s = 0.0 if metric == "tpot" else min(mean, _before(metric, others) * (means.get("e2e") or 0.0))
        found[f"{metric}_s"] = _bar(mean, rest_s, interval, kind)
    return found


def _nothing(kind: str) -> dict[str, Any]:
    return {"low": None, "high": None, "kind": kind}


def _bar(mean: float, rest_s: float, interval: Interval, kind: Kind) -> dict[str, Any]:
    """Return the bar of a mean of which ``rest_s`` are spent outside of LLM clients."""
    part = mean - rest_s
    return {
        "low": rest_s + part * interval.low,
        "high": rest_s + part * interval.high,
        "kind": kind.text,
        "runs": interval.runs,
        "covers": part / mean if mean else 1.0,
    }


def _kind(program: Program, hit_share: float | None, work: float | None) -> tuple[Kind | None, str]:
    """Return the kind of a run, the widest if its pools are of several; else None and why there is none."""
    pools = _answering(program)
    if not pools:
        return None, "no LLM client of this system writes an answer"
    for pool in pools:
        reason = (
            why_none(pool.evidence) if pool.evidence is not None else _NO_STEPS.get(pool.client.kind, _GIVEN)
        )
        if reason is not None:
            return None, reason if len(pools) == 1 else f"pool {pool.name}: {reason}"
    computed, busy = (hit_share or 0.0) < _FOUND, (work or 0.0) >= _BUSY
    apart = any(op.kv is not None for op in program.ops)
    found = [
        kind_of(pool.evidence, computed, busy, apart, error_table())
        for pool in pools
        if pool.evidence is not None
    ]
    known = [kind for kind in found if kind is not None]
    if len(known) < len(pools):
        return None, "no measured run like it is known"
    return max(known, key=_width), ""


def _answering(program: Program) -> list[Pool]:
    """Return the pools whose clients read prompts or write answers that users wait for; an endpoint is one, too."""
    indices = {op.pool for op in program.ops if op.generate is not None or op.llm is not None}
    served = {other for index in indices for other in program.sharing(index)}
    return [program.pools[index] for index in sorted(served)]


def _width(kind: Kind) -> float:
    interval = kind.intervals["tpot"]
    return interval.high - interval.low


def _other_stages(program: Program, shares: Mapping[str, float]) -> dict[str, tuple[float, bool]]:
    """Return the stages outside of LLM clients: the share of E2E, and whether they come before the answer."""
    answers = program.answers
    last = max(answers, default=len(program.ops))
    found: dict[str, tuple[float, bool]] = {}
    for index, op in enumerate(program.ops):
        if program.pools[op.pool].client.kv_blocks is not None:  # an LLM client
            continue
        for stage in (*op.stages, "+".join(op.stages)):
            if stage in shares:
                found[stage] = (shares[stage], index < last)
    return found


def _before(metric: str, others: Mapping[str, tuple[float, bool]]) -> float:
    """Return the share of E2E that the other stages take in a metric: those before the answer for TTFT."""
    return math.fsum(share for share, early in others.values() if early or metric == "e2e")
