"""Writes the summary of one run as text for the terminal, with the verdict on the SLO first."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

from hermes_flow.metrics.number_text import counted, digits, dollars, duration, joules, percent, shortened
from hermes_flow.metrics.objectives import ATTAINMENT, bound_label
from hermes_flow.program.pools import Pool
from hermes_flow.program.program import Program
from hermes_flow.report.error_text import error_text
from hermes_flow.report.operations_text import operations_lines, outcome_words
from hermes_flow.report.phases_text import phases_table

WIDTH = 80
_LABEL = 14
_METRICS = {"ttft": "TTFT", "tpot": "TPOT", "itl": "ITL", "e2e": "E2E"}
_STATISTICS = ("mean", "p50", "p90", "p99")
_STAGES_SHOWN = 5
_ANSI = {"good": "\x1b[32m", "bad": "\x1b[31m", "caution": "\x1b[33m", "heading": "\x1b[2m"}

Paint = Callable[[str, str], str]


def run_summary(summary: dict[str, Any], program: Program, colour: bool = False) -> str:
    """Return a run's summary (``Result.summary``) as text of at most 80 columns, without a line end.

    ``colour`` adds ANSI colours.
    """
    paint = _coloured if colour else _plain
    blocks = [
        _verdict(summary, paint),
        _latencies(summary, paint),
        list(_facts(summary, paint)),
        phases_table(summary.get("phases", {}), paint),
        _pools(summary["pools"], program, paint),
        [
            paint(line, "caution")
            for text in summary["warnings"]
            for line in _wrapped(f"warning: {text}", "  ")
        ],
    ]
    return "\n\n".join("\n".join(block) for block in blocks if block)


def _coloured(text: str, style: str) -> str:
    return f"{_ANSI[style]}{text}\x1b[0m" if style else text


def _plain(text: str, style: str) -> str:
    return text


def _wrapped(text: str, indent: str = "") -> list[str]:
    return textwrap.wrap(text, WIDTH, subsequent_indent=indent)


def _verdict(summary: dict[str, Any], paint: Paint) -> list[str]:
    """Return whether the SLO is met and what limits the run."""
    slo = summary["slo"]
    if not slo["bounds"]:
        verdict, style = "No SLO set.", ""
    elif slo["met"]:
        verdict, style = f"SLO {slo['name']} met.", "good"
    else:
        verdict, style = f"SLO {slo['name']} MISSED.", "bad"
    first, *rest = _wrapped(f"{verdict} {summary['limits']['text']}")
    return [first.replace(verdict, paint(verdict, style), 1), *rest]


def _latencies(summary: dict[str, Any], paint: Paint) -> list[str]:
    """Return the table of latencies; a percentile beyond its SLO bound is marked "!"."""
    missed = {name for name, bound in summary["slo"]["bounds"].items() if not bound["met"]}
    rows = []
    for metric, title in _METRICS.items():
        values = summary[f"{metric}_s"]
        if values["mean"] is None:
            continue
        cells = []
        for name in _STATISTICS:
            late = f"{metric}_{name}_s" in missed
            cell = f"{duration(values[name]):>11}{'!' if late else ' '}"
            cells.append(paint(cell, "bad" if late else ""))
        rows.append(f"{title:<{_LABEL}}{''.join(cells)}".rstrip())
    heading = " " * _LABEL + " ".join(f"{name:>11}" for name in _STATISTICS)
    return [paint(heading, "heading"), *rows] if rows else []


def _facts(summary: dict[str, Any], paint: Paint) -> Iterator[str]:
    """Yield a labelled line per figure of the whole run."""
    requests, throughput, slo = summary["requests"], summary["throughput"], summary["slo"]
    completed = f"{requests['completed']:,} of {requests['submitted']:,} completed"
    failed = outcome_words(requests)
    yield from _fact("requests", f"{completed}, {failed}" if failed else completed)
    for label, text in operations_lines(summary):
        yield from _fact(shortened(label, _LABEL - 1), text)
    yield from _throughput(throughput)
    if slo["attainment"] is not None:
        goodput = f"{digits(slo['goodput_requests_per_s'])} requests/s"
        yield from _fact("goodput", f"{goodput}, {percent(slo['attainment'])} of requests within the SLO")
    for name, bound in slo["bounds"].items():
        if not bound["met"]:
            for line in _fact("SLO missed", _of_whom(name, summary) + _miss(name, bound)):
                yield paint(line, "bad")
    why = summary["why"]
    if why["text"]:
        yield from _fact("headroom" if why["bound"] is None else "why", why["text"])
    error = error_text(summary)
    if error:
        yield from _fact("error bar", error)
    shares = _shares(summary["critical_path"]["mean"])
    if shares:
        yield from _fact("time goes to", shares)
    cost = _cost(summary["cost"])
    if cost:
        yield from _fact("cost", cost)
    energy = _energy(summary["energy"], len(summary["pools"]))
    if energy:
        yield from _fact("energy", energy)
    for name, fleet in summary.get("fleet", {}).items():
        yield from _fact("fleet", _fleet(name, fleet))
        if "failures" in fleet:
            yield from _fact("failures", _failures(name, fleet))
    prefix = summary.get("prefix")
    if prefix:
        found = f"{percent(prefix['hit_share'])} of prompt tokens found ({prefix['hit_tokens']:,} tokens)"
        yield from _fact("prefix cache", found)
    for name, use in summary.get("offload", {}).items():
        tiers = [f"{one['loaded_tokens']:,} tokens from {tier}" for tier, one in use["tiers"].items()]
        if use["loads"]:
            mean = duration(use["load_mean_s"])
            yield from _fact("tiers", f"{name} loaded {' and '.join(tiers)}, {mean} a load")
    left_out = summary.get("workload", {}).get("leaves_out")
    if left_out:
        yield from _fact("stand-in", f"the workload leaves out {'; '.join(left_out)}")
    engine = summary["engine"]
    work = counted(engine["events"], "event")
    if engine["steps"]:
        work += f" and {counted(engine['steps'], 'LLM step')}"
    yield from _fact("simulated", f"{work} in {duration(engine['wall_s'])}")


def _throughput(throughput: dict[str, Any]) -> Iterator[str]:
    """Yield the throughput of the whole run, and that of its steady window where there is one."""
    tokens, answers = throughput["output_tokens_per_s"], throughput["answer_tokens_per_s"]
    rates = f"{digits(throughput['requests_per_s'])} requests/s"
    if tokens is not None:
        rates += f", {digits(tokens)} output tokens/s"
        if tokens > 1.0005 * answers:
            rates += f", {digits(answers)} of them in answers"
    yield from _fact("throughput", rates)
    steady = throughput["steady"]
    if steady["requests_per_s"] is None:
        return
    text = f"{digits(steady['requests_per_s'])} ± {digits(steady['requests_per_s_error'])} requests/s"
    if steady["output_tokens_per_s"] is not None:
        error = digits(steady["output_tokens_per_s_error"])
        text += f", {digits(steady['output_tokens_per_s'])} ± {error} output tokens/s"
    yield from _fact("  steady", f"{text}, without ramp and drain")


def _fact(label: str, text: str) -> list[str]:
    return textwrap.wrap(f"{label:<{_LABEL}}{text}", WIDTH, subsequent_indent=" " * _LABEL)


def _of_whom(name: str, summary: dict[str, Any]) -> str:
    """Return the words before a bound of the SLO that does not count the classes with bounds of their own."""
    own = any(figures["slo"]["bounds"] for figures in summary.get("classes", {}).values())
    everybody = name.startswith(("classes.", "itl_"))
    return "other classes: " if own and not everybody else ""


def _miss(name: str, bound: dict[str, Any]) -> str:
    if "limit_share" in bound:
        within, limit = percent(bound["value_share"]), percent(bound["limit_share"])
        of = f"{bound_label(name).removesuffix(ATTAINMENT)}requests"
        return f"{within} of {of} are within all limits, bound {limit}"
    value_s, limit_s = bound["value_s"], bound["limit_s"]
    text = f"{bound_label(name)} is {duration(value_s)}, bound {duration(limit_s)}"
    in_time = value_s is None or value_s <= limit_s
    return f"{text}, but too many requests failed" if in_time else text


def _shares(path: dict[str, Any] | None) -> str:
    """Return the stages that take most of the critical path with their shares, largest first."""
    if path is None:
        return ""
    shares = path["shares"]
    ranked = sorted(shares, key=lambda name: -shares[name])
    shown = [name for name in ranked if shares[name] >= 0.005][:_STAGES_SHOWN]
    parts = [f"{name} {percent(shares[name])}" for name in shown]
    rest = math.fsum(shares[name] for name in ranked if name not in shown)
    if rest > 0:
        parts.append(f"other stages {percent(rest)}")
    return ", ".join(parts)


def _cost(cost: dict[str, Any]) -> str:
    """Return what the run costs; without a price the accelerators it needs, and nothing without these."""
    if cost["usd_per_hour"] is None:
        each, count = cost["accelerator_hours_per_million_output_tokens"], cost["accelerators"]
        if not count:
            return ""
        many = counted(count, "accelerator") if isinstance(count, int) else f"{digits(count)} accelerators"
        text = f"unknown, as {' and '.join(cost['unpriced'])} have no price; {many}"
        return text if each is None else f"{text}, {digits(each)} accelerator-hours per million output tokens"
    text = f"{dollars(cost['usd_per_hour'])} per hour"
    if cost["usd_per_million_output_tokens"] is not None:
        text += f", {dollars(cost['usd_per_million_output_tokens'])} per million output tokens"
    if cost.get("usd_by_use") is not None:
        text += f"; {dollars(cost['usd_by_use'])} paid by use in this run"
    if cost["unpriced"]:
        text += f" ({', '.join(cost['unpriced'])} unpriced)"
    return text


def _energy(energy: dict[str, Any], pools: int) -> str:
    """Return the energy of a run, or whose power is not known; nothing where that of no pool is."""
    if energy["total_j"] is None:
        unknown = energy["unmetered"]
        return f"not known, as no power is known of {', '.join(unknown)}" if len(unknown) < pools else ""
    text = joules(energy["total_j"])
    if energy["j_per_output_token"] is not None:
        text += f", {digits(energy['j_per_output_token'])} J per output token"
    if energy["total_j"]:
        text += f", {percent(energy['idle_j'] / energy['total_j'])} of it while idle"
    if energy["unmetered"]:
        text += f" ({', '.join(energy['unmetered'])} not counted)"
    return text


def _fleet(name: str, fleet: dict[str, Any]) -> str:
    """Return how many clients of a pool ran, and for how long."""
    clients = fleet["clients"]
    least, most = clients["least"], clients["most"]
    count = f"{least} to {most} clients" if least < most else counted(most, "client")
    text = f"{name} had {count}, {digits(clients['mean'])} on average; "
    if fleet["accelerator_hours"]:
        text += f"{digits(fleet['accelerator_hours'])} accelerator-hours"
    else:
        text += f"{digits(fleet['client_hours'])} client-hours"
    if fleet["usd"] is not None:
        text += f", {dollars(fleet['usd'])}"
    return f"{text}; {counted(fleet['starts'], 'start')}, {counted(fleet['stops'], 'stop')}"


def _failures(name: str, fleet: dict[str, Any]) -> str:
    """Return how often clients of a pool failed, and what that took."""
    text = (
        f"{counted(fleet['failures'], 'client')} of {name} failed, {percent(fleet['availability'])} available"
    )
    if fleet["retried_requests"]:
        text += f"; {counted(fleet['retried_requests'], 'request')} began anew"
        if fleet["retried_e2e_s"]["p99"] is not None:
            text += f", their E2E p99 is {duration(fleet['retried_e2e_s']['p99'])}"
    if fleet["slow_hours"]:
        text += f"; clients were slow for {duration(3600 * fleet['slow_hours'])} in all"
    return text


def _pools(pools: dict[str, dict[str, Any]], program: Program, paint: Paint) -> list[str]:
    """Return the table of pools: size, load and mean wait of a task."""
    columns = ("busy", "work", "wait", "batch", "KV peak")
    heading = f"{'pool':<{_LABEL}}{'clients':<20}" + "".join(f"{name:>9}" for name in columns)
    lines = [paint(heading, "heading")]
    for pool in program.pools:
        figures = pools[pool.name]
        cells = (
            percent(figures["busy_fraction"]),
            _work(figures["saturation"]["work"]),
            duration(figures["queue_mean_s"]),
            digits(figures["mean_batch"]),
            percent(figures["kv_peak_fraction"]),
        )
        name, clients = shortened(pool.name, _LABEL - 1), shortened(_clients(pool), 19)
        lines.append(f"{name:<{_LABEL}}{clients:<20}" + "".join(f"{cell:>9}" for cell in cells))
    return lines


def _work(share: float | None) -> str:
    """Return the arriving work as a share of what a pool can do."""
    return ">999 %" if share is not None and share > 9.99 else percent(share)


def _clients(pool: Pool) -> str:
    """Return the clients of a pool and their devices: ``2 of 4 × h100_sxm`` are two clients with 8 GPUs in all."""
    hardware = pool.hardware or pool.client.kind
    if pool.fleet is not None and pool.fleet.autoscaling is not None:
        most = f"up to {pool.count}"
        return (
            f"{most} of {pool.client.devices} × {hardware}"
            if pool.client.devices > 1
            else f"{most} × {hardware}"
        )
    if pool.client.devices > 1:
        return f"{pool.count} of {pool.client.devices} × {hardware}"
    return f"{pool.count} × {hardware}"
