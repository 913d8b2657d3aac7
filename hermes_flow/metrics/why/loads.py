"""Measures the load of every pool against its limits: seats, KV memory, and work in full batches."""

from __future__ import annotations

import math

import numpy as np

from hermes_flow.metrics.fleets import mean_clients
from hermes_flow.metrics.rows import ranges
from hermes_flow.metrics.why.clients import Clients
from hermes_flow.metrics.why.llm_model import LLMLoad, state_of
from hermes_flow.pools.kind import kind_called
from hermes_flow.program.pools import Pool
from hermes_flow.program.quick_dataclass import dataclass
from hermes_flow.program.same_bits import total
from hermes_flow.program.units import NS_PER_S
from hermes_flow.recording.client_states import SERVING
from hermes_flow.recording.recording import Recording


@dataclass(frozen=True, slots=True)
class Saturation:
    """The shares of a pool's limits that are in use while requests arrive; None where a pool has no such limit.

    ``seats`` and ``kv_memory`` are means over time. ``work`` is the work that arrives over the work that the clients
    could do in their largest batches; above 1 the backlog grows.
    """

    seats: float | None
    kv_memory: float | None
    work: float | None

    def as_dict(self) -> dict[str, float | None]:
        """Return the shares by name."""
        return {"seats": self.seats, "kv_memory": self.kv_memory, "work": self.work}


def llm_load(clients: Clients, pool: int) -> LLMLoad | None:
    """Return the measured load of a pool; None if its clients run no steps, or served nothing."""
    if pool not in clients.loads:
        clients.loads[pool] = _measured(clients, pool)
    return clients.loads[pool]


def _measured(clients: Clients, pool: int) -> LLMLoad | None:
    recording, spec = clients.recording, clients.spec(pool)
    if spec is None:
        return None
    program = recording.program
    prompts = outputs = contexts = 0.0
    tasks = decodes = 0
    for op, record in zip(program.ops, recording.ops, strict=True):
        if op.pool != pool or op.llm is None:
            continue
        for first, last in ranges(len(record.client)):  # sums of halves are exact, in pieces too
            over = (record.client[first:last] >= 0) & (record.finish_ns[first:last] >= 0)
            prompt, answer = op.llm.prompt[first:last][over], op.llm.output[first:last][over]
            if op.kv is None:
                prompts += int(prompt.sum())
                if record.cached_tokens is not None:
                    prompts -= int(np.maximum(record.cached_tokens[first:last][over], 0).sum())
            output = answer - 1.0
            tasks += len(output)
            decodes += int((output > 0).sum())
            outputs += total(output)
            contexts += total(prompt + 0.5 * output)
    span_s = arrival_span_s(recording)
    if not tasks or span_s <= 0:
        return None
    gained, of = spec.speculation or (1, 1)
    context = contexts / tasks
    fit = _fit(clients, pool, context)
    return LLMLoad(
        spec=spec,
        count=max(1, round(mean_clients(recording, SERVING)[pool])),
        rate_per_s=tasks / span_s,
        prompt=prompts / tasks,
        context=context,
        output=outputs / tasks * of / gained,
        fit=fit,
        seats=float(spec.seats),
        budget=float(min(spec.max_num_batched_tokens, len(spec.cost.tokens_ps) - 1)),
        span_s=span_s,
        whole_prompts=spec.sglang is None
        and spec.tensorrt_llm is None
        and bool(getattr(spec.policy, "whole_prompts", False)),
    )


def saturations(clients: Clients) -> dict[str, Saturation]:
    """Return the saturation of every pool by name."""
    recording = clients.recording
    return {
        pool.name: _saturation(clients, index, pool) for index, pool in enumerate(recording.program.pools)
    }


def arrival_span_s(recording: Recording) -> float:
    """Return the time from the first to the last arrival of requests that completed, in seconds."""
    arrivals = recording.arrival_ns[recording.status == 0]
    return float(arrivals.max() - arrivals.min()) / NS_PER_S if len(arrivals) > 1 else 0.0


def _fit(clients: Clients, pool: int, context: float) -> float:
    """Return how many sequences a client holds: as measured while its KV memory was full, else by their size."""
    recording, spec = clients.recording, clients.spec(pool)
    assert spec is not None
    timelines = [clients.facts(pool, index) for index in range(recording.program.pools[pool].count)]
    full = [own.while_full for own in timelines if own.while_full is not None]
    if full:
        return max(1.0, math.fsum(full) / len(full))
    shared = math.fsum(own.shared for own in timelines) / len(timelines)
    return max(1.0, spec.kv_blocks * spec.block_size / max(1.0, context * shared))


def _saturation(clients: Clients, index: int, pool: Pool) -> Saturation:
    recording = clients.recording
    arrivals = recording.arrival_ns[recording.status == 0]
    if len(arrivals) < 2:
        return Saturation(None, None, None)
    begin, end = float(arrivals.min()), float(arrivals.max())
    load = llm_load(clients, index)
    if load is not None:
        means = [clients.facts(index, number) for number in range(pool.count)]
        count = mean_clients(recording, SERVING)[index] or 1.0
        seats = math.fsum(own.running for own in means) / (count * load.seats)
        memory = math.fsum(own.kv_share for own in means) / count
        return Saturation(seats, memory, state_of(load).load)
    offered = kind_called(pool.client.kind).offered_ns(recording, index, pool.client)
    count = mean_clients(recording, SERVING)[index] or 1.0
    busy = None if offered is None else offered / (count * max(1.0, end - begin))
    return Saturation(None, None, busy)
