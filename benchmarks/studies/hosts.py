"""The studies of hosts and links: where the embedder stands, and what shares a memory or a link."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.studies import charts
from benchmarks.studies.study import Finding, Outcome, table
from benchmarks.studies.times import ms, seconds

if TYPE_CHECKING:
    import polars as pl


def rag_placement(sweep: pl.DataFrame, folder: Path) -> Outcome:
    """Return the parts of TTFT for each embedder and machine, and the share of the documents' transfer."""
    import polars as pl

    rows, points, shares = [], [], {}
    for job in sweep.iter_rows(named=True):
        model, machine = job["model@cluster.pools.embed.model"], job["hardware@cluster.pools.embed.hardware"]
        stages = pl.read_parquet(folder / str(job["job"]) / "stages.parquet")
        moved = stages.filter(pl.col("stage") == "prefill")["transfer_s"].mean()
        embed, search, ttft = (
            job[key] for key in ("stages.embed.mean_s", "stages.search.mean_s", "ttft_s.mean")
        )
        shares[model, machine] = (embed / ttft, float(moved) / ttft)  # type: ignore[arg-type]
        rows.append(
            (
                model,
                machine,
                ms(embed),
                ms(search),
                ms(float(moved)),
                ms(job["stages.prefill.mean_s"]),
                ms(ttft),
            )  # type: ignore[arg-type]
        )
        points += [
            {"line": part, "x": f"{model} on {machine}".replace("_", " "), "y": seconds}
            for part, seconds in (
                ("embed", embed),
                ("search", search),
                ("prefill", job["stages.prefill.mean_s"]),
            )
        ]
    grace, gpu = shares["e5_mistral_7b", "grace_cpu"][0], shares["e5_mistral_7b", "a100_sxm"][0]
    most = max(moved for _, moved in shares.values())
    findings = [
        Finding(
            "a large embedder on a CPU dominates TTFT",
            f"Mistral-7B takes {grace:.0%} of TTFT on Grace",
            grace > 0.5,
        ),
        Finding("an A100 removes it", f"Mistral-7B takes {gpu:.0%} of TTFT on an A100", gpu < 0.25),
        Finding("the context transfer stays under 1 %", f"at most {most:.4%} of TTFT", most < 0.01),
    ]
    heads = ("embedder", "machine", "embed", "search", "transfer", "prefill", "TTFT, mean")
    panel = charts.Panel("Mean time of the stages before the first token", points, "", "seconds", bars=True)
    return Outcome(table(heads, rows), findings, charts.grid([panel], columns=1, width=760))


def link_contention(sweep: pl.DataFrame, folder: Path) -> Outcome:
    """Return the tails of TTFT with KV that moves whole or layer by layer, by the speed of the links."""
    import polars as pl

    panels, rows = [], []
    for speed in sorted(sweep["network.rack.gb_s"].unique()):
        own = sweep.filter(pl.col("network.rack.gb_s") == speed)
        points = charts.rows_of(own, "cluster.kv_transfer", "workload.rate_per_s", "ttft_s.p99")
        panels.append(
            charts.Panel(f"links of {speed:g} GB/s", points, "requests/s", "TTFT p99 (s)", log=True)
        )
        rows += [
            (
                f"{speed:g} GB/s",
                f"{job['workload.rate_per_s']:g}",
                job["cluster.kv_transfer"],
                *(seconds(job[key]) for key in ("ttft_s.p50", "ttft_s.p99", "e2e_s.p99")),
            )
            for job in own.iter_rows(named=True)
        ]
    heads = ("links", "requests/s", "KV moves", "TTFT p50", "TTFT p99", "E2E p99")
    return Outcome(table(heads, rows), (), charts.grid(panels, columns=3, width=220))


def host_memory(sweep: pl.DataFrame, folder: Path) -> Outcome:
    """Return search, loading and TTFT where the stores share the host's memory with the search, and where not."""
    import polars as pl

    words = {"null": "machines of their own", "retrieval": "the host that searches"}
    named = sweep.with_columns(
        pl.col("cluster.pools.store.host").fill_null("null").replace_strict(words).alias("stores on")
    )
    rows = [
        (
            job["stores on"],
            f"{job['workload.rate_per_s']:g}",
            *(ms(job[key]) for key in ("stages.search.mean_s", "stages.search.p99_s", "stages.recall.p99_s")),
            *(ms(job[key]) for key in ("ttft_s.p50", "ttft_s.p99")),
        )
        for job in named.iter_rows(named=True)
    ]
    panels = [
        charts.Panel(
            title,
            charts.rows_of(named, "stores on", "workload.rate_per_s", key, 1e3),
            "requests/s",
            "ms",
            log=False,
        )
        for title, key in (("Search, p99", "stages.search.p99_s"), ("TTFT, p99", "ttft_s.p99"))
    ]
    heads = ("stores on", "requests/s", "search, mean", "search, p99", "loading, p99", "TTFT p50", "TTFT p99")
    return Outcome(table(heads, rows), (), charts.grid(panels))


__all__: Sequence[str] = ("host_memory", "link_contention", "rag_placement")
