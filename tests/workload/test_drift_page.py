"""The comparison of azure_conv with its trace on the page is of today's simulator."""

from __future__ import annotations

from pathlib import Path

from benchmarks.drift_table import ROWS, figures, row

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "workloads.md").read_text(encoding="utf-8")


def test_a_row_of_the_drift_table_is_what_its_command_gives() -> None:
    name = "`azure_conv` with 2,000 requests"
    assert row(name, figures(ROWS[name])) in PAGE, "run python -m benchmarks.drift_table --write"


def test_the_stand_in_is_within_a_fifth_of_its_trace_on_the_page() -> None:
    lines = [
        line for line in PAGE.splitlines() if line.startswith(("| the trace itself", "| `azure_conv` | "))
    ]
    trace, stand_in = (float(line.split(" | ")[2].split(", ")[1]) for line in lines[-2:])
    assert abs(stand_in - trace) <= 0.2 * trace
