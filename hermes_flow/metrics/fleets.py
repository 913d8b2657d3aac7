"""The figures of pools whose clients come and go: how many ran, for how long, and what that cost."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np

from hermes_flow.program.fleet import Failing, Pace, State
from hermes_flow.program.same_bits import mean
from hermes_flow.program.units import NS_PER_S
from hermes_flow.recording.client_states import FAILED_STATES, PAID, SERVING, STARTING, stretches, time_in
from hermes_flow.recording.recording import ClientRecord, Recording

_NS_PER_HOUR = 3600 * NS_PER_S


def mean_clients(recording: Recording, among: Collection[State]) -> list[float]:
    """Return the mean number of clients of each pool in the states ``among``; of a fixed pool, all of them."""
    means: list[float] = []
    for index, pool in enumerate(recording.program.pools):
        if pool.fleet is None or not recording.end_ns:
            means.append(pool.count)
            continue
        total = sum(time_in(client.states, recording.end_ns, among) for client in _clients(recording, index))
        means.append(total / recording.end_ns)
    return means


def usd_between(recording: Recording, begin_ns: int, end_ns: int) -> float:
    """Return the price of all priced clients for a part of the run; of those that come and go, while paid for."""
    total = 0.0
    for index, pool in enumerate(recording.program.pools):
        if pool.usd_per_hour is None:
            continue
        paid_ns = pool.count * (end_ns - begin_ns)
        if pool.fleet is not None:
            paid_ns = sum(
                max(0, min(until, end_ns) - max(since, begin_ns))
                for client in _clients(recording, index)
                for since, until in stretches(client.states, recording.end_ns, PAID)
            )
        total += pool.usd_per_hour * paid_ns / _NS_PER_HOUR
    return total


def fleet_summary(recording: Recording) -> dict[str, Any]:
    """Return ``{"fleet": {pool: figures}}`` for pools whose clients come and go; nothing without any.

    ``clients`` are the mean, the least and the most that take or finish tasks at a time. ``client_hours`` are paid
    for, from the start of each client until it has stopped; ``starting_hours`` are the part of them in which clients
    start. ``starts`` and ``stops`` count clients. Where clients fail, their failures and what these took come, too.
    """
    found = {
        pool.name: _pool(recording, index)
        for index, pool in enumerate(recording.program.pools)
        if pool.fleet is not None
    }
    return {"fleet": found} if found else {}


def _pool(recording: Recording, index: int) -> dict[str, Any]:
    pool, clients, end_ns = recording.program.pools[index], list(_clients(recording, index)), recording.end_ns
    paid_ns, starting_ns, serving_ns = (
        sum(time_in(client.states, end_ns, among) for client in clients)
        for among in (PAID, STARTING, SERVING)
    )
    hours = paid_ns / _NS_PER_HOUR
    least, most = _extremes(clients, end_ns)
    failing = None if pool.fleet is None else pool.fleet.failing
    return {
        "clients": {"mean": serving_ns / end_ns if end_ns else None, "least": least, "most": most},
        "client_hours": hours,
        "starting_hours": starting_ns / _NS_PER_HOUR,
        "accelerator_hours": hours * pool.client.devices,
        "usd": None if pool.usd_per_hour is None else pool.usd_per_hour * hours,
        "starts": _changes(clients, end_ns, "starting"),
        "stops": _changes(clients, end_ns, "off"),
        **({} if failing is None else _failures(recording, clients, failing)),
    }


def _failures(recording: Recording, clients: list[ClientRecord], failing: Failing) -> dict[str, Any]:
    """Return how often clients failed, what that took, and how long the requests took that lost a task.

    ``availability`` is the share of the time that clients were up, of the time that they were up or down.
    ``slow_hours`` is the time, of all clients together, in which their steps took longer than usual.
    """
    end_ns = recording.end_ns
    up_ns, down_ns = (
        sum(time_in(client.states, end_ns, among) for client in clients) for among in (SERVING, FAILED_STATES)
    )
    struck = np.zeros(len(recording.status), dtype=np.bool_)
    struck[list(recording.retried)] = True
    took_s = (recording.finish_ns - recording.arrival_ns)[struck & (recording.status == 0)] / NS_PER_S
    return {
        "failures": sum(_changes(clients, end_ns, state) for state in sorted(FAILED_STATES)),
        "down_hours": down_ns / _NS_PER_HOUR,
        "availability": up_ns / (up_ns + down_ns) if up_ns + down_ns else None,
        "slow_hours": _slow_ns(failing.paces, end_ns) / _NS_PER_HOUR,
        "retried_requests": len(recording.retried),
        "retried_tasks": sum(recording.retried.values()),
        **({"migrated_tasks": sum(recording.migrated.values())} if failing.migrates else {}),
        "retried_e2e_s": {
            "mean": mean(took_s) if len(took_s) else None,
            "p99": float(np.percentile(took_s, 99)) if len(took_s) else None,
        },
    }


def _slow_ns(paces: Sequence[Pace], end_ns: int) -> int:
    """Return how long clients were slow until the end of the run, all of them together."""
    total = 0
    since: dict[int, int] = {}
    for pace in paces:
        if pace.client in since:
            total += max(0, min(pace.at_ns, end_ns) - since.pop(pace.client))
        if pace.factor > 1:
            since[pace.client] = pace.at_ns
    return total + sum(max(0, end_ns - begin) for begin in since.values())


def _clients(recording: Recording, index: int) -> Iterator[ClientRecord]:
    return (client for client in recording.clients if client.pool == index)


def _changes(clients: list[ClientRecord], end_ns: int, state: State) -> int:
    """Return how often clients came into a state after the run began, and before it ended."""
    return sum(int(into == state) for client in clients for at, into in client.states[1:] if at < end_ns)


def _extremes(clients: list[ClientRecord], end_ns: int) -> tuple[int, int]:
    """Return the fewest and the most clients that took or finished tasks at a time."""
    changes: dict[int, int] = {0: 0}
    for client in clients:
        for begin, end in stretches(client.states, end_ns, SERVING):
            changes[begin] = changes.get(begin, 0) + 1
            if end < end_ns:
                changes[end] = changes.get(end, 0) - 1
    count, counts = 0, []
    for at in sorted(changes):
        count += changes[at]
        counts.append(count)
    return min(counts), max(counts)
