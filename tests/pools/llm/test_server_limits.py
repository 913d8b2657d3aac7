"""A run warns where the default number of seats binds on a GPU on which vLLM's own server has more."""

from __future__ import annotations

import pytest

import hermes_flow as hf
from hermes_flow.errors import ConfigError
from hermes_flow.program.pools import LLMClientSpec

BURST = ["pipeline=llm", "slo=none", "workload.requests=400", "workload.rate_per_s=2000"]
SEATS = "cluster.pools.llm.max_num_seqs"


def limits(*words: str) -> tuple[int, int]:
    (pool,) = (one for one in hf.compile(hf.compose(["pipeline=llm", *words])).pools if one.name == "llm")
    assert isinstance(pool.client, LLMClientSpec)
    return pool.client.max_num_seqs, pool.client.max_num_batched_tokens


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        # source: get_batch_defaults of vLLM 0.15, for the API server
        (["hardware=h100_sxm"], (1024, 8192)),
        (["hardware=a100_sxm"], (256, 2048)),
        (["hardware=l40s"], (256, 2048)),
        (["hardware=l40s", "hardware.memory_gb=96", "hardware.usable_gb=null"], (1024, 8192)),
        (["hardware=l40s", f"{SEATS}=64"], (64, 2048)),
        # prompts that are not cut have room for the longest context
        (
            ["hardware=h100_sxm", "cluster.pools.llm.batching=mixed", "model.max_context=20000"],
            (1024, 20000),
        ),
    ],
    ids=["H100", "A100", "small", "larger", "given", "whole prompts"],
)
def test_limits_by_gpu_are_those_of_the_server(words: list[str], expected: tuple[int, int]) -> None:
    assert limits("engine.server_limits=by_gpu", *words) == expected


def test_without_the_rule_limits_are_the_same_everywhere() -> None:
    assert limits("hardware=h100_sxm") == limits("hardware=l40s") == (256, 8192)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["engine=sglang"],
            "by_gpu is a rule of vLLM's server, and the engine of cluster.pools.llm is sglang",
        ),
        (["hardware=tpu_v5e"], "which is no GPU; expected fixed, or cluster.pools.llm.max_num_seqs"),
    ],
    ids=["engine", "hardware"],
)
def test_limits_by_gpu_need_a_gpu_and_vllm(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        hf.compose(["pipeline=llm", *words, "engine.server_limits=by_gpu"])


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
        (["engine.server_limits=by_gpu"], False),
        (["workload.rate_per_s=2"], False),
        (["hardware=a100_sxm"], False),
        (["cluster.pools.llm.kv_blocks=3000"], False),
    ],
    ids=["default", "set", "by GPU", "few", "A100", "memory"],
)
def test_default_seats_are_named_where_they_bind(words: list[str], expected: bool) -> None:
    assert warned(*words) is expected


def test_a_policy_that_is_a_mapping_has_the_limits_of_its_name() -> None:
    words = ["pipeline=llm", "hardware=l40s", "engine.server_limits=by_gpu", "cluster.pools.llm.batching"]
    named, mapped = (
        hf.compose([*words[:3], f"{words[3]}={value}"]) for value in ("mixed", "{policy: mixed}")
    )
    budgets = {config.cluster.pools["llm"].max_num_batched_tokens for config in (named, mapped)}  # type: ignore[attr-defined]
    assert budgets == {131_072}
