"""Benchmark runs with prefill and decode on clients of their own, and their simulation.

These are rows of AIConfigurator's collection (Apache-2.0) whose numbers of clients and users are stated. In others
they are not, and many of those draft tokens. How an engine was set is not recorded: steps of prefill clients have
16,384 tokens on each rank here. Experts that were cut over the ranks of data-parallel attention are spread here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import cache
from typing import Any

import hermes_flow as hf
from benchmarks import silicon
from benchmarks.silicon import Found
from benchmarks.silicon_checkpoints import checkpoint
from benchmarks.silicon_layouts import users
from hermes_flow.errors import HermesFlowError
from hermes_flow.validation.replay import Edit

REQUESTS_PER_USER = 3
MOST_USERS = 600  # one run with more takes minutes
PREFILL_TOKENS = 16384  # of a step, for each rank


def covered(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows that can be simulated, one of each that stands there twice."""
    found, seen = [], set()
    for row in rows:
        key = silicon.same_run(row)
        if row["mode"] == "disagg" and key not in seen and _is_known(row):
            seen.add(key)
            found.append(row)
    return found


def simulate(row: dict[str, Any], edit: Edit | None = None) -> Found:
    """Simulate the row's benchmark from its first request to its last."""
    try:
        described = hf.compose([*overrides(row)])
        result = hf.simulate(hf.compile(described if edit is None else edit(described)))
    except HermesFlowError as error:
        return Found(row, problem=str(error).splitlines()[-1].strip("- "))
    requests = result.requests
    if requests["ttft_s"].null_count():
        return Found(row, problem="requests fail in the simulation")
    return Found(row, 1e3 * requests["ttft_s"].mean(), 1e3 * requests["tpot_s"].mean())


def overrides(row: dict[str, Any]) -> list[str]:
    """Return the configuration of the row's run."""
    load = users(row)
    assert load is not None
    kv = "fp8" if row["backend"] == "trtllm" or row["system"] == "b200_sxm" else "bf16"
    found = [
        *("pipeline=llm", "cluster=disaggregated", "slo=none", "workload=closed_loop"),
        "network.nodes_per_rack=64",
        f"model={silicon.model_of(row)}",
        f"hardware={row['system']}",
        *("model.precision.weights=fp8", "model.precision.activations=fp8", "model.sampling.sorted=false"),
        f"model.precision.kv_cache={kv}",
        f"workload.arrivals.concurrency={load}",
        f"workload.requests={REQUESTS_PER_USER * load}",
        f"workload.input_tokens={_lengths(row['isl'])}",
        f"workload.output_tokens={_lengths(row['osl'])}",
    ]
    for pool in ("prefill", "decode"):
        ranks = max(1, row[f"{pool}_attention_dp_size"] or 1)
        spread = ranks > 1 or (row[f"{pool}_moe_ep_size"] or 1) > 1
        key = f"cluster.pools.{pool}"
        found += [
            f"{key}.count={row[f'{pool}_num_workers']}",
            f"{key}.tensor_parallel={row[f'{pool}_tp_size']}",
            f"{key}.data_parallel={ranks}",
            f"{key}.expert_parallel={str(spread and _is_mixture(silicon.model_of(row))).lower()}",
            f"{key}.max_num_seqs={max(256, -(-load // row[f'{pool}_num_workers']))}",
        ]
        found.append(f"{key}.max_num_batched_tokens={PREFILL_TOKENS if pool == 'prefill' else 8192}")
    return found


def _is_known(row: dict[str, Any]) -> bool:
    return (
        row["system"] in silicon.SYSTEMS
        and row["precision"] == "fp8"
        and checkpoint(row) is not None
        and all(
            row[f"{pool}_{name}"] for pool in ("prefill", "decode") for name in ("num_workers", "tp_size")
        )
        and (users(row) or math.inf) <= MOST_USERS
    )


@cache
def _is_mixture(model: str) -> bool:
    return silicon.catalog_model(model).experts is not None


def _lengths(stated: int) -> str:
    return f"{{distribution: uniform, min: {int(silicon.SHORTEST * stated)}, max: {stated}}}"
