"""What each policy costs: simulate() of the largest request list, against the plain case in the same process.

``python -m benchmarks.policies [--requests N]`` prints the table; leaves with status 1 where a policy takes more than
twice the plain case.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path

import hermes_flow as hf
from benchmarks.cases import LARGEST, REQUEST_LISTS

MOST = 2.0
FOLDER = Path(__file__).resolve().parents[2] / "shared" / "data" / "benchmarks"
POOL = "cluster.pools.llm"
PLAIN = "plain: chunked, fcfs, recompute, round_robin, look-ahead 1"
POLICIES = {
    "look-ahead 0": f"{POOL}.lookahead=0",
    "continuous": f"{POOL}.batching=continuous",
    "mixed": f"{POOL}.batching=mixed",
    "static": f"{POOL}.batching=static",
    "shortest_prompt": f"{POOL}.packing=shortest_prompt",
    "least_work_left (packing)": f"{POOL}.packing=least_work_left",
    "priority": f"{POOL}.packing=priority",
    "earliest_deadline": f"{POOL}.packing=earliest_deadline",
    "swap": f"{POOL}.preemption=swap",
    "none: whole sequences reserved": f"{POOL}.preemption=none",
    "prefix_cache": f"{POOL}.prefix_cache=true",
    **{
        name: f"cluster.routing={name}"
        for name in (
            "random",
            "power_of_two",
            "least_requests",
            "least_tokens",
            "least_input_tokens",
            "least_kv",
            "least_expected_work",
            "least_work_left",
            "prefix_affinity",
            "session_affinity",
            "nearest",
        )
    },
    "heavy_light": "cluster.routing={policy: heavy_light, threshold_tokens: 400}",
    "weighted": "cluster.routing={policy: weighted, weights: {least_requests: 1, least_kv: 1}}",
    "stale loads": "+cluster.routing=least_requests cluster.routing_stale_ms=100",
}


def main() -> int:
    """Print the table; return 1 where a policy is over the bound."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=None, help="only the first so many")
    worst = 0.0
    print("| policy | CPU s | of plain |\n|---|--:|--:|")
    for name, taken, share in rows(parser.parse_args().requests, FOLDER):
        worst = max(worst, share)
        print(f"| {name} | {taken:.2f} | {share:.2f} |", flush=True)
    return worst > MOST


def rows(requests: int | None, folder: Path) -> list[tuple[str, float, float]]:
    """Return the CPU seconds of each policy, and their multiple of the plain case, which comes first."""
    (largest,) = (entry for entry in REQUEST_LISTS if entry.name == LARGEST)
    base = largest.case(folder).all_overrides
    plain = seconds(base, requests)
    found = [(PLAIN, plain, 1.0)]
    for name, override in POLICIES.items():
        plain = min(plain, seconds(base, requests))
        taken = seconds((*base, *(part.lstrip("+") for part in split(override))), requests)
        found.append((name, taken, taken / plain))
    return found


def split(override: str) -> list[str]:
    """Return the overrides of a policy: one, or several marked by a leading +."""
    return override.split() if override.startswith("+") else [override]


def seconds(overrides: tuple[str, ...], requests: int | None) -> float:
    """Return the CPU seconds of simulate(), the lesser of two."""
    config = hf.compose(list(overrides))
    if requests is not None:
        workload = config.workload
        few = {"limit": requests} if workload.kind == "trace" else {"requests": requests}
        config = replace(config, workload=replace(workload, **few))
    program = hf.compile(config)
    taken = []
    for _ in range(2):
        started = time.process_time()
        hf.simulate(program)
        taken.append(time.process_time() - started)
    return min(taken)


if __name__ == "__main__":
    sys.exit(main())
