"""Estimates for every resource how much of the measured time would go away with more of it, and ranks them."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Literal, TypeAlias

from hermes_flow.metrics.fleets import mean_clients
from hermes_flow.metrics.why.causes import Cause, Part
from hermes_flow.metrics.why.clients import Clients
from hermes_flow.metrics.why.llm_model import LLMLoad, LLMState, queue_wait_s, state_of, with_limits
from hermes_flow.metrics.why.loads import arrival_span_s, llm_load
from hermes_flow.pools.kind import kind_called
from hermes_flow.program.quick_dataclass import dataclass
from hermes_flow.program.units import NS_PER_S
from hermes_flow.recording.client_states import SERVING

Resource: TypeAlias = Literal[
    "clients",
    "kv_memory",
    "adapter_slots",
    "seats",
    "larger_budget",
    "smaller_budget",
    "no_wait",
    "rate_limit",
    "tiers",
    "network",
]
"""What a deployment can have more of: one more client, twice the KV memory, twice the slots for adapters, twice the
seats (``max_num_seqs``), twice or half the token budget of a step (``max_num_batched_tokens``, or SGLang's
``chunked_prefill_size``), no waiting that settings of the scheduler ask for, twice the limits of an endpoint, tiers
of memory twice as fast, twice the rate of the links.
"""

_PARTS_OF_PEAK = (0.4, 0.7, 1.0)
_NEARLY_FULL = 0.97
_WAITS: tuple[Cause, ...] = ("seats", "kv_memory")


@dataclass(frozen=True, slots=True)
class Relief:
    """A resource of a pool (None: of the network), and the share of the window's time that more of it would save."""

    pool: int | None
    resource: Resource
    gain: float


def reliefs(clients: Clients, seconds: Mapping[Part, float]) -> list[Relief]:
    """Return all reliefs with their estimated gains, the largest first; ``seconds`` are the measured times."""
    total = math.fsum(seconds.values())
    if total <= 0:
        return []
    found: list[Relief] = []
    prefills = _prefill_stages(clients)
    for pool in sorted({part.pool for part in seconds}):
        own = {part: time for part, time in seconds.items() if part.pool == pool}
        load = llm_load(clients, pool)
        if load is None:
            limited = clients.recording.program.pools[pool].paid_by_use
            resource: Resource = "rate_limit" if limited else "clients"
            found.append(Relief(pool, resource, _queue_gain(clients, pool, own) / total))
            if any(part.cause == "sharing" and time for part, time in own.items()):
                found.append(Relief(pool, "tiers", _sharing_gain(clients, own) / total))
        else:
            found += [
                Relief(pool, resource, gain / total)
                for resource, gain in _llm_gains(load, own, prefills).items()
            ]
            found += _slots(clients, pool, own, total)
            held = math.fsum(time for part, time in own.items() if part.cause == "held_back")
            found += [Relief(pool, "no_wait", held / total)] if held else []
    moved = math.fsum(time for part, time in seconds.items() if part.cause == "transfer")
    if moved > 0:
        found.append(Relief(None, "network", _network_saved(clients) * moved / total))
    return sorted(found, key=lambda relief: -relief.gain)


def _slots(clients: Clients, pool: int, seconds: Mapping[Part, float], total: float) -> list[Relief]:
    """Return what more slots for adapters would save; nothing where nobody waited for one."""
    waited = math.fsum(time for part, time in seconds.items() if part.cause == "adapters")
    spec = clients.spec(pool)
    if not waited or spec is None or spec.adapters is None:
        return []
    from hermes_flow.metrics.why.adapter_slots import slots_gain

    return [
        Relief(pool, "adapter_slots", slots_gain(clients.recording, pool, spec.adapters) * waited / total)
    ]


def _prefill_stages(clients: Clients) -> set[str]:
    """Return the stages that only read prompts, whose time alone depends on the chunks that a step takes."""
    found = set()
    for op, record in zip(clients.recording.program.ops, clients.recording.ops, strict=True):
        if op.llm is None or op.kv is not None:
            continue
        if op.comes_apart and record.first_ns is not None:
            found.add(op.stages[0])
        elif op.generate is None:
            found.add("+".join(op.stages))
    return found


def _llm_gains(
    load: LLMLoad, seconds: Mapping[Part, float], prefills: Collection[str]
) -> dict[Resource, float]:
    """Return the seconds that each resource of an LLM pool would save."""
    carried = min(1.0, 1.0 / max(state_of(load).load, 1e-9))
    now = _typical(load, carried)
    changed: dict[Resource, LLMLoad] = {
        "clients": with_limits(load, count=2),
        "kv_memory": with_limits(load, memory=2),
        "seats": with_limits(load, seats=2),
        "larger_budget": with_limits(load, budget=2),
        "smaller_budget": with_limits(load, budget=0.5),
    }
    return {
        resource: _saved(now, _typical(other, carried), seconds, prefills)
        for resource, other in changed.items()
    }


def _typical(load: LLMLoad, carried: float) -> LLMState:
    """Return the state at this load, with the steps of lower loads, which every run has before and after its peak.

    ``carried`` is the share of the load that the clients carry as they are.
    """
    states = [state_of(with_limits(load, rate=carried * part)) for part in _PARTS_OF_PEAK]
    means = {
        name: math.fsum(getattr(state, name) for state in states) / len(states)
        for name in ("decode_s", "mixed_s", "prefill_s")
    }
    return replace(state_of(load), **means)


def _network_saved(clients: Clients) -> float:
    """Return the share of transfer times that links twice as fast would save: rates double, and contention falls."""
    recording = clients.recording
    span_ns = max(1.0, arrival_span_s(recording) * NS_PER_S)
    others = len(recording.links) - sum(len(client.links) for client in recording.clients)
    links = recording.links[:others]  # without those of clients to memories of their own
    used = max((link.bytes / (link.bytes_per_ns * span_ns) for link in links), default=0.0)
    used = min(used, _NEARLY_FULL)
    return 1 - 0.5 * (1 - used) / (1 - used / 2)


def _saved(now: LLMState, then: LLMState, seconds: Mapping[Part, float], prefills: Collection[str]) -> float:
    """Return the measured seconds times the estimated change of each cause; ``prefills`` name stages of prompts."""
    saved = 0.0
    for part, time in seconds.items():
        if part.cause in _WAITS:
            saved += time * (1 - _ratio(then.wait_s, now.wait_s))
        elif part.cause == "prompts_ahead":
            ahead = part.stage in prefills
            saved += time * (
                1 - (_ratio(then.ahead_s, now.ahead_s) if ahead else _ratio(then.wait_s, now.wait_s))
            )
        elif part.cause == "service" and part.stage in prefills:
            saved += time * (1 - _ratio(then.prefill_alone_s, now.prefill_alone_s))
        elif part.cause == "batch":
            saved += time * (1 - _ratio(then.decode_s - then.alone_s, now.decode_s - now.alone_s))
        elif part.cause == "prefills":
            mixed = _ratio(then.mixed_s, now.mixed_s)
            first = _ratio(then.prefill_s - then.prefill_alone_s, now.prefill_s - now.prefill_alone_s)
            saved += time * (1 - (mixed if now.mixed_s > 0 else first))
    return saved


def _queue_gain(clients: Clients, pool: int, seconds: Mapping[Part, float]) -> float:
    """Return the seconds that one more client of another kind would save: by the change of a queue's mean wait."""
    recording = clients.recording
    queued = math.fsum(time for part, time in seconds.items() if part.cause == "queue")
    spec = recording.program.pools[pool].client
    count = max(1, round(mean_clients(recording, SERVING)[pool]))
    span_s = arrival_span_s(recording)
    if queued <= 0 or span_s <= 0:
        return 0.0
    servers = kind_called(spec.kind).servers(spec)
    if servers is None:
        return 0.5 * queued
    own = [record for record in recording.clients if record.pool == pool]
    used = math.fsum(record.busy_ns / record.capacity for record in own) * 1e-9 / (count * span_s)
    now, then = (
        queue_wait_s(1.0, servers * number, used * count / number, span_s) for number in (count, count + 1)
    )
    return queued * (1 - _ratio(then, now))


def _sharing_gain(clients: Clients, seconds: Mapping[Part, float]) -> float:
    """Return the seconds that tiers twice as fast would save reads that share them.

    Where reads share a bandwidth, a read that takes s alone takes s / (1 − u) at the share u of the bandwidth that is
    used; twice the bandwidth halves s and u. Beyond u = 1 a backlog grows by u − 1, and with twice the bandwidth by
    u / 2 − 1, if at all.
    """
    recording = clients.recording
    span_ns = max(1.0, arrival_span_s(recording) * NS_PER_S)
    memories = [link for link in recording.links if link.level == "memory"]
    used = max((link.bytes / (link.bytes_per_ns * span_ns) for link in memories), default=0.0)
    alone = math.fsum(time for part, time in seconds.items() if part.cause == "service")
    shared = math.fsum(time for part, time in seconds.items() if part.cause == "sharing")
    if used > 1:
        return alone / 2 + shared * (1 - max(0.0, used / 2 - 1) / (used - 1))
    used = min(used, shared / (alone + shared))
    return alone / 2 + shared * (1 - 0.25 * used / (1 - used / 2) / max(used / (1 - used), 1e-9))


def _ratio(then: float, now: float) -> float:
    """Return the change of an estimate as a factor; 1 where there is nothing to change."""
    if now <= 1e-12:
        return 1.0 if then <= 1e-12 else 2.0
    return max(0.0, min(then / now, 10.0))
