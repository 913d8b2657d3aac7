"""Plans a deployment: sizes every possible design to meet the SLO, and ranks the designs by cost."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from hermes_flow.config.schema import Config, Hardware
from hermes_flow.errors import ConfigError
from hermes_flow.planning.capacity import capacity, load_key
from hermes_flow.planning.designs import Clients, Family, Layout, design_config, families, llm_pool
from hermes_flow.planning.keys import value_at
from hermes_flow.planning.sizing import Sized, size

if TYPE_CHECKING:
    import polars as pl

LAYOUTS: tuple[Layout, ...] = ("replicas", "disaggregated")
TENSOR_PARALLEL = (1, 2, 4, 8)


@dataclass(frozen=True, slots=True)
class Design:
    """One family at the size that meets the SLO, with the summary of its run; without one if no size does."""

    sized: Sized
    summary: dict[str, Any] | None = None
    headroom: float | None = None

    @property
    def family(self) -> Family:
        """The hardware, layout and parallelism."""
        return self.sized.family

    @property
    def accelerators(self) -> int | None:
        """All devices of the LLM clients."""
        clients = self.sized.clients
        return None if clients is None else clients.total * self.family.devices

    @property
    def usd_per_hour(self) -> float | None:
        """The price of the LLM clients; None where the hardware has none or no size meets the SLO."""
        clients, price = self.sized.clients, self.family.usd_per_hour
        return None if clients is None or price is None else clients.total * price


@dataclass(frozen=True, slots=True)
class Plan:
    """The ranked answer.

    ``ranked`` has the designs that meet the SLO, the cheapest first, then those without a price. ``ruled_out`` are
    the families that cannot meet it, each with its problem. ``notes`` say what was left out.
    """

    ranked: tuple[Design, ...]
    ruled_out: tuple[Design, ...]
    notes: tuple[str, ...] = ()

    @property
    def best(self) -> Design | None:
        """The cheapest design that meets the SLO; None if no design does."""
        return self.ranked[0] if self.ranked else None

    @property
    def designs(self) -> pl.DataFrame:
        """One row per family: those that meet the SLO by rank, then those that are ruled out (rank null)."""
        import polars as pl

        rows = [_row(design, rank) for rank, design in enumerate(self.ranked, 1)]
        rows += [_row(design, None) for design in self.ruled_out]
        return pl.DataFrame(rows, schema=_schema(pl))

    def summary(self) -> dict[str, Any]:
        """Return the figures as they stand under ``plan`` in the summary."""
        best = None if self.best is None else _row(self.best, 1)
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
    most_clients: int = 64,
    headrooms: int = 3,
    seconds: float | None = None,
    on_design: Callable[[Design], None] | None = None,
) -> Plan:
    """Return the designs that meet the SLO of ``config`` at the load of its workload, ranked by price.

    ``config`` describes one design of cluster=replicas, from which the others follow: ``hardware`` (None: its own),
    each layout, each parallelism, each batching policy and token budget (empty: the pool's own). A family is dropped
    before any simulation where the weights do not fit or an empty client already misses a bound. The fewest clients
    of every other family are found by whole simulations; a size counts only if its backlog settles. ``headrooms`` of
    the best designs get the share by which the load can still grow. After ``seconds`` no further family is begun.

    Raises ConfigError where the SLO has no bounds, or where the config is not of that form.
    """
    if not config.slo.bounded:
        raise ConfigError("slo", "has no bounds, so every design meets it; choose one, as in slo=chat")
    pool: Any = config.cluster.pools[llm_pool(config)]
    machines = [priced(machine, config) for machine in (hardware or [pool.hardware])]
    considered = families(
        config,
        machines,
        layouts=layouts,
        tensor_parallel=tensor_parallel,
        pipeline_parallel=pipeline_parallel,
        batching=batching,
        max_num_batched_tokens=max_num_batched_tokens,
    )
    if not considered:
        raise ConfigError("task", "no design is left: every tensor_parallel exceeds network.devices_per_node")
    began = time.monotonic()
    designs: list[Design] = []
    notes: list[str] = []
    for number, family in enumerate(considered):
        if seconds is not None and designs and time.monotonic() - began > seconds:
            left = len(considered) - number
            notes.append(
                f"stopped after {seconds:g} s: {left} of {len(considered)} kinds of designs not tried"
            )
            break
        design = _designed(config, size(config, family, most_clients))
        designs.append(design)
        if on_design is not None:
            on_design(design)
    ranked = sorted((design for design in designs if design.summary is not None), key=_order)
    ranked[:headrooms] = [_with_headroom(config, design) for design in ranked[:headrooms]]
    if any(design.usd_per_hour is None for design in ranked):
        notes.append("hardware without a price is ranked after all others, by accelerators")
    ruled_out = tuple(design for design in designs if design.summary is None)
    return Plan(tuple(ranked), ruled_out, tuple(notes))


def overrides_of(design: Design, pool: str = "llm") -> str:
    """Return the overrides that run a design on the command line."""
    family, clients = design.family, design.sized.clients
    assert clients is not None
    texts = [f"hardware={family.hardware.name}"]
    counts = {pool: clients.prefill}
    if family.layout == "disaggregated":
        texts.insert(0, "cluster=disaggregated")
        counts = {"prefill": clients.prefill, "decode": clients.decode}
    for name, count in counts.items():
        key = f"cluster.pools.{name}"
        texts += [f"{key}.count={count}", f"{key}.tensor_parallel={family.tensor_parallel}"]
        if family.pipeline_parallel > 1:
            texts.append(f"{key}.pipeline_parallel={family.pipeline_parallel}")
        texts += [
            f"{key}.batching={family.batching}",
            f"{key}.max_num_batched_tokens={family.max_num_batched_tokens}",
        ]
    return " ".join(texts)


def priced(machine: Hardware, config: Config) -> Hardware:
    """Return the hardware with its price: its own, else that of the price list; None where there is neither."""
    if machine.usd_per_hour is not None:
        return machine
    return replace(machine, usd_per_hour=config.prices.usd_per_hour.get(machine.name))


def _designed(config: Config, sized: Sized) -> Design:
    from hermes_flow.compiler.compile import compile
    from hermes_flow.simulation import simulate

    if sized.clients is None:
        return Design(sized)
    program = compile(design_config(config, sized.family, sized.clients))
    return Design(sized, simulate(program).summary)


def _with_headroom(config: Config, design: Design) -> Design:
    """Return the design with the share by which its load can grow, by a capacity search."""
    assert design.sized.clients is not None
    own = design_config(config, design.family, design.sized.clients)
    key = load_key(own)
    found = capacity(own, key, seeds=1, tolerance=0.05)
    if found.value is None:
        return design
    return replace(design, headroom=float(found.value) / float(value_at(own, key)) - 1.0)


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


def _schema(pl: Any) -> dict[str, Any]:
    texts = ("hardware", "layout", "batching", "ranked_by", "smaller_misses", "problem", "overrides")
    counts = {"rank", "clients", "prefill_clients", "decode_clients", "accelerators", "simulations"}
    counts |= {"tensor_parallel", "pipeline_parallel", "max_num_batched_tokens"}
    return {
        name: pl.String if name in texts else pl.Int64 if name in counts else pl.Float64 for name in _COLUMNS
    }


_COLUMNS = (
    *("rank", "hardware", "layout", "clients", "prefill_clients", "decode_clients", "tensor_parallel"),
    *("pipeline_parallel", "batching", "max_num_batched_tokens", "accelerators", "ranked_by", "usd_per_hour"),
    *("usd_per_million_output_tokens", "j_per_output_token", "ttft_p99_s", "tpot_p90_s", "e2e_p99_s"),
    *(
        "attainment",
        "headroom",
        "busy_fraction",
        "kv_peak_fraction",
        "smaller_misses",
        "problem",
        "simulations",
    ),
    "overrides",
)


def _row(design: Design, rank: int | None) -> dict[str, Any]:
    sized, family = design.sized, design.family
    clients, summary = sized.clients or Clients(0, 0), design.summary
    met = summary is not None
    row: dict[str, Any] = dict.fromkeys(_COLUMNS)
    row |= {
        "rank": rank,
        "hardware": family.hardware.name,
        "layout": family.layout,
        "tensor_parallel": family.tensor_parallel,
        "pipeline_parallel": family.pipeline_parallel,
        "batching": family.batching,
        "max_num_batched_tokens": family.max_num_batched_tokens,
        "problem": sized.problem,
        "simulations": sized.simulations,
    }
    if sized.smaller is not None:
        row["smaller_misses"] = f"{_clients_text(sized.smaller)}: {', '.join(sized.missing)}"
    if not met:
        return row
    assert summary is not None
    pools = [summary["pools"][name] for name in ("llm", "prefill", "decode") if name in summary["pools"]]
    price = design.usd_per_hour
    tokens_per_s = summary["throughput"]["output_tokens_per_s"]
    return row | {
        "clients": clients.total,
        "prefill_clients": clients.prefill if family.layout == "disaggregated" else None,
        "decode_clients": clients.decode if family.layout == "disaggregated" else None,
        "accelerators": design.accelerators,
        "ranked_by": "accelerators" if price is None else "usd_per_hour",
        "usd_per_hour": price,
        "usd_per_million_output_tokens": None
        if price is None or not tokens_per_s
        else 1e6 * price / (3600 * tokens_per_s),
        "j_per_output_token": summary["energy"].get("j_per_output_token"),
        "ttft_p99_s": summary["ttft_s"]["p99"],
        "tpot_p90_s": summary["tpot_s"]["p90"],
        "e2e_p99_s": summary["e2e_s"]["p99"],
        "attainment": summary["slo"]["attainment"],
        "headroom": design.headroom,
        "busy_fraction": max((pool["busy_fraction"] or 0.0 for pool in pools), default=None),
        "kv_peak_fraction": max((pool["kv_peak_fraction"] or 0.0 for pool in pools), default=None),
        "overrides": overrides_of(design),
    }


def _clients_text(clients: Clients) -> str:
    if clients.decode:
        return f"{clients.prefill} prefill and {clients.decode} decode clients"
    return f"{clients.prefill} client{'' if clients.prefill == 1 else 's'}"
