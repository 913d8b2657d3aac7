"""Runs the comparison of azure_conv with its trace in docs/workloads.md, and writes its table.

``python -m benchmarks.drift_table`` prints the table (about two CPU minutes; the trace of Azure must stand in
../shared/data/azure), ``--write`` puts it into the page.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

import hermes_flow as hf

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "workloads.md"
TRACE = ROOT.parent / "shared" / "data" / "azure" / "AzureLLMInferenceTrace_conv.csv"
HEAD = "| | TTFT p50, p90, p99 | TPOT p50, p90, p99 | E2E p50, p90, p99 |\n|---|---|---|---|\n"
SEEDS = (1, 2)

_DEPLOYMENT = ("pipeline=llm", "model=llama3_70b", "hardware=h100_sxm", "cluster.pools.llm.count=2")
_LOAD = ("workload=azure_conv", "workload.rate_per_s=12", "workload.requests=19366")
ROWS: dict[str, Sequence[str]] = {
    "the trace itself (`workload.rate_scale=2.17`)": (
        "workload=trace",
        f"workload.path={TRACE}",
        "workload.rate_scale=2.17",
    ),
    "`azure_conv`": _LOAD,
    "`azure_conv` with 2,000 requests": (*_LOAD, "workload.requests=2000"),
    "without drift (`azure_conv_10_per_s`)": (
        "workload=azure_conv_10_per_s",
        "workload.rate_per_s=12",
        "workload.requests=19366",
    ),
}


def figures(overrides: Sequence[str]) -> dict[str, tuple[float, float, float]]:
    """Return p50, p90 and p99 of TTFT, TPOT and E2E, in s."""
    base = [*_DEPLOYMENT, "cluster.pools.llm.tensor_parallel=4", *overrides]
    requests = hf.simulate(hf.compile(hf.compose(base))).requests
    found = {}
    for metric in ("ttft", "tpot", "e2e"):
        values = requests[f"{metric}_s"].drop_nulls()
        found[metric] = tuple(float(values.quantile(q, "linear") or 0.0) for q in (0.5, 0.9, 0.99))
    return found  # type: ignore[return-value]


def row(name: str, found: dict[str, tuple[float, float, float]]) -> str:
    """Return one line of the table: TTFT and TPOT in ms, E2E in s."""
    cells = []
    for metric, scale, unit in (("ttft", 1e3, "ms"), ("tpot", 1e3, "ms"), ("e2e", 1.0, "s")):
        cells.append(", ".join(_rounded(value * scale) for value in found[metric]) + f" {unit}")
    return f"| {name} | {' | '.join(cells)} |\n"


def _rounded(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def main() -> None:
    """Run the rows, and print the table or write it into the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="put the table into docs/workloads.md")
    write = parser.parse_args().write
    table = HEAD + "".join(row(name, figures(overrides)) for name, overrides in ROWS.items())
    others = [figures((*_LOAD, f"workload.seed={seed}"))["tpot"][1] * 1e3 for seed in SEEDS]
    told = " and ".join(f"{value:.0f}" for value in sorted(others))
    sentence = f"With other seeds TPOT p90 of `azure_conv` is {told} ms."
    if not write:
        print(table + "\n" + sentence)
        return
    page = PAGE.read_text(encoding="utf-8")
    page = re.sub(re.escape(HEAD) + r"(?:\|.*\n)+", lambda _: table, page)
    page = re.sub(r"With other seeds TPOT p90 of `azure_conv` is [^.]*\.", lambda _: sentence, page)
    PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
