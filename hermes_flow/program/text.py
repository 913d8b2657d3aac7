"""Writes a Program as text: pools with their capacity and costs, ops with their edges, the schedule."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np

from hermes_flow.program.admission import Limits, RetryRule
from hermes_flow.program.kv_store import KVLookup
from hermes_flow.program.ops import LoadRoute, Op
from hermes_flow.program.pools import Pool
from hermes_flow.program.requests import Requests
from hermes_flow.program.same_bits import mean
from hermes_flow.program.sites import Sites
from hermes_flow.program.units import NS_PER_MS, NS_PER_S, NS_PER_US, Ints, bytes_to_gb
from hermes_flow.program.work import CoreTime, EarlierPrompt, Forward, Generate, Passes

_WIDTH = 80
_HEAD = 8


def program_text(
    title: str,
    pools: Sequence[Pool],
    ops: Sequence[Op],
    requests: Requests,
    load_routes: Sequence[LoadRoute],
    warnings: Sequence[str],
    gateway: Limits | None = None,
    link_changes: int = 0,
    sites: Sites | None = None,
    retries: RetryRule | None = None,
) -> str:
    """Return the whole text of a program, lines of at most 80 columns, ending in a newline."""
    lines = [*_wrapped(title, "", "  "), "", "pools"]
    for pool in pools:
        lines += _pool_lines(pool, pools)
    if gateway is not None:
        lines += _wrapped(_gateway(gateway), "  ", "      ")
    if retries is not None:
        wait = f"{retries.backoff_ns / NS_PER_S:g} s"
        lines.append(f"  users who gave up try again, at most {retries.times}×, first after {wait}")
    if link_changes:
        lines.append(f"  network: links change {link_changes:,} times, as network.failures says")
    if sites is not None:
        lines += _wrapped(_sites(sites, pools), "  ", "      ")
    lines += ["", "ops"]
    width = max(len(op.name) for op in ops)
    for index, op in enumerate(ops):
        lines += _op_lines(index, op, pools, ops, load_routes, width)
    lines += ["", *_schedule_lines(requests)]
    if warnings:
        lines += ["", "warnings"]
        for warning in warnings:
            lines += _wrapped(warning, "  ", "    ")
    return "\n".join(lines) + "\n"


def _sites(sites: Sites, pools: Sequence[Pool]) -> str:
    """Return which clients stand at each site, and what chooses among sites."""
    found = []
    for site, name in enumerate(sites.names):
        counts = [(own.count(site), pool.name) for own, pool in zip(sites.clients, pools, strict=True)]
        here = ", ".join(f"{count:,} of {pool}" for count, pool in counts if count)
        found.append(f"{name} ({here or 'users only'})")
    return f"sites: {', '.join(found)}; requests go to the one that {sites.label} chooses"


def _gateway(limits: Limits) -> str:
    """Return what the gateway before the cluster lets in."""

    def most(number: int | None, where: str) -> str:
        return f"any number of requests {where}" if number is None else f"at most {number:,} {where}"

    text = f"gateway: {most(limits.max_in_flight, 'in flight')}, {most(limits.max_queued, 'queued')}; "
    text += "others wait outside" if limits.holds else "others are turned away"
    if limits.max_wait is not None:
        text += ", and those that have waited too long"
    return text if limits.retry is None else f"{text}, and come again (at most {limits.retry.times}×)"


def _pool_lines(pool: Pool, pools: Sequence[Pool]) -> list[str]:
    client = pool.client
    what = pool.hardware or client.kind
    if client.devices:
        what = f"({client.devices} × {what})"
    count = f"{pool.count}" if pool.fleet is None or pool.fleet.autoscaling is None else f"up to {pool.count}"
    what = f"{count} × {what}" + (f" serving {client.model}" if client.model else "")
    shares = any(other.joins is not None and pools[other.joins] is pool for other in pools)
    if pool.joins is not None:
        what += f", behind the router of {pools[pool.joins].name}"
    elif pool.count > 1 or shares:
        what += f", {_routing(pool)}"
    head = _wrapped(f"{pool.name}: {what}", "  ", "    ")
    return [*head, *(line for note in pool.notes for line in _wrapped(note, "      ", "        "))]


def _routing(pool: Pool) -> str:
    routing = f"{pool.routing_label} routing"
    if pool.routing.oracle:
        routing += " (an oracle)"
    if pool.routing_stale_ns:
        routing += f" by loads of every {pool.routing_stale_ns / NS_PER_MS:g} ms"
    return f"{routing}, in {pool.groups} groups" if pool.groups > 1 else routing


def _op_lines(
    index: int,
    op: Op,
    pools: Sequence[Pool],
    ops: Sequence[Op],
    load_routes: Sequence[LoadRoute],
    width: int,
) -> list[str]:
    served = [pool.name for index, pool in enumerate(pools) if op.pool in (index, pool.joins)]
    parts = [f"{op.name:<{width}}  on {' and '.join(served)}"]
    if len(op.stages) > 1:
        parts.append(f"= {' + '.join(op.stages)}")
    if op.after:
        when = "during" if op.at_token is not None else "after"
        parts.append(f"{when} " + ", ".join(ops[before].name for before in op.after))
    parts += _work(op, ops)
    if op.taken is not None:
        parts.append(f"taken by {int(np.count_nonzero(op.taken)):,} of {len(op.taken):,} requests")
    if op.decided is not None:
        parts.append(_decision(op.decided, load_routes, pools))
    lines = [f"  {index:>2}  {parts[0]}"]
    indent = " " * (width + 8)
    for part in parts[1:]:
        if len(lines[-1]) + 2 + len(part) > _WIDTH:
            lines += _wrapped(part, indent, indent)
        else:
            lines[-1] += f"  {part}"
    return lines


def _decision(decided: tuple[int, int], load_routes: Sequence[LoadRoute], pools: Sequence[Pool]) -> str:
    """Return the load under which a route takes this outcome."""
    route, outcome = load_routes[decided[0]], decided[1]
    if outcome < len(route.limits):
        measure = "queued tokens" if route.tokens else "unfinished tasks"
        pool, limit = pools[route.pools[outcome]].name, route.limits[outcome]
        return f"by load ({route.name}): while {pool} has fewer than {limit:g} {measure} a client"
    return f"by load ({route.name}): else"


def _work(op: Op, ops: Sequence[Op]) -> list[str]:
    """What the op asks of its clients, over all requests that take it."""
    match op.work:
        case Generate() | Forward() as work:
            prompt, output = int(_taken(op, work.prompt).sum()), int(_taken(op, work.output).sum())
            tokens = f"{prompt:,} prompt and {output:,} output tokens"
            return [tokens] if work.extends is None else [tokens, _beginning(work.extends, ops)]
        case KVLookup() as work:
            found, size = int(_taken(op, work.tokens).sum()), int(_taken(op, work.bytes).sum())
            return [f"contexts of {found:,} tokens, {bytes_to_gb(size):,.1f} GB"]
        case Passes() as work if work.cost.step is not None:
            return [f"{int(_taken(op, work.tokens).sum()):,} tokens in passes"]
        case CoreTime() as work if len(_taken(op, work.service_ns)):
            return [f"mean {mean(_taken(op, work.service_ns)) / NS_PER_US:,.1f} µs of a core"]
    return []


def _beginning(extends: EarlierPrompt, ops: Sequence[Op]) -> str:
    """What the prompt begins with."""
    latest = ops[extends.sources[0]].name
    if not extends.answer:
        return f"shares the prompt of {latest}"
    return f"goes on from {latest}" + (" or one before" if len(extends.sources) > 1 else "")


def _taken(op: Op, column: Ints) -> Ints:
    return column if op.taken is None else column[op.taken]


def _wrapped(text: str, indent: str, hanging: str) -> list[str]:
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=indent,
        subsequent_indent=hanging,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _schedule_lines(requests: Requests) -> list[str]:
    count = len(requests)
    if requests.concurrency is not None:
        when = f"closed loop of {requests.concurrency} in the system"
    elif requests.previous is not None:
        starts = requests.arrival_ns[requests.previous < 0]
        when = f"in {len(starts):,} sessions that begin {_over(starts)}"
    else:
        when = _over(requests.arrival_ns)
    lines = [f"schedule: {count:,} requests {when}", "  request     arrival_s  input_tokens  output_tokens"]
    lines += [
        f"  {row:>7}  {_arrival(requests, row):>12}  {requests.input_tokens[row]:>12,}"
        f"  {requests.output_tokens[row]:>13,}"
        for row in range(min(count, _HEAD))
    ]
    if count > _HEAD:
        lines.append(f"  … and {count - _HEAD:,} more")
    if requests.previous is not None:
        lines.append("  +: seconds after the answer to the request before")
    if requests.timeout_ns is not None and (limited := requests.timeout_ns[requests.timeout_ns >= 0]).size:
        least, most = (f"{bound / NS_PER_S:g}" for bound in (limited.min(), limited.max()))
        after = least if least == most else f"{least} to {most}"
        lines.append(f"  {len(limited):,} requests have a timeout of {after} s")
    return lines


def _over(instants_ns: Ints) -> str:
    """The span of sorted instants, and their rate."""
    span = int(instants_ns[-1] - instants_ns[0]) / NS_PER_S
    rate = f", {(len(instants_ns) - 1) / span:.2f} a second" if span > 0 else ""
    return f"over {span:,.3f} s{rate}"


def _arrival(requests: Requests, row: int) -> str:
    if requests.previous is not None and requests.think_ns is not None and requests.previous[row] >= 0:
        return f"+{requests.think_ns[row] / NS_PER_S:.6f}"
    return f"{requests.arrival_ns[row] / NS_PER_S:.6f}"
