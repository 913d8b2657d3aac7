"""What a study gives: tables, a figure, and each finding of the paper beside ours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    import polars as pl

    from hermes_flow.report.charts.theme import Spec


@dataclass(frozen=True, slots=True)
class Finding:
    """A statement of the paper, what the sweep shows, and whether both agree (None: nothing to compare)."""

    paper: str
    ours: str
    agrees: bool | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a study as Markdown tables, its findings and its figure.

    ``width`` is that of a figure which takes the width of the page, None for one that has its own.
    """

    tables: str
    findings: Sequence[Finding]
    figure: Spec | None = None
    width: int | None = None


Evaluate: TypeAlias = "Callable[[pl.DataFrame, Path], Outcome]"  # (sweep.parquet, the sweep's folder)


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def agreement(findings: Sequence[Finding]) -> str:
    """Return how many of the findings that can be compared agree, as in "2 of 4"; a dash where none can be."""
    compared = [finding for finding in findings if finding.agrees is not None]
    return f"{sum(bool(finding.agrees) for finding in compared)} of {len(compared)}" if compared else "–"


def findings_table(findings: Sequence[Finding]) -> str:
    """Return the findings as a table, with the count of those that agree above it."""
    words = {True: "yes", False: "no", None: "–"}
    rows = [(finding.paper, finding.ours, words[finding.agrees]) for finding in findings]
    count = agreement(findings)
    said = f"{count} findings agree.\n\n" if count != "–" else ""
    return said + table(("the paper", "here", "agrees"), rows)
