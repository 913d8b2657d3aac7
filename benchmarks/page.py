"""The figures as the page docs/speed.md."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from typing import Any

from benchmarks.cases import BUDGETS, Budget

_HEAD = """\
# How fast is it?

Every number is the median over {runs} fresh processes on
{machine}.
This command measures again on your machine and writes the page:

```sh
nox -s bench -- --page docs/speed.md
```
"""
_LISTS = """\
## Request lists that other simulators were measured with

Llama-3.1-8B runs on one H100 per client, with prefill and decode, chunked batching and round-robin routing, and every
table is recorded. All times are CPU seconds. `simulate()` has the median, and "least" is the smallest of its runs.
"tables" is the time to build the tables of requests, stages and clients and the summary. "process" is the whole
process; it includes starting Python, importing, composing, reading the file and compiling.
"""
_SIZES = """\
## The same load, longer

8 clients serve 80 requests per second with Poisson arrivals, prompts of N(375, 60) and answers of N(200, 25) tokens.
"""
_OTHERS = """\
The numbers of other simulators are CPU seconds of the whole process and peak memory for the same lists, on a machine
of the same class. Vidur's numbers do not include the training of its execution-time model (15 to 2,400 s). Two more
simulators were measured on other loads: splitwise-sim serves 450 to 860 requests per CPU second (Azure conv at 70
requests per second, 40 machines), and LLMServingSim 2.0 takes 156 to 396 s of wall time for 300 requests. The
simulators do not model the same things in the same depth, so their answers are not equal.
"""

Figures = Mapping[str, Any]


_BUDGET_HEADING = ("what", "budget", "reached", "")
_SECONDS = ("`simulate()`", "least", "tables", "process")
_LIST_HEADING = ("list", "clients", "LLM steps", *_SECONDS, "peak MB", "requests per CPU s", "others")
_SIZE_HEADING = ("requests", *_SECONDS, "peak MB", "µs a request")


def page(lists: Sequence[Figures], sizes: Sequence[Figures], reached: Figures, runs: int) -> str:
    """Return the page: the budgets with what was reached, the request lists, the sizes."""
    parts = [
        _HEAD.format(runs=runs, machine=_machine()),
        "## Budgets\n",
        _table(_BUDGET_HEADING, [_budget(budget, reached[budget.name]) for budget in BUDGETS]),
        _LISTS,
        _table(_LIST_HEADING, map(_list, lists)),
        _OTHERS,
        _SIZES,
        _table(_SIZE_HEADING, map(_size, sizes)),
    ]
    return "\n".join(parts)


def _machine() -> str:
    libraries = ", ".join(f"{name} {version(name)}" for name in ("numpy", "polars"))
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return f"{os.cpu_count()} cores ({platform.system()}, {platform.machine()}), {python}, {libraries}"


def _budget(budget: Budget, value: float) -> tuple[str, ...]:
    limit = f"≤ {budget.limit:g} {budget.unit}".rstrip()
    return budget.what, limit, _digits(value), "met" if value <= budget.limit else "**missed**"


def _list(figures: Figures) -> tuple[str, ...]:
    return (
        f"`{figures['name']}`",
        str(figures["clients"]),
        f"{figures['steps']:,.0f}",
        _digits(figures["simulate_s"]),
        _digits(figures["simulate_least_s"]),
        _digits(figures["tables_s"]),
        _digits(figures["process_s"]),
        _digits(figures["peak_mb"]),
        f"{figures['requests'] / figures['process_s']:,.0f}",
        figures["others"] or "–",
    )


def _size(figures: Figures) -> tuple[str, ...]:
    cost = (figures["simulate_s"] + figures["tables_s"]) / figures["requests"]
    return (
        f"{figures['requests']:,.0f}",
        _digits(figures["simulate_s"]),
        _digits(figures["simulate_least_s"]),
        _digits(figures["tables_s"]),
        _digits(figures["process_s"]),
        _digits(figures["peak_mb"]),
        f"{1e6 * cost:.1f}",
    )


def _digits(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3f}" if value < 0.1 else f"{value:.2f}"


def _table(heading: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table; all but the first column are aligned to the right."""
    rule = ["---", *["---:"] * (len(heading) - 1)]
    lines = [" | ".join(row) for row in (heading, rule, *rows)]
    return "\n".join(f"| {line} |" for line in lines) + "\n"
