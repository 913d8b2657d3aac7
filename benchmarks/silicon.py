"""One mean TTFT and TPOT of each of 1,800 benchmark runs of vLLM, SGLang and TensorRT-LLM, and their simulation.

The rows are AIConfigurator's collection (Apache-2.0). Most were published by InferenceMAX, whose scripts say how they
were measured: so many users at once, ten requests each, prompts and answers of 80 to 100 % of the stated length, no
prefix cache. How the others were measured is not recorded; they are simulated in the same way.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

import hermes_flow as hf
from benchmarks.silicon_checkpoints import CHECKPOINTS, Checkpoint, checkpoint
from benchmarks.silicon_drafting import UNDRAFTED, may_draft
from benchmarks.silicon_engines import (
    with_cutlass,
    with_flashinfer,
    with_scheduler,
    with_triton,
    with_two_stages,
)
from benchmarks.silicon_gpus import devices_of_a_node
from benchmarks.silicon_layouts import INFERENCEMAX as INFERENCEMAX
from benchmarks.silicon_layouts import layout, users
from benchmarks.silicon_settings import Settings, measured, settings
from benchmarks.silicon_tokenizers import with_tokenizer
from hermes_flow.config.schema import Hardware, SyntheticWorkload
from hermes_flow.errors import HermesFlowError
from hermes_flow.pools.llm.capacity import kv_capacity
from hermes_flow.pools.llm.schema import LLMPool
from hermes_flow.validation.replay import Edit

SYSTEMS = ("a100_sxm", "b200_sxm", "b300_sxm", "gb200", "h100_sxm", "h200_sxm")
SHORTEST = 0.8  # of the stated lengths
# Bursts, not steady state (data/README.md): every request of the run arrives at once
BURSTS = (("nvidia/Llama-3.1-8B-Instruct-FP8", "vllm"), ("Qwen/Qwen3-235B-A22B-FP8", "vllm"))
# Six runs of December 2025 with times to first token of up to minutes; most of their answers must have been cut short
CONTRADICTS = ("openai/gpt-oss-120b", "h100_sxm", "vllm", 512)
# Before this day nothing warmed up InferenceMAX's servers (InferenceX, pull request 480, opened on 17 January 2026
# and to be merged ten days later). FlashInfer's kernels that are compiled at first use take two minutes
# (vllm-project/vllm, issue 47456). The first requests to other servers on B200 that were not warmed up waited 40 to
# 58 s, and later ones 1 s (aws-samples/aws-do-eks, pull request 88). A script of its own ran GLM-5 on H200 without a
# warm-up later; its runs show no such wait
WARMED_UP_SINCE = "2026-01-27"
COLD = "first users waited while SGLang compiled kernels"


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
        kind = "dense" if catalog_model(model_of(row)).experts is None else "mixture"
        return row["system"], row["precision"] or "bf16", row["backend"], kind


def read(data: Path) -> list[dict[str, Any]]:
    """Return all rows of the collection."""
    import polars as pl

    return pl.read_parquet(data / "silicon" / "serving_results.parquet").to_dicts()


def covered(rows: Sequence[dict[str, Any]]) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Return the rows that can be simulated, and how many of the others there are for which reason."""
    kept, left_out = [], dict[str, int]()
    for row, reason in _judged(rows):
        if reason is None:
            kept.append(row)
        else:
            left_out[reason] = left_out.get(reason, 0) + 1
    return kept, left_out


def cold(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows that are left out only because their servers were not warmed up."""
    return [row for row, reason in _judged(rows) if reason == COLD]


def _judged(rows: Sequence[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], str | None]]:
    """Yield each row, and why it is not compared, or None."""
    seen = set()
    undrafted = {same_run(row) for row in rows if str(row["silicon_data_source"]).startswith(UNDRAFTED)}
    for row in rows:
        key = same_run(row)
        if row["mode"] == "agg" and key in seen:
            yield row, "exact duplicate of another row"
        elif key not in undrafted and may_draft(row):
            yield row, "tokens drafted, acceptance not recorded"
        else:
            yield row, why_not(row)
        seen.add(key)


def same_run(row: dict[str, Any]) -> tuple[Any, ...]:
    """Return what two rows agree in that are one run, which two releases have, or two names of one model."""
    setting = tuple(row[name] for name in ("backend", "system", "isl", "osl"))
    return (*setting, round(row["silicon_ttft_ms"], 2), round(row["silicon_tpot_ms"], 3))


def why_not(row: dict[str, Any]) -> str | None:
    """Return why a row is not simulated, or None."""
    if row["mode"] != "agg":
        return "prefill and decode apart"
    path, system = row["model_path"], row["system"]
    if path not in {name for name, _ in CHECKPOINTS}:
        return f"model not in the catalog: {path.split('/')[-1]}"
    if system not in SYSTEMS:
        return f"system not in the catalog: {system}"
    if checkpoint(row) is None:
        return f"layout of the {row['precision']} checkpoint not known: {path.split('/')[-1]}"
    if users(row) is None:
        return "number of users not stated"
    if (path, system, row["backend"], users(row)) == CONTRADICTS:
        return "time per token of 512 users as short as that of 8"
    if (path, row["backend"]) in BURSTS:
        return "burst, not steady state"
    found = layout(row)
    if users(row) != row["batch_size"] * max(1, row["attention_dp_size"] or 1) and not is_recorded(row):
        return "number of users does not fit the layout"
    # InferenceMAX ran nothing else on it in 2025, as 4 + 32 devices
    if system == "gb200" and is_recorded(row):
        return "prefill and decode apart, with the devices of both in one number"
    if found.devices > devices_of_a_node(system):
        return "more devices than a node has"
    if not found.spread_alone:
        return "experts cut and spread at once"
    return COLD if is_cold(row) else None


def is_recorded(row: dict[str, Any]) -> bool:
    """Return whether the way in which a row was measured is published."""
    return str(row["silicon_data_source"]).startswith(INFERENCEMAX)


def is_cold(row: dict[str, Any]) -> bool:
    """Return whether a row is of SGLang, which compiles kernels at first use, on a server that was not warmed up."""
    return row["backend"] == "sglang" and is_recorded(row) and measured(row) < WARMED_UP_SINCE


def model_of(row: dict[str, Any]) -> str:
    """Return the name of the catalog's model of a row that is compared."""
    found = checkpoint(row)
    assert found is not None
    return found.model


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
    placed, load, what = layout(row), users(row), checkpoint(row)
    assert load is not None
    assert what is not None
    told = settings(row, load)
    base = _base(what, row["system"], told)
    pool = base.cluster.pools["llm"]
    assert isinstance(pool, LLMPool)
    assert isinstance(base.workload, SyntheticWorkload)
    pool = replace(
        pool,
        tensor_parallel=placed.tensor,
        data_parallel=placed.data,
        expert_parallel=told.whole_experts or placed.spread > 1,
        batching=told.batching,
        max_num_seqs=max(1, told.sequences // placed.data),
        max_num_batched_tokens=told.tokens,
    )
    pool = with_scheduler(pool, row, told, load)
    prompt = told.read_anew * row["isl"]
    pool = replace(pool, hardware=_engine_as(told, pool), memory_utilization=_memory(told, pool))
    workload = replace(
        base.workload,
        requests=load * told.requests_per_user,
        arrivals={"process": "closed_loop", "concurrency": load},
        input_tokens=_lengths(prompt, vary),
        output_tokens=_lengths(row["osl"], vary),
    )
    cluster = replace(base.cluster, pools=base.cluster.pools | {"llm": pool})
    return with_tokenizer(replace(base, cluster=cluster, workload=workload), told)


def _base(what: Checkpoint, system: str, told: Settings) -> hf.Config:
    overrides = [
        f"model={what.model}",
        *(f"model.precision.{name}" for name in what.precision_on(system)),
        f"model.precision.kv_cache={told.kv}",
        f"hardware={system}",
        *([] if told.sorts else ["engine.sorts_logits=false"]),
        *(["model.sampling.sorted=false"] if told.greedy or not told.sorts else []),
        *([] if told.router is None else [f"model.experts.router_precision={told.router}"]),
        *([] if told.states is None else [f"model.mixers.gated_delta_net.state_precision={told.states}"]),
        *([] if told.kernels == "default" else [f"model.experts.kernels={told.kernels}"]),
    ]
    return _composed(tuple(overrides))


@cache
def _composed(overrides: tuple[str, ...]) -> hf.Config:
    return hf.compose([*overrides, "pipeline=llm", "workload=closed_loop"])


def _engine_as(told: Settings, pool: LLMPool) -> Hardware:
    engine = pool.hardware.engine
    if engine is None:
        return pool.hardware
    if engine.kernel_gap_us and engine.layer_us is not None:
        engine = replace(engine, dependent_launches=told.dependent_launches)
    if told.eager_attention:
        engine = replace(engine, attention_launch=1.0)
    if told.captured is not None and engine.eager is not None:
        eager = replace(engine.eager, above_tokens=told.captured, above_per_sequence=told.captured)
        engine = replace(engine, eager=eager)
    hardware = replace(pool.hardware, engine=engine)
    if told.triton:
        hardware = with_triton(hardware)
    if told.cutlass:
        hardware = with_cutlass(hardware)
    if told.two_stages:
        hardware = with_two_stages(hardware)
    return with_flashinfer(hardware) if told.flashinfer else hardware


def _memory(told: Settings, pool: LLMPool) -> float:
    """Return the fraction of the memory that weights and KV take."""
    if not told.of_free or pool.engine.scheduler == "tensorrt_llm":  # it takes its share of what is free
        return told.memory
    usable, held = pool.hardware.usable_gb or pool.hardware.memory_gb, kv_capacity(pool)
    taken = (held.weight_bytes + held.reserved_bytes) / 1e9
    return (taken + told.memory * max(0.0, usable - taken)) / usable


def _lengths(stated: float, vary: bool) -> dict[str, Any] | int:
    longest = round(stated)
    return {"distribution": "uniform", "min": int(SHORTEST * stated), "max": longest} if vary else longest


def mape(found: list[Found]) -> tuple[float, float]:
    """Return the mean sizes of the relative errors of TTFT and TPOT."""
    errors = np.abs([each.errors for each in found])
    ttft, tpot = errors.mean(axis=0)
    return float(ttft), float(tpot)
