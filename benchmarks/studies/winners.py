"""Compares policies by three figures, says ties, and counts the agreement with Table III of the paper.

Policies are C (continuous), K (chunked) and D (disaggregated, the best of its splits).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

TIE = 0.02  # figures within 2 % of the best are called equal
METRICS = ("TTFT", "throughput", "throughput/energy")


@dataclass(frozen=True, slots=True)
class Cell:
    """One entry of Table III: for each rate that it speaks of, the policies that it names."""

    pipeline: str
    size: str
    metric: str
    wins: Mapping[str, frozenset[str]]  # by rate (L, M, H)


def policy(cluster: str) -> str:
    """Return C, K or D of the name of a cluster."""
    if cluster.endswith("_continuous"):
        return "C"
    return "K" if cluster.endswith("_chunked") else "D"


def figures_of(row: Mapping[str, Any]) -> dict[str, float]:
    """Return the figures of a job so that more is better, without that of energy where no power is known."""
    found = {"TTFT": -row["ttft_s.mean"], "throughput": row["throughput.steady.output_tokens_per_s"]}
    joules = row["energy.j_per_output_token"]
    return found if joules is None else {**found, "throughput/energy": 1 / joules}


def best_policies(rows: Sequence[Mapping[str, Any]], metric: str) -> set[str]:
    """Return the policies whose best job is within 2 % of the best of all jobs that have the figure."""
    best: dict[str, float] = {}
    for row in rows:
        name, value = policy(row["cluster"]), figures_of(row).get(metric)
        if value is None:
            continue
        best[name] = max(best.get(name, value), value)
    top = max(best.values(), default=0.0)
    return {name for name, value in best.items() if value >= top - TIE * abs(top)}


def cell(pipeline: str, size: str, metric: str, text: str) -> Cell:
    """Return an entry of Table III from its short form: ``C``, ``K|D`` (either), or ``D(M) K(H)`` by rate."""
    wins: dict[str, frozenset[str]] = {}
    for part in text.split():
        names, _, rate = part.partition("(")
        for one in rate.rstrip(")") or "LMH":
            wins[one] = frozenset(names.split("|"))
    return Cell(pipeline, size, metric, wins)


# source: HERMES (arXiv 2504.09775), Table III
_ROWS = (
    ("code plain", "small", "C", "D(M) K(H)", "D"),
    ("code plain", "large", "C(M) D(H)", "D(M) K(H)", "D"),
    ("code RAG", "small", "C", "K", "D"),
    ("code RAG", "large", "C", "K|D", "D"),
    ("code KV", "small", "C", "D", "D"),
    ("code KV", "large", "C(M) D(H)", "D", "D"),
    ("conv plain", "both", "D", "D", "D"),
    ("conv RAG", "both", "C", "K|D", "D"),
    ("conv KV", "small", "C", "K|D", "D"),
    ("conv KV", "large", "D", "D", "D"),
    ("reasoning", "small", "C", "C", "D(L) C(M)"),
    ("reasoning", "large", "C", "D(L) C(M)", "D(L) C(M)"),
)
PAPER = tuple(
    cell(name, size, metric, text)
    for name, size, *texts in _ROWS
    for metric, text in zip(METRICS, texts, strict=True)
)
