"""One mean TTFT and TPOT of each of 1,800 benchmark runs of vLLM, SGLang and TensorRT-LLM, and their simulation.

The rows are AIConfigurator's collection (Apache-2.0). Most were published by InferenceMAX, whose scripts say how they
were measured: so many users at once, ten requests each, prompts and answers of 80 to 100 % of the stated length, no
prefix cache. How the others were measured is not recorded; they are simulated in the same way.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

import hermes_flow as hf
from benchmarks.silicon_settings import INFERENCEMAX as INFERENCEMAX
from benchmarks.silicon_settings import Settings, settings
from hermes_flow.config.schema import Hardware, SyntheticWorkload
from hermes_flow.errors import HermesFlowError
from hermes_flow.pools.llm.reserve import reserved_parts
from hermes_flow.pools.llm.schema import LLMPool
from hermes_flow.validation.replay import Edit

MODELS = {
    "MiniMaxAI/MiniMax-M2.5": "minimax_m2_5",
    "Qwen/Qwen3-235B-A22B-FP8": "qwen3_235b_a22b",
    "Qwen/Qwen3-32B": "qwen3_32b",
    "deepseek-ai/DeepSeek-R1": "deepseek_v3",  # the same shape
    "deepseek-ai/DeepSeek-V3": "deepseek_v3",
    "meta-llama/Llama-3.1-70B": "llama3_70b",
    "meta-llama/Llama-3.1-8B-Instruct": "llama3_8b",
    "nvidia/Llama-3.1-8B-Instruct-FP8": "llama3_8b",
}
SYSTEMS = ("a100_sxm", "b200_sxm", "h100_sxm", "h200_sxm")
DEVICES_OF_A_NODE = 8
REQUESTS_PER_USER = 10
SHORTEST = 0.8  # of the stated lengths
# Bursts, not steady state (data/README.md): every request of the run arrives at once
BURSTS = (("nvidia/Llama-3.1-8B-Instruct-FP8", "vllm"), ("Qwen/Qwen3-235B-A22B-FP8", "vllm"))
# Two rows that agree in these are one run, which two releases of the collection hold (or two names of one model)
SAME = ("backend", "system", "isl", "osl", "silicon_ttft_ms", "silicon_tpot_ms")


@dataclass(frozen=True, slots=True)
class Found:
    """One row: what was measured and simulated, in ms; or why it was not (``problem``)."""

    row: dict[str, Any]
    ttft_ms: float | None = None
    tpot_ms: float | None = None
    problem: str | None = None

    @property
    def errors(self) -> tuple[float, float]:
        """Relative errors of TTFT and TPOT."""
        assert self.ttft_ms is not None
        assert self.tpot_ms is not None
        row = self.row
        return self.ttft_ms / row["silicon_ttft_ms"] - 1.0, self.tpot_ms / row["silicon_tpot_ms"] - 1.0

    @property
    def group(self) -> tuple[str, str, str, str]:
        """GPU, precision, engine, and whether the model is dense."""
        row = self.row
        kind = "dense" if hf_model(row["model_path"]).experts is None else "mixture"
        return row["system"], _precision(row), row["backend"], kind


def read(data: Path) -> list[dict[str, Any]]:
    """Return all rows of the collection."""
    import polars as pl

    return pl.read_parquet(data / "silicon" / "serving_results.parquet").to_dicts()


def covered(rows: Iterable[dict[str, Any]]) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Return the rows that can be simulated, and how many of the others there are for which reason."""
    kept, left_out, seen = [], dict[str, int](), set()
    for row in rows:
        key = tuple(row[name] for name in SAME)
        twice = row["mode"] == "agg" and key in seen
        seen.add(key)
        reason = "exact duplicate of another row" if twice else why_not(row)
        if reason is None:
            kept.append(row)
        else:
            left_out[reason] = left_out.get(reason, 0) + 1
    return kept, left_out


def why_not(row: dict[str, Any]) -> str | None:
    """Return why a row is not simulated, or None."""
    if row["mode"] != "agg":
        return "prefill and decode apart"
    if row["model_path"] not in MODELS:
        return f"model not in the catalog: {row['model_path'].split('/')[-1]}"
    if row["system"] not in SYSTEMS:
        return f"system not in the catalog: {row['system']}"
    if "silicon_concurrency=" not in row["silicon_data_source"]:
        return "number of users not stated"
    if row["precision"] not in (None, "bf16", "fp8"):
        return f"precision not modelled: {row['precision']}"
    if (row["model_path"], row["backend"]) in BURSTS:
        return "burst, not steady state"
    devices = row["tp_size"] * _ranks(row)
    if devices > DEVICES_OF_A_NODE:
        return "more devices than a node has"
    if (row["moe_ep_size"] or 1) not in (1, devices):
        return "experts cut and spread at once"
    return None


def hf_model(path: str) -> Any:
    """Return the catalog's model."""
    return catalog_model(MODELS[path])


@cache
def catalog_model(name: str) -> Any:
    """Return the catalog's model of this name."""
    return hf.compose([f"model={name}"]).model


def simulate(row: dict[str, Any], vary: bool = True, edit: Edit | None = None) -> Found:
    """Simulate the row's benchmark from its first request to its last; without ``vary`` with lengths as stated."""
    try:
        described = config(row, vary)
        result = hf.simulate(hf.compile(described if edit is None else edit(described)))
    except HermesFlowError as error:
        return Found(row, problem=str(error).splitlines()[-1].strip("- "))
    requests = result.requests
    if requests["ttft_s"].null_count():
        return Found(row, problem="requests fail in the simulation")
    return Found(row, 1e3 * requests["ttft_s"].mean(), 1e3 * requests["tpot_s"].mean())


def config(row: dict[str, Any], vary: bool = True) -> hf.Config:
    """Return the configuration of the row's run."""
    ranks = _ranks(row)
    users = row["batch_size"] * ranks
    told = settings(row, users)
    base = _base(MODELS[row["model_path"]], row["system"], _precision(row), told.kv, told.sorts)
    pool = base.cluster.pools["llm"]
    assert isinstance(pool, LLMPool)
    assert isinstance(base.workload, SyntheticWorkload)
    pool = replace(
        pool,
        tensor_parallel=row["tp_size"],
        data_parallel=ranks,
        expert_parallel=(row["moe_ep_size"] or 1) > 1,
        batching=told.batching,
        max_num_seqs=max(1, told.sequences // ranks),
        max_num_batched_tokens=told.tokens,
    )
    pool = replace(pool, hardware=_engine_as(told, pool), memory_utilization=_memory(told, pool))
    workload = replace(
        base.workload,
        requests=users * REQUESTS_PER_USER,
        arrivals={"process": "closed_loop", "concurrency": users},
        input_tokens=_lengths(row["isl"], vary),
        output_tokens=_lengths(row["osl"], vary),
    )
    cluster = replace(base.cluster, pools=base.cluster.pools | {"llm": pool})
    return replace(base, cluster=cluster, workload=workload)


@cache
def _base(model: str, system: str, precision: str, kv: str, sorts: bool) -> hf.Config:
    narrow = {"weights": precision, "activations": precision, "kv_cache": kv}
    return hf.compose(
        [
            f"model={model}",
            *(f"model.precision.{name}={each}" for name, each in narrow.items()),
            f"hardware={system}",
            "pipeline=llm",
            "workload=closed_loop",
            *([] if sorts else ["model.sampling.sorted=false"]),
        ]
    )


def _engine_as(told: Settings, pool: LLMPool) -> Hardware:
    engine = pool.hardware.engine
    if not told.eager_attention or engine is None:
        return pool.hardware
    return replace(pool.hardware, engine=replace(engine, attention_launch=1.0))


def _memory(told: Settings, pool: LLMPool) -> float:
    """Return the fraction of the memory that weights and KV take."""
    if not told.of_free:
        return told.memory
    usable = pool.hardware.usable_gb or pool.hardware.memory_gb
    bytes_each = 1 if pool.model.precision.weights == "fp8" else 2
    reserved = sum(part.bytes for part in reserved_parts(pool)) / 1e9
    taken = pool.model.parameters_b * bytes_each / pool.devices + reserved
    return (taken + told.memory * max(0.0, usable - taken)) / usable


def _ranks(row: dict[str, Any]) -> int:
    return max(1, row["attention_dp_size"] or 1)


def _precision(row: dict[str, Any]) -> str:
    return row["precision"] or "bf16"


def _lengths(stated: int, vary: bool) -> dict[str, Any] | int:
    return {"distribution": "uniform", "min": int(SHORTEST * stated), "max": stated} if vary else stated


def mape(found: list[Found]) -> tuple[float, float]:
    """Return the mean sizes of the relative errors of TTFT and TPOT."""
    errors = np.abs([each.errors for each in found])
    ttft, tpot = errors.mean(axis=0)
    return float(ttft), float(tpot)
