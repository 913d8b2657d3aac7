"""The text of docs/reality.md, from the compared runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.reality.times import METRICS

if TYPE_CHECKING:
    from benchmarks.reality.page import Row

_NOT_BUSY = 0.8
_HEAD = """\
# Does the simulator agree with a real engine, on my own machine?

You can check this without a GPU. `nox -s reality` installs a real vLLM (its build for CPUs), gives it a small Llama
model with random weights, and runs it on one core: alone under several loads, and in whole pipelines whose other
stages compute, too (retrieval-augmented generation with an encoder, a vector search and a guard; an agent with a
tool; a cascade of two models; parallel branches). Every request, every stage and every step is recorded. Then the
simulator repeats each run:

```sh
nox -s reality                       # about half an hour, and 3 GB of packages
nox -s reality -- --seconds 20       # shorter runs
nox -s reality -- a_low rag agent    # some of the runs
```

The session writes this page again, from your runs, into its folder (`.nox/reality/tmp/reality.md`); `--into
docs/reality.md` replaces the page itself. `python -m benchmarks.reality.page FOLDER` makes it from runs that are
recorded already.

A run is driven by one thread whose clock is its own CPU time, so that other programs on the machine disturb it
little. The scheduler, the memory manager, the prefix cache and the model runner are vLLM's own. Only the weights
are random. {about}
"""
_DECISIONS = """\

## Decisions

With the recorded durations of steps and side tasks ([`cost=replay`](cost.md), the column `stages` of a
[trace](workloads.md#sizes-and-times-of-single-stages)), everything else follows from the rules of the simulator:
which requests a step has, how many tokens of a prompt it computes, what the prefix cache finds, who is preempted,
which stage comes when, and, with sessions and closed loops, when the next request arrives.

**{verdict}**

| run | requests | steps | steps that differ | preemptions | cached tokens | largest difference |
|---|---|---|---|---|---|---|
{table}

Times are recorded in whole microseconds, and a chain of stages adds up a few of their roundings.
"""
_TIMES = """\

## Times

The errors are those of the mean end-to-end time (E2E), time to first token (TTFT) and time per output token (TPOT,
of the last answer), as (simulated − measured) / measured. For **own steps**, `cost=regression` is fitted to the
steps of the same run, and side stages are lines over their sizes. This shows what is lost by replacing every step
by a formula. For **other runs**, the formula is fitted to the runs with another load, and times are scaled by the
ratio of the probes, which are fixed pieces of work that every run times every second. This is a prediction.

| | runs | own steps: E2E, TTFT, TPOT | other runs: E2E, TTFT, TPOT |
|---|---|---|---|
{summary}

| run | core busy | mean E2E | own steps: E2E, TTFT, TPOT | other runs: E2E, TTFT, TPOT |
|---|---|---|---|---|
{table}

Near saturation small differences of the speed grow, and repeats of one and the same load differ from each other,
too: {spread}. The simulator has one speed for a whole run, so it misses a machine that is slower just while many
requests wait.
"""


def page(rows: Sequence[Row], about: str) -> str:
    """Return the page; ``about`` says which runs it shows."""
    exact = sum(row.decisions.exact for row in rows)
    verdict = f"{exact} of {len(rows)} runs are exactly as recorded."
    decisions = "\n".join(_decided(row) for row in rows)
    groups: list[tuple[str, Callable[[Row], bool]]] = [
        ("all, mean size", lambda row: True),
        ("core less than 0.8 busy", lambda row: row.busy < _NOT_BUSY),
        ("busier", lambda row: row.busy >= _NOT_BUSY),
    ]
    summary = "\n".join(
        f"| {name} | {len(own)} | {_mean_sizes(row.own for row in own)} | {_mean_sizes(row.others for row in own)} |"
        for name, belongs in groups
        if (own := [row for row in rows if belongs(row)])
    )
    times = "\n".join(
        f"| `{row.run.name}` | {row.busy:.2f} | {row.means.e2e:,.0f} ms | "
        f"{_signed(row.own)} | {_signed(row.others)} |"
        for row in rows
    )
    return (
        _HEAD.format(about=about)
        + _DECISIONS.format(verdict=verdict, table=decisions)
        + _TIMES.format(summary=summary, table=times, spread=_spread(rows))
    )


def _decided(row: Row) -> str:
    found = row.decisions
    cached = "equal" if found.cached_equal else "**differ**"
    return (
        f"| `{row.run.name}` | {len(row.run.requests)} | {found.steps:,} | {found.different:,} | "
        f"{found.preemptions} | {cached} | {found.apart_us:,.0f} µs |"
    )


def _signed(errors: dict[str, float]) -> str:
    return ", ".join(f"{100 * errors[name]:+.1f}" for name in METRICS) + " %" if errors else "–"


def _mean_sizes(errors: Iterable[dict[str, float]]) -> str:
    known = [each for each in errors if each]
    if not known:
        return "–"
    means = [100 * np.mean([abs(each[name]) for each in known]) for name in METRICS]
    return ", ".join(f"{mean:.1f}" for mean in means) + " %"


def _spread(rows: Sequence[Row]) -> str:
    """Return by how much repeats of a load differ in mean E2E from the first one."""
    first: dict[str, float] = {}
    found: dict[str, list[float]] = {}
    for row in rows:
        load, _, repeat = row.run.name.partition("_rep")
        if repeat and load not in first and any(other.run.name == load for other in rows):
            first[load] = next(other.means.e2e for other in rows if other.run.name == load)
        if repeat:
            base = first.setdefault(load, row.means.e2e)
            found.setdefault(load, []).append(row.means.e2e / base - 1.0)
    told = [
        f"`{load}` {', '.join(f'{100 * each:+.0f}' for each in each_load if each)} %"
        for load, each_load in found.items()
        if any(each_load)
    ]
    return "; ".join(told) + " of the mean E2E of the first" if told else "these runs have no repeats"
