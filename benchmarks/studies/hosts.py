"""The studies of hosts, memories and links: where the embedder stands, where KV is kept, what shares a link."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.studies import charts
from benchmarks.studies.study import Finding, Outcome, table

if TYPE_CHECKING:
    import polars as pl

Row = Mapping[str, Any]


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
                _ms(embed),
                _ms(search),
                _ms(float(moved)),
                _ms(job["stages.prefill.mean_s"]),
                _ms(ttft),
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
        Finding("the context transfer stays under 1 %", f"at most {most:.2%} of TTFT", most < 0.01),
    ]
    heads = ("embedder", "machine", "embed", "search", "transfer", "prefill", "TTFT, mean")
    panel = charts.Panel("Mean time of the stages before the first token", points, "", "seconds", bars=True)
    return Outcome(table(heads, rows), findings, charts.grid([panel], columns=1, width=760))


def kv_storage(sweep: pl.DataFrame, folder: Path) -> Outcome:
    """Return T90, the load time and the share completed of every option, with and without shared bandwidth."""
    rows, points = [], []
    by: dict[tuple[str, int, bool], Row] = {}
    for job in sweep.iter_rows(named=True):
        expected = job["pipeline.stages.recall.expected"]
        key = (job["workload.name"], job["pipeline.stages.recall.context_tokens"], expected)
        by[key] = {**job, "in_time": _in_time(folder / str(job["job"]))}
    for (name, tokens, expected), job in by.items():
        how = "alone" if expected else "shared"
        cells = (
            _s(job["stages.recall.mean_s"]),
            _s(job["ttft_s.p90"]),
            _s(job["e2e_s.p90"]),
            f"{job['in_time']:.0%}",
        )
        rows.append((name.replace("_", ", "), f"{tokens:,}", how, *cells))
        title = "no two reads share" if expected else "reads share the bandwidth"
        points.append(
            {"line": title, "x": name.replace("_", " on "), "y": job["e2e_s.p90"], "tokens": tokens}
        )
    panels = [
        charts.Panel(
            f"T90 with contexts of {tokens:,} tokens",
            [point for point in points if point["tokens"] == tokens],
            "",
            "seconds",
            log=True,
            bars=True,
        )
        for tokens in (4000, 24000)
    ]
    heads = (
        "option",
        "context",
        "bandwidth",
        "loading, mean",
        "TTFT p90",
        "E2E p90",
        "completed by the last arrival",
    )
    return Outcome(table(heads, rows), _storage_findings(by), charts.grid(panels, columns=1, width=760))


def warm_stores(sweep: pl.DataFrame, folder: Path) -> Outcome:
    """Return what stores find and how long the first token takes, by what they begin with and who routes."""
    rows, points = [], []
    words = {"nothing": "nothing", "most_asked": "the most asked", "spread": "all, spread"}
    for job in sweep.iter_rows(named=True):
        skew = job["pipeline.stages.recall.skew"]
        begins, router = words[job["cluster.pools.store.begins_with"]], job["cluster.pools.llm.routing"]
        rows.append(
            (
                f"{skew:g}",
                begins,
                router,
                f"{job['memory.store.hit_share']:.0%}",
                *(_s(job[key]) for key in ("ttft_s.p50", "ttft_s.p90", "e2e_s.p90")),
            )
        )
        points.append({"line": router, "x": begins, "y": job["ttft_s.p90"], "skew": skew})
    panels = [
        charts.Panel(
            f"TTFT p90, skew {skew:g}",
            [point for point in points if point["skew"] == skew],
            "",
            "seconds",
            bars=True,
        )
        for skew in (0.0, 0.8)
    ]
    heads = ("skew", "stores begin with", "router", "contexts found", "TTFT p50", "TTFT p90", "E2E p90")
    return Outcome(table(heads, rows), (), charts.grid(panels, columns=1, width=760))


def _storage_findings(by: Mapping[tuple[str, int, bool], Row]) -> list[Finding]:
    def best(kind: str, tokens: int, expected: bool) -> str:
        own = {
            name: row["e2e_s.p90"]
            for (name, size, way), row in by.items()
            if size == tokens and way == expected
        }
        own = {name: value for name, value in own.items() if name.endswith(kind) or name == "E"}
        return min(own, key=lambda name: own[name])[0]

    private = {tokens: best("private", tokens, True) for tokens in (4000, 24000)}
    shared = {tokens: best("shared", tokens, True) for tokens in (4000, 24000)}
    loads = {o: float(by[f"{o}_private", 24000, True]["stages.recall.mean_s"]) for o in "AB"}
    ttft = {(name, size): float(row["ttft_s.p90"]) for (name, size, alone), row in by.items() if alone}
    worst = {o: float(by[f"{o}_private", 24000, True]["e2e_s.p90"]) for o in "ABCD"}
    return [
        Finding(
            "private contexts: B is best at T90",
            f"without contention {private[4000]} (4k) and {private[24000]} (24k); loading takes {loads['A']:.2f} s "
            f"in A and {loads['B']:.2f} s in B (24k)",
            private[4000] == private[24000] == "B",
        ),
        Finding(
            "shared contexts: C is best",
            f"without contention {shared[4000]} (4k) and {shared[24000]} (24k); "
            f"with it {best('shared', 4000, False)} and {best('shared', 24000, False)}",
            shared[24000] == "C",
        ),
        Finding(
            "computing again (E) competes only at 4k",
            f"TTFT p90 of E is {_s(ttft['E', 4000])} at 4k and {_s(ttft['E', 24000])} at 24k (A: "
            f"{_s(ttft['A_private', 4000])} and {_s(ttft['A_private', 24000])}); the SLO rag allows 3 s",
            ttft["E", 4000] <= 3.0 < ttft["E", 24000],
        ),
        Finding(
            "D is unattractive for large caches",
            f"T90 at 24k, private: {', '.join(f'{o} {_s(worst[o])}' for o in 'ABCD')} without contention",
            max(worst, key=lambda option: worst[option]) == "D",
        ),
    ]


def _in_time(run: Path) -> float:
    """Return the share of the requests that are complete when the last one arrives."""
    import polars as pl

    requests = pl.read_parquet(run / "requests.parquet")
    last = requests["arrival_s"].max()
    return float((requests["finish_s"] <= last).fill_null(value=False).mean())  # type: ignore[arg-type]


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
                *(_s(job[key]) for key in ("ttft_s.p50", "ttft_s.p99", "e2e_s.p99")),
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
            *(
                _ms(job[key])
                for key in ("stages.search.mean_s", "stages.search.p99_s", "stages.recall.p99_s")
            ),
            *(_ms(job[key]) for key in ("ttft_s.p50", "ttft_s.p99")),
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


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:,.3g} ms" if seconds < 1 else _s(seconds)


def _s(seconds: float) -> str:
    return f"{seconds:,.0f} s" if seconds >= 100 else f"{seconds:.3g} s"


__all__: Sequence[str] = ("host_memory", "kv_storage", "link_contention", "rag_placement", "warm_stores")
