"""Estimates how an LLM pool would do with more of one resource, or at another load, from its measured load.

The estimate is a fluid model of one client: steps that hold as many sequences as arrive and fit, the time of a step
from the cost model that the run used, and the waits of a queue with as many servers as sequences fit. It gives
ratios between two settings, which scale measured times; it never replaces a simulation.
"""

from __future__ import annotations

import math
from dataclasses import replace

from hermes_flow.program.pools import LLMClientSpec
from hermes_flow.program.quick_dataclass import dataclass
from hermes_flow.program.same_bits import power
from hermes_flow.program.step_cost import StepCost
from hermes_flow.program.units import PS_PER_S

_ROUNDS = 40
_NEAR = 0.97  # beyond this utilization the run is too short for the queue's steady state


@dataclass(frozen=True, slots=True)
class LLMLoad:
    """The load of an LLM pool and the limits of its clients, as measured in a run.

    ``rate_per_s`` is over all clients; ``prompt`` are the computed tokens of a prompt, ``context`` all of them,
    ``output`` the tokens that are decoded after the first one. ``fit`` is how many sequences find room in the KV
    memory of a client, and ``whole_prompts`` tells that a step takes whole prompts, beyond its budget if necessary.
    Pools that only prefill have ``output`` 0, and pools that only decode ``prompt`` 0.
    """

    spec: LLMClientSpec
    count: int
    rate_per_s: float
    prompt: float
    context: float
    output: float
    fit: float
    seats: float
    budget: float
    span_s: float
    whole_prompts: bool = False

    @property
    def most(self) -> float:
        """The most sequences in a step of one client."""
        return max(1.0, min(self.seats, self.fit))


@dataclass(frozen=True, slots=True)
class LLMState:
    """The estimated state of an LLM pool: times in seconds.

    ``load`` is the share of what its clients could do in their largest batches. ``decode_s`` is the time per token
    without prefills, ``alone_s`` that of one sequence alone, ``mixed_s`` what prefills add. ``prefill_s`` is the time
    from the start of a prompt to its first token, ``prefill_alone_s`` that on an idle client. ``wait_s`` is the wait
    for a seat or for memory, ``ahead_s`` that for the prompts ahead while both are free.
    """

    load: float
    batch: float
    wait_s: float
    ahead_s: float
    decode_s: float
    alone_s: float
    mixed_s: float
    prefill_s: float
    prefill_alone_s: float


def state_of(load: LLMLoad) -> LLMState:
    """Return the estimated state of a pool."""
    per_client = load.rate_per_s / load.count
    most = load.most
    full_s = _work_s(load, most)
    used = per_client * full_s
    batch = most if used >= 1 else _batch(load, per_client)
    marginal = _prefill_work_s(load, batch)
    decode = _decode_s(load, batch)
    busy = min(per_client * marginal, _NEAR)
    if load.output <= 0:
        mixed = 0.0
    elif used >= 1:
        mixed = most * marginal / load.output
    else:
        mixed = decode * busy / (1 - busy)
    residence = most * full_s if load.output > 0 else full_s
    servers = load.count * (most if load.output > 0 else 1.0)
    wait = queue_wait_s(residence, servers, used, load.span_s)
    chunks, chunk = _chunks(load, batch)
    first = chunks * _step_s(load, chunk, batch) if load.prompt > 0 else 0.0
    ahead = _ahead_s(load, batch, per_client, first)
    if used > _NEAR:
        ahead += 0.5 * load.span_s * (1 - _NEAR / used)
    first *= 1 + 0.5 * busy / (1 - busy)
    alone = chunks * _step_s(load, chunk, 0.0) if load.prompt > 0 else 0.0
    return LLMState(used, batch, wait, ahead, decode, _decode_s(load, 1.0), mixed, first, alone)


def queue_wait_s(service_s: float, servers: float, used: float, span_s: float) -> float:
    """Return the mean wait in a queue of several servers with utilization ``used``, within a run of ``span_s``.

    Up to near saturation by Sakasegawa's approximation for exponential times (1977); beyond that the wait grows with
    the excess of the load over the run.
    """
    steady = min(used, _NEAR)
    queued = float(power(steady, math.sqrt(2 * (servers + 1)) - 1))
    wait: float = service_s * queued / (servers * (1 - steady))
    if used > _NEAR:
        wait += 0.5 * span_s * (1 - _NEAR / used)
    return wait


def with_limits(
    load: LLMLoad,
    *,
    count: float = 1,
    seats: float = 1,
    memory: float = 1,
    budget: float = 1,
    rate: float = 1,
) -> LLMLoad:
    """Return the load with some of its limits multiplied; ``count`` is added to the clients less 1."""
    return replace(
        load,
        count=round(load.count + count - 1),
        seats=load.seats * seats,
        fit=load.fit * memory,
        budget=max(1.0, load.budget * budget),
        rate_per_s=load.rate_per_s * rate,
    )


def _batch(load: LLMLoad, per_client: float) -> float:
    """Return how many sequences a client decodes at once, by Little's law; below its most."""
    batch = 1.0
    for _ in range(_ROUNDS):
        decode = _decode_s(load, max(batch, 1.0))  # asked for once: most of the time goes here
        busy = min(per_client * _prefill_work_s(load, batch, decode), _NEAR)
        wanted = per_client * load.output * decode / (1 - busy)
        before, batch = batch, min(load.most, 0.5 * batch + 0.5 * wanted)
        if batch == before:
            break  # further rounds would find the same
    return max(batch, 0.0)


def _work_s(load: LLMLoad, batch: float) -> float:
    """Return the time of a client that one request takes in batches of this size."""
    prefill = _prefill_work_s(load, batch if load.output > 0 else 0.0)
    return prefill + load.output * _decode_s(load, batch) / batch


def _prefill_work_s(load: LLMLoad, batch: float, decode_s: float | None = None) -> float:
    """Return the time that the prefill of a prompt adds to steps that decode ``batch`` sequences.

    ``decode_s`` is the time of such a step without it, where that is known already.
    """
    if load.prompt <= 0:
        return 0.0
    chunks, chunk = _chunks(load, batch)
    without = 0.0
    if batch >= 1:
        without = _decode_s(load, batch) if decode_s is None else decode_s
    added = max(0.0, _step_s(load, chunk, batch) - without)
    return chunks * added / load.spec.attention_ranks  # a step has chunks on all of them


def _ahead_s(load: LLMLoad, batch: float, per_client: float, first_s: float) -> float:
    """Return the wait for the prompts ahead: the queue of prompts for the room of steps, of equal times.

    By Pollaczek and Khinchine. A prompt takes the room of whole steps, which also decode; short ones share it.
    """
    room = max(1.0, load.budget - batch)
    service = first_s * min(1.0, load.prompt / room)
    busy = min(per_client * service, _NEAR)
    return 0.5 * service * busy / (1 - busy)


def _chunks(load: LLMLoad, batch: float) -> tuple[float, float]:
    """Return how many steps a prompt takes, and its tokens in each."""
    if load.whole_prompts:
        return 1.0, load.prompt
    room = max(1.0, load.budget - batch / load.spec.attention_ranks)
    chunk = max(1.0, min(load.prompt, room))
    return max(1.0, load.prompt / chunk), chunk


def _decode_s(load: LLMLoad, batch: float) -> float:
    """Return the time of a step that decodes ``batch`` sequences of mean length."""
    return _step_s(load, 0.0, batch)


def _step_s(load: LLMLoad, chunk: float, batch: float) -> float:
    """Return the time of a step with one chunk of a mean prompt (0: none) and ``batch`` decodes."""
    past = max(0.0, load.prompt - chunk) / 2
    return step_ps(load.spec.cost, chunk, past, batch, batch * load.context) / PS_PER_S


def step_ps(cost: StepCost, chunk: float, past: float, batch: float, context: float) -> float:
    """Return the time of a step as ``StepCost`` has it, also beyond its tables, whose ends are the limits of the run.

    The step has a chunk of a prompt (0: none) after ``past`` tokens, and ``batch`` decodes over ``context`` tokens in
    all. With several attention ranks the chunk lies on one of them.
    """
    own, width = batch / cost.attention_ranks, cost.tokens_per_decode
    mixed = bool(chunk and cost.mixed_attention_ps)
    time = _at(cost.tokens_ps, own * width + chunk) + _at(cost.sequences_ps, own + (chunk > 0))
    if batch > 0:
        time += _at(cost.mixed_attention_ps if mixed else cost.decode_attention_ps, own)
        time += (cost.mixed_context_ps if mixed else cost.context_ps) * context
    if chunk > 0:
        time += cost.prefill_launch_ps + cost.prefill_ps(max(1, round(chunk)), round(past))
        if cost.scans:
            size, tokens = max(1, round(chunk)), round(own * width + chunk)
            time += cost.scan_ps(size, size, 1, min(tokens, len(cost.tokens_ps) - 1))
    if cost.experts_ps:
        experts = _at(cost.experts_ps, batch * width + chunk)
        hidden = min(round(own * width + chunk), len(cost.tokens_ps) - 1)
        time += max(0.0, experts - cost.launching_ps[hidden]) if cost.launching_ps else experts
    return time


def _at(table: list[int], place: float) -> float:
    """Return a table's value between its entries, and beyond its end with the slope of its last quarter."""
    last = len(table) - 1
    if place >= last:
        back = max(1, last // 4)
        slope = (table[last] - table[last - back]) / back if last else 0.0
        return table[last] + slope * (place - last)
    low = int(place)
    return table[low] + (table[low + 1] - table[low]) * (place - low)
