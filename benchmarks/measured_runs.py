"""The measured runs kept beside the repository, as run descriptions for ``hermes-flow validate``.

``python -m benchmarks.measured_runs FOLDER [--data DATA]`` writes them all; ``hermes-flow validate task.runs=FOLDER``
then replays them. What is not recorded and has to be assumed of each run stands in this file.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.processes import ROOT
from benchmarks.silicon_apart_settings import VLLM_PAIR
from hermes_flow.workload.arrivals.poisson_fixed_count import PoissonFixedCount

BLOCK = 16
# The load generator of the H100 runs (inference-perf) sends this many prompts in turn: lengths repeat with a lag of
# 100 rows.
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
    "Qwen/Qwen3-14B": "qwen3_14b",
    "meta-llama/Llama-3.1-8B-Instruct": "llama3_8b",
    "mistralai/Mixtral-8x22B-Instruct-v0.1": "mixtral_8x22b",
}
GPUS = {"H100": "h100_sxm", "A100-SXM-80GB": "a100_sxm", "L40S": "l40s"}
FP8 = ("model.precision.weights=fp8", "model.precision.activations=fp8")
# The only checkpoint in fp8 is Llama 4 Scout's. Its maker's recipes for this model leave attention in 16 bits, and
# the KV blocks of its server agree with that (benchmarks/kv_capacities.py).
KEPT = "model.precision.unquantized=[attention]"
POOL = "cluster.pools.llm"
CACHING = ("pipeline=llm", f"{POOL}.prefix_cache=true", f"{POOL}.block_size={BLOCK}")
# Ten beginnings with ten questions each, which are the load generator's defaults: it did not know the names of these
# keys in the description of the runs, as the configuration beside its results says (inference-sim/training).
BEGINNINGS = 10
# Arrivals of the aggregate runs are drawn this often. The median then stands for the one run that was measured.
DRAWS = 9
# A stage begins when the last answer of the stage before is there and the load generator has noticed (each second),
# waited (1 s) and filled its queue (1 s): 2.5 s on average, and 2.5 to 2.8 s in the runs that are known.
BETWEEN_STAGES_S = 2.5
# Prompts are longer than asked for, because the load generator writes random tokens as text, which a tokenizer
# counts anew. Llama 2, CodeLlama and Mixtral: as the runs show that are known request by request. Others: 150 such
# texts, counted with the tokenizers in the packages llama-models 0.3.0, mistral-common 1.13.1 and dashscope 2.0.2.
# They say 1.042 for Mixtral, as its runs do. Yi's tokenizer was not at hand and has the mean.
COUNTED_MORE = {
    "01-ai/Yi-34B": 1.045,
    "Qwen/Qwen2.5-7B-Instruct": 1.054,
    "Qwen/Qwen3-14B": 1.054,
    "RedHatAI/Llama-4-Scout-17B-16E-Instruct-FP8-dynamic": 1.037,
    "codellama/CodeLlama-34b-Instruct-hf": 1.049,
    "meta-llama/Llama-2-7b-hf": 1.048,
    "meta-llama/Llama-3.1-70B-Instruct": 1.047,
    "meta-llama/Llama-3.1-8B-Instruct": 1.047,
    "mistralai/Mistral-Nemo-Instruct-2407": 1.036,
    "mistralai/Mixtral-8x22B-Instruct-v0.1": 1.042,
    "mistralai/Mixtral-8x7B-v0.1": 1.042,
}
# One figure is fitted to the RTX runs: on the host of the RTX PRO 6000s a step takes 1 ms more than its layers.
LATER = "engine.sorts_logits=false"  # vLLM 0.19
SATURATED = (LATER, f"{POOL}.max_num_seqs=256")  # its 2,588 KV blocks follow from the memory within 1 %
HOST_STEP = (LATER, f"{POOL}.max_num_seqs=128", "cost.step_us=1000")
RTX = {
    "rtx4090_llama-3.1-8b_tp1": ("model=llama3_8b", "hardware=rtx4090", *SATURATED),
    "rtxpro6000_llama-3.1-8b_tp1": ("model=llama3_8b", "hardware=rtx_pro_6000", *HOST_STEP),
    "rtxpro6000_qwen3-32b_tp2": (
        "model=qwen3_32b",
        "hardware=rtx_pro_6000",
        f"{POOL}.tensor_parallel=2",
        *HOST_STEP,
    ),
}
# Whole-run figures of one workload on three layouts, by layout: output tokens per second, and means of TTFT and
# TPOT in ms. source: the rows "vLLM" of SD_latency.tsv, MD_latency.tsv and PDD_latency.tsv
# (casys-kaist/LLMServingSim, branch ispass26-artifact, evaluation/artifacts/figure_8/reference and
# evaluation/figure_8/reference); its configurations say that SD has one client of four H100, MD two of them
# that take turns, and PDD one that prefills and one that decodes. Generated tokens per second agree: the last
# one of PDD comes after 46 s, as 83,334 tokens at 1,800.95 a second say. (Until November 2026 the figures of
# one client stood here for PDD, and those of two for one client.) The settings of these runs are not recorded.
# Five logs of vLLM in the same repository, of other GPUs and models, are of 11 to 13 December 2025: releases
# 0.11.1 and 0.13.0rc2, in none of which async scheduling was on by default or by a flag. vLLM looks ahead by
# default since 0.14 of January 2026, and with a KV connector it could not before (vllm-project/vllm, pull
# request 27647). Four of the logs were read, and all have enforce_eager=True. These runs had it, too: where one
# or two sequences are left, a token takes 20.0 ms with Llama-3.1-70B, and 20.0 ms with Mixtral-8x7B on the same
# four H100 (the last rows of MD_throughput.tsv and SM_throughput.tsv of figure_5), of whose weights a step of
# one sequence reads a fifth as much. So the host launches each kernel. Of these 20.0 ms, 1.2 ms are those of
# the plan and 0.3 ms the sampler's, and the rest are 231 µs for each of 80 layers.
PAIR = ("prefill", "decode")
LAUNCHED = tuple(
    f"hardware.engine.eager.{setting}" for setting in ("above_tokens=0", "layer_us=231", "gap_us=0")
)
APART = (
    "cluster=disaggregated",
    *VLLM_PAIR,
    *(f"cluster.pools.{pool}.tensor_parallel=4" for pool in PAIR),
    *LAUNCHED,
)
APART += tuple(f"cluster.pools.{pool}.lookahead=0" for pool in PAIR)
TOGETHER = (f"{POOL}.tensor_parallel=4", f"{POOL}.lookahead=0", *LAUNCHED)
LAYOUTS = {
    "Llama-3.1-70B on H100: prefill TP4 + decode TP4": (APART, (1800.95, 128.91, 28.12)),
    "Llama-3.1-70B on H100: one TP4": (TOGETHER, (1833.89, 61.5, 26.72)),
    "Llama-3.1-70B on H100: two TP4": ((*TOGETHER, f"{POOL}.count=2"), (1858.47, 50.33, 22.665)),
}


def main() -> None:
    """Write the descriptions of all runs."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    options = parser.parse_args()
    for write in (per_request, aggregate, more, rtx, disaggregated):
        for path in write(options.data, options.folder):
            print(path)


def per_request(data: Path, folder: Path) -> list[Path]:
    """Write the eight runs of vLLM 0.15 on H100 that are known request by request."""
    import polars as pl

    written = []
    for run in pl.read_csv(data / "vllm_h100" / "runs.csv").iter_rows(named=True):
        measured = pl.read_parquet(data / "vllm_h100" / run["file"]).sort("arrival_us")
        hashes = prompts_in_turn(measured["input_tokens"], run["shared_prefix_tokens"])
        name = run["file"].removesuffix(".parquet")
        columns = ["arrival_us", "input_tokens", "output_tokens", "ttft_us", "e2e_us"]
        limits = [
            run[key] for key in ("tensor_parallel", "max_num_seqs", "max_num_batched_tokens", "kv_blocks")
        ]
        table = measured.select(columns).with_columns(prefix_hashes=pl.Series(hashes))
        written.append(
            _write(
                folder / f"vllm_h100_{name}.yaml",
                name=f"{run['model'].split('/')[1]} on {limits[0]} H100, {name.rpartition('-')[2]}",
                overrides=on_h100(run["model"], *limits),
                requests=_table(table, folder / f"vllm_h100_{name}.parquet"),
            )
        )
    return written


def aggregate(data: Path, folder: Path, draws: int = DRAWS) -> list[Path]:
    """Write the twelve runs of vLLM 0.15 on H100 of which there are only statistics, with BLIS's predictions."""
    import polars as pl

    written = []
    for run in pl.read_csv(data / "vllm_h100_aggregate" / "runs.csv").iter_rows(named=True):
        name = f"vllm_h100_aggregate_{run['id']}"
        traces = [_drawn(run, draw, folder / f"{name}_{draw}.parquet") for draw in range(draws)]
        limits = [run[key] for key in ("tp", "max_num_seqs", "mbt", "kv_blocks")]
        real = {
            metric: {each: run[f"real_all_{metric}_{each}_ms"] for each in ("mean", "p90", "p99")}
            for metric in ("ttft", "e2e")
        }
        gaps = run["output_len"] - 1
        statistics = {f"{metric}_ms": figures for metric, figures in real.items()}
        statistics["tpot_ms"] = {"mean": (real["e2e"]["mean"] - real["ttft"]["mean"]) / gaps}
        statistics["itl_ms"] = {"mean": run["real_all_itl_mean_ms"]}
        others = {
            f"blis_{kind}": {
                "statistics": {
                    f"{metric}_ms": {"mean": run[f"blis_{kind}_{metric}_mean_ms"]}
                    for metric in ("ttft", "itl", "e2e")
                }
            }
            for kind in ("trained", "roofline")
        }
        written.append(
            _write(
                folder / f"{name}.yaml",
                name=f"{run['model'].split('/')[1]} on {run['tp']} H100 ({run['id']})",
                overrides=on_h100(run["model"], *limits),
                traces=traces,
                statistics=statistics,
                predictions=others,
            )
        )
    return written


def more(data: Path, folder: Path, draws: int = DRAWS) -> list[Path]:
    """Write ten more runs of vLLM 0.15: other GPUs, other models, eight devices, and a reasoning load."""
    import polars as pl

    written = []
    for run in pl.read_csv(data / "vllm_more_aggregate" / "runs.csv").iter_rows(named=True):
        name = f"vllm_more_aggregate_{run['id']}"
        traces = [_drawn(run, draw, folder / f"{name}_{draw}.parquet") for draw in range(draws)]
        ttft = {each: run[f"real_ttft_{each}_ms"] for each in ("mean", "p90", "p99")}
        e2e = {each: run[f"real_e2e_{each}_ms"] for each in ("mean", "p99")}
        tpot = {"mean": (e2e["mean"] - ttft["mean"]) / (run["output_len"] - 1)}
        theirs = {
            f"{each}_ms": {"mean": run[f"blis_trained_{each}_mean_ms"]} for each in ("ttft", "itl", "e2e")
        }
        written.append(
            _write(
                folder / f"{name}.yaml",
                name=f"{run['model'].split('/')[1]} on {run['tp']} {run['gpu'].split('-')[0]} ({run['id']})",
                overrides=[
                    *CACHING,
                    f"model={MODELS[run['model']]}",
                    f"hardware={GPUS[run['gpu']]}",
                    f"{POOL}.tensor_parallel={run['tp']}",
                    *(f"{POOL}.{key}={run[key]}" for key in ("max_num_seqs", "max_num_batched_tokens")),
                    f"{POOL}.memory_utilization={run['memory_utilization']}",
                ],
                traces=traces,
                statistics={"ttft_ms": ttft, "e2e_ms": e2e, "tpot_ms": tpot},
                predictions={"blis_trained": {"statistics": theirs}},
            )
        )
    return written


def rtx(data: Path, folder: Path) -> list[Path]:
    """Write three runs of vLLM 0.19 on RTX GPUs, from tables of their layers, with LLMServingSim's predictions.

    Tables, runs and predictions are LLMServingSim's (MIT). Latencies count from the arrival at the client.
    """
    import polars as pl

    written = []
    for name, overrides in RTX.items():
        measured = pl.read_parquet(data / "vllm_rtx" / f"{name}.parquet")
        table = measured.select(
            "arrival_us",
            "input_tokens",
            "output_tokens",
            ttft_us=pl.col("first_token_us") - pl.col("arrival_us"),
            e2e_us=pl.col("last_token_us") - pl.col("arrival_us"),
        ).with_columns(prefix_hashes=pl.Series(own_prompts(measured["input_tokens"])))
        predicted = pl.read_parquet(data / "vllm_rtx" / f"{name}.llmservingsim.parquet")
        if not predicted["index"].equals(measured["index"]):
            raise ValueError(f"{name}: the predictions are of other requests, or in another order")
        theirs = predicted.select("ttft_ns", e2e_ns="latency_ns")
        tables = data / "kernels_rtx" / name
        written.append(
            _write(
                folder / f"vllm_rtx_{name}.yaml",
                name=name,
                overrides=[
                    *("cost=kernels", "cost.ingest_ms=1", f"cost.path={tables.resolve()}", *CACHING),
                    f"{POOL}.max_num_batched_tokens=2048",
                    *overrides,
                ],
                requests=_table(table, folder / f"vllm_rtx_{name}.parquet"),
                predictions={
                    "llmservingsim": {
                        "requests": _table(theirs, folder / f"vllm_rtx_{name}_llmservingsim.parquet")
                    }
                },
            )
        )
    return written


def disaggregated(data: Path, folder: Path) -> list[Path]:
    """Write the layouts of Llama-3.1-70B on eight and on four H100, known by three figures each."""
    import polars as pl

    workload = pl.read_parquet(data / "vllm_h100_pd" / "workload.parquet")
    trace = _table(workload, folder / "vllm_h100_pd.parquet")
    written = []
    for index, (name, (overrides, (tokens_per_s, ttft_ms, tpot_ms))) in enumerate(LAYOUTS.items()):
        written.append(
            _write(
                folder / f"vllm_h100_pd_{index}.yaml",
                name=name,
                overrides=["pipeline=llm", "model=llama3_70b", "hardware=h100_sxm", *overrides],
                traces=[trace],
                statistics={
                    "ttft_ms": {"mean": ttft_ms},
                    "tpot_ms": {"mean": tpot_ms},
                    "output_tokens_per_s": tokens_per_s,
                },
            )
        )
    return written


def on_h100(model: str, devices: int, sequences: int, tokens: int, blocks: int) -> list[str]:
    """Return the overrides of one of the H100 runs: published model name, tensor parallelism and engine limits."""
    return [
        *CACHING,
        f"model={MODELS[model]}",
        *((*FP8, KEPT) if "FP8" in model else ()),
        "hardware=h100_sxm",
        f"{POOL}.tensor_parallel={devices}",
        f"{POOL}.max_num_seqs={sequences}",
        f"{POOL}.max_num_batched_tokens={tokens}",
        f"{POOL}.kv_blocks={blocks}",
    ]


def prompts_in_turn(lengths: Iterable[int], shared_tokens: int) -> list[list[int]]:
    """Return block hashes of prompts that come round again; each begins with its group's system prompt.

    The load generator shuffles the prompts once; here the groups take turns.
    """
    hashes = []
    for row, tokens in enumerate(lengths):
        prompt, blocks = row % DISTINCT_PROMPTS, int(tokens) // BLOCK
        common = min(shared_tokens // BLOCK, blocks)
        system = [10**9 + prompt % BEGINNINGS * 1000 + block for block in range(common)]
        hashes.append(system + [prompt * 1000 + block for block in range(common, blocks)])
    return hashes


def own_prompts(lengths: Iterable[int]) -> list[list[int]]:
    """Return block hashes of prompts of which no two begin alike."""
    return [[row * 10_000 + block for block in range(tokens // BLOCK)] for row, tokens in enumerate(lengths)]


def drawn_workload(run: dict[str, Any], seed: int) -> tuple[list[int], list[int]]:
    """Return arrivals in µs, as inference-perf draws its stages, and the lengths of the prompts sent in turn.

    A stage begins when the last answer of the stage before is there, of which the measured mean is known.
    """
    draw = np.random.default_rng((run["id"], seed))
    arrivals, start = [], 0.0
    for number, stage in enumerate(run["stages"].split(";")):
        rate, seconds = (float(part) for part in stage.removesuffix("s").split("rps x "))
        arrivals += (start + PoissonFixedCount().instants_within_s(seconds, rate, draw)).tolist()
        start += seconds + run[f"real_stage{number}_e2e_mean_ms"] / 1e3 + BETWEEN_STAGES_S
    asked = run["system_prompt_len"] + run["question_len"]
    mean = round(asked * COUNTED_MORE[run["model"]])
    lengths = np.clip(np.rint(draw.normal(mean, 6, DISTINCT_PROMPTS)), 1, None).astype(int)
    turns = np.arange(len(arrivals)) % DISTINCT_PROMPTS
    return [round(at * 1e6) for at in arrivals], lengths[turns].tolist()


def _drawn(run: dict[str, Any], draw: int, path: Path) -> str:
    """Write one draw of a run's requests as a trace; return its name."""
    import polars as pl

    arrivals_us, lengths = drawn_workload(run, draw)
    columns = {
        "arrival_us": arrivals_us,
        "input_tokens": lengths,
        "output_tokens": [run["output_len"]] * len(lengths),
        "prefix_hashes": prompts_in_turn(lengths, run["system_prompt_len"]),
    }
    return _table(pl.DataFrame(columns), path)


def _table(frame: Any, path: Path) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    frame.write_parquet(path)
    return path.name


def _write(path: Path, *, overrides: Sequence[str], **keys: Any) -> Path:
    import yaml

    path.parent.mkdir(parents=True, exist_ok=True)
    text = yaml.safe_dump(
        {**keys, "overrides": list(overrides)}, sort_keys=False, allow_unicode=True, width=110
    )
    path.write_text(text, encoding="utf-8")
    return path


if __name__ == "__main__":
    main()
