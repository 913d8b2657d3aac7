"""A run warns where the default number of seats binds on a GPU on which vLLM's own server has more."""

from __future__ import annotations

import pytest

import hermes_flow as hf

BURST = ["pipeline=llm", "slo=none", "workload.requests=400", "workload.rate_per_s=2000"]
SEATS = "cluster.pools.llm.max_num_seqs"


def warned(*words: str) -> bool:
    result = hf.simulate(hf.compile(hf.compose([*BURST, *words])))
    found = [text for text in result.summary["warnings"] if f"{SEATS}: all" in text]
    assert all("all 256 seats of the default" in text and "takes 1,024 on" in text for text in found)
    return bool(found)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], True),
        ([f"{SEATS}=256"], False),
        (["workload.rate_per_s=2"], False),
        (["hardware=a100_sxm"], False),
        (["cluster.pools.llm.kv_blocks=3000"], False),
    ],
    ids=["default", "set", "few", "A100", "memory"],
)
def test_default_seats_are_named_where_they_bind(words: list[str], expected: bool) -> None:
    assert warned(*words) is expected
