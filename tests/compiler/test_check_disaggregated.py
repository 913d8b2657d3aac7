"""What cannot be when prefill and decode have pools of their own, each with its key."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from compiler.configs import config, problems_of, with_pool
from cost import catalog

import hermes_flow as hf

UNLINKED = replace(catalog.hardware("h100_sxm"), scale_up_gb_s=None, network_gb_s=None)


def base() -> hf.Config:
    return config("cluster=disaggregated", "pipeline=llm", "workload.requests=5")


def with_network(changed: hf.Config, level: str | None = None, **changes: Any) -> hf.Config:
    network = changed.network
    if level is not None:
        changes = {level: replace(getattr(network, level), **changes)}
    return replace(changed, network=replace(network, **changes))


def with_both(changed: hf.Config, **changes: Any) -> hf.Config:
    return with_pool("decode", with_pool("prefill", changed, **changes), **changes)


def test_a_pool_cannot_decode_what_another_model_has_prefilled() -> None:
    assert problems_of(with_pool("decode", base(), model=catalog.model("qwen2_5_7b"))) == [
        "cluster.pools.decode.model: qwen2_5_7b cannot decode what llama3_8b on pool 'prefill' has prefilled; "
        "expected the same model"
    ]


@pytest.mark.parametrize("pool", ["prefill", "decode"])
def test_a_gang_cannot_be_taken_apart(pool: str) -> None:
    assert problems_of(with_pool(pool, base(), batching="static")) == [
        f"cluster.pools.{pool}.batching: a gang of 'static' keeps prefill and decode together"
    ]


@pytest.mark.parametrize(
    ("level", "changes", "problem"),
    [
        (
            None,
            {"devices_per_node": 0},
            "devices_per_node: 0 is out of range; expected an integer from 1 to 100,000",
        ),
        (
            None,
            {"nodes_per_rack": -1},
            "nodes_per_rack: -1 is out of range; expected an integer from 1 to 100,000",
        ),
        (
            "node",
            {"efficiency": 1.5},
            "node.efficiency: 1.5 is out of range; expected a number from 1e-6 to 1",
        ),
        ("rack", {"efficiency": 0.0}, "rack.efficiency: 0 is out of range; expected a number from 1e-6 to 1"),
        (
            "rack",
            {"latency_us": -1.0},
            "rack.latency_us: -1 is out of range; expected a number from 0 to 1e12",
        ),
        (
            "datacenter",
            {"gb_s": 0.0},
            "datacenter.gb_s: 0 is out of range; expected a number from 1e-6 to 1e8",
        ),
    ],
)
def test_a_network_that_cannot_be_is_refused(
    level: str | None, changes: dict[str, Any], problem: str
) -> None:
    assert problems_of(with_network(base(), level, **changes)) == [f"network.{problem}"]


def test_a_handover_takes_no_less_than_nothing() -> None:
    config = replace(base(), cluster=replace(base().cluster, kv_handover_us=-1.0))
    assert problems_of(config) == [
        "cluster.kv_handover_us: -1 is out of range; expected a number from 0 to 1e12"
    ]


@pytest.mark.parametrize(
    ("key", "given", "expected"),
    [
        ("first_token", "decode", "'prefill'"),
        ("kv_handover_us", 5.0, "0.0"),
        ("kv_transfer", "layerwise", "'full'"),
        ("kv_notice", "each_step", "'at_once'"),
    ],
)
def test_keys_of_kv_that_moves_are_refused_where_none_does(key: str, given: Any, expected: str) -> None:
    changed = replace(config(), cluster=replace(config().cluster, **{key: given}))
    assert problems_of(changed) == [
        f"cluster.{key}: {given!r}, but no KV moves between pools; expected {expected}"
    ]


def test_kv_within_a_node_needs_the_scale_up_bandwidth_of_both_ends() -> None:
    assert problems_of(with_both(base(), hardware=UNLINKED)) == [
        f"cluster.pools.{pool}.hardware.scale_up_gb_s: null; moving KV to or from pool '{pool}' needs it"
        for pool in ("prefill", "decode")
    ]


def test_kv_between_nodes_needs_the_network_bandwidth() -> None:
    rtx4090 = catalog.hardware("rtx4090")
    assert rtx4090.network_gb_s is None
    apart = with_pool("prefill", base(), tensor_parallel=8)
    assert problems_of(with_pool("decode", apart, hardware=rtx4090)) == [
        "cluster.pools.decode.hardware.network_gb_s: null; moving KV to or from pool 'decode' needs it"
    ]


def test_a_full_node_needs_no_link_to_others() -> None:
    full = with_both(base(), count=4, hardware=replace(catalog.hardware("h100_sxm"), network_gb_s=None))
    network = hf.compile(with_network(full, nodes_per_rack=1)).network
    assert network is not None
    pairs = dict(zip(network.clients, network.nodes, strict=True))
    assert {node for client, node in pairs.items() if not client.startswith("host")} == {0}


def test_nodes_of_one_client_each_need_no_scale_up() -> None:
    alone = replace(catalog.hardware("h100_sxm"), scale_up_gb_s=None)
    network = hf.compile(with_network(with_both(base(), hardware=alone), devices_per_node=1)).network
    assert network is not None
    assert len(set(network.nodes[:2])) == 2


def test_clients_that_span_racks_need_the_bandwidth_between_them() -> None:
    spread = with_both(base(), tensor_parallel=8, count=3)
    assert problems_of(spread) == [
        "network.datacenter.gb_s: null, and the clients span 2 racks of 4 nodes; give one rack's link to the others"
    ]
    hf.compile(with_network(spread, "datacenter", gb_s=10.0))


def test_all_that_is_missing_is_said_at_once() -> None:
    spread = with_network(with_both(base(), hardware=UNLINKED, count=3), devices_per_node=2, nodes_per_rack=1)
    found = problems_of(spread)
    assert [problem.split(":")[0] for problem in found] == [
        "cluster.pools.prefill.hardware.scale_up_gb_s",
        "cluster.pools.prefill.hardware.network_gb_s",
        "cluster.pools.decode.hardware.scale_up_gb_s",
        "cluster.pools.decode.hardware.network_gb_s",
        "network.datacenter.gb_s",
    ]


def test_clients_that_move_nothing_are_asked_for_nothing() -> None:
    plain = config("workload.requests=5")
    assert hf.compile(with_pool("llm", plain, hardware=UNLINKED, count=100)).network is None


def test_kv_is_noticed_once_a_step_only_without_pipeline_ranks() -> None:
    config = hf.compose(
        [
            *("cluster=disaggregated", "pipeline=llm", "slo=none", "cluster.kv_notice=each_step"),
            "cluster.pools.decode.pipeline_parallel=2",
        ]
    )
    assert problems_of(config) == [
        "cluster.kv_notice: each_step is not modelled with cluster.pools.decode.pipeline_parallel=2, whose "
        "micro-batches begin at different times; expected at_once"
    ]


def test_sglang_has_its_own_rule_for_kv_that_arrives() -> None:
    config = hf.compose(
        ["cluster=disaggregated", "pipeline=llm", "slo=none", "engine=sglang", "cluster.kv_notice=each_step"]
    )
    assert problems_of(config) == [
        "cluster.kv_notice: each_step is not modelled with the scheduler of sglang; expected at_once"
    ]


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ([], "set cluster.first_token=decode and cluster.kv_notice=each_step"),
        (["cluster.first_token=decode"], "set cluster.kv_notice=each_step"),
        (["cluster.kv_notice=each_step"], "set cluster.first_token=decode"),
        (["cluster.first_token=decode", "cluster.kv_notice=each_step"], ""),
        (["engine=sglang"], ""),
        (["engine=tensorrt_llm"], ""),
    ],
)
def test_the_program_names_what_differs_from_vllm_with_prefill_and_decode_apart(
    given: list[str], named: str
) -> None:
    overrides = [
        "cluster=disaggregated",
        "pipeline=llm",
        "slo=none",
        "workload=synthetic",
        "workload.requests=2",
    ]
    text = " ".join(str(hf.compile(hf.compose([*overrides, *given]))).split())
    told = f"not as with vLLM's proxies and connectors, for which {named}"
    assert text.count(told if named else "for which set") == bool(named)
