"""Timelines of serving strategies as SVG, each panel made from a run: python -m benchmarks.timelines.

All panels of a picture show the same requests: above, what each client does step by step; below, what becomes
of each request. Writes docs/pictures/timeline_*.svg; equal code writes equal files.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TypeAlias

import hermes_flow as hf
from benchmarks.timeline_pictures import BASE, PICTURES_TO_DRAW, Panel, Picture

PICTURES = Path(__file__).resolve().parents[1] / "docs" / "pictures"

Steps: TypeAlias = list[tuple[float, float, int, int]]  # start and end in s, decodes, prompt tokens
WIDTH, MARGIN, LEFT = 920, 24, 132
STRIP, ROW, GAP, TITLE = 20, 9, 34, 26

STYLE = """
text { font: 12px system-ui, -apple-system, "Segoe UI", "Helvetica Neue", Arial, sans-serif; fill: #57606a }
.card { fill: #ffffff; stroke: #d0d7de }
.title { font-size: 19px; font-weight: 600; fill: #1f2328 }
.small { font-size: 8px }
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
class Task:
    """When a stage of a request was ready, had its KV, started and ended, in seconds, and where."""

    kind: str
    client: str
    ready_s: float
    moved_s: float
    start_s: float
    finish_s: float


def main() -> None:
    """Draw all pictures."""
    with tempfile.TemporaryDirectory() as folder:
        for picture in PICTURES_TO_DRAW:
            trace = Path(folder) / f"{picture.name}.jsonl"
            trace.write_text("".join(f"{json.dumps(_row(*request))}\n" for request in picture.requests))
            runs = [run(panel, trace) for panel in picture.panels]
            path = PICTURES / f"timeline_{picture.name}.svg"
            path.write_text(drawn(picture, runs))
            print(path)


def _row(
    at: int, prompt: int, answer: int, urgency: int, session: int = -1, like: int = -1
) -> dict[str, object]:
    """Return a request as a line of a trace. A session's prompts begin alike, as those of the one it is ``like``."""
    row = {"arrival_us": at * 1000, "input_tokens": prompt, "output_tokens": answer, "priority": urgency}
    if session < 0:
        return row
    first = session if like < 0 else like
    blocks = [1000 * (first if block < 90 else session) + block for block in range(prompt // 16)]
    return {**row, "session": session, "prefix_hashes": blocks}


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
        bottom, lines = _panel(panel, result, top, end_s, picture.by_client)
        parts += lines
        top = bottom + GAP
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
    below = "in a row below their client" if picture.by_client else "a row each below the steps"
    what = f"{len(picture.requests)} requests, {picture.model}; {below}"
    yield f'<text x="{at + 8}" y="65">{what}</text>'


def _lanes(result: hf.Result) -> list[tuple[str, Steps]]:
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


def _panel(panel: Panel, result: hf.Result, top: int, end_s: float, by_client: bool) -> tuple[int, list[str]]:
    """Return where a panel ends, and it: steps of every client, and a row per request, below all or below its own."""

    def x(seconds: float) -> float:
        return LEFT + (WIDTH - LEFT - MARGIN) * seconds / end_s

    parts: list[str] = []
    y = top + TITLE
    tasks = _tasks(result)
    for name, steps in _lanes(result):
        parts.append(f'<text x="{LEFT - 8}" y="{y + 14}" text-anchor="end">{escape(name)}</text>')
        parts += _strip(steps, x, y)
        y += STRIP + 3
        if by_client:
            own = {request: spans for request, spans in tasks.items() if spans[-1].client == name}
            parts += _rows(own, x, y + 2)
            parts += _numbers(list(own), y + 2)
            y += len(own) * ROW + 7
    if not by_client:
        y += 6
        middle = y + len(tasks) * ROW / 2 + 4
        parts.append(f'<text x="{LEFT - 8}" y="{middle}" text-anchor="end">requests</text>')
        parts += _rows(tasks, x, y)
        y += len(tasks) * ROW
    head = [f'<text class="panel" x="{MARGIN}" y="{top + 14}">{escape(panel.title)}</text>']
    step = next(size for size in (0.05, 0.1, 0.2, 0.5, 1.0, 2.0) if end_s / size <= 12)
    for tick in range(int(0.985 * end_s / step) + 1):
        at = x(tick * step)
        head.append(f'<path class="grid" d="M{at:.1f} {top + TITLE - 4}V{y}"/>')
        head.append(f'<text x="{at:.1f}" y="{y + 13}" text-anchor="middle">{tick * step * 1000:g} ms</text>')
    return y, head + parts


def _strip(steps: Steps, x: Callable[[float], float], y: int) -> Iterator[str]:
    """Yield a client's steps: prefill above, decode below where one has both."""
    for start, end, decodes, prefill in steps:
        both = decodes and prefill
        if prefill:
            yield _bar("prefill edge", x(start), x(end), y, STRIP / 2 if both else STRIP)
        if decodes:
            below = STRIP / 2 if both else 0
            yield _bar("decode edge", x(start), x(end), y + below, STRIP - below)


def _tasks(result: hf.Result) -> dict[int, list[Task]]:
    """Return the spans of each request in order."""
    tasks: dict[int, list[Task]] = {request: [] for request in range(len(result.requests))}
    for row in result.stages.iter_rows(named=True):
        if row["kind"] in ("prefill", "decode") and row["finish_s"] is not None:
            times = (row["ready_s"], row["ready_s"] + row["transfer_s"], row["start_s"], row["finish_s"])
            tasks[row["request"]].append(Task(row["kind"], row["client"], *times))
    return tasks


def _numbers(requests: list[int], top: int) -> Iterator[str]:
    """Yield which request each row is, from 1."""
    for number, request in enumerate(requests):
        yield (
            f'<text class="small" x="{LEFT - 8}" y="{top + number * ROW + 7}" text-anchor="end">{request + 1}</text>'
        )


def _rows(requests: dict[int, list[Task]], x: Callable[[float], float], top: int) -> Iterator[str]:
    """Yield a row per request: KV on its way, waiting, being served."""
    for number, tasks in enumerate(requests.values()):
        at = top + number * ROW
        for task in tasks:
            yield _bar("move", x(task.ready_s), x(task.moved_s), at, ROW - 2)
            yield _bar("wait", x(task.moved_s), x(task.start_s), at, ROW - 2)
            yield _bar(task.kind, x(task.start_s), x(task.finish_s), at, ROW - 2)


def _bar(kind: str, left: float, right: float, top: float, height: float) -> str:
    if right - left < 0.05:
        return ""
    return f'<rect class="{kind}" x="{left:.2f}" y="{top:g}" width="{right - left:.2f}" height="{height:g}"/>'


if __name__ == "__main__":
    main()
