"""Invariants of requests: how they ended, the order of their times, and the definitions of their latencies."""

from __future__ import annotations

import re
from collections.abc import Iterator

from hermes_flow.recording.recording import STATUSES
from hermes_flow.validation.invariants.invariant import Finding, Invariant, broken_rows, shown
from hermes_flow.validation.invariants.run_files import RunFiles

_FILE = "requests.parquet"
_FAILED = re.compile(r"([\d,]+) requests? failed(?:: .*\S| for other reasons)", re.DOTALL)
ROUNDING_S = 2e-9  # two times of whole nanoseconds, each rounded to a float


def _ended(run: RunFiles) -> Iterator[Finding]:
    import polars as pl

    frame = run.tables["requests"]
    yield from broken_rows(
        _FILE,
        frame,
        pl.col("status").is_null() | ~pl.col("status").is_in(STATUSES),
        lambda row: f"status is {shown(row['status'])}; expected one of {', '.join(STATUSES)}",
    )
    yield from broken_rows(
        _FILE,
        frame,
        (pl.col("status") == "completed") & (pl.col("finish_s").is_null() | pl.col("e2e_s").is_null()),
        lambda row: (
            f"request {row['request']} is completed, with finish_s {shown(row['finish_s'])} "
            f"and e2e_s {shown(row['e2e_s'])}"
        ),
    )
    later = ("first_token_s", "finish_s", "ttft_s", "tpot_s", "e2e_s")
    yield from broken_rows(
        _FILE,
        frame,
        (pl.col("status") != "completed") & pl.any_horizontal(pl.col(name).is_not_null() for name in later),
        lambda row: f"request {row['request']} failed and has times after its arrival",
    )


def _reasons(run: RunFiles) -> Iterator[Finding]:
    failed = int((run.tables["requests"]["status"] != "completed").sum())
    warnings = [text for text in run.figure("warnings") or [] if isinstance(text, str)]
    matches = [_FAILED.fullmatch(text) for text in warnings]
    explained = sum(int(match[1].replace(",", "")) for match in matches if match is not None)
    if failed != explained:
        yield Finding(
            "summary.json",
            f"{failed:,} requests failed in requests.parquet, and the warnings give a reason for {explained:,}",
        )


def _times(run: RunFiles) -> Iterator[Finding]:
    import polars as pl

    frame = run.tables["requests"]
    yield from broken_rows(
        _FILE,
        frame,
        pl.col("arrival_s").is_null() | (pl.col("arrival_s") < 0),
        lambda row: f"arrival_s is {shown(row['arrival_s'])}",
    )
    order = ("arrival_s", "first_token_s", "finish_s")
    for before, after in (order[:2], order[1:], order[::2]):
        yield from broken_rows(
            _FILE,
            frame,
            pl.col(after) < pl.col(before),
            lambda row, before=before, after=after: (  # type: ignore[misc]
                f"{after} {shown(row[after])} is before {before} {shown(row[before])}"
            ),
        )


def _latencies(run: RunFiles) -> Iterator[Finding]:
    import polars as pl

    frame = run.tables["requests"]
    for name, end in (("ttft_s", "first_token_s"), ("e2e_s", "finish_s")):
        expected = pl.col(end) - pl.col("arrival_s")
        yield from broken_rows(
            _FILE,
            frame,
            (pl.col(name).is_null() != pl.col(end).is_null())
            | ((pl.col(name) - expected).abs() > ROUNDING_S),
            lambda row, name=name, end=end: (  # type: ignore[misc]
                f"{name} is {shown(row[name])}, and {end} {shown(row[end])} − arrival_s "
                f"{shown(row['arrival_s'])} is another"
            ),
        )
    several = pl.col("first_token_s").is_not_null() & (pl.col("output_tokens") > 1)
    yield from broken_rows(
        _FILE,
        frame,
        pl.col("tpot_s").is_null() == several,
        lambda row: (
            f"tpot_s is {shown(row['tpot_s'])} for {row['output_tokens']} output tokens and "
            f"first_token_s {shown(row['first_token_s'])}"
        ),
    )


def _last_tokens(run: RunFiles) -> Iterator[Finding]:
    """Compare the end of each answer that TPOT implies with the ends of the request's stages."""
    import polars as pl

    travels = "from_site_s" in run.tables["requests"].columns
    away = pl.col("from_site_s") if travels else pl.lit(0.0)
    last = pl.col("first_token_s") - away + pl.col("tpot_s") * (pl.col("output_tokens") - 1)
    answers = run.tables["requests"].with_row_index("row").with_columns(last=last)
    answers = answers.filter(pl.col("last").is_not_null())
    ends = run.tables["stages"].select("request", end="finish_s").drop_nulls()
    near = answers.join(ends, on="request").with_columns(
        off=(pl.col("end") - pl.col("last")).abs(),
        room=ROUNDING_S + 1e-12 * pl.col("last").abs(),
    )
    matched = near.filter(pl.col("off") <= pl.col("room")).select("request").unique()
    yield from broken_rows(
        _FILE,
        answers.join(matched, on="request", how="anti", maintain_order="left"),
        pl.lit(value=True),
        lambda row: (
            f"tpot_s {shown(row['tpot_s'])} puts the last of {row['output_tokens']} tokens at "
            f"{shown(row['last'])} s, where no stage of request {row['request']} ends"
        ),
    )


INVARIANTS = (
    Invariant(
        7,
        "ends",
        "Every request is completed, with the time it finished, or failed, with no time after its arrival.",
        ("requests",),
        _ended,
    ),
    Invariant(
        8,
        "reasons",
        "The warnings of the summary give the reason of every request that failed.",
        ("requests", "summary"),
        _reasons,
    ),
    Invariant(
        9,
        "times of requests",
        "Of every request: 0 ≤ arrival ≤ first token ≤ finish.",
        ("requests",),
        _times,
    ),
    Invariant(
        10,
        "latencies",
        "TTFT is first token − arrival, E2E is finish − arrival, and exactly the answers of several tokens "
        "have a TPOT.",
        ("requests",),
        _latencies,
    ),
    Invariant(
        11,
        "last tokens",
        "TPOT is (last token − first token) / (output tokens − 1), and a stage of the request ends with the "
        "last token.",
        ("requests", "stages"),
        _last_tokens,
    ),
)
