"""The designs that a plan considers, and the configs that describe them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

from hermes_flow.config.schema import Config, Hardware
from hermes_flow.config.server_limits import limits_on
from hermes_flow.errors import ConfigError
from hermes_flow.pools.llm.batching import plans_gangs, policy_name

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
    data_parallel: int = 1

    @property
    def devices(self) -> int:
        """Accelerators of one client."""
        return self.tensor_parallel * self.pipeline_parallel * self.data_parallel

    @property
    def parallelism(self) -> str:
        """How the devices of a client share its work, as TP2 × DP4."""
        ranks = (("PP", self.pipeline_parallel), ("DP", self.data_parallel))
        return f"TP{self.tensor_parallel}" + "".join(
            f" × {name}{count}" for name, count in ranks if count > 1
        )

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
        Family(machine, layout, tensor, ranks, policy, budget, other, pool.data_parallel)
        for machine in hardware
        for layout in layouts
        for other in _others(machine, decode_hardware if layout == "disaggregated" else ())
        for tensor in tensor_parallel
        for ranks in pipeline_parallel
        for policy in batching or (pool.batching,)
        for budget in max_num_batched_tokens or (_limits(pool, machine, policy)["max_num_batched_tokens"],)
        if tensor <= config.network.devices_per_node
        and not (layout == "disaggregated" and plans_gangs(policy))
    ]


def _limits(pool: Any, machine: Hardware, batching: Any) -> dict[str, int]:
    """Return the limits of a step of a pool on a machine, which may be those of the server on this GPU."""
    limits = {name: getattr(pool, name) for name in ("max_num_seqs", "max_num_batched_tokens")}
    if pool.engine.server_limits == "by_gpu":
        whole = policy_name(batching) == "mixed"
        memory = machine.usable_gb or machine.memory_gb
        own = limits_on(
            machine.name, machine.kind, memory, pool.model.max_context if whole else 0, "the LLM pool"
        )
        limits |= {name: limit for name, limit in own.items() if name in pool.from_engine}
    return limits


def _others(machine: Hardware, decode_hardware: Sequence[Hardware]) -> list[Hardware | None]:
    """Return what designs that prefill on a machine decode on; None is the same."""
    if not decode_hardware:
        return [None]
    return [None if other.name == machine.name else other for other in decode_hardware]


def design_config(config: Config, family: Family, clients: Clients) -> Config:
    """Return ``config`` with its LLM pool as the design has it."""
    name = llm_pool(config)
    pool = cast(Any, config.cluster.pools[name])
    pool = replace(
        pool,
        hardware=family.hardware,
        tensor_parallel=family.tensor_parallel,
        pipeline_parallel=family.pipeline_parallel,
        batching=family.batching,
        max_num_batched_tokens=family.max_num_batched_tokens,
        max_num_seqs=_limits(pool, family.hardware, family.batching)["max_num_seqs"],
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
            seats = _limits(pool, decoding, family.batching)["max_num_seqs"]
            pools["decode"] = replace(
                pool, serves=("decode", *rest), count=clients.decode, hardware=decoding, max_num_seqs=seats
            )
    cluster = replace(config.cluster, name=family.layout, pools=pools)
    return replace(config, cluster=cluster)
