"""The figures of pools whose clients come and go: how many ran, for how long, and what that cost."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from hermes_flow.program.fleet import State
from hermes_flow.program.units import NS_PER_S
from hermes_flow.recording.client_states import PAID, SERVING, STARTING, stretches, time_in
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


def fleet_summary(recording: Recording) -> dict[str, Any]:
    """Return ``{"fleet": {pool: figures}}`` for pools whose clients come and go; nothing without any.

    ``clients`` are the mean, the least and the most that take or finish tasks at a time. ``client_hours`` are paid
    for, from the start of each client until it has stopped; ``starting_hours`` are the part of them in which clients
    start. ``starts`` and ``stops`` count clients.
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
    return {
        "clients": {"mean": serving_ns / end_ns if end_ns else None, "least": least, "most": most},
        "client_hours": hours,
        "starting_hours": starting_ns / _NS_PER_HOUR,
        "accelerator_hours": hours * pool.client.devices,
        "usd": None if pool.usd_per_hour is None else pool.usd_per_hour * hours,
        "starts": _changes(clients, end_ns, "starting"),
        "stops": _changes(clients, end_ns, "off"),
    }


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
