"""Rules out designs before they are simulated, by the latencies of an idle client and the least work."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from hermes_flow.planning.designs import Clients
from hermes_flow.program.pools import LLMClientSpec
from hermes_flow.program.program import Program
from hermes_flow.program.same_bits import mean
from hermes_flow.program.step_cost import StepCost
from hermes_flow.program.units import NS_PER_S, PS_PER_S

_SIDES = (("prefill", "ttft"), ("decode", "tpot"))  # the pools of a pair, and what each decides


@dataclass(frozen=True, slots=True)
class Need:
    """The work of the workload on clients of one kind: the fewest clients that it keeps busy.

    ``prefill`` and ``decode`` are in clients. ``hopeless`` says why no number of clients can meet the SLO.
    """

    prefill: float
    decode: float
    hopeless: str | None = None

    def fewest(self, layout: str) -> Clients:
        """Return the smallest design that could do the work."""
        if layout == "replicas":
            return Clients(max(1, math.ceil(self.prefill + self.decode - 1e-9)))
        return Clients(max(1, math.ceil(self.prefill - 1e-9)), max(1, math.ceil(self.decode - 1e-9)))


def need_of_pair(program: Program) -> Need:
    """Return what the workload needs of unlike clients: those of the pools ``prefill`` and ``decode``."""
    first, second = (need_of(program, pool, (metric,)) for pool, metric in _SIDES)
    return Need(first.prefill, second.decode, first.hopeless or second.hopeless)


def need_of(program: Program, pool: str, metrics: Collection[str] = ("ttft", "tpot")) -> Need:
    """Return what the workload needs of clients like those of ``pool`` in a program that has one or more of them.

    The prefill of prompts that a prefix cache may find counts as nothing. Only bounds on ``metrics`` are looked at.
    """
    index = next(number for number, one in enumerate(program.pools) if one.name == pool)
    client = program.pools[index].client
    assert isinstance(client, LLMClientSpec)
    requests = program.requests
    span_s = float(requests.arrival_ns[-1] - requests.arrival_ns[0]) / NS_PER_S if len(requests) > 1 else 0.0
    inputs, outputs = requests.input_tokens, requests.output_tokens
    context = mean(inputs) + 0.5 * mean(outputs)
    batch = _largest_batch(client, context)
    decode_s = _decode_s(client.cost, batch, context) / batch
    # Prompts on all ranks of data-parallel attention are computed side by side.
    prefill_s = _prefill_s(client.cost, int(mean(inputs))) / client.attention_ranks
    hopeless = _hopeless(program, client, metrics)
    if span_s <= 0 or program.followed:
        return Need(0.0, 0.0, hopeless)
    rate = (len(requests) - 1) / span_s
    reused = requests.prefixes is not None
    return Need(0.0 if reused else rate * prefill_s, rate * mean(outputs) * decode_s, hopeless)


def _largest_batch(client: LLMClientSpec, context: float) -> int:
    """Return how many sequences of mean length a client can decode at once, by memory and seats."""
    by_memory = int(client.kv_blocks * client.block_size / max(1.0, context))
    longest = len(client.cost.decode_ps) - 1
    return max(1, min(client.seats, by_memory, longest))


def _decode_s(cost: StepCost, batch: int, context: float) -> float:
    return cost.step_ps([], batch, int(batch * context)) / PS_PER_S


def _prefill_s(cost: StepCost, tokens: int) -> float:
    """Return the time of a prompt's prefill beyond what its step would take anyway, in chunks if it is long."""
    most = len(cost.tokens_ps) - 1
    done, total = 0, 0.0
    idle = cost.step_ps([], 1, 0)
    while done < tokens:
        chunk = min(most, tokens - done)
        total += max(0, cost.step_ps([(chunk, done)], 0, 0) - idle)
        done += chunk
    return total / PS_PER_S


def _hopeless(program: Program, client: LLMClientSpec, metrics: Collection[str]) -> str | None:
    """Return which bound an empty client misses already."""
    cost, requests = client.cost, program.requests
    alone_s = _decode_s(cost, 1, 0.0)
    if client.speculation is not None:
        gained, of = client.speculation
        alone_s *= of / gained
    bounds = {metric: own for metric, own in program.slo.bounds.items() if metric in metrics}
    for percentile, limit_s in bounds.get("tpot", {}).items():
        if alone_s > limit_s:
            return (
                f"one decode alone takes {1e3 * alone_s:.1f} ms, TPOT p{percentile:g} is {1e3 * limit_s:g} ms"
            )
    if requests.prefixes is not None:
        return None
    for percentile, limit_s in bounds.get("ttft", {}).items():
        prompt = int(np.percentile(requests.input_tokens, percentile))
        alone_s = _prefill_s(cost, prompt)
        if alone_s > limit_s:
            return (
                f"a prompt of {prompt:,} tokens alone takes {1e3 * alone_s:,.0f} ms, TTFT p{percentile:g} is "
                f"{1e3 * limit_s:g} ms"
            )
    return None
