"""Timelines of serving strategies as SVG, each panel made from a run: python -m benchmarks.timelines.

All panels of a picture show the same requests: above, what each client does step by step; below, what becomes
of each request. Writes docs/pictures/timeline_*.svg; equal code writes equal files.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import hermes_flow as hf
from benchmarks.timeline_pictures import BASE, PICTURES_TO_DRAW, Panel, Picture
from hermes_flow.report.charts.picture import svg
from hermes_flow.report.charts.theme import COLOURS, LINE, MOVE, SOFT, TEXT, WAIT, colour_scale, specification

if TYPE_CHECKING:
    import altair as alt

PICTURES = Path(__file__).resolve().parents[1] / "docs" / "pictures"

Steps: TypeAlias = list[tuple[float, float, int, int]]  # start and end in s, decodes, prompt tokens
WIDTH, STRIP, ROW, GAP, TITLE = 790, 20, 9, 34, 26
BACK = "var(--back)"
TEXTS: dict[str, dict[str, Any]] = {
    "plain": {"align": "left", "fontSize": 12, "color": SOFT},
    "panel": {"align": "left", "dx": -90, "fontSize": 13, "fontWeight": 600, "color": TEXT},
    "name": {"align": "right", "dx": -8, "fontSize": 12, "color": SOFT},
    "number": {"align": "right", "dx": -8, "fontSize": 8, "color": SOFT},
    "tick": {"align": "center", "fontSize": 11, "color": SOFT},
}


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
    import altair as alt

    end_s = max(result.requests["finish_s"].max() for result in runs)
    below = "in a row below their client" if picture.by_client else "a row each below the steps"
    what = f"{len(picture.requests)} requests, {picture.model}; {below}"
    sheet = _Sheet(end_s)
    top = _legend(sheet, what)
    for panel, result in zip(picture.panels, runs, strict=True):
        top = _panel(sheet, panel, result, top, picture.by_client) + GAP
    title = alt.TitleParams(picture.title, fontSize=19, offset=14)
    return svg(specification(sheet.chart(top - GAP + 16).properties(title=title)), picture.title)


class _Sheet:
    """Bars, lines and texts on a plane: milliseconds to the right, and pixels downwards."""

    def __init__(self, end_s: float) -> None:
        self.end_ms = 1000 * end_s
        self.bars: list[dict[str, object]] = []
        self.lines: list[dict[str, object]] = []
        self.texts: list[dict[str, object]] = []

    def bar(self, kind: str, start_s: float, end_s: float, top: float, height: float) -> None:
        """Add a bar, but not one too short to be seen."""
        if 1000 * (end_s - start_s) >= self.end_ms / 15_000:
            left, right = round(1000 * start_s, 3), round(1000 * end_s, 3)
            self.bars.append({"x": left, "x2": right, "y": top, "y2": top + height, "kind": kind})

    def text(self, x_ms: float, y: float, text: str, style: str) -> None:
        self.texts.append({"x": x_ms, "y": y, "text": text, "style": style})

    def line(self, x_ms: float, top: float, bottom: float) -> None:
        self.lines.append({"x": x_ms, "y": top, "y2": bottom})

    def chart(self, height: float) -> alt.LayerChart:
        """Return all of it as one chart."""
        import altair as alt

        x = alt.X("x:Q", scale=alt.Scale(domain=[0, self.end_ms], nice=False), axis=None)
        y = alt.Y("y:Q", scale=alt.Scale(domain=[height, 0], nice=False), axis=None)
        kinds = {"prefill": COLOURS[0], "decode": COLOURS[1], "wait": WAIT, "move": MOVE}
        colour = alt.Color("kind:N", scale=colour_scale(list(kinds), list(kinds.values())), legend=None)
        lines = alt.Chart(alt.InlineData(values=self.lines)).mark_rule(color=LINE)
        bars = alt.Chart(alt.InlineData(values=self.bars)).mark_rect(stroke=BACK, strokeWidth=0.5)
        layers: list[alt.Chart] = [
            lines.encode(x=x, y=y, y2="y2:Q"),
            bars.encode(x=x, x2="x2:Q", y=y, y2="y2:Q", color=colour),
        ]
        for style, look in TEXTS.items():
            rows = [row for row in self.texts if row["style"] == style]
            if rows:
                mark = alt.Chart(alt.InlineData(values=rows)).mark_text(baseline="middle", **look)
                layers.append(mark.encode(x=x, y=y, text="text:N"))
        return alt.layer(*layers).properties(width=WIDTH, height=height)


def _legend(sheet: _Sheet, what: str) -> int:
    """Add what the colours mean, and return where the first panel begins."""
    step = sheet.end_ms / 1000 / 10
    for place, (kind, text) in enumerate(
        (("wait", "waiting"), ("prefill", "prefill"), ("decode", "decode"), ("move", "KV moves"))
    ):
        at = place * step
        sheet.bar(kind, at, at + step / 6, 4, 10)
        sheet.text(1000 * (at + step / 4.5), 9, text, "plain")
    sheet.text(4500 * step, 9, what, "plain")
    return 30


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


def _panel(sheet: _Sheet, panel: Panel, result: hf.Result, top: int, by_client: bool) -> int:
    """Add the steps of every client and a row per request, below all or below its own; return where it ends."""
    y = top + TITLE
    tasks = _tasks(result)
    for name, steps in _lanes(result):
        sheet.text(0, y + STRIP / 2, name, "name")
        _strip(sheet, steps, y)
        y += STRIP + 3
        if by_client:
            own = {request: spans for request, spans in tasks.items() if spans[-1].client == name}
            _rows(sheet, own, y + 2)
            for number, request in enumerate(own):
                sheet.text(0, y + 2 + number * ROW + 4, str(request + 1), "number")
            y += len(own) * ROW + 7
    if not by_client:
        y += 6
        sheet.text(0, y + len(tasks) * ROW / 2, "requests", "name")
        _rows(sheet, tasks, y)
        y += len(tasks) * ROW
    sheet.text(0, top + 10, panel.title, "panel")
    end_s = sheet.end_ms / 1000
    step = next(size for size in (0.05, 0.1, 0.2, 0.5, 1.0, 2.0) if end_s / size <= 12)
    for tick in range(int(0.985 * end_s / step) + 1):
        sheet.line(tick * step * 1000, top + TITLE - 4, y)
        sheet.text(tick * step * 1000, y + 9, f"{tick * step * 1000:g} ms", "tick")
    return y


def _strip(sheet: _Sheet, steps: Steps, y: int) -> None:
    """Add a client's steps: prefill above, decode below where one has both."""
    for start, end, decodes, prefill in steps:
        both = decodes and prefill
        if prefill:
            sheet.bar("prefill", start, end, y, STRIP / 2 if both else STRIP)
        if decodes:
            below = STRIP / 2 if both else 0
            sheet.bar("decode", start, end, y + below, STRIP - below)


def _tasks(result: hf.Result) -> dict[int, list[Task]]:
    """Return the spans of each request in order."""
    tasks: dict[int, list[Task]] = {request: [] for request in range(len(result.requests))}
    for row in result.stages.iter_rows(named=True):
        if row["kind"] in ("prefill", "decode") and row["finish_s"] is not None:
            times = (row["ready_s"], row["ready_s"] + row["transfer_s"], row["start_s"], row["finish_s"])
            tasks[row["request"]].append(Task(row["kind"], row["client"], *times))
    return tasks


def _rows(sheet: _Sheet, requests: dict[int, list[Task]], top: int) -> None:
    """Add a row per request: KV on its way, waiting, being served."""
    for number, tasks in enumerate(requests.values()):
        at = top + number * ROW
        for task in tasks:
            sheet.bar("move", task.ready_s, task.moved_s, at, ROW - 2)
            sheet.bar("wait", task.moved_s, task.start_s, at, ROW - 2)
            sheet.bar(task.kind, task.start_s, task.finish_s, at, ROW - 2)


if __name__ == "__main__":
    main()
