"""The two measured runs on A100, to which nothing is fitted: decodes beside prompts make first tokens later."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.measured_runs import more
from hermes_flow.validation.compare import compare
from hermes_flow.validation.description import SIMULATOR, read_description

WITHOUT = ("hardware.engine.tiled_decodes=null",)


def errors(run: Path, changed: tuple[str, ...] = ()) -> dict[tuple[str, str], float]:
    rows = compare(read_description(run), list(changed)).rows
    return {(row.metric, row.statistic): row.error_percent for row in rows if row.simulator == SIMULATOR}


@pytest.mark.shared_data
def test_first_tokens_on_a100_are_met_with_tiles_and_not_without(shared_data: Path, tmp_path: Path) -> None:
    runs = {path.stem: path for path in more(shared_data, tmp_path, draws=1)}
    llama, codellama = (runs[f"vllm_more_aggregate_{number}"] for number in (38, 40))
    for run in (llama, codellama):
        found = errors(run)
        assert abs(found["ttft", "mean"]) < 4
        assert abs(found["ttft", "p99"]) < 9
        assert abs(found["tpot", "mean"]) < 3
    # eight query heads share the KV of CodeLlama, so that a decode beside a prompt takes eight tiles
    assert errors(codellama, WITHOUT)["ttft", "mean"] < -8
