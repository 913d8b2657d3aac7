"""Runs every ready pipeline and writes its stage breakdown into docs/pipelines.md: python -m benchmarks.pipelines."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import polars as pl

import hermes_flow as hf

PAGE = Path(__file__).resolve().parents[1] / "docs" / "pipelines.md"
BEGIN, END = "<!-- table of python -m benchmarks.pipelines -->\n", "<!-- end of the table -->\n"
WORKLOAD = ("workload=synthetic", "workload.rate_per_s=1", "workload.requests=1000")
LEAST_S = 0.002  # what a stage takes to be named
RUNS: tuple[Sequence[str], ...] = (
    ("pipeline=chat",),
    ("pipeline=chat_guarded",),
    ("pipeline=chat_guarded_streaming",),
    ("pipeline=multimodal", "workload.images=1"),
    ("pipeline=rag",),
    ("pipeline=rag_rewrite_rerank",),
    ("pipeline=rag_iterative",),
    ("pipeline=kv_reuse",),
    ("pipeline=rag_kv_reuse",),
    ("pipeline=rag_kv_reuse", "cluster=hybrid"),
    ("pipeline=reasoning_single",),
    ("pipeline=reasoning_multi",),
    ("pipeline=tree_search",),
    ("pipeline=cascade",),
    ("pipeline=cascade", "cluster=gpu_asic"),
    ("pipeline=routed",),
    ("pipeline=routed_by_load",),
    ("pipeline=agent",),
    ("pipeline=fan_out",),
    ("pipeline=mixed",),
)


def main() -> None:
    """Run all, and put their table where the page has it."""
    rows = [
        "| command | time of a stage, and how many of it a request takes | most of E2E | mean TTFT | mean E2E |",
        "|---|---|---|---|---|",
        *(_row(overrides) for overrides in RUNS),
    ]
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(before + BEGIN + "\n".join(rows) + "\n" + END + after, encoding="utf-8")
    print("\n".join(rows))


def _row(overrides: Sequence[str]) -> str:
    result = hf.simulate(hf.compile(hf.compose([*overrides, *WORKLOAD])))
    summary = result.summary
    stages = [
        f"{name} {_time(mean)}" + ("" if per_request == 1.0 else f" × {per_request:.2g}")
        for name, mean, per_request in _stages(result)
    ]
    path = summary["critical_path"]["mean"]
    most = f"{path['stage']} {path['share']:.0%}".replace("%", " %")
    ends = (_time(summary[metric]["mean"]) for metric in ("ttft_s", "e2e_s"))
    return f"| `{' '.join(overrides)}` | {', '.join(stages)} | {most} | {' | '.join(ends)} |"


def _stages(result: hf.Result) -> list[tuple[str, float, float]]:
    """Return name, mean time and tasks per request of the stages that take time, in order."""
    took = (pl.col("finish_s") - pl.col("ready_s")).mean().alias("mean")
    tasks = result.stages.group_by("stage", maintain_order=True).agg(took, pl.len().alias("tasks"))
    count = len(result.requests)
    means = {name: (mean, tasks / count) for name, mean, tasks in tasks.iter_rows()}
    return [(name, *means[name]) for name in result.summary["stages"] if means[name][0] >= LEAST_S]


def _time(seconds: float) -> str:
    if seconds < 1.0:
        return f"{1000 * seconds:.3g} ms"
    return f"{seconds:.3g} s"


if __name__ == "__main__":
    main()
