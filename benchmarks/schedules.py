"""Runs the recorded schedules of the real vLLM scheduler: ``python -m benchmarks.schedules DATA_FOLDER``.

Random small systems went through the scheduler of vLLM 0.33 under a clock of our own. Each is given to the
simulator as a user would, as a configuration and a trace, and every request's first token and finish must
come at the recorded microsecond. Cases with prefix caching are passed over: there is no prefix cache yet.
"""

from __future__ import annotations

import gzip
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

NS_PER_US = 1000


def main() -> None:
    """Simulate every case; leaves with status 1 where a time differs."""
    path = Path(sys.argv[1]) / "vllm_schedules" / "cases.json.gz"
    with gzip.open(path, "rt") as file:
        recorded = list(enumerate(json.load(file)))
    cases = [(number, case) for number, case in recorded if not case["prefix_cache"]]
    with tempfile.TemporaryDirectory() as folder:
        differing = [number for number, case in cases if not _agrees(case, Path(folder) / "trace.parquet")]
    requests = sum(len(case["requests"]) for _, case in cases)
    steps = sum(len(case["steps"]) for _, case in cases)
    print(
        f"{len(cases) - len(differing)} of {len(cases)} cases ({requests:,} requests, {steps:,} steps): "
        "every first token and finish at the recorded microsecond"
    )
    if differing:
        sys.exit(f"cases that differ: {', '.join(map(str, differing))}")


def _agrees(case: dict[str, Any], trace: Path) -> bool:
    """Return whether the simulator gives the case's times."""
    import numpy as np
    import polars as pl

    import hermes_flow as hf

    requests = case["requests"]
    columns = {"arrival_us": "arrival_us", "input_tokens": "prompt", "output_tokens": "output"}
    frame = pl.DataFrame({name: [row[field] for row in requests] for name, field in columns.items()})
    recorded = {"first_ns": pl.Series(case["first_token_us"]), "finish_ns": pl.Series(case["finish_us"])}
    frame = frame.with_columns(**{name: times * NS_PER_US for name, times in recorded.items()})
    frame = frame.sort("arrival_us", maintain_order=True)
    frame.select(*columns).write_parquet(trace)
    result = hf.simulate(hf.compile(hf.compose(_overrides(case, trace))))
    (op,) = result.recording.ops
    return all(np.array_equal(np.asarray(getattr(op, name)), frame[name]) for name in recorded)


def _overrides(case: dict[str, Any], trace: Path) -> list[str]:
    cost = case["cost"]
    limits = ("kv_blocks", "block_size", "max_num_seqs", "max_num_batched_tokens", "lookahead")
    return [
        "pipeline=llm",
        "workload=trace",
        f"workload.path='{trace}'",
        "cost=affine",
        *(f"cost.{term}_us={cost[term]}" for term in ("fixed", "per_token", "per_context")),
        *(f"cluster.pools.llm.{limit}={case[limit]}" for limit in limits),
    ]


if __name__ == "__main__":
    main()
