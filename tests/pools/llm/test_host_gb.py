"""The experiment on the sizes of tiers runs on a trace of one's own, and larger tiers find more of it."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from omegaconf import OmegaConf

import hermes_flow as hf
from hermes_flow.config.folders import config_folder

PAGE = Path(__file__).resolve().parents[3] / "docs" / "kv_tiers.md"
COMMAND = "hermes-flow -m experiment=host_gb workload.path=my_trace.jsonl"


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """Conversations in Mooncake's format: each turn begins with the blocks of the one before it."""
    rng = random.Random(5)
    rows, hashes = [], 0
    turns: list[list[int]] = [[] for _ in range(12)]
    for number in range(90):
        ids = turns[rng.randrange(12)]
        for _ in range(rng.randint(1, 3)):
            hashes += 1
            ids.append(hashes)
        rows.append(
            {
                "timestamp": 400 * number,
                "input_length": 512 * len(ids) + 7,
                "output_length": 20,
                "hash_ids": list(ids),
            }
        )
    path = tmp_path / "my_trace.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_larger_tiers_find_more_of_a_trace(trace: Path) -> None:
    assert COMMAND in PAGE.read_text(encoding="utf-8")
    params = OmegaConf.load(config_folder() / "experiment" / "host_gb.yaml").hydra.sweeper.params
    assert set(params) == {"cluster.pools.llm.offload.tiers", "cluster.pools.llm.offload.host.capacity_gb"}
    small = ["cluster.pools.llm.count=1", "cluster.pools.llm.kv_blocks=1000"]
    shares = []
    for tiers, host_gb in (("[host]", 0.01), ("[host]", 2), ("[host]", 8), ("[host,disk]", 0.01)):
        sizes = [
            f"cluster.pools.llm.offload.tiers={tiers}",
            f"cluster.pools.llm.offload.host.capacity_gb={host_gb}",
        ]
        config = hf.compose(["experiment=host_gb", f"workload.path={trace}", *small, *sizes])
        shares.append(hf.simulate(hf.compile(config)).summary["prefix"]["hit_share"])
    assert shares[0] < shares[1] < shares[2] < shares[3]  # the disk has room for all of it


def test_a_retrieval_that_hides_the_hashes_of_a_trace_points_to_offload(trace: Path) -> None:
    workload = ["workload=trace", f"workload.path={trace}"]
    program = hf.compile(hf.compose(["pipeline=kv_reuse", "cluster=kv_local", *workload]))
    assert any("cluster.pools.llm.offload keeps their blocks" in text for text in program.warnings)
