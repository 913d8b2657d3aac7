"""Measures what a prefix cache costs for each request: ``python -m benchmarks.found_prefixes [--data FOLDER]``.

The cases are the conversation trace of Mooncake in blocks of 16 and of 512 tokens, sessions, branches and loops of
many turns. Beside each stands the same run without the prefix cache, as far as the pipeline allows that.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import median

from benchmarks.processes import ROOT, run_module

DATA = ROOT.parent / "shared" / "data" / "mooncake" / "conversation_trace.jsonl"
ROOMY = ("model=llama3_70b", "cluster.pools.llm.tensor_parallel=4", "cluster.pools.llm.count=8")
CASES: dict[str, tuple[str, ...]] = {
    "Mooncake conversations, blocks of 16": ("pipeline=llm", "workload=trace", *ROOMY),
    "Mooncake conversations, blocks of 512": (
        "pipeline=llm",
        "workload=trace",
        *ROOMY,
        "cluster.pools.llm.block_size=512",
    ),
    "sessions of 16 turns": (
        "pipeline=llm",
        "workload=sessions",
        "workload.sessions=1000",
        "workload.turns=16",
        "cluster.pools.llm.count=8",
    ),
    "8 branches": (
        "pipeline=reasoning_multi",
        "workload=synthetic",
        "workload.requests=2000",
        "workload.rate_per_s=2",
    ),
    "agents": ("pipeline=agent", "workload=synthetic", "workload.requests=5000", "workload.rate_per_s=4"),
    "agents of 256 turns": (
        "pipeline=agent",
        "pipeline.loops.turns.times=256",
        "workload=synthetic",
        "workload.requests=20",
        "workload.input_tokens=200",
        "workload.output_tokens=20",
    ),
}


def main() -> None:
    """Print the microseconds of CPU time that simulate() takes for each request, as medians over fresh processes."""
    options = _options()
    print("| case | requests | with prefix cache | without |\n|---|---|---|---|")
    for name, overrides in CASES.items():
        if options.only not in name:
            continue
        if "workload=trace" in overrides:
            overrides = (*overrides, f"workload.path={options.data}")
        found = [_cost(overrides, cached, options.runs) for cached in (True, False)]
        requests = next(run[0] for run in found if run is not None)
        costs = ["" if run is None else f"{run[1]:,.0f} µs" for run in found]
        print(f"| {name} | {requests:,} | {' | '.join(costs)} |", flush=True)


def _cost(overrides: tuple[str, ...], cached: bool, runs: int) -> tuple[int, float] | None:
    """Return the number of requests and the µs of each, or None where the pipeline needs a prefix cache."""
    if not cached and "pipeline=reasoning_multi" in overrides:
        return None
    setting = f"cluster.pools.llm.prefix_cache={str(cached).lower()}"
    ended = [json.loads(run_module("benchmarks.one_run", *overrides, setting).output) for _ in range(runs)]
    requests = ended[0]["requests"]
    return requests, median(run["simulate_s"] for run in ended) / requests * 1e6


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.found_prefixes", description=__doc__)
    parser.add_argument("--data", type=Path, default=DATA, help="Mooncake's conversation trace (JSONL)")
    parser.add_argument("--runs", type=int, default=3, help="fresh processes per figure")
    parser.add_argument("--only", default="", help="measure the cases whose name holds this text")
    return parser.parse_args()


if __name__ == "__main__":
    main()
