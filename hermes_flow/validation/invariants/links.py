"""Invariants of links: shares between 0 and 1, and bytes that are sent, received and asked for."""

from __future__ import annotations

from collections.abc import Iterator

from hermes_flow.validation.invariants.invariant import Finding, Invariant, broken_rows, shown
from hermes_flow.validation.invariants.run_files import RunFiles

_FILE = "links.parquet"
_FULL = 1 + 1e-9


def _shares(run: RunFiles) -> Iterator[Finding]:
    import polars as pl

    frame = run.tables["links"]
    for name in ("busy_fraction", "utilization"):
        if name in frame.columns:
            yield from broken_rows(
                _FILE,
                frame,
                (pl.col(name) < 0) | (pl.col(name) > _FULL),
                lambda row, name=name: f"{name} of {row['link']} is {shown(row[name])}",  # type: ignore[misc]
            )
    for name in ("bytes", "transfers", "transfer_s", "delay_s"):
        if name in frame.columns:
            yield from broken_rows(
                _FILE,
                frame,
                pl.col(name) < 0,
                lambda row, name=name: f"{name} of {row['link']} is {shown(row[name])}",  # type: ignore[misc]
            )


def _conserved(run: RunFiles) -> Iterator[Finding]:
    import polars as pl

    frame = run.tables["links"]
    for sent, received, figure in (
        (" node out", " node in", "scale_up_gb_s"),
        (" rack out", " rack in", "network_gb_s"),
        (" up", " down", ""),
    ):
        if figure and _some_have_no_link(run, sent.split()[0], figure):
            continue  # what they send and receive takes no time and is not counted
        totals = [
            int(frame.filter(pl.col("link").str.ends_with(end))["bytes"].sum()) for end in (sent, received)
        ]
        if totals[0] != totals[1]:
            yield Finding(
                _FILE,
                f"links '…{sent}' sent {totals[0]:,} bytes, and links '…{received}' received {totals[1]:,}",
            )


def _some_have_no_link(run: RunFiles, level: str, figure: str) -> bool:
    pools = run.setting("cluster", "pools") or {}
    return run.setting("network", level, "gb_s") is None and any(
        run.pool_hardware(pool, figure) is None for pool in pools
    )


def _asked_for(run: RunFiles) -> Iterator[Finding]:
    """Compare what came in at each client with the bytes that its stages took.

    The stages of a request that began anew are those of its last attempt; what came in for the others is not known.
    """
    import polars as pl

    requests = run.tables["requests"]
    if any(requests[name].sum() for name in ("retries", "given_up") if name in requests.columns):
        return

    into = run.tables["links"].filter(pl.col("link").str.contains(r" (?:node|rack) in$"))
    came = into.group_by(client=pl.col("link").str.replace(r" (?:node|rack) in$", "")).agg(
        came=pl.col("bytes").sum()
    )
    took = run.tables["stages"].group_by("client").agg(took=pl.col("bytes").sum())
    kinds = {pool for pool in run.setting("cluster", "pools") or {} if _serves_requests(run, pool)}
    both = came.join(took, on="client").filter(
        pl.col("client").str.replace(r"/\d+$", "").is_in(sorted(kinds)) & (pl.col("came") > pl.col("took"))
    )
    for row in both.sort("client").iter_rows(named=True):
        yield Finding(
            _FILE,
            f"{row['came']:,} bytes came in at {row['client']}, and its stages took {row['took']:,} bytes",
        )


def _serves_requests(run: RunFiles, pool: str) -> bool:
    return run.setting("cluster", "pools", pool, "kind") in ("llm", "sequential", "batched", "endpoint")


INVARIANTS = (
    Invariant(
        20,
        "shares of links",
        "Busy fraction and utilization of links are between 0 and 1; bytes and times are not negative.",
        ("links",),
        _shares,
    ),
    Invariant(
        21,
        "bytes sent",
        "Every byte that is sent is received, level by level, where every client has a link of the level.",
        ("links", "config"),
        _conserved,
    ),
    Invariant(
        22,
        "bytes of stages",
        "No more bytes come in at a client over the network than its stages took (stores excepted: contexts "
        "are also written there; and runs in which requests began anew after a failure).",
        ("requests", "stages", "links", "config"),
        _asked_for,
    ),
)
