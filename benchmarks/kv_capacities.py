"""Compares the KV capacities that servers reported with those that follow from the memory.

``python -m benchmarks.kv_capacities`` writes the table of docs/models.md. Where a configuration is not known as a
whole, its last column is the memory of a device that the server did not give to KV, which the unknown flags explain.
The configurations of vLLM on H100 are read from the measured runs (``--data``); without them their row stays.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import hermes_flow as hf
from hermes_flow.pools.llm.capacity import KVCapacity, kv_capacity
from hermes_flow.pools.llm.schema import LLMPool

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "models.md"
BEGIN, END = "<!-- KV capacities: python -m benchmarks.kv_capacities -->", "<!-- end of KV capacities -->"
POOL = "cluster.pools.llm"
GIB = 2**30
MODELS = {
    "meta-llama/Llama-2-7b-hf": "llama2_7b",
    "meta-llama/Llama-2-70b-hf": "llama2_70b",
    "meta-llama/Llama-3.1-70B-Instruct": "llama3_70b",
    "mistralai/Mixtral-8x7B-v0.1": "mixtral_8x7b",
    "mistralai/Mistral-Nemo-Instruct-2407": "mistral_nemo_12b",
    "codellama/CodeLlama-34b-Instruct-hf": "codellama_34b",
    "Qwen/Qwen2.5-7B-Instruct": "qwen2_5_7b",
    "01-ai/Yi-34B": "yi_34b",
}
FP8 = ("model.precision.weights=fp8", "model.precision.activations=fp8")


@dataclass(frozen=True, slots=True)
class Reported:
    """A capacity that a server reported, in tokens, and what is known of its flags."""

    what: str
    flags: str
    tokens: int
    overrides: tuple[str, ...]
    known: bool


REPORTED = (
    Reported(
        "Llama-3.1-8B, one RTX 4090, vLLM 0.19 (LLMServingSim)",
        "0.9 of the memory, 256 sequences, steps of 2,048 tokens",
        2_588 * 16,
        (
            "model=llama3_8b",
            "hardware=rtx4090",
            "engine.sorts_logits=false",
            f"{POOL}.max_num_seqs=256",
            f"{POOL}.max_num_batched_tokens=2048",
        ),
        True,
    ),
    Reported(
        "Llama-4-Scout, experts in fp8, two H100, vLLM 0.15",
        "0.9 of the memory, 128 sequences, steps of 2,048 tokens",
        8_253 * 16,
        (
            *("model=llama4_scout", "hardware=h100_sxm", *FP8, "model.precision.unquantized=[attention]"),
            *(f"{POOL}.tensor_parallel=2", f"{POOL}.max_num_seqs=128", f"{POOL}.max_num_batched_tokens=2048"),
        ),
        True,
    ),
    Reported(
        "Qwen3-235B-A22B-FP8, four H100, SGLang (vLLM issue 21348)",
        "0.93 of the memory",
        367_404,
        (
            *("model=qwen3_235b_a22b", "hardware=h100_sxm", "engine=sglang", *FP8),
            *(f"{POOL}.tensor_parallel=4", f"{POOL}.memory_utilization=0.93"),
        ),
        True,
    ),
    Reported(
        "gpt-oss-120b, one H200, vLLM (llm-d guides)",
        "0.9 of the memory; others not given: 1,024 sequences, steps of 8,192 tokens",
        1_630_790,
        ("model=gpt_oss_120b", "hardware=h200_sxm", "engine.server_limits=by_gpu"),
        True,
    ),
    Reported(
        "Qwen3-235B-A22B-FP8, four H100, vLLM of July 2025 (issue 21348)",
        "its server's: 0.9 of the memory, 1,024 sequences, steps of 8,192 tokens; NCCL from the share",
        178_880,
        (
            *("model=qwen3_235b_a22b", "hardware=h100_sxm", *FP8),
            *("engine.counts_nccl=true", "engine.compiles=false", "engine.server_limits=by_gpu"),
            f"{POOL}.tensor_parallel=4",
        ),
        True,
    ),
    Reported(
        "Llama-3.1-70B w8a8, one H100, vLLM (pull request 12569)",
        "0.98 of the memory, not compiled; others not given: steps of 8,192 tokens",
        1_381 * 16,
        (
            *("model=llama3_70b", "hardware=h100_sxm", "model.precision.weights=int8"),
            *(f"{POOL}.memory_utilization=0.98", "engine.compiles=false"),
        ),
        False,
    ),
)


def pool_of(overrides: tuple[str, ...]) -> LLMPool:
    """Return the LLM pool of a configuration."""
    pool = hf.compose(overrides).cluster.pools["llm"]
    assert isinstance(pool, LLMPool)
    return pool


def left_open(pool: LLMPool, capacity: KVCapacity, tokens: int) -> float:
    """Return the share of a device's memory that a server with so many tokens of KV did not use, as computed here."""
    missing = (capacity.tokens - tokens) / pool.block_size * capacity.block_bytes
    return missing / (1e9 * (pool.hardware.usable_gb or pool.hardware.memory_gb))


def rows() -> Iterator[str]:
    """Yield the rows of the table."""
    for each in REPORTED:
        pool = pool_of(each.overrides)
        capacity = kv_capacity(pool)
        error = capacity.tokens / each.tokens - 1
        share = left_open(pool, capacity, each.tokens)
        explained = "" if each.known else f"{100 * share:.1f} % of a device"
        yield (
            f"| {each.what} | {each.flags} | {each.tokens:,} | {capacity.tokens:,} | {100 * error:+.1f} % | "
            f"{explained} |"
        )


def h100_errors(data: Path) -> list[float]:
    """Return the relative errors of the KV blocks of the configurations of vLLM 0.15 on H100, one of each."""
    import polars as pl

    found: dict[tuple[str, int, int], float] = {}
    for place, devices, limit in (
        ("vllm_h100", "tensor_parallel", "max_num_batched_tokens"),
        ("vllm_h100_aggregate", "tp", "mbt"),
    ):
        for run in pl.read_csv(data / place / "runs.csv").iter_rows(named=True):
            if run["model"] not in MODELS:
                continue
            pool = pool_of(
                (
                    *(
                        f"model={MODELS[run['model']]}",
                        "hardware=h100_sxm",
                        f"{POOL}.tensor_parallel={run[devices]}",
                    ),
                    f"{POOL}.max_num_seqs={run['max_num_seqs']}",
                    f"{POOL}.max_num_batched_tokens={run[limit]}",
                )
            )
            key = (run["model"], run[devices], run[limit])
            found[key] = kv_capacity(pool).blocks / run["kv_blocks"] - 1
    return list(found.values())


def h100_row(data: Path) -> str:
    """Return the row on vLLM 0.15 on H100."""
    errors = [abs(error) for error in h100_errors(data)]
    mean, most = 100 * sum(errors) / len(errors), 100 * max(errors)
    return (
        f"| {len(errors)} configurations of eight models, H100, vLLM 0.15 | 0.9 of the memory, 128 sequences, "
        f"steps of 1,024 to 8,192 tokens, TP1 to TP4 | | | {mean:.1f} % on average, at most {most:.1f} % | |"
    )


def table(data: Path | None, page: str) -> str:
    """Return the table; without data its row on H100 is that of the page."""
    head = "| server | flags | tokens reported | tokens computed | error | memory left open |"
    if data is not None:
        measured = h100_row(data)
    else:
        measured = next(line for line in page.splitlines() if line.startswith("| 11 configurations"))
    return "\n".join((BEGIN, head, "|---|---|---|---|---|---|", measured, *rows(), END))


def with_table(page: str, data: Path | None) -> str:
    """Return the page with the table made anew."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + table(data, page) + after


def main() -> None:
    """Write the table into docs/models.md."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    options = parser.parse_args()
    data = options.data if options.data.is_dir() else None
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8"), data), encoding="utf-8")


if __name__ == "__main__":
    main()
