"""Sweeps over whole groups have no failing job, and the command composes as hf.compose does."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli.command import in_this_process

FIRST_VERSION = Path(__file__).parents[1] / "config" / "first_version"
SMALL = ("workload=synthetic", "workload.requests=5")


@pytest.mark.parametrize(
    ("words", "jobs"),
    [
        (["pipeline=glob(*)"], 19),
        (["experiment=glob(strategy_*)", "pipeline=reasoning_multi"], 6),
        (["cluster=v1_rag,replicas,hybrid", "pipeline=rag", "--config-dir", str(FIRST_VERSION)], 3),
    ],
)
def test_a_sweep_over_a_group_has_no_failing_job(tmp_path: Path, words: list[str], jobs: int) -> None:
    found = in_this_process(tmp_path, "-m", *words, *SMALL)
    assert found.status == 0
    assert "failed" not in found.out
    assert found.out.count(" done (") == jobs
