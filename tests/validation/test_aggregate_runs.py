"""More vLLM 0.15 serving runs, of which only the workload's figures and statistics were published.

Arrivals are drawn as the load generator draws them. The prompts' lengths are those that were asked for, with the few
per cent by which tokenizers count more (benchmarks/measured_runs.py).
"""

from __future__ import annotations

from pathlib import Path

import pytest
from validation.serving import errors, mean_sizes, replayed, table

from benchmarks.measured_runs import aggregate, more

pytestmark = [pytest.mark.shared_data, pytest.mark.study]


def test_the_twelve_runs_are_met(
    shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [replayed(path) for path in aggregate(shared_data, tmp_path)]
    rows = {run.name: errors(run) for run in runs}
    assert len(rows) == 12
    with capsys.disabled():
        print(table(rows))
    for name, row in rows.items():
        worst = 0.065 if "Scout" in name else 0.045
        assert abs(row["e2e"]) < worst, name
        assert abs(row["tpot"]) < worst, name
        assert abs(row["ttft"]) < 0.12, name
    sizes = mean_sizes(rows)
    assert sizes["e2e"] < 0.026
    assert sizes["tpot"] < 0.026
    assert sizes["ttft"] < 0.042
    assert sizes["ttft_p99"] < 0.15


def test_gpus_that_nothing_was_fitted_to_are_met(shared_data: Path, tmp_path: Path) -> None:
    runs = [replayed(path) for path in more(shared_data, tmp_path, draws=1)]
    rows = {run.name: errors(run) for run in runs if "H100" not in run.name}
    assert len(rows) == 3
    for name, row in rows.items():
        assert abs(row["e2e"]) < 0.03, name
        assert abs(row["tpot"]) < 0.05, name


def test_ten_more_runs_are_met_but_for_the_first_tokens_of_a_reasoning_load(
    shared_data: Path, tmp_path: Path
) -> None:
    runs = [replayed(path) for path in more(shared_data, tmp_path, draws=1)]
    rows = {run.name: errors(run) for run in runs}
    assert len(rows) == 10
    for name, row in rows.items():
        assert abs(row["e2e"]) < 0.045, name
        assert abs(row["tpot"]) < 0.045, name
    assert mean_sizes(rows)["e2e"] < 0.022
