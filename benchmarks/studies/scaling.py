"""The study of the number of clients (Figure 13), and the runs of the paper's validation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.studies import charts
from benchmarks.studies.batching import design
from benchmarks.studies.study import Finding, Outcome, table

if TYPE_CHECKING:
    import polars as pl

_SPLIT = "split"  # 60 % of the clients prefill, or one of two
_LIKE = (5, 10, 30)  # the numbers of clients of which 60 % can prefill; findings are means over these


def _kind(cluster: str) -> str:
    """Return the design of a cluster, whose name is the same for every number of clients."""
    name = design(cluster)
    return _SPLIT if "P/" in name else name


def client_scaling(sweep: pl.DataFrame, folder: Path) -> Outcome:
    """Return the highest load of each design by the number of clients and the bound."""
    import polars as pl

    sweep = sweep.with_columns(
        pl.col("cluster").map_elements(_kind, return_dtype=pl.String).alias("design"),
        (pl.col("cluster").str.extract(r"^tp2x(\d+)_").cast(pl.Int64) * pl.col("cluster.copies")).alias(
            "clients"
        ),
        pl.min_horizontal("capacity.value", "capacity.sustained").cast(pl.Float64).alias("load"),
    )
    panels, rows, per_client = [], [], {}
    for (bound,), own in sweep.group_by("slo.name", maintain_order=True):
        points = charts.rows_of(own, "design", "clients", "load")
        panels.append(charts.Panel(f"P99 of {bound}", points, "clients", "highest load (requests/s)"))
        for (name,), jobs in own.group_by("design", maintain_order=True):
            loads = {int(job["clients"]): job["load"] for job in jobs.iter_rows(named=True)}
            per_client[str(bound), str(name)] = sum(loads[count] or 0.0 for count in _LIKE) / sum(_LIKE)
            rows.append(
                (
                    str(bound),
                    str(name),
                    *("none" if load is None else f"{load:.1f}" for load in loads.values()),
                )
            )
    relaxed, tight = "25 tokens/s", "50 tokens/s"
    best = {
        bound: max((key for key in per_client if key[0] == bound), key=lambda key: per_client[key])[1]
        for bound in (relaxed, tight)
    }
    findings = [
        Finding(
            "chunked is best when the bound is relaxed",
            f"{relaxed}: {best[relaxed]}, {per_client[relaxed, best[relaxed]]:.2f} requests/s a client; chunked "
            f"{per_client[relaxed, 'chunked']:.2f}",
            best[relaxed].startswith("chunked"),
        ),
        Finding(
            "disaggregated, 60 % for prefill, is most robust when it is tight",
            f"{tight}: {best[tight]}, {per_client[tight, best[tight]]:.2f} requests/s a client; {_SPLIT} "
            f"{per_client[tight, _SPLIT]:.2f}",
            best[tight] == _SPLIT,
        ),
    ]
    clients = [str(count) for count in sorted(sweep["clients"].unique())]
    heads = ("bound", "design", *(f"{count} clients" for count in clients))
    return Outcome(table(heads, rows), findings, charts.grid(panels))


def validation_vllm(sweep: pl.DataFrame, folder: Path) -> Outcome:
    """Return how long the whole of each run takes; the paper gives its error and no times."""

    keys = (
        "cluster.pools.llm.tensor_parallel",
        "cluster.pools.llm.max_num_batched_tokens",
        "workload.input_tokens",
    )
    rows, points = [], []
    for (devices, chunk, tokens), own in sweep.group_by(*keys, maintain_order=True):
        whole = {
            job["workload.requests"]: job["requests.completed"] / job["throughput.requests_per_s"]
            for job in own.iter_rows(named=True)
        }
        rows.append(
            (f"TP{devices}", f"{chunk:,}", f"{tokens:,}", *(f"{seconds:.2f} s" for seconds in whole.values()))
        )
        if tokens == 2000:
            points += [
                {"line": f"TP{devices}, chunks of {chunk}", "x": requests, "y": seconds}
                for requests, seconds in whole.items()
            ]
    heads = ("devices", "chunk", "prompt", *(f"{requests} requests" for requests in (10, 25, 50, 100)))
    panel = charts.Panel("Time of the whole run, prompts of 2,000 tokens", points, "requests", "seconds")
    return Outcome(table(heads, rows), (), charts.grid([panel], columns=1, width=760))
