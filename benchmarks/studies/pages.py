"""Writes the result of a study into its page, between two marks, and its figure as a picture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from benchmarks.studies.agents import agent_routing
from benchmarks.studies.batching import batching, batching_rag, table3
from benchmarks.studies.hosts import host_memory, link_contention, rag_placement
from benchmarks.studies.money import autoscaling, slo_price, tokens_per_dollar
from benchmarks.studies.reasoning import reasoning_batching
from benchmarks.studies.scaling import client_scaling, validation_vllm
from benchmarks.studies.stores import kv_storage, warm_stores
from benchmarks.studies.study import Evaluate, Outcome, findings_table
from benchmarks.studies.tool_gaps import tool_gaps
from hermes_flow.report.charts.picture import svg

DOCS = Path(__file__).resolve().parents[2] / "docs"
STUDIES: Mapping[str, Evaluate] = {
    "reasoning_batching": reasoning_batching,
    "rag_placement": rag_placement,
    "batching_plain": batching,
    "batching_rag": batching_rag,
    "batching_kv": batching,
    "table3": table3,
    "client_scaling": client_scaling,
    "kv_storage": kv_storage,
    "warm_stores": warm_stores,
    "tokens_per_dollar": tokens_per_dollar,
    "validation_vllm": validation_vllm,
    "link_contention": link_contention,
    "host_memory": host_memory,
    "agent_routing": agent_routing,
    "tool_gaps": tool_gaps,
    "slo_price": slo_price,
    "autoscaling": autoscaling,
}
BEGIN, END = "<!-- The result: python -m benchmarks.studies writes it. -->", "<!-- The end of the result. -->"


def write_page(name: str, outcome: Outcome) -> None:
    """Write ``outcome`` between the marks of docs/studies/NAME.md, and its figure to docs/pictures."""
    page = DOCS / "studies" / f"{name}.md"
    text = page.read_text(encoding="utf-8")
    title = text.splitlines()[0].removeprefix("# ")
    parts = [BEGIN]
    if outcome.figure is not None:
        picture = DOCS / "pictures" / f"study_{name}.svg"
        picture.write_text(svg(outcome.figure, title, outcome.width), encoding="utf-8")
        parts.append(f"![{title}](../pictures/{picture.name})")
    if outcome.findings:
        parts.append(findings_table(outcome.findings))
    parts += [outcome.tables, END]
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(before + "\n\n".join(parts) + after, encoding="utf-8")
