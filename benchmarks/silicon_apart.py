"""Benchmark runs with prefill and decode on clients of their own, and their simulation.

These are rows of AIConfigurator's collection (Apache-2.0) whose layout and users are known (see
``benchmarks.silicon_apart_layouts``), with the settings of their recipes (``benchmarks.silicon_apart_settings``).
Each has the overheads and the scheduler of its engine, and each rank of attention has its own. Experts that were cut
over the ranks of data-parallel attention are spread here.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import hermes_flow as hf
from benchmarks import silicon
from benchmarks.silicon import Found
from benchmarks.silicon_apart_layouts import Apart, Side, may_draft, published, stated
from benchmarks.silicon_apart_settings import VLLM_PAIR, SideSettings, decode_settings, prefill_settings
from benchmarks.silicon_checkpoints import checkpoint
from benchmarks.silicon_engines import with_flashinfer
from benchmarks.silicon_gpus import BLACKWELL, RACK, devices_of_a_node
from benchmarks.silicon_layouts import users
from hermes_flow.config.schema import Hardware
from hermes_flow.errors import HermesFlowError
from hermes_flow.pools.llm.schema import LLMPool
from hermes_flow.validation.replay import Edit

REQUESTS_PER_USER = 10
MOST_USERS = 2100  # one run with more takes minutes
SYSTEMS = (*silicon.SYSTEMS, "gb300")
_ENGINES = {"sglang": "sglang", "trtllm": "tensorrt_llm", "vllm": "vllm"}


def covered(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows that can be simulated, one of each that stands there twice."""
    return sorted_out(list(rows))[0]


def sorted_out(rows: Sequence[dict[str, Any]]) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Return the rows that can be simulated, and how many of the others there are for which reason."""
    kept, left_out, seen = [], Counter[str](), set()
    apart = [row for row in rows if row["mode"] == "disagg"]
    # Rows that state their layout come first, because the same run may stand there without it
    for row in sorted(apart, key=lambda row: stated(row) is None):
        key, reason = silicon.same_run(row), why_not(row, apart)
        if key in seen:
            reason = "the same run as another row"
        if reason is None:
            seen.add(key)
            kept.append(row)
        else:
            left_out[reason] += 1
    return kept, dict(left_out)


def reasons(rows: Sequence[dict[str, Any]]) -> dict[str, int]:
    """Return how many rows there are by what becomes of them, in the words of a page of the whole collection."""
    kept, left_out = sorted_out(rows)
    found = {f"prefill and decode apart: {reason}": count for reason, count in left_out.items()}
    return {"prefill and decode apart: compared in the error bars alone": len(kept), **found}


def why_not(row: dict[str, Any], others: Sequence[dict[str, Any]]) -> str | None:
    """Return why a row is not simulated, or None; ``others`` are all rows with prefill and decode apart."""
    if row["system"] not in SYSTEMS:
        return f"system not in the catalog: {row['system']}"
    if checkpoint(row) is None:
        return f"layout of the {row['precision']} checkpoint not known: {row['model_path'].split('/')[-1]}"
    if users(row) is None:
        return "number of users not stated"
    if (users(row) or math.inf) > MOST_USERS:
        return f"more than {MOST_USERS} users"
    if stated(row) is None and published(row) is None:
        return "layout not stated"
    if stated(row) is None and may_draft(row, others):
        return "layout stated, but not whether tokens are drafted"
    return None


def layout(row: dict[str, Any]) -> Apart:
    """Return the layout of a row that is compared."""
    found = stated(row) or published(row)
    assert found is not None
    return found


def simulate(row: dict[str, Any], edit: Edit | None = None) -> Found:
    """Simulate the row's benchmark from its first request to its last."""
    try:
        described = config(row)
        result = hf.simulate(hf.compile(described if edit is None else edit(described)))
    except HermesFlowError as error:
        return Found(row, problem=str(error).splitlines()[-1].strip("- "))
    requests = result.requests
    if requests["ttft_s"].null_count():
        return Found(row, problem="requests fail in the simulation")
    return Found(row, 1e3 * requests["ttft_s"].mean(), 1e3 * requests["tpot_s"].mean())


def config(row: dict[str, Any]) -> hf.Config:
    """Return the configuration of the row's run."""
    placed, load = layout(row), users(row)
    assert load is not None
    base = hf.compose(_overrides(row, load))
    told = {
        "prefill": (placed.prefill, prefill_settings(row, placed.prefill)),
        "decode": (placed.decode, decode_settings(row, placed.decode, load)),
    }
    pools = {name: _pool(base.cluster.pools[name], row, *each) for name, each in told.items()}
    return replace(base, cluster=replace(base.cluster, pools=base.cluster.pools | pools))


def _overrides(row: dict[str, Any], load: int) -> list[str]:
    what = checkpoint(row)
    assert what is not None
    kv = "fp8" if row["backend"] == "trtllm" or row["system"] in BLACKWELL else "bf16"
    return [
        *("pipeline=llm", "cluster=disaggregated", "slo=none", "workload=closed_loop"),
        f"engine={_ENGINES[row['backend']]}",
        "network.nodes_per_rack=64",
        *(["network=nvl72"] if devices_of_a_node(row["system"]) == RACK else []),
        f"model={what.model}",
        *(f"model.precision.{name}" for name in what.precision_on(row["system"])),
        f"model.precision.kv_cache={kv}",
        # Proxies of vLLM hand on what the decode client writes, and its connectors look for KV once a step
        *(VLLM_PAIR if row["backend"] == "vllm" else ["model.sampling.sorted=false"]),
        f"hardware={row['system']}",
        f"workload.arrivals.concurrency={load}",
        f"workload.requests={REQUESTS_PER_USER * load}",
        f"workload.input_tokens={_lengths(row['isl'])}",
        f"workload.output_tokens={_lengths(row['osl'])}",
    ]


def _pool(pool: Any, row: dict[str, Any], side: Side, told: SideSettings) -> LLMPool:
    assert isinstance(pool, LLMPool)
    spread = side.spread and _is_mixture(silicon.model_of(row))
    # In a rack TensorRT-LLM's ranks send tokens over NVLink, and SGLang's recipes name DeepEP
    sends = spread and side.ranks > 1 and devices_of_a_node(row["system"]) == RACK
    pool = replace(
        pool,
        count=side.clients,
        tensor_parallel=side.tensor,
        data_parallel=side.ranks,
        expert_parallel=spread,
        all2all_backend="alltoall" if sends else None,
        redundant_experts=_redundant(row, side) if spread else 0,
        max_num_seqs=told.seats,
        lookahead=told.lookahead,
        hardware=_with_overheads(pool.hardware, row, told),
        from_engine=tuple(key for key in pool.from_engine if key != "max_num_seqs"),  # the recipes give it
    )
    if pool.engine.scheduler == "sglang":
        prefills = pool.serves == ("prefill",)
        own: dict[str, int] = {"scheduler_recv_interval": told.interval}
        if prefills:
            own = {"max_prefill_tokens": told.tokens, "chunked_prefill_size": told.tokens}
        pool = replace(pool, **own, kv_blocks=told.held)
    else:
        pool = replace(pool, max_num_batched_tokens=told.tokens)
    return replace(pool, memory_utilization=told.memory)


def _redundant(row: dict[str, Any], side: Side) -> int:
    """Return the fewest copies with which experts fill the devices, 32 of 256 on 48; rows do not state them."""
    experts = silicon.catalog_model(silicon.model_of(row)).experts
    return 0 if experts is None else -experts.count % (side.tensor * side.ranks)


def _with_overheads(hardware: Hardware, row: dict[str, Any], told: SideSettings) -> Hardware:
    own = replace(hardware, engine=_engine(_ENGINES[row["backend"]], row["system"]))
    return with_flashinfer(own) if told.flashinfer else own


@cache
def _engine(engine: str, hardware: str) -> Any:
    composed = hf.compose([f"engine={engine}", f"hardware={hardware}", "pipeline=llm"])
    pool = composed.cluster.pools["llm"]
    assert isinstance(pool, LLMPool)
    return pool.hardware.engine


@cache
def _is_mixture(model: str) -> bool:
    return silicon.catalog_model(model).experts is not None


def _lengths(stated_length: int) -> dict[str, Any] | str:
    return f"{{distribution: uniform, min: {int(silicon.SHORTEST * stated_length)}, max: {stated_length}}}"
