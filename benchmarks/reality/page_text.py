"""The text of docs/reality.md, from the compared runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.reality.times import METRICS, WINDOW_S

if TYPE_CHECKING:
    from benchmarks.reality.page import Row

_NOT_BUSY = 0.8
_NEEDS = (  # what, how, page, place on it
    (
        "a core that an engine and side stages share",
        "`cluster.pools.NAME.shares_device_with`",
        "pipelines",
        "one-device-for-an-engine-and-its-side-stages",
    ),
    ("a cost model for each pool", "`cluster.pools.NAME.cost`", "cost", ""),
    (
        "sizes and times of each stage of a request, its number of turns, and who escalates",
        "the column `stages`",
        "workloads",
        "sizes-and-times-of-single-stages",
    ),
    ("blocks of answers, which the next turn finds", "`answer_hashes`", "workloads", ""),
    (
        "turns and users that wait for the answer before",
        "`session`, `delay_us`",
        "workloads",
        "sessions-and-shared-system-prompts",
    ),
    ("a last prompt that holds the answers of all branches", "`reads`", "pipelines", ""),
    ("a core that runs an LLM", "`hardware=epyc_zen4_core`", "cost", "add-hardware"),
    (
        "exact pairs of queries and keys in a log of steps",
        "`prefill_pairs`, `chunks`",
        "calibration",
        "a-table-of-step-times",
    ),
)
_CLOSE = 0.03
_COVERED, _FEWEST_LOADS = 0.8, 4  # of an interval; to make one from
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
docs/reality.md` replaces the page itself. It needs Linux; where vLLM cannot be installed, it says what is missing.
Runs that are recorded already, on another machine for instance, need no vLLM:

```sh
python -m benchmarks.reality.page FOLDER --into PAGE               # compares all runs of a folder
python -m benchmarks.reality.commands FOLDER --into TRACES [RUN…]  # prints the command that repeats each run
```

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

What these runs need, and where it is explained:

| what | how it is said | page |
|---|---|---|
{needs}
"""
_TIMES = """\

## Times

The errors are those of the mean end-to-end time (E2E), time to first token (TTFT) and time per output token (TPOT,
of the last answer), as (simulated − measured) / measured. There are three ways to get the time of a step:

- **Own steps**: `cost=regression` is fitted to the steps of the same run, and side stages are lines over their sizes.
  This shows what is lost by replacing every step by a formula.
- **Own speed**: the same, and the machine is as fast as it was at that time of the run, in windows of {window}
  seconds (`cost.drift_s={window}`, [calibrate](calibration.md)). What is then left is the error of the formula.
- **Other runs**: the formula is fitted to the runs with another load, and times are scaled by the ratio of the
  probes, which are fixed pieces of work that every run times every second. This is a prediction.

The columns have the errors of E2E, TTFT and TPOT.

| | runs | own steps | own speed | other runs |
|---|---|---|---|---|
{summary}

{within}

| run | core busy | mean E2E | own steps | own speed | other runs |
|---|---|---|---|---|---|
{table}

**Error bars.** How far off may a prediction be? As far as those of other loads are: the 80th percentile of their
errors, in size, is the half-width of an interval, and its own error should lie within four times in five.

| | half-width of E2E, TTFT, TPOT | within it |
|---|---|---|
{bars}

Near saturation small differences of the speed grow, and repeats of one and the same load differ from each other,
too: {spread}. A prediction from other runs has one speed for a whole run, so it misses a machine that is slower just
while many requests wait.
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
        f"| {name} | {len(own)} | {_mean_sizes(row.own for row in own)} | "
        f"{_mean_sizes(row.drifting for row in own)} | {_mean_sizes(row.others for row in own)} |"
        for name, belongs in groups
        if (own := [row for row in rows if belongs(row)])
    )
    times = "\n".join(
        f"| `{row.run.name}` | {row.busy:.2f} | {row.means.e2e:,.0f} ms | "
        f"{_signed(row.own)} | {_signed(row.drifting)} | {_signed(row.others)} |"
        for row in rows
    )
    return (
        _HEAD.format(about=about)
        + _DECISIONS.format(verdict=verdict, table=decisions, needs=_needs())
        + _TIMES.format(
            summary=summary,
            table=times,
            spread=_spread(rows),
            window=WINDOW_S,
            within=_within(rows),
            bars=_bars(rows, groups[1:]),
        )
    )


def _within(rows: Sequence[Row]) -> str:
    """Return how many runs have all three means within 3 %."""
    told = [
        f"{sum(max(map(abs, errors)) <= _CLOSE for errors in found)} by their own {what}"
        for what, found in (
            ("steps", [row.own.values() for row in rows]),
            ("speed", [row.drifting.values() for row in rows]),
        )
    ]
    return f"Of {len(rows)} runs, {' and '.join(told)} have all three means within {100 * _CLOSE:.0f} %."


def _bars(rows: Sequence[Row], groups: Sequence[tuple[str, Callable[[Row], bool]]]) -> str:
    """Return the intervals of predictions from other runs, and how many runs lie within that of the other loads."""
    lines = []
    for name, belongs in groups:
        own = [row for row in rows if belongs(row) and row.others]
        loads = [row.run.name.partition("_rep")[0] for row in own]
        if len(set(loads)) < _FEWEST_LOADS:
            continue
        widths, within = [], []
        for metric in METRICS:
            sizes = np.abs([row.others[metric] for row in own])
            half = np.array(
                [np.quantile(sizes[[other != load for other in loads]], _COVERED) for load in loads]
            )
            widths.append(f"{100 * float(np.median(half)):.1f}")
            within.append(f"{int((sizes <= half).sum())}")
        lines.append(f"| {name} | {', '.join(widths)} % | {', '.join(within)} of {len(own)} |")
    return "\n".join(lines) or "| too few loads | – | – |"


def _needs() -> str:
    return "\n".join(
        f"| {what} | {how} | [{name}]({name}.md{f'#{place}' if place else ''}) |"
        for what, how, name, place in _NEEDS
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
