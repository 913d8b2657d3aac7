"""Three real vLLM 0.19 runs of 300 requests on GPUs without Hopper's attention, from tables of their layers.

Tables and runs are LLMServingSim's (MIT). The 4090 is saturated and preempts again and again. One figure is fitted to
the runs: on the host of the RTX PRO 6000s a step takes 1 ms more than its layers.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from validation.serving import errors, replayed, table

from benchmarks.measured_runs import rtx

pytestmark = pytest.mark.shared_data


def test_the_runs_are_met_from_their_layer_tables(
    shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [replayed(path) for path in rtx(shared_data, tmp_path)]
    rows = {run.name: errors(run) for run in runs}
    assert len(rows) == 3
    with capsys.disabled():
        print(table(rows))
    for run in runs:
        assert (run.replayed.preemptions > 100) == ("4090" in run.name)
    for name, row in rows.items():
        assert abs(row["e2e"]) < 0.02, name
        assert abs(row["tpot"]) < 0.02, name
        assert abs(row["ttft"]) < 0.035, name
