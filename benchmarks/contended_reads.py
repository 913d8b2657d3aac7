"""Measures how KV reads that share memories cost as their number grows: python -m benchmarks.contended_reads.

The set-ups are options A, B and C of the study of KV storage (HERMES, arXiv 2504.09775): 128 stores beside 128 LLM
clients, with a memory for each store, for 4 stores or for 32 stores. In option C the memories are asked for far more
than they can give, so most of the reads are under way at the same time.
"""

from __future__ import annotations

import json
import sys
from statistics import median

from benchmarks.processes import run_module

READS = (1750, 3500, 7000)
STORES_PER_MEMORY = {"A": 1, "B": 4, "C": 32}
RUNS = 3
SETTINGS = (
    "pipeline=kv_reuse",
    "cluster=kv_tiers",
    "model=llama3_70b",
    "hardware=h100_sxm",
    "cluster.pools.llm.count=128",
    "cluster.pools.llm.tensor_parallel=2",
    "cluster.pools.store.count=128",
    "cluster.pools.store.beside=llm",
    "workload=azure_conv",
    "workload.drift=[]",
    "workload.rate_per_s=240",
    # Every read streams its context from a memory of 2 GB/s.
    "pipeline.stages.recall.contexts=null",
    "pipeline.stages.recall.skew=0",
    "pipeline.stages.recall.hits={rack: 1.0}",
)


def main() -> None:
    """Print the CPU seconds of simulate() for every set-up and number of reads, as medians over fresh processes."""
    print(
        "| option | stores that share a memory | " + " | ".join(f"{reads:,} reads" for reads in READS) + " |"
    )
    print("|---|---|" + "---|" * len(READS))
    for option, shared in STORES_PER_MEMORY.items():
        seconds = [f"{_simulate_s(shared, reads):.2f} s" for reads in READS]
        print(f"| {option} | {shared} | {' | '.join(seconds)} |", flush=True)


def _simulate_s(shared: int, reads: int) -> float:
    overrides = (f"cluster.pools.store.tiers.rack.shared_by={shared}", f"workload.requests={reads}")
    runs = [run_module("benchmarks.one_run", *SETTINGS, *overrides) for _ in range(RUNS)]
    return median(json.loads(run.output)["simulate_s"] for run in runs)


if __name__ == "__main__":
    sys.exit(main())
