"""The studies of stores that keep the KV of past contexts: where they are, and what they hold at first."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.studies import charts
from benchmarks.studies.study import Finding, Outcome, table
from benchmarks.studies.times import seconds
from benchmarks.studies.winners import TIE

if TYPE_CHECKING:
    import polars as pl

Row = Mapping[str, Any]
Jobs = Mapping[
    tuple[str, int, bool], Row
]  # by option, tokens of a context, and whether reads share bandwidth

_SIZES = (4000, 24_000)
_FEW, _FEW_SHORT = "4,000 contexts", "of 4,000"
_SHARING = {False: "alone", True: "shared"}


def kv_storage(sweep: pl.DataFrame, folder: Path) -> Outcome:
    """Return T90, the load time and the share completed of every option, with and without shared bandwidth."""
    by = {
        (
            job["experiment/store"],
            job["pipeline.stages.recall.context_tokens"],
            job["cluster.pools.store.contention"],
        ): job
        for job in sweep.iter_rows(named=True)
    }
    rows, points = [], []
    for (name, tokens, sharing), job in by.items():
        if name == "e_recompute" and sharing:
            continue  # it reads nothing
        cells = (job["stages.recall.mean_s"], job["ttft_s.p90"], job["e2e_s.p90"])
        done = f"{_in_time(folder / str(job['job'])):.0%}"
        found = f"{job['memory.store.hit_share']:.0%}"
        option = ", ".join(_words(name))
        rows.append(
            (option, f"{tokens:,}", _SHARING[sharing], found, *(seconds(cell) for cell in cells), done)
        )
        line = "reads share the bandwidth" if sharing else "every read has the whole bandwidth"
        label = " on ".join(_words(name)).replace(_FEW, _FEW_SHORT)
        points.append({"line": line, "x": label, "y": job["e2e_s.p90"], "tokens": tokens})
    panels = [
        charts.Panel(
            f"T90 with contexts of {tokens:,} tokens",
            [point for point in points if point["tokens"] == tokens],
            "",
            "seconds",
            log=True,
            bars=True,
        )
        for tokens in _SIZES
    ]
    heads = (
        "option",
        "context",
        "bandwidth",
        "contexts found",
        "loading, mean",
        "TTFT p90",
        "T90 (E2E p90)",
        "completed by the last arrival",
    )
    return Outcome(table(heads, rows), _findings(by), charts.grid(panels, columns=1, width=760))


def _words(option: str) -> list[str]:
    """Return the words of an option: its letter, whose contexts it keeps, and how many where these are few."""
    letter, _, kind = option.partition("_")
    words = {"recompute": [], "few": ["shared", _FEW]}
    return [letter.upper(), *words.get(kind, [kind])]


def _findings(by: Jobs) -> list[Finding]:
    def t90(kind: str, tokens: int, *, sharing: bool = False) -> dict[str, float]:
        """Return the T90 of the options that keep such contexts, and of E."""
        return {
            name[0].upper(): row["e2e_s.p90"]
            for (name, size, shares), row in by.items()
            if size == tokens and shares == sharing and name.endswith((kind, "recompute"))
        }

    def best(times: Mapping[str, float]) -> str:
        least = min(times.values())
        return " and ".join(name for name, value in times.items() if value <= least * (1 + TIE))

    def listed(times: Mapping[str, float]) -> str:
        return ", ".join(f"{name} {seconds(value)}" for name, value in times.items() if name != "E")

    private = {tokens: t90("private", tokens) for tokens in _SIZES}
    shared = {tokens: t90("shared", tokens) for tokens in _SIZES}
    few = t90("few", 24_000)
    ttft = {tokens: by["e_recompute", tokens, False]["ttft_s.p90"] for tokens in _SIZES}
    large = {**shared[24_000], **{name: time for name, time in private[24_000].items() if name in "AB"}}
    return [
        Finding(
            "private contexts: B is best at T90",
            "; ".join(f"{tokens:,} tokens: {listed(times)}" for tokens, times in private.items()),
            all(best(times) == "B" for times in private.values()),
        ),
        Finding(
            "shared contexts: C is best",
            "; ".join(
                f"{tokens:,} tokens: {best(times)} ({listed(times)})" for tokens, times in shared.items()
            )
            + f"; with {_FEW} of 24,000 tokens: {best(few)} ({listed(few)})",
            all("C" in best(times) for times in shared.values()),
        ),
        Finding(
            "computing again (E) competes only at 4k",
            f"TTFT p90 of E is {seconds(ttft[4000])} at 4,000 tokens and {seconds(ttft[24_000])} at 24,000; the SLO "
            "rag allows 3 s",
            ttft[4000] <= 3.0 < ttft[24_000],
        ),
        Finding(
            "D is unattractive for large caches",
            f"24,000 tokens: D {seconds(large['D'])}, and C {seconds(large['C'])} with the same contexts; "
            f"with {_FEW} D {seconds(few['D'])} and C {seconds(few['C'])}",
            large["D"] >= large["C"],
        ),
    ]


def _in_time(run: Path) -> float:
    """Return the share of the requests that are complete when the last one arrives."""
    import polars as pl

    requests = pl.read_parquet(run / "requests.parquet")
    last = requests["arrival_s"].max()
    return float((requests["finish_s"] <= last).fill_null(value=False).mean())  # type: ignore[arg-type]


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
                *(seconds(job[key]) for key in ("ttft_s.p50", "ttft_s.p90", "e2e_s.p90")),
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
