"""Writes the explanation of a run as plain sentences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hermes_flow.metrics.number_text import counted, digits, percent
from hermes_flow.metrics.objectives import bound_label
from hermes_flow.metrics.why.headroom import Headroom
from hermes_flow.metrics.why.held_back import waiting_keys
from hermes_flow.metrics.why.loads import Saturation
from hermes_flow.metrics.why.missed import Missed
from hermes_flow.metrics.why.reliefs import Relief
from hermes_flow.program.pools import LLMClientSpec
from hermes_flow.program.program import Program

CAUSE_WORDS = {
    "gateway": "waiting at the gateway",
    "round_trip": "the way to the site and back",
    "earlier_tries": "earlier tries, before the last one",
    "adapters": "waiting for a slot of the adapter",
    "seats": "waiting for a seat",
    "kv_memory": "waiting for KV memory",
    "prompts_ahead": "waiting for the prompts ahead",
    "held_back": "waiting that settings of the scheduler ask for",
    "queue": "queueing",
    "transfer": "transfer over the network",
    "sharing": "other reads of the same memory",
    "prefills": "steps that prefill other prompts",
    "batch": "the other sequences in the batch",
    "service": "work that the request needs even alone",
}
_IN_NO_STAGE = ("gateway", "round_trip", "earlier_tries")
_MEND = {
    "clients": "one more client of pool {pool}",
    "kv_memory": "twice the KV memory on pool {pool}",
    "adapter_slots": "twice the slots for adapters on pool {pool}",
    "seats": "twice the seats on pool {pool} ({seats})",
    "larger_budget": "twice the token budget on pool {pool} ({budget})",
    "smaller_budget": "half the token budget on pool {pool} ({budget})",
    "no_wait": "no such waiting on pool {pool} ({waits})",
    "rate_limit": "twice the limits per minute of pool {pool}",
    "tiers": "tiers twice as fast on pool {pool}",
    "network": "links twice as fast",
}
_PARTS_SHOWN = 2
_SHOWN = 0.05
_BUSY_SHOWN = 3


def missed_text(
    missed: Missed, relief: Relief | None, program: Program, loads: Mapping[str, Saturation]
) -> str:
    """Return why a bound is missed, how much work the pools have, and what would mend it."""
    parts = [
        f"{percent(share)} is {CAUSE_WORDS[part.cause]}"
        + (f" ({_names(part.pool, program)['seats']})" if part.cause == "seats" else "")
        + ("" if part.cause in _IN_NO_STAGE else f" ({part.stage} on pool {program.pools[part.pool].name})")
        for place, (part, share) in enumerate(list(missed.shares.items())[:_PARTS_SHOWN])
        if place == 0 or share >= _SHOWN
    ]
    late = counted(missed.missing, "request")
    label = bound_label(missed.bound)
    text = f"{label[0].upper()}{label[1:]} is missed. Of the time that counts for the {late} concerned, "
    text += f"{' and '.join(parts)}. {_works(loads)}"
    if relief is None:
        return f"{text}More of no single resource would help much; faster hardware would."
    mend = _MEND[relief.resource].format(**_names(relief.pool, program))
    saved = "nearly all" if relief.gain > 0.95 else f"about {percent(relief.gain)}"
    return f"{text}{mend[0].upper()}{mend[1:]} would help most and save {saved} of that time, by estimate."


def _names(number: int | None, program: Program) -> dict[str, str]:
    """Return the names of a pool and of its keys that a sentence about a resource has; none for the network."""
    if number is None:
        return {}
    pool = program.pools[number]
    names = {"pool": pool.name}
    spec = pool.client
    if isinstance(spec, LLMClientSpec):
        names["budget"], names["seats"] = "max_num_batched_tokens", "max_num_seqs"
        if spec.sglang is not None:
            names["seats"] = "mamba_full_memory_ratio" if spec.sglang.seats_of_states else names["seats"]
            cut = spec.sglang.chunked_prefill_size is not None
            names["budget"] = "chunked_prefill_size" if cut else "max_prefill_tokens"
        names["waits"] = ", ".join(waiting_keys(spec))
    return names


def headroom_text(headroom: Headroom) -> str:
    """Return how much the load can grow, said to be an estimate."""
    if headroom.factor <= 1.01:
        reason = bound_label(headroom.fails) if headroom.pool is None else f"pool {headroom.pool}"
        return f"There is hardly any headroom: {reason} is at its limit (an estimate; task=capacity measures it)."
    growth = f"about {digits(headroom.factor)} times this load"
    fails = (
        f"{bound_label(headroom.fails)} is missed first"
        if headroom.pool is None
        else f"the backlog of pool {headroom.pool} grows"
    )
    return (
        f"By estimate the SLO holds up to {growth}; beyond that {fails} (hermes-flow capacity measures it)."
    )


def _works(loads: Mapping[str, Saturation]) -> str:
    """Return the work that arrives at the fullest pools, as a share of what they can do."""
    known: list[tuple[str, Any]] = [(name, own.work) for name, own in loads.items() if own.work is not None]
    ranked = sorted(known, key=lambda entry: -entry[1])
    shown = [f"pool {name} {percent(work)}" for name, work in ranked[:_BUSY_SHOWN] if work >= 0.005]
    if not shown:
        return ""
    return f"Arriving work, as a share of what full batches could do: {', '.join(shown)}. "
