"""Plans a deployment: sizes every possible design to meet the SLO, and ranks the designs by cost."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from hermes_flow.config.plugins import load_plugins
from hermes_flow.config.schema import Config, Hardware
from hermes_flow.errors import ConfigError
from hermes_flow.planning.capacity import capacity, load_key
from hermes_flow.planning.designs import Clients, Family, Layout, design_config, families, llm_pool
from hermes_flow.planning.kept import NOTHING_KEPT, Kept, digest_of
from hermes_flow.planning.keys import value_at
from hermes_flow.planning.plan_bars import Sizes, compared_with_the_best, with_sizes
from hermes_flow.planning.plan_table import design_row, designs_frame
from hermes_flow.planning.processes import Workers
from hermes_flow.planning.sizing import Sized, size

if TYPE_CHECKING:
    import polars as pl

LAYOUTS: tuple[Layout, ...] = ("replicas", "disaggregated")
TENSOR_PARALLEL = (1, 2, 4, 8)


@dataclass(frozen=True, slots=True)
class Design:
    """One family at the size that meets the SLO, with the summary of its run; without one if no size does.

    ``sizes`` are those with the step times at the ends of the error bar, where they were looked for.
    ``like_the_best`` tells whether the prices of this design and of the best one overlap then.
    """

    sized: Sized
    summary: dict[str, Any] | None = None
    headroom: float | None = None
    sizes: Sizes | None = None
    like_the_best: bool | None = None

    @property
    def family(self) -> Family:
        """The hardware, layout and parallelism."""
        return self.sized.family

    @property
    def accelerators(self) -> int | None:
        """All devices of the LLM clients."""
        return self.devices_of(self.sized.clients)

    @property
    def usd_per_hour(self) -> float | None:
        """The price of the LLM clients; None where the hardware has none or no size meets the SLO."""
        return self.price_of(self.sized.clients)

    def devices_of(self, clients: Clients | None) -> int | None:
        """Return the devices of so many clients of the family."""
        return None if clients is None else clients.total * self.family.devices

    def price_of(self, clients: Clients | None) -> float | None:
        """Return the price per hour of so many clients of the family."""
        return None if clients is None else self.family.price_of(clients)


@dataclass(frozen=True, slots=True)
class Plan:
    """The ranked answer.

    ``ranked`` has the designs that meet the SLO, the cheapest first, then those without a price. ``ruled_out`` are
    the families that cannot meet it, each with its problem. ``notes`` say what was left out. ``complete`` is False
    where the time did not suffice for everything.
    """

    ranked: tuple[Design, ...]
    ruled_out: tuple[Design, ...]
    notes: tuple[str, ...] = ()
    complete: bool = True

    @property
    def best(self) -> Design | None:
        """The cheapest design that meets the SLO; None if no design does."""
        return self.ranked[0] if self.ranked else None

    @property
    def designs(self) -> pl.DataFrame:
        """One row per family: those that meet the SLO by rank, then those that are ruled out (rank null)."""
        return designs_frame(self.ranked, self.ruled_out)

    def summary(self) -> dict[str, Any]:
        """Return the figures as they stand under ``plan`` in the summary."""
        best = None if self.best is None else design_row(self.best, 1)
        return {
            "best": best,
            "designs": len(self.ranked),
            "ruled_out": len(self.ruled_out),
            "notes": list(self.notes),
        }


def plan(
    config: Config,
    hardware: Sequence[Hardware] | None = None,
    *,
    layouts: Sequence[Layout] = LAYOUTS,
    tensor_parallel: Sequence[int] = TENSOR_PARALLEL,
    pipeline_parallel: Sequence[int] = (1,),
    batching: Sequence[str] = (),
    max_num_batched_tokens: Sequence[int] = (),
    decode_hardware: Sequence[Hardware] = (),
    most_clients: int = 64,
    headrooms: int = 3,
    error_bars: int = 5,
    seconds: float | None = None,
    processes: int = 1,
    on_design: Callable[[Design], None] | None = None,
    kept: Kept = NOTHING_KEPT,
) -> Plan:
    """Return the designs that meet the SLO of ``config`` at the load of its workload, ranked by price.

    ``config`` describes one design of cluster=replicas, from which the others follow: ``hardware`` (None: its own),
    each layout, each parallelism, each batching policy and token budget (empty: the pool's own); disaggregated ones
    decode on each of ``decode_hardware`` (empty: on what they prefill on). A family is dropped
    before any simulation where the weights do not fit or an empty client already misses a bound. The fewest clients
    of every other family are found by whole simulations; a size counts only if its backlog settles. ``headrooms`` of
    the best designs get the share by which the load can still grow. ``error_bars`` of them are sized again with the
    shortest and the longest step times of their error bars. After ``seconds`` nothing further is begun. Families are
    sized in up to ``processes`` at once; each is independent of the others, so that the answer is the same. Every
    simulation is added to ``kept``, and what that has already is not simulated again.

    Raises ConfigError where the SLO has no bounds, or where the config is not of that form.
    """
    pool = _sized_pool(config)
    considered = families(
        config,
        [priced(machine, config) for machine in (hardware or [pool.hardware])],
        layouts=layouts,
        tensor_parallel=tensor_parallel,
        pipeline_parallel=pipeline_parallel,
        batching=batching,
        max_num_batched_tokens=max_num_batched_tokens,
        decode_hardware=[priced(machine, config) for machine in decode_hardware],
    )
    if not considered:
        raise ConfigError("task", "no design is left: every tensor_parallel exceeds network.devices_per_node")
    began = time.monotonic()

    def late() -> bool:
        return seconds is not None and time.monotonic() - began > seconds

    notes: list[str] = []
    sized = partial(_designed, config, most=most_clients, kept=kept)
    headroom, bar = (partial(work, config, kept=kept) for work in (_with_headroom, with_sizes))
    with Workers(processes, load_plugins, list(config.plugins)) as workers:
        designs = workers.map(
            sized, considered, until=lambda found: bool(found) and late(), on_result=on_design
        )
        if left := len(considered) - len(designs):
            notes.append(
                f"stopped after {seconds:.2g} s: {left} of {len(considered)} kinds of designs not tried"
            )
        ranked = _ranked(designs)
        for work, count, what in ((bar, error_bars, "error bars"), (headroom, headrooms, "spare capacities")):
            done = workers.map(work, ranked[:count], until=lambda _: late())
            ranked[: len(done)] = done
            if len(done) < min(count, len(ranked)):
                notes.append(f"stopped after {seconds:.2g} s: not all {what} of the best designs are known")
    return _ranking(ranked, designs, notes, complete=not notes)


def _sized_pool(config: Config) -> Any:
    """Return the pool whose clients a plan counts; raises ConfigError where it cannot plan with ``config``."""
    if not config.bounded:
        raise ConfigError("slo", "has no bounds, so every design meets it; choose one, as in slo=chat")
    pool: Any = config.cluster.pools[name := llm_pool(config)]
    if config.cluster.sites:
        raise ConfigError("cluster.sites", "a plan sizes clients in one place; expected {}")
    if pool.autoscale is not None:
        raise ConfigError(
            f"cluster.pools.{name}.autoscale", "a plan sizes clients that run all the time; expected null"
        )
    return pool


def plan_so_far(designs: Sequence[Design], notes: Sequence[str] = ()) -> Plan:
    """Return the ranking of the designs that a plan had found when it was stopped."""
    return _ranking(_ranked(designs), designs, notes, complete=False)


def _ranked(designs: Sequence[Design]) -> list[Design]:
    """Return the designs that meet the SLO, the cheapest first."""
    return sorted((design for design in designs if design.summary is not None), key=_order)


def _ranking(
    ranked: Sequence[Design], designs: Sequence[Design], notes: Sequence[str], *, complete: bool
) -> Plan:
    ranked = compared_with_the_best(ranked)
    if any(design.usd_per_hour is None for design in ranked):
        notes = [*notes, "hardware without a price is ranked after all others, by accelerators"]
    ruled_out = tuple(design for design in designs if design.summary is None)
    return Plan(tuple(ranked), ruled_out, tuple(notes), complete)


def priced(machine: Hardware, config: Config) -> Hardware:
    """Return the hardware with its price: its own, else that of the price list; None where there is neither."""
    if machine.usd_per_hour is not None:
        return machine
    return replace(machine, usd_per_hour=config.prices.usd_per_hour.get(machine.name))


def _designed(config: Config, family: Family, most: int, kept: Kept) -> Design:
    from hermes_flow.compiler.compile import compile
    from hermes_flow.simulation import simulate

    sized = size(config, family, most, kept=kept)
    clients = sized.clients
    if clients is None:
        return Design(sized)

    def summary() -> dict[str, Any]:
        return simulate(compile(design_config(config, family, clients))).summary

    return Design(sized, kept.result(("summary", digest_of(config), family, clients), summary))


def _with_headroom(config: Config, design: Design, kept: Kept) -> Design:
    """Return the design with the share by which its load can grow while the SLO is met and the backlog settles."""
    assert design.sized.clients is not None
    own = design_config(config, design.family, design.sized.clients)
    key = load_key(own)

    found = capacity(own, key, seeds=1, tolerance=0.05, error_bar=False, kept=kept)
    if found.value is None:
        return design
    most = found.value if found.sustained is None else min(found.value, found.sustained)
    return replace(design, headroom=float(most) / float(value_at(own, key)) - 1.0)


def _order(design: Design) -> tuple[bool, float, int, float]:
    """Sort by price, those without one last and by accelerators; ties by accelerators and then by p99 TTFT."""
    price, summary = design.usd_per_hour, design.summary or {}
    accelerators = design.accelerators or 0
    return (
        price is None,
        round(price, 6) if price is not None else float(accelerators),
        accelerators,
        summary.get("ttft_s", {}).get("p99") or 0.0,
    )
