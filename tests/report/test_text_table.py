"""Tables on the terminal: columns in line, and every text as it is."""

from __future__ import annotations

import subprocess
import sys

from hermes_flow.report.text_table import TextColumn, laid_out


def test_columns_are_in_line_on_their_sides_with_headings_at_the_bottom() -> None:
    name = TextColumn("name", ["a", "longer"], left=True)
    time = TextColumn("TTFT\np50 ms", ["1.0", "12.5"], least_width=8)
    assert laid_out([name, time]) == [
        "            TTFT",
        "name      p50 ms",
        "a            1.0",
        "longer      12.5",
    ]


def test_characters_that_take_two_columns_count_as_two() -> None:
    assert laid_out([TextColumn("", ["東京", "ab"], left=True), TextColumn("", ["1", "2"])]) == [
        "",
        "東京  1",
        "ab    2",
    ]


def test_brackets_colons_and_lines_of_any_length_stay_as_they_are() -> None:
    texts = ["[bold]", ":warning:", "[1,2]", "x" * 500]
    assert laid_out([TextColumn("value", texts, left=True)]) == ["value", *texts]


def test_a_single_run_does_not_wait_for_rich() -> None:
    code = "import sys, hermes_flow.report.console; sys.exit('rich' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
