"""The table of a plan: one row per kind of designs, and the overrides that run a design on the command line."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hermes_flow.planning.designs import Clients

if TYPE_CHECKING:
    import polars as pl

    from hermes_flow.planning.plan import Design


_OF_THE_PLAN = ("task", "hydra", "output", "sweep")


def designs_frame(ranked: Sequence[Design], ruled_out: Sequence[Design]) -> pl.DataFrame:
    """Return one row per family: those that meet the SLO by rank, then those that are ruled out (rank null)."""
    import polars as pl

    rows = [design_row(design, rank) for rank, design in enumerate(ranked, 1)]
    rows += [design_row(design, None) for design in ruled_out]
    return pl.DataFrame(rows, schema=_schema(pl))


def overrides_of(design: Design, pool: str = "llm") -> str:
    """Return the overrides that run a design on the command line."""
    family, clients = design.family, design.sized.clients
    assert clients is not None
    texts = [f"hardware={family.hardware.name}"]
    if family.decode_hardware is not None:
        texts.append(f"hardware@cluster.pools.decode.hardware={family.decode_hardware.name}")
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


def command_of(overrides: str, given: Sequence[str]) -> str:
    """Return the command that runs a design under all that a plan was asked with.

    ``overrides`` are those of the design, ``given`` the overrides of the plan's own command: its pipeline, its
    workload, its SLO. What the design decides, and what only concerns the plan, is left out of the latter; keys of
    the pool ``llm`` go to both pools of a disaggregated design.
    """
    decided = {text.partition("=")[0] for text in overrides.split()}
    apart = any(key.startswith("cluster.pools.prefill.") for key in decided)
    kept: list[str] = []
    for text in given:
        pools = (
            ("prefill", "decode") if apart and "cluster.pools.llm." in text.partition("=")[0] else ("llm",)
        )
        for pool in pools:
            key, equals, value = text.partition("=")
            key = key.replace("cluster.pools.llm.", f"cluster.pools.{pool}.")
            plain = key.lstrip("+~")
            if plain not in decided and plain.split(".")[0] not in _OF_THE_PLAN:
                kept.append(shlex.quote(f"{key}{equals}{value}"))
    return " ".join(["hermes-flow", *kept, overrides])


def _schema(pl: Any) -> dict[str, Any]:
    texts = (
        "hardware",
        "decode_hardware",
        "layout",
        "batching",
        "ranked_by",
        "smaller_misses",
        "problem",
        "overrides",
    )
    counts = {"rank", "clients", "prefill_clients", "decode_clients", "accelerators", "simulations"}
    counts |= {"tensor_parallel", "pipeline_parallel", "data_parallel", "max_num_batched_tokens"}
    counts |= {"accelerators_low", "accelerators_high"}
    kinds = {
        name: pl.String if name in texts else pl.Int64 if name in counts else pl.Float64 for name in _COLUMNS
    }
    return {**kinds, "like_the_best": pl.Boolean}


_COLUMNS = (
    *(
        "rank",
        "hardware",
        "decode_hardware",
        "layout",
        "clients",
        "prefill_clients",
        "decode_clients",
        "tensor_parallel",
    ),
    *(
        "pipeline_parallel",
        "data_parallel",
        "batching",
        "max_num_batched_tokens",
        "accelerators",
        "ranked_by",
        "usd_per_hour",
    ),
    *("usd_per_hour_low", "usd_per_hour_high", "accelerators_low", "accelerators_high", "like_the_best"),
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


def design_row(design: Design, rank: int | None) -> dict[str, Any]:
    """Return the row of a design; ``rank`` is None where no size meets the SLO."""
    sized, family = design.sized, design.family
    clients, summary = sized.clients or Clients(0, 0), design.summary
    met = summary is not None
    row: dict[str, Any] = dict.fromkeys(_COLUMNS)
    row |= {
        "rank": rank,
        "hardware": family.hardware.name,
        "decode_hardware": None if family.decode_hardware is None else family.decode_hardware.name,
        "layout": family.layout,
        "tensor_parallel": family.tensor_parallel,
        "pipeline_parallel": family.pipeline_parallel,
        "data_parallel": family.data_parallel,
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
    price, sizes = design.usd_per_hour, design.sizes
    tokens_per_s = summary["throughput"]["output_tokens_per_s"]
    return row | {
        "clients": clients.total,
        "prefill_clients": clients.prefill if family.layout == "disaggregated" else None,
        "decode_clients": clients.decode if family.layout == "disaggregated" else None,
        "accelerators": design.accelerators,
        "ranked_by": "accelerators" if price is None else "usd_per_hour",
        "usd_per_hour": price,
        "usd_per_hour_low": None if sizes is None else design.price_of(sizes.low),
        "usd_per_hour_high": None if sizes is None else design.price_of(sizes.high),
        "accelerators_low": None if sizes is None else design.devices_of(sizes.low),
        "accelerators_high": None if sizes is None else design.devices_of(sizes.high),
        "like_the_best": design.like_the_best,
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
