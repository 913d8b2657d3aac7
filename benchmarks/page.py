"""The figures as the page docs/speed.md."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from benchmarks import startup
from benchmarks.cases import REQUEST_LISTS
from benchmarks.speed_cases import BOUNDS, Bound, Figures
from benchmarks.speed_figures import START_UP, Measured

_HEAD = """\
# How fast is it?

Every number is {runs}, on
{machine}.
{sittings}

This command measures again on your machine and writes the page. It takes about 25 minutes on a quiet machine; with
`--quick` about 15, because the row of 10,000,000 requests stays what it was.

```sh
nox -s bench -- --page docs/speed.md
```

Times are CPU time. "Multiple" compares with a yardstick, which is a plain Python loop that does the least a
simulator of one LLM pool must do: `benchmarks/yardstick.py` takes {yardstick:.2f} µs a request here. A machine that
is twice as fast halves both. `simulate()` records everything that the tables need. "Tables" is the time to build the
tables of requests, stages and clients and the summary.
"""
_BUDGETS = """\
## Budgets

These bounds are ours. What misses its bound comes first.
"""
_PIPELINES = """\
## By pipeline

`llm` and `chat` serve 100,000 requests at 80 requests per second on 8 clients (the list
`poisson_n100000_instances8_rps80`). The others serve 5,000 requests of `workload=synthetic` at 8 requests per second
on 8 LLM clients, with the pipeline's own services. {compiled}
"""
_COMPILED = "The compiled core is the same source, compiled ([install](install.md))."
_PREFIXES = """\
## With and without a prefix cache

The sessions have 8 turns. Mooncake's trace has 12,031 conversations, whose prompts share prefixes of 512 tokens; it
runs on 8 clients of Llama-3-70B, with the cache in blocks of 16 or of 512 tokens.
"""
_POLICIES = """\
## By policy

These are the first 20,000 requests of `poisson_n100000_instances8_rps80` on 8 clients, in one process. The first row
is the plain case, and each other row changes one thing.
"""
_REQUESTS = """\
## How the cost grows

The cost of a request should not depend on how many there are. 8 clients serve 80 requests per second with Poisson
arrivals, prompts of N(375, 60) and answers of N(200, 25) tokens. All tables are in memory at the end, except in the
streamed run (`output.stream_requests=100000`, see [workloads](workloads.md)), which writes them in pieces; its time
for tables includes the writing.
"""
_CLIENTS = """\
Clients: 20,000 requests, ten a second for each client, prefill and decode.
"""
_STAGES = """\
Stages: 20,000 requests on 8 clients, with stages of the host, one after the other, before prefill and decode.
"""
_READS = """\
Contended reads: 128 stores share memories by 32, and nearly all reads are under way at once
(`benchmarks/contended_reads.py`).
"""
_LISTS = """\
## Request lists that other simulators were measured with

Llama-3.1-8B runs on one H100 per client, with prefill and decode, chunked batching and round-robin routing, and every
table is recorded. "Process" is the whole process; it includes starting Python, importing, composing, reading the file
and compiling.
"""
_OTHERS = """\
The numbers of other simulators are CPU seconds of the whole process and peak memory for the same lists, measured in
one sitting on a machine of the same class, with the best flags we found:

| work | DynoSim 1.6.1 (Rust) | fleet-sim (M/G/c, no steps) | BLIS (Go) | inference-lab 0.2.1 (Rust/WASM) |
| --- | ---: | ---: | ---: | ---: |
| 10,000 requests, 1 client, 10/s | 0.70 s, 71 MB | 0.55 s, 73 MB | 1.44 s, 184 MB | 7.38 s, 238 MB |
| 100,000 requests, 8 clients, 80/s | 7.20 s, 372 MB | 4.30 s, 125 MB | 19.4 s, 2,114 MB | more than 300 s |
| Mooncake conversations, blocks of 16 | 7.5 s, 654 MB | – | – | – |
| Mooncake conversations, blocks of 512 | 4.6 s, 620 MB | – | – | – |

Vidur takes 11.0 and 15.1 s and 1.1 GB for the two lists `conv4k`, after a training of its execution-time model of 15
to 2,400 s. Two more simulators were measured on other loads: splitwise-sim serves 450 to 860 requests per CPU second
(Azure conv at 70 requests per second, 40 machines), and LLMServingSim 2.0 takes 156 to 396 s of wall time for 300
requests. The simulators do not model the same things in the same depth, so their answers are not equal.
"""
_STARTUP = """\
## Starting, and short sweeps

The bare imports are those of Hydra, Polars and NumPy, without which a run cannot read its settings or write its
tables.
"""


def page(measured: Measured) -> str:
    """Return the page: budgets, pipelines, prefix caches, policies, curves, other simulators, start-up.

    The load ``llm`` must have been measured; other rows are left out where they were not.
    """
    figures: Figures = measured.figures
    by_section = measured.sections

    def costs(section: str, what: str) -> str:
        compiled = any("compiled_us" in figures[name] for name in by_section[section])
        rows = [_cost(name, figures, compiled) for name in by_section[section]]
        return _table(_cost_heading(what, compiled), rows)

    compiled = any("compiled_us" in entry for entry in figures.values())
    head = _HEAD.format(
        runs=_taken(measured.runs),
        machine=measured.machine,
        sittings=_sittings(measured),
        yardstick=figures["llm"]["yardstick_us"],
    )
    others = {entry.name: entry.others for entry in REQUEST_LISTS}
    return "\n".join(
        [
            head,
            _BUDGETS,
            _table(("what", "bound", "reached", ""), _bounds(figures)),
            _PIPELINES.format(compiled=_COMPILED if compiled else "").replace(" \n", "\n"),
            costs("pipelines", "pipeline"),
            _PREFIXES,
            costs("prefix caches", "load"),
            _POLICIES,
            _table(
                ("policy", "CPU s", "of plain"),
                [(name, f"{s:.2f}", f"{x:.2f}") for name, s, x in measured.policies],
            ),
            _REQUESTS,
            costs("requests", "load"),
            _CLIENTS,
            costs("clients", "routing"),
            _STAGES,
            costs("stages", "pipeline"),
            _READS,
            _table(
                ("reads", "`simulate()`, CPU s"),
                [(name, _digits(figures[name]["simulate_s"])) for name in by_section["contended reads"]],
            ),
            _LISTS,
            _table(
                ("list", "LLM steps", "`simulate()`, CPU s", "tables", "process", "peak MB", "others"),
                [_list(name, figures[name], others.get(name, "")) for name in by_section["lists"]],
            ),
            _OTHERS,
            _STARTUP,
            _table(("what", "bound", "reached"), _starts(figures.get(START_UP, {}))),
        ]
    )


def _taken(runs: int) -> str:
    """Return of how many processes a number is."""
    if runs == 1:
        return "of one fresh process"
    return f"the median over {runs} fresh processes (of one, for loads of 1,000,000 requests and more)"


def _sittings(measured: Measured) -> str:
    """Return when all of it was measured, and what is from another sitting."""
    text = f"They are of one sitting, which began on {measured.sitting} (UTC)"
    older = measured.older()
    if not older:
        return f"{text}."
    parts = [f"those of {when}: {', '.join(names)}" for when, names in older.items()]
    return f"{text}, except {'; and '.join(parts)}."


def _bounds(figures: Figures) -> list[tuple[str, ...]]:
    """Return the rows of the budgets, those that are missed first, the worst of them at the top."""
    found = [(bound, bound.reached(figures)) for bound in BOUNDS]
    measured = [(bound, reached) for bound, reached in found if reached is not None]
    measured.sort(key=lambda pair: -pair[1] / pair[0].limit)
    missed = [_bound(bound, reached) for bound, reached in measured if reached > bound.limit]
    met = [_bound(bound, reached) for bound, reached in measured if reached <= bound.limit]
    unknown = [
        (bound.what, f"≤ {bound.limit:g} {bound.unit}", "–", "not measured")
        for bound, value in found
        if value is None
    ]
    return [*missed, *met, *unknown]


def _bound(bound: Bound, reached: float) -> tuple[str, ...]:
    verdict = "met" if reached <= bound.limit else "**missed**"
    return bound.what, f"≤ {bound.limit:g} {bound.unit}", _digits(reached), verdict


def _cost_heading(what: str, compiled: bool) -> tuple[str, ...]:
    more = ("compiled, µs", "multiple") if compiled else ()
    return (
        what,
        "requests",
        "`simulate()`, µs a request",
        "multiple",
        *more,
        "tables, µs a request",
        "peak MB",
    )


def _cost(name: str, figures: Figures, compiled: bool) -> tuple[str, ...]:
    found, yardstick = figures[name], figures[name]["yardstick_us"]
    more = []
    if compiled:
        taken = found.get("compiled_us")
        more = ["–", "–"] if taken is None else [_digits(taken), _digits(taken / yardstick)]
    return (
        name,
        f"{found['requests']:,.0f}",
        _digits(found["simulate_us"]),
        _digits(found["simulate_us"] / yardstick),
        *more,
        _digits(found["tables_us"]),
        _digits(found["peak_mb"]),
    )


def _list(name: str, found: Mapping[str, float], others: str) -> tuple[str, ...]:
    times = (_digits(found[key]) for key in ("simulate_s", "tables_s", "process_s", "peak_mb"))
    return (f"`{name}`", f"{found['steps']:,.0f}", *times, others or "–")


def _starts(found: Mapping[str, float]) -> list[tuple[str, ...]]:
    bounds = startup.BOUNDS
    return [
        (meaning, f"≤ {bounds[name]:g}" if name in bounds else "–", _digits(found[name]))
        for name, meaning in startup.MEANINGS.items()
        if name in found
    ]


def _digits(value: float) -> str:
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3f}" if value < 0.1 else f"{value:.2f}"


def _table(heading: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table; all but the first column are aligned to the right."""
    rule = ["---", *["---:"] * (len(heading) - 1)]
    lines = [" | ".join(row) for row in (heading, rule, *rows)]
    return "\n".join(f"| {line} |" for line in lines) + "\n"
