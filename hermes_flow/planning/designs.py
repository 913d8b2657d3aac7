"""The designs that a plan considers, and the configs that describe them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

from hermes_flow.config.schema import Config, Hardware
from hermes_flow.errors import ConfigError
from hermes_flow.pools.llm.batching import plans_gangs

Layout = Literal["replicas", "disaggregated"]


@dataclass(frozen=True, slots=True)
class Family:
    """Designs that differ only in how many clients they have; ``decode_hardware`` None is the same for both sides."""

    hardware: Hardware
    layout: Layout
    tensor_parallel: int
    pipeline_parallel: int
    batching: str
    max_num_batched_tokens: int
    decode_hardware: Hardware | None = None

    @property
    def devices(self) -> int:
        """Accelerators of one client."""
        return self.tensor_parallel * self.pipeline_parallel

    @property
    def hardware_name(self) -> str:
        """The hardware of its clients, that of the prefill first where it differs."""
        if self.decode_hardware is None:
            return self.hardware.name
        return f"{self.hardware.name} + {self.decode_hardware.name}"

    def price_of(self, clients: Clients) -> float | None:
        """Return the price per hour of so many clients; None where the hardware of any has none."""
        first, second = self.hardware.usd_per_hour, (self.decode_hardware or self.hardware).usd_per_hour
        if first is None or (second is None and clients.decode):
            return None
        return (clients.prefill * first + clients.decode * (second or 0.0)) * self.devices


@dataclass(frozen=True, slots=True)
class Clients:
    """The number of clients of a design; ``decode`` is 0 if the first pool does both."""

    prefill: int
    decode: int = 0

    @property
    def total(self) -> int:
        """All clients of the design."""
        return self.prefill + self.decode


def llm_pool(config: Config) -> str:
    """Return the name of the pool that a plan sizes: the one that serves both prefill and decode.

    Raises ConfigError where there is none, or more than one.
    """
    both = [
        name
        for name, pool in config.cluster.pools.items()
        if {"prefill", "decode"} <= set(pool.serves) and hasattr(pool, "tensor_parallel")
    ]
    if len(both) != 1:
        found = "none does" if not both else f"{' and '.join(both)} do"
        raise ConfigError(
            "cluster",
            f"a plan sizes the one LLM pool that prefills and decodes, and {found}; use cluster=replicas",
        )
    if config.cluster.copies != 1:
        raise ConfigError("cluster.copies", "a plan finds the number of clients; leave it at 1")
    return both[0]


def families(
    config: Config,
    hardware: Sequence[Hardware],
    *,
    layouts: Sequence[Layout],
    tensor_parallel: Sequence[int],
    pipeline_parallel: Sequence[int],
    batching: Sequence[str],
    max_num_batched_tokens: Sequence[int],
    decode_hardware: Sequence[Hardware] = (),
) -> list[Family]:
    """Return every combination whose client fits into a node of the network.

    With ``decode_hardware``, disaggregated designs decode on each of it, whatever they prefill on.

    ``batching`` and ``max_num_batched_tokens`` empty stand for what the pool has.
    """
    pool = cast(Any, config.cluster.pools[llm_pool(config)])
    return [
        Family(machine, layout, tensor, ranks, policy, budget, other)
        for machine in hardware
        for layout in layouts
        for other in _others(machine, decode_hardware if layout == "disaggregated" else ())
        for tensor in tensor_parallel
        for ranks in pipeline_parallel
        for policy in batching or (pool.batching,)
        for budget in max_num_batched_tokens or (pool.max_num_batched_tokens,)
        if tensor <= config.network.devices_per_node
        and not (layout == "disaggregated" and plans_gangs(policy))
    ]


def _others(machine: Hardware, decode_hardware: Sequence[Hardware]) -> list[Hardware | None]:
    """Return what designs that prefill on a machine decode on; None is the same."""
    if not decode_hardware:
        return [None]
    return [None if other.name == machine.name else other for other in decode_hardware]


def design_config(config: Config, family: Family, clients: Clients) -> Config:
    """Return ``config`` with its LLM pool as the design has it."""
    name = llm_pool(config)
    pool = replace(
        cast(Any, config.cluster.pools[name]),
        hardware=family.hardware,
        tensor_parallel=family.tensor_parallel,
        pipeline_parallel=family.pipeline_parallel,
        batching=family.batching,
        max_num_batched_tokens=family.max_num_batched_tokens,
        count=clients.prefill,
    )
    pools: dict[str, Any] = {}
    for other, own in config.cluster.pools.items():
        if other != name:
            pools[other] = own
        elif family.layout == "replicas":
            pools[name] = pool
        else:
            rest = tuple(kind for kind in pool.serves if kind not in ("prefill", "decode"))
            pools["prefill"] = replace(pool, serves=("prefill",))
            decoding = family.decode_hardware or family.hardware
            pools["decode"] = replace(pool, serves=("decode", *rest), count=clients.decode, hardware=decoding)
    cluster = replace(config.cluster, name=family.layout, pools=pools)
    return replace(config, cluster=cluster)
