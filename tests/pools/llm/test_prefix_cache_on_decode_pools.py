"""A decode pool with a prefix cache: blocks of a prompt that are there are shared, and only the others are sent."""

from __future__ import annotations

import polars as pl
import pytest

import hermes_flow as hf

KV_BYTES = 2 * 32 * 8 * 128 * 2  # llama3_8b: K and V of 32 layers, 8 heads of 128, in bf16
BLOCK = 16
PAIR = ("cluster=disaggregated", "model=llama3_8b", "slo=none")
BRANCHES = 8


def result_of(*overrides: str, cached: bool | None) -> hf.Result:
    """Run on prefill and decode pools that both have a prefix cache, or of which the decode pool has none."""
    value = {True: "true", False: "false", None: "null"}[cached]
    caches = ("cluster.pools.prefill.prefix_cache=true", f"cluster.pools.decode.prefix_cache={value}")
    return hf.simulate(hf.compile(hf.compose([*PAIR, *caches, *overrides])))


def decodes(result: hf.Result) -> pl.DataFrame:
    return result.stages.filter(pl.col("stage") == "decode").sort("request", "ready_s")


def branching(*overrides: str, cached: bool | None, prompt: int) -> hf.Result:
    return result_of(
        "pipeline=reasoning_multi",
        f"pipeline.stages.decode.branches={BRANCHES}",
        "workload=synthetic",
        "workload.requests=3",
        "workload.rate_per_s=1",
        f"workload.input_tokens={prompt}",
        "workload.output_tokens=20",
        "cluster.pools.decode.count=4",
        *overrides,
        cached=cached,
    )


@pytest.mark.parametrize("kv_transfer", ["full", "layerwise"])
@pytest.mark.parametrize("prompt", [1000, 1008])  # with a part of a block at the end, and without
@pytest.mark.parametrize("cached", [True, None])
def test_branches_are_decoded_on_one_client_and_their_prompt_moves_once(
    kv_transfer: str, prompt: int, cached: bool | None
) -> None:
    result = branching(f"cluster.kv_transfer={kv_transfer}", cached=cached, prompt=prompt)
    for (_,), own in decodes(result).group_by("request"):
        assert own.height == BRANCHES
        assert own["client"].n_unique() == 1
        assert sorted(own["bytes"].to_list()) == sorted(
            [prompt * KV_BYTES] + [(prompt % BLOCK) * KV_BYTES] * (BRANCHES - 1)
        )
        arrival = own["ready_s"] + own["transfer_s"]
        assert (
            own["start_s"].min() >= arrival.max() - 1e-9
        )  # nobody begins before the common blocks are there


def test_without_a_prefix_cache_the_prompt_of_every_branch_moves_whole() -> None:
    moved = decodes(branching(cached=False, prompt=1000))["bytes"].to_list()
    assert moved == [1000 * KV_BYTES] * (3 * BRANCHES)


def test_branches_hold_the_blocks_of_their_prompt_once() -> None:
    """62 blocks of the prompt are common, its last 8 tokens and the answers are each branch's own."""
    peaks = []
    for cached in (True, False):
        result = branching("cluster.pools.decode.kv_blocks=2000", cached=cached, prompt=1000)
        clients = result.clients.filter(pl.col("pool") == "decode")
        peaks.append(max(round(share * 2000) for share in clients["kv_peak_fraction"].to_list()))
    own = ((pl.col("tokens") + 8 - 1) / BLOCK).ceil().sum().alias("own")
    most = max(decodes(result).group_by("request").agg(own)["own"].to_list())
    assert 62 + BRANCHES <= peaks[0] <= 62 + most
    assert peaks[1] >= 62 * BRANCHES // 4  # without, each of the four clients holds two prompts or more


@pytest.mark.parametrize("first_token", ["prefill", "decode"])
def test_a_later_turn_sends_what_its_session_has_not_left_on_the_decode_client(first_token: str) -> None:
    """Prompts of 100, 180 and 260 tokens, answers of 30: the last token of an answer has no KV yet."""
    turns = (
        "pipeline=llm",
        "workload=sessions",
        "workload.sessions=1",
        "workload.turns=3",
        "workload.think_time_s=5",
        "workload.system_prompt_tokens=0",
        "workload.input_tokens=50",
        "workload.output_tokens=30",
        f"cluster.first_token={first_token}",
    )
    prompts = [50, 130, 210]
    left = [0, (50 + 29) // BLOCK * BLOCK, (130 + 29) // BLOCK * BLOCK]
    moved = decodes(result_of(*turns, cached=True))["bytes"].to_list()
    assert moved == [(prompt - found) * KV_BYTES for prompt, found in zip(prompts, left, strict=True)]
    assert decodes(result_of(*turns, cached=False))["bytes"].to_list() == [p * KV_BYTES for p in prompts]


def test_branches_share_what_is_found_and_what_comes_with_one_of_them() -> None:
    """Two requests of 160 + 440 tokens on one decode client: the second finds the 160 that both begin with."""
    result = result_of(
        "pipeline=reasoning_multi",
        f"pipeline.stages.decode.branches={BRANCHES}",
        "workload=sessions",
        "workload.sessions=2",
        "workload.rate_per_s=0.05",
        "workload.turns=1",
        "workload.system_prompts=1",
        "workload.system_prompt_tokens=160",
        "workload.input_tokens=445",
        "workload.output_tokens=20",
        cached=True,
    )
    tail = 605 % BLOCK * KV_BYTES
    for request, found in ((0, 0), (1, 160)):
        moved = decodes(result).filter(pl.col("request") == request)["bytes"].to_list()
        assert sorted(moved) == [tail] * (BRANCHES - 1) + [(605 - found) * KV_BYTES]


def test_the_links_carry_what_the_stages_say() -> None:
    for cached in (True, False):
        result = branching(cached=cached, prompt=1000)
        carried = result.links.filter(pl.col("transfers") > 0)
        assert carried["bytes"].max() == decodes(result)["bytes"].sum()
