"""The causes of the time of requests, and the key of a part of it."""

from __future__ import annotations

from typing import Literal, TypeAlias

from hermes_flow.program.quick_dataclass import dataclass

Cause: TypeAlias = Literal[
    "gateway",
    "round_trip",
    "earlier_tries",
    "adapters",
    "seats",
    "kv_memory",
    "prompts_ahead",
    "held_back",
    "queue",
    "transfer",
    "sharing",
    "prefills",
    "batch",
    "service",
]
"""The causes of time: a wait at the gateway, the way to a site and back, tries at other sites, a wait for a slot of
an adapter, a seat, KV memory, steps that are full of other prompts, what the settings of a scheduler let wait, or a
client of another kind; a transfer; other reads of the same memory; steps that prefills of others, or the rest of the
batch, make longer; and the service that a request would need alone.
"""

CAUSES: tuple[Cause, ...] = (
    "gateway",
    "round_trip",
    "earlier_tries",
    *("adapters", "seats", "kv_memory", "prompts_ahead", "held_back", "queue", "transfer", "sharing"),
    *("prefills", "batch", "service"),
)


@dataclass(frozen=True, slots=True)
class Part:
    """The time of one cause, in one stage on one pool (an index)."""

    stage: str
    pool: int
    cause: Cause
