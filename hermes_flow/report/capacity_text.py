"""Writes the answer of a capacity search as text for the terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

from hermes_flow.config.schema import Config
from hermes_flow.metrics.number_text import digits, duration, percent
from hermes_flow.metrics.objectives import bound_label
from hermes_flow.planning.capacity import Capacity
from hermes_flow.planning.probes import Probe

NOWHERE = "no value"
_WIDTH = 80
_UNITS = {"rate_per_s": "requests/s", "rate_scale": "times the trace's speed", "concurrency": "users"}


def capacity_text(found: Capacity, summary: dict[str, Any]) -> str:
    """Return the answer in lines of at most 80 columns; ``summary`` is that of the run at the answer."""
    name = summary["slo"]["name"]
    up_to = "up to" if found.direction == "highest" else "from"
    sentences = []
    if found.value is None:
        sentences.append(f"No capacity: SLO {name} is missed at every value of {found.over} that was tried.")
    else:
        sentences.append(f"Capacity: SLO {name} is met {up_to} {_amount(found, found.value)}.")
    sentences += _intervals(found)
    if found.limiting:
        beyond = "Beyond that, the run misses" if found.value is not None else "The runs miss"
        sentences.append(f"{beyond} {' and '.join(_bound(bound, summary) for bound in found.limiting)}.")
    if found.sustained is not None:
        sentences.append(f"The backlog stays bounded {up_to} {_amount(found, found.sustained)}.")
    lines = textwrap.wrap(" ".join(sentences), _WIDTH)
    for note in found.notes:
        lines += textwrap.wrap(f"note: {note}", _WIDTH, subsequent_indent="  ")
    early = sum(probe.verdict.share < 1 for probe in found.probes)
    ran = f"{len(found.probes)} simulations, {early} of them ended early because a bound was certain to be missed"
    lines += ["", *textwrap.wrap(f"Searched {found.over} with {ran}.", _WIDTH), ""]
    lines += [f"{'value':>12}  {'seed':>5}  {'steps':>6}  {'SLO':<7} {'backlog':<8} bounds that are missed"]
    for probe in found.probes:
        verdict = probe.verdict
        backlog = {None: "–", True: "settles", False: "grows"}[verdict.sustained]
        missed = probe.problem or ", ".join(bound_label(bound) for bound in verdict.failing)
        place = f"{_number(probe.value):>12}  {probe.seed:>5}  {percent(probe.step_times):>6}"
        row = f"{place}  {'met' if verdict.met else 'missed':<7} {backlog:<8}"
        lines.append(f"{row} {missed}".rstrip()[:_WIDTH])
    return "\n".join(lines)


def so_far_text(over: str, config: Config, probes: Sequence[Probe]) -> str:
    """Return what a stopped search has seen with its own seed and step times; empty before any simulation."""
    own = [probe for probe in probes if probe.step_times == 1 and probe.seed == config.seed]
    seen = []
    for met, word in ((True, "met"), (False, "missed")):
        values = sorted({probe.value for probe in own if probe.verdict.met == met})
        if values:
            seen.append(f"{word} at {over}={', '.join(_number(value) for value in values)}")
    text = f"So far SLO {config.slo.name} is {'; '.join(seen)}." if seen else ""
    return "\n".join(textwrap.wrap(text, _WIDTH, break_long_words=False, break_on_hyphens=False))


def _intervals(found: Capacity) -> list[str]:
    """Return what other random seeds give, and what other step times give."""
    sentences = []
    if found.seed_interval is not None and found.seed_interval[0] != found.seed_interval[1]:
        low, high = (_number(end) for end in found.seed_interval)
        sentences.append(f"Other random seeds give {low} to {high}.")
    if found.step_times is None or found.interval is None:
        return sentences
    bar = found.step_times
    ends = [NOWHERE if end is None else _number(end) for end in found.interval]
    steps = f"steps that take {percent(bar.low)} to {percent(bar.high)} of the time"
    sentences.append(f"With the error bar of TPOT ({bar.kind}: {steps}) it is {ends[0]} to {ends[1]}.")
    return sentences


def _amount(found: Capacity, value: float) -> str:
    """Return a value of the searched key with its unit."""
    unit = _UNITS.get(found.over.rpartition(".")[2])
    return f"{found.over}={_number(value)}" if unit is None else f"{_number(value)} {unit}"


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else digits(value)


def _bound(bound: str, summary: dict[str, Any]) -> str:
    limit_s = summary["slo"]["bounds"].get(bound, {}).get("limit_s")
    return bound_label(bound) if limit_s is None else f"{bound_label(bound)} ({duration(limit_s)})"
