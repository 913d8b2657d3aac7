"""The keys of an endpoint pool: the provider's limits, latencies and prices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from hermes_flow.config.quantities import USD, Count, Milliseconds, PositiveTokens

_MACHINES = "the provider runs the model, and its machines are not part of the cluster; leave the key out"
_KV = "the provider keeps the KV, and nothing of it is known or moved; leave the key out"
_ENGINE = "the provider schedules the calls; leave the key out"


@dataclass(frozen=True, slots=True)
class EndpointPool:
    """``count`` accounts with a provider of a model, each with the same limits; an account is one client.

    ``model`` has the model's ``name``; of a catalog entry only that counts. The first token of an answer comes
    ``ttft_ms`` after the call has begun, and each further one ``tpot_ms`` later: numbers, or distributions drawn per
    call. At most ``requests_per_minute`` calls and ``tokens_per_minute`` tokens, of prompts and answers together,
    begin in a minute (null: no limit). A call above the limits waits (``on_limit: queue``), or its request fails
    (``reject``). A call costs ``usd_per_million_…_tokens``; null is unknown.
    """

    absent: ClassVar[dict[str, str]] = {
        **dict.fromkeys(("hardware", "tensor_parallel", "pipeline_parallel", "data_parallel"), _MACHINES),
        **dict.fromkeys(("expert_parallel", "memory_utilization", "cores", "host"), _MACHINES),
        **dict.fromkeys(("autoscale", "failures"), _MACHINES),
        **dict.fromkeys(("prefix_cache", "kv_blocks", "block_size", "preemption"), _KV),
        **dict.fromkeys(("engine", "batching", "packing", "lookahead", "max_num_seqs"), _ENGINE),
        **dict.fromkeys(("max_num_batched_tokens", "speculative"), _ENGINE),
    }
    devices: ClassVar[int] = 0
    hardware: ClassVar[None] = None
    host: ClassVar[None] = None
    kind: Literal["endpoint"]
    serves: tuple[str, ...]
    """The kinds of stages that the pool serves."""
    model: dict[str, Any]
    ttft_ms: dict[str, Any] | Milliseconds
    tpot_ms: dict[str, Any] | Milliseconds
    count: Count = 1
    routing: dict[str, Any] | str | None = None
    """How tasks choose among the clients: the name of a routing policy, or a mapping with its settings. Null is as
    ``cluster.routing``.
    """
    if_needed: bool = False
    """True leaves the pool out where other pools serve all that it would."""
    requests_per_minute: PositiveTokens | None = None
    tokens_per_minute: PositiveTokens | None = None
    on_limit: Literal["queue", "reject"] = "queue"
    """Whether a call above the limits waits (``queue``), or its request fails (``reject``)."""
    usd_per_million_input_tokens: USD | None = None
    """The price of a million prompt tokens; null is unknown."""
    usd_per_million_output_tokens: USD | None = None
    """The price of a million tokens of answers; null is unknown."""

    @property
    def model_name(self) -> str:
        """The model that answers."""
        return str(self.model.get("name"))
