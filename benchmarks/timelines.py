"""Timelines of serving strategies as SVG, each panel made from a run: python -m benchmarks.timelines.

All panels of a picture show the same eight requests: above, what each client does step by step; below, what becomes
of each request. Writes docs/pictures/timeline_*.svg; equal code writes equal files.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TypeAlias

import hermes_flow as hf

PICTURES = Path(__file__).resolve().parents[1] / "docs" / "pictures"

Requests: TypeAlias = Sequence[tuple[int, int, int, int]]  # arrival in ms, prompt, answer, priority class

# Two long prompts among short ones; all at once, with answers that outgrow 240 blocks; unlike ones for two seats.
LONG_AND_SHORT: Requests = (
    (0, 600, 16, 0),
    (4, 1500, 10, 0),
    (30, 400, 22, 0),
    (48, 3000, 8, 0),
    (60, 500, 14, 0),
    (95, 900, 8, 0),
    (130, 2500, 10, 0),
    (140, 300, 10, 0),
)
GROWING: Requests = tuple((5 * number, 450, 40 + 5 * number, 0) for number in range(8))
UNLIKE: Requests = (
    (0, 900, 20, 1),
    (2, 700, 24, 1),
    (6, 2000, 8, 1),
    (8, 300, 30, 1),
    (10, 1200, 6, 0),
    (12, 500, 12, 1),
    (60, 250, 16, 0),
    (70, 1500, 4, 1),
)
BASE = ("pipeline=llm", "slo=none", "output.steps=true", "cluster.pools.{pool}.max_num_batched_tokens=1024")

WIDTH, MARGIN, LEFT = 920, 24, 132
STRIP, ROW, GAP, TITLE = 20, 9, 34, 26

STYLE = """
text { font: 12px system-ui, -apple-system, "Segoe UI", "Helvetica Neue", Arial, sans-serif; fill: #57606a }
.card { fill: #ffffff; stroke: #d0d7de }
.title { font-size: 19px; font-weight: 600; fill: #1f2328 }
.panel { font-size: 13px; font-weight: 600; fill: #1f2328 }
.grid { stroke: #e4e8ec }
.prefill { fill: #0b62b8 } .decode { fill: #1a9c74 } .wait { fill: #d8dee4 } .move { fill: #d55e00 }
.edge { stroke: #ffffff; stroke-width: .7 }
@media (prefers-color-scheme: dark) {
  text { fill: #9198a1 }
  .card { fill: #0d1117; stroke: #3d444d }
  .title, .panel { fill: #f0f6fc }
  .grid { stroke: #21262d }
  .prefill { fill: #58a6ff } .decode { fill: #3fc79a } .wait { fill: #343b44 } .move { fill: #f0883e }
  .edge { stroke: #0d1117 }
}
"""


@dataclass(frozen=True, slots=True)
class Panel:
    """One strategy: its title and the overrides that make it."""

    title: str
    overrides: Sequence[str]


@dataclass(frozen=True, slots=True)
class Picture:
    """Panels below each other on one time axis."""

    name: str
    title: str
    panels: Sequence[Panel]
    requests: Requests = LONG_AND_SHORT
    model: str = "Llama-3.1 8B on H100"


def _llm(*keys: str) -> list[str]:
    return [f"cluster.pools.llm.{key}" for key in keys]


PAIR = (
    "cluster=disaggregated",
    "network.devices_per_node=1",
    "network.rack.efficiency=0.1",
    "cluster.pools.decode.max_num_batched_tokens=1024",
)
TIGHT = ("kv_blocks=240", "max_num_batched_tokens=4096")
TWO_SEATS = ("max_num_seqs=2",)
LARGE = ("model=llama3_70b", *_llm("tensor_parallel=4", "max_num_seqs=64"))
PICTURES_TO_DRAW = (
    Picture(
        "batching",
        "Batching policies",
        (
            Panel(
                "static: a gang is padded, prefilled, decoded to its last end",
                _llm("batching=static", "max_num_batched_tokens=8192"),
            ),
            Panel("continuous: waiting prompts first, whole, by themselves", _llm("batching=continuous")),
            Panel("mixed: whole prompts join the decodes", _llm("batching=mixed")),
            Panel("chunked: prompts are cut to a budget of 1,024 tokens a step", _llm("batching=chunked")),
        ),
    ),
    Picture(
        "layouts",
        "Several devices",
        (
            Panel("two clients behind a router", _llm("count=2")),
            Panel("disaggregated: one prefills, one decodes; orange: KV on its way", PAIR),
            Panel("the same, KV leaves layer by layer", (*PAIR, "cluster.kv_transfer=layerwise")),
            Panel("tensor parallel 2: both devices on every step", _llm("tensor_parallel=2")),
            Panel(
                "pipeline parallel 2: two micro-batches in flight, a row each", _llm("pipeline_parallel=2")
            ),
        ),
    ),
    Picture(
        "memory",
        "When 240 KV blocks are not enough",
        (
            Panel("recompute: what is preempted is prefilled again", _llm(*TIGHT)),
            Panel("swap: it is copied to the host and back", _llm(*TIGHT, "preemption=swap")),
            Panel("none: whole sequences are reserved, fewer run", _llm(*TIGHT, "preemption=none")),
        ),
        GROWING,
    ),
    Picture(
        "packing",
        "Who comes first: two seats",
        (
            Panel("fcfs", _llm(*TWO_SEATS)),
            Panel("shortest_prompt", _llm(*TWO_SEATS, "packing=shortest_prompt")),
            Panel("least_work_left, an oracle", _llm(*TWO_SEATS, "packing=least_work_left")),
            Panel("priority: the fifth and the seventh are urgent", _llm(*TWO_SEATS, "packing=priority")),
            Panel(
                "earliest_deadline: 50 ms for urgent ones, 70 ms for others",
                _llm(*TWO_SEATS, "packing={order: earliest_deadline, deadline_ms: {0: 50, 1: 70}}"),
            ),
        ),
        UNLIKE,
    ),
    Picture(
        "speculation",
        "Speculative decoding",
        (
            Panel("without: a token a step", LARGE),
            Panel(
                "a draft proposes 4 tokens, of which 70 % are accepted: 2.8 tokens a step",
                (*LARGE, "+model@cluster.pools.llm.speculative.draft=llama3_8b"),
            ),
        ),
        GROWING,
        "Llama-3.1 70B on 4 H100",
    ),
)


def main() -> None:
    """Draw all pictures."""
    with tempfile.TemporaryDirectory() as folder:
        for picture in PICTURES_TO_DRAW:
            trace = Path(folder) / f"{picture.name}.csv"
            rows = [
                f"{at * 1000},{prompt},{answer},{urgency}" for at, prompt, answer, urgency in picture.requests
            ]
            trace.write_text("\n".join(["arrival_us,input_tokens,output_tokens,priority", *rows]) + "\n")
            runs = [run(panel, trace) for panel in picture.panels]
            path = PICTURES / f"timeline_{picture.name}.svg"
            path.write_text(drawn(picture, runs))
            print(path)


def run(panel: Panel, trace: Path) -> hf.Result:
    """Simulate the requests of a picture under one strategy."""
    pool = "prefill" if "cluster=disaggregated" in panel.overrides else "llm"
    base = [override.format(pool=pool) for override in BASE]
    workload = ["workload=trace", f"workload.path={trace}"]
    return hf.simulate(hf.compile(hf.compose([*workload, *base, *panel.overrides])))


def drawn(picture: Picture, runs: Sequence[hf.Result]) -> str:
    """Return the SVG of a picture; all panels share the time axis of the slowest."""
    end_s = max(result.requests["finish_s"].max() for result in runs)
    parts: list[str] = []
    top = 92
    for panel, result in zip(picture.panels, runs, strict=True):
        lines = list(_panel(panel, result, top, end_s))
        parts += lines
        top += TITLE + len(_lanes(result)) * (STRIP + 3) + 6 + len(result.requests) * ROW + GAP
    head = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top}" role="img">',
        f"<title>{escape(picture.title)}</title>",
        f"<style>{STYLE}</style>",
        f'<rect class="card" x=".5" y=".5" width="{WIDTH - 1}" height="{top - 1}" rx="12"/>',
        f'<text class="title" x="{MARGIN}" y="40">{escape(picture.title)}</text>',
        *_legend(picture),
    ]
    return "\n".join([*head, *parts, "</svg>"]) + "\n"


def _legend(picture: Picture) -> Iterator[str]:
    at = MARGIN
    for kind, text in (
        ("wait", "waiting"),
        ("prefill", "prefill"),
        ("decode", "decode"),
        ("move", "KV moves"),
    ):
        yield f'<rect class="{kind}" x="{at}" y="56" width="14" height="10" rx="2"/>'
        yield f'<text x="{at + 20}" y="65">{text}</text>'
        at += 96
    what = f"{len(picture.requests)} requests, {picture.model}; a row each below the steps"
    yield f'<text x="{at + 8}" y="65">{what}</text>'


def _lanes(result: hf.Result) -> list[tuple[str, list[tuple[float, float, int, int]]]]:
    """Return for every client, or micro-batch of it, its steps: start, end, decodes, prefill tokens."""
    lanes = []
    for record in result.recording.clients:
        pool = result.program.pools[record.pool]
        rows = record.lanes()
        for number, segments in enumerate(rows):
            name = f"{pool.name}/{record.client}" + (f" #{number + 1}" if len(rows) > 1 else "")
            steps = [
                (start / 1e12, end / 1e12, decodes, prefill)
                for start, end, count, decodes, _, prefill, _ in _single_steps(segments.tolist(), pool)
                if count
            ]
            lanes.append((name, steps))
    return lanes


def _single_steps(rows: list[list[int]], pool: object) -> Iterator[list[int]]:
    """Yield runs of equal steps as so many steps of equal length: what a picture can show."""
    for start, end, count, decodes, context, prefill, joined in rows:
        for step in range(max(count, 1)):
            length = (end - start) // max(count, 1)
            yield [
                start + step * length,
                start + (step + 1) * length,
                count,
                decodes,
                context,
                prefill,
                joined,
            ]


def _panel(panel: Panel, result: hf.Result, top: float, end_s: float) -> Iterator[str]:
    """Yield one panel: steps of every client, then a row per request."""

    def x(seconds: float) -> float:
        return LEFT + (WIDTH - LEFT - MARGIN) * seconds / end_s

    lanes = _lanes(result)
    bottom = top + TITLE + len(lanes) * (STRIP + 3) + 6 + len(result.requests) * ROW
    yield f'<text class="panel" x="{MARGIN}" y="{top + 14}">{escape(panel.title)}</text>'
    step = next(size for size in (0.05, 0.1, 0.2, 0.5, 1.0, 2.0) if end_s / size <= 12)
    for tick in range(int(0.985 * end_s / step) + 1):
        at = x(tick * step)
        yield f'<path class="grid" d="M{at:.1f} {top + TITLE - 4}V{bottom}"/>'
        yield f'<text x="{at:.1f}" y="{bottom + 13}" text-anchor="middle">{tick * step * 1000:g} ms</text>'
    y = top + TITLE
    for name, steps in lanes:
        yield f'<text x="{LEFT - 8}" y="{y + 14}" text-anchor="end">{escape(name)}</text>'
        for start, end, decodes, prefill in steps:
            both = decodes and prefill
            if prefill:
                yield _bar("prefill edge", x(start), x(end), y, STRIP / 2 if both else STRIP)
            if decodes:
                yield _bar(
                    "decode edge",
                    x(start),
                    x(end),
                    y + (STRIP / 2 if both else 0),
                    STRIP / (2 if both else 1),
                )
        y += STRIP + 3
    y += 6
    yield f'<text x="{LEFT - 8}" y="{y + len(result.requests) * ROW / 2 + 4}" text-anchor="end">requests</text>'
    for row in result.stages.iter_rows(named=True):
        if row["kind"] not in ("prefill", "decode") or row["finish_s"] is None:
            continue
        at = y + row["request"] * ROW
        moved = row["ready_s"] + row["transfer_s"]
        yield _bar("move", x(row["ready_s"]), x(moved), at, ROW - 2)
        yield _bar("wait", x(moved), x(row["start_s"]), at, ROW - 2)
        yield _bar(row["kind"], x(row["start_s"]), x(row["finish_s"]), at, ROW - 2)


def _bar(kind: str, left: float, right: float, top: float, height: float) -> str:
    if right - left < 0.05:
        return ""
    return f'<rect class="{kind}" x="{left:.2f}" y="{top:g}" width="{right - left:.2f}" height="{height:g}"/>'


if __name__ == "__main__":
    main()
