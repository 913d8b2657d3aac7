"""Benchmark runs of vLLM, TensorRT-LLM and SGLang with one TTFT and one TPOT each: nothing is fitted to them.

The figures of every group are in docs/accuracy.md.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.silicon import (
    COLD,
    INFERENCEMAX,
    Found,
    cold,
    config,
    covered,
    is_cold,
    is_recorded,
    mape,
    read,
    simulate,
    users,
)

pytestmark = pytest.mark.shared_data


def of_kind(found: list[Found], kind: str) -> list[Found]:
    return [each for each in found if each.problem is None and each.group[-1] == kind]


def test_every_row_is_compared_or_left_out_for_a_reason(shared_data: Path) -> None:
    rows = read(shared_data)
    kept, left_out = covered(rows)
    assert len(kept) + sum(left_out.values()) == len(rows) == 2630
    assert left_out["exact duplicate of another row"] == 180
    assert left_out["burst, not steady state"] == 31
    assert len(kept) > 1_250
    assert not any("precision" in reason or reason.startswith("model") for reason in left_out)


def test_runs_of_sglang_before_servers_were_warmed_up_are_left_out(shared_data: Path) -> None:
    rows = read(shared_data)
    kept, left_out = covered(rows)
    unwarmed = cold(rows)
    assert len(unwarmed) == left_out[COLD] == 36
    assert not [row for row in unwarmed if row in kept]
    assert {row["backend"] for row in unwarmed} == {"sglang"}
    # with 64 users of prompts of 1,024 tokens, their means are several times those of later runs
    chat = [row for row in [*unwarmed, *kept] if row["isl"] == 1024 and users(row) == 64]
    of_b200 = [row for row in chat if (row["backend"], row["system"]) == ("sglang", "b200_sxm")]
    before, after = (
        [row["silicon_ttft_ms"] for row in of_b200 if is_cold(row) == cold] for cold in (True, False)
    )
    assert min(len(before), len(after)) >= 4
    assert min(before) > 3 * max(after)


def test_a_sample_of_the_rows_is_met(shared_data: Path) -> None:
    kept, _ = covered(read(shared_data))
    on_h100 = [
        row
        for row in kept
        if (row["system"], row["backend"], row["precision"]) == ("h100_sxm", "vllm", "fp8")
    ]
    found = [simulate(row) for row in on_h100[::3]]
    assert len(found) > 8
    ttft, tpot = mape(of_kind(found, "dense"))
    assert tpot < 0.08
    assert ttft < 0.30
    assert mape(of_kind(found, "mixture"))[1] < 0.35


def test_users_of_published_rows_ask_for_the_most_likely_token(shared_data: Path) -> None:
    # InferenceMAX's client asks with a temperature of 0. Releases up to 0.15 reserve memory for sorting anyway
    kept, _ = covered(read(shared_data))
    for row in kept[::40]:
        described, published = config(row), is_recorded(row)
        pool: Any = described.cluster.pools["llm"]
        assert not (published and pool.model.sampling.sorted)
        if row["backend"] == "vllm":
            later = str(row["backend_version"]).startswith(("0.16", "0.17", "0.18", "0.19", "nightly"))
            assert (pool.engine.sorts_logits is False) is later


@pytest.mark.study
def test_rows_whose_method_is_published_are_met(shared_data: Path) -> None:
    kept, _ = covered(read(shared_data))
    published = [row for row in kept if row["silicon_data_source"].startswith(INFERENCEMAX)]
    found = [simulate(row) for row in published]
    assert [each.problem for each in found if each.problem] == []
    ttft, tpot = mape(of_kind(found, "dense"))
    assert tpot < 0.12
    assert ttft < 0.26
    ttft, tpot = mape(of_kind(found, "mixture"))
    assert tpot < 0.22
    assert ttft < 0.60


@pytest.mark.study
def test_the_other_rows_are_met_in_their_time_per_token(shared_data: Path) -> None:
    kept, _ = covered(read(shared_data))
    found = [simulate(row) for row in kept if not row["silicon_data_source"].startswith(INFERENCEMAX)]
    assert mape(of_kind(found, "dense"))[1] < 0.14
    assert mape(of_kind(found, "mixture"))[1] < 0.25
