"""Three real vLLM 0.19 runs of 300 requests on GPUs without Hopper's attention, from tables of their layers.

Tables and runs are LLMServingSim's (MIT). The 4090 is saturated and preempts again and again. One figure is fitted to
the runs: on the host of the RTX PRO 6000s a step takes 1 ms more than its layers.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from validation.serving import errors, replayed, table

import hermes_flow as hf
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


def test_two_ranks_of_attention_with_shared_experts_meet_their_run(shared_data: Path) -> None:
    """Qwen3-30B-A3B on two RTX PRO 6000, DP2 with expert parallelism, at most 128 sequences and 2,048 tokens a rank.

    The run is known by its means (LLMServingSim): 1.11 s to the first token, 47.3 ms a token, 32.4 s in all. Its
    requests are those of the run of Qwen3-32B.
    """
    source = shared_data / "vllm_rtx" / "rtxpro6000_qwen3-32b_tp2.parquet"
    summary = hf.simulate(
        hf.compile(
            hf.compose(
                [
                    *("model=qwen3_30b_a3b", "hardware=rtx_pro_6000", "pipeline=llm", "slo=none"),
                    *("workload=trace", f"workload.path={source}"),
                    *("cluster.pools.llm.data_parallel=2", "cluster.pools.llm.expert_parallel=true"),
                    *("cluster.pools.llm.max_num_seqs=128", "cluster.pools.llm.max_num_batched_tokens=2048"),
                ]
            )
        )
    ).summary
    assert summary["e2e_s"]["mean"] == pytest.approx(32.4, rel=0.08)
    assert summary["tpot_s"]["mean"] == pytest.approx(0.0473, rel=0.07)
    assert summary["ttft_s"]["mean"] == pytest.approx(1.11, rel=0.3)
