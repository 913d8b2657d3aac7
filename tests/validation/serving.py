"""Measured serving runs and their replays: traces as native workloads, and errors of the means."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

import hermes_flow as hf

BLOCK = 16
# The clients of the H100 runs send this many prompts in turn: lengths repeat with a lag of 100 rows.
DISTINCT_PROMPTS = 100
MODELS = {
    "01-ai/Yi-34B": "yi_34b",
    "Qwen/Qwen2.5-7B-Instruct": "qwen2_5_7b",
    "RedHatAI/Llama-4-Scout-17B-16E-Instruct-FP8-dynamic": "llama4_scout",
    "codellama/CodeLlama-34b-Instruct-hf": "codellama_34b",
    "meta-llama/Llama-2-70b-hf": "llama2_70b",
    "meta-llama/Llama-2-7b-hf": "llama2_7b",
    "meta-llama/Llama-3.1-70B-Instruct": "llama3_70b",
    "mistralai/Mistral-Nemo-Instruct-2407": "mistral_nemo_12b",
    "mistralai/Mixtral-8x7B-v0.1": "mixtral_8x7b",
}
FP8 = ("model.precision.weights=fp8", "model.precision.activations=fp8")
METRICS = ("e2e", "tpot", "ttft", "ttft_p99")


def prompts_in_turn(lengths: Iterable[int], shared_tokens: int, groups: int) -> list[list[int]]:
    """Block hashes of prompts that come round again; each begins with its group's system prompt."""
    hashes = []
    for row, tokens in enumerate(lengths):
        prompt, blocks = row % DISTINCT_PROMPTS, int(tokens) // BLOCK
        common = min(shared_tokens // BLOCK, blocks)
        system = [10**9 + prompt % groups * 1000 + block for block in range(common)]
        hashes.append(system + [prompt * 1000 + block for block in range(common, blocks)])
    return hashes


def own_prompts(lengths: Iterable[int]) -> list[list[int]]:
    """Block hashes of prompts of which no two begin alike."""
    return [[row * 10_000 + block for block in range(tokens // BLOCK)] for row, tokens in enumerate(lengths)]


def replay(
    path: Path,
    arrivals_us: Sequence[int],
    inputs: Sequence[int],
    outputs: Sequence[int],
    hashes: list[list[int]],
    overrides: Iterable[str],
) -> hf.Result:
    """Simulate requests on one client with a prefix cache; ``path`` is where their trace is written."""
    import polars as pl

    columns = {
        "arrival_us": np.asarray(arrivals_us).astype(np.int64),
        "input_tokens": np.asarray(inputs),
        "output_tokens": np.asarray(outputs),
        "prefix_hashes": pl.Series(hashes),
    }
    pl.DataFrame(columns).write_parquet(path)
    settings = (
        "pipeline=llm",
        "workload=trace",
        f"workload.path={path}",
        f"workload.prefix_block_tokens={BLOCK}",
        "cluster.pools.llm.prefix_cache=true",
        f"cluster.pools.llm.block_size={BLOCK}",
    )
    return hf.simulate(hf.compile(hf.compose([*settings, *overrides])))


def on_h100(model: str, devices: int, sequences: int, tokens: int, blocks: int) -> list[str]:
    """Overrides for one of the H100 runs: published model name, tensor parallelism and engine limits."""
    pool = "cluster.pools.llm"
    return [
        f"model={MODELS[model]}",
        *(FP8 if "FP8" in model else ()),
        "hardware=h100_sxm",
        f"{pool}.tensor_parallel={devices}",
        f"{pool}.max_num_seqs={sequences}",
        f"{pool}.max_num_batched_tokens={tokens}",
        f"{pool}.kv_blocks={blocks}",
    ]


def simulated(result: hf.Result) -> dict[str, float]:
    """Means in ms, and the 99th percentile of TTFT."""
    ours = result.requests
    return {
        "e2e": 1e3 * ours["e2e_s"].mean(),
        "tpot": 1e3 * ours["tpot_s"].mean(),
        "ttft": 1e3 * ours["ttft_s"].mean(),
        "ttft_p99": 1e3 * float(np.quantile(ours["ttft_s"].to_numpy(), 0.99)),
    }


def errors(found: dict[str, float], measured: dict[str, float]) -> dict[str, float]:
    return {name: found[name] / measured[name] - 1.0 for name in METRICS}


def table(rows: dict[str, dict[str, float]]) -> str:
    """The errors in percent, a line a run, and the mean of their sizes."""
    lines = ["", "relative error, % (simulated − measured): means, and p99 of TTFT"]
    for name, row in rows.items():
        lines.append(f"  {name:<34} " + "  ".join(f"{each} {100 * row[each]:+6.1f}" for each in METRICS))
    mean = mean_sizes(rows)
    lines.append(f"  {'mean size':<34} " + "  ".join(f"{each} {100 * mean[each]:6.1f}" for each in METRICS))
    return "\n".join(lines)


def mean_sizes(rows: dict[str, dict[str, float]]) -> dict[str, float]:
    return {each: sum(abs(row[each]) for row in rows.values()) / len(rows) for each in METRICS}
