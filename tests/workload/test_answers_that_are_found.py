"""The next turn of a recorded conversation finds the blocks of the answer, as docs/workloads.md says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import hermes_flow as hf


@pytest.mark.parametrize(("answer", "cached"), [([3, 4], 64), ([], 32)], ids=["with the answer", "without"])
def test_a_later_turn_finds_the_blocks_that_the_answer_fills(
    tmp_path: Path, answer: list[int], cached: int
) -> None:
    first = {"arrival_s": 0, "input_tokens": 40, "output_tokens": 30, "prefix_hashes": [1, 2, 3]}
    later = {"arrival_s": 60, "input_tokens": 82, "output_tokens": 5, "prefix_hashes": [1, 2, 3, 4, 5]}
    rows = [first | {"answer_hashes": answer}, later | {"answer_hashes": []}]
    path = tmp_path / "turns.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    trace = ("workload=trace", f"workload.path={path}", "workload.prefix_block_tokens=16")
    pool = ("cluster.pools.llm.prefix_cache=true", "cluster.pools.llm.block_size=16")
    result = hf.simulate(hf.compile(hf.compose(["pipeline=llm", "slo=none", *trace, *pool])))
    assert result.requests["cached_tokens"].to_list() == [0, cached]
