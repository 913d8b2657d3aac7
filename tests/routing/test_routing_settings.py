"""Routing policies as configured: settings with their full keys, what a pool must have, what the Program says."""

from __future__ import annotations

import re

import pytest
from oracles.routed_programs import POLICIES
from pools.llm.deployments import with_cluster, with_pool

import hermes_flow as hf
from hermes_flow.routing import needs_of, routing_policies

TWO_HOSTS = ["cluster.pools.host.count=2"]
HALVES = ["cluster=disaggregated", "cluster.groups=2", "cluster.pools.prefill.count=4"]


def problems(*overrides: str) -> list[str]:
    return problems_of(hf.compose(["workload.requests=3", *overrides]))


def problems_of(config: hf.Config) -> list[str]:
    with pytest.raises(hf.CompileError) as caught:
        hf.compile(config)
    return list(caught.value.problems)


def pool_line(*overrides: str, pool: str = "llm") -> str:
    text = str(hf.compile(hf.compose([*overrides, "workload.requests=3"])))
    (line,) = re.findall(rf"^  {pool}: (.*(?:\n    \S.*)*)", text, flags=re.MULTILINE)
    return " ".join(line.split())


@pytest.mark.parametrize(
    ("routing", "problem"),
    [
        ("heavy_light", ".threshold_tokens: missing; expected an integer"),
        (
            "{policy: heavy_light, threshold_tokens: 0}",
            ".threshold_tokens: 0 is out of range; expected an integer from 1 to 1e12",
        ),
        (
            "{policy: heavy_light, threshold_tokens: 9, heavy_clients: 1.5}",
            ".heavy_clients: 1.5 is neither a share of the pool, between 0 and 1, nor a number of clients",
        ),
        (
            "{policy: heavy_light, threshold_tokens: 9, heavy_clients: 0}",
            ".heavy_clients: 0 is out of range; expected a number from 1e-6 to 100,000",
        ),
        (
            "{policy: heavy_light, threshold_tokens: 9, heavy_clients: 4}",
            ".heavy_clients: 4 leaves none of 4 clients for short prompts; expected at most 3",
        ),
        (
            "{policy: heavy_light, threshold_tokens: 9, heavy_clients: 1, "
            "within: {policy: heavy_light, threshold_tokens: 2, heavy_clients: 3}}",
            ".within.heavy_clients: 3 leaves none of 3 clients for short prompts; expected at most 2",
        ),
        (
            "{policy: heavy_light, threshold_tokens: 9, within: {policy: prefix_affinity, capacity: 3}}",
            ".within.capacity: unknown key; did you mean 'capacity_blocks'?",
        ),
        (
            "{policy: session_affinity, first: round_robbin}",
            ".first: unknown routing policy 'round_robbin'; did you mean 'round_robin'?",
        ),
        (
            "{policy: prefix_affinity, capacity_blocks: 0}",
            ".capacity_blocks: 0 is out of range; expected an integer from 1 to 1e12",
        ),
        (
            "{policy: prefix_affinity, imbalance_requests: -1}",
            ".imbalance_requests: -1 is out of range; expected an integer from 0 to 1e12",
        ),
        (
            "{policy: prefix_affinity, imbalance_ratio: 0.9}",
            ".imbalance_ratio: 0.9 is out of range; expected a number from 1 to 1,000,000",
        ),
        (
            "{policy: prefix_affinity, imbalance_ratio: inf}",
            ".imbalance_ratio: inf is out of range; expected a number from 1 to 1,000,000",
        ),
        ("weighted", ".weights: missing; expected a mapping"),
        (
            "{policy: weighted, weights: {least_kv: 0}}",
            ".weights.least_kv: 0 has no effect; expected a number above 0",
        ),
        (
            "{policy: weighted, weights: {least_kv: inf}}",
            ".weights.least_kv: inf is out of range; expected a number from 0 to 1e12",
        ),
        (
            "{policy: weighted, weights: {leest_kv: 1}}",
            ".weights.leest_kv: unknown routing policy 'leest_kv'; did you mean 'least_kv'?",
        ),
        ("{policy: round_robin, weights: {}}", ".weights: unknown key; it is a key of weighted"),
    ],
)
def test_a_wrong_setting_is_named_with_its_full_key(routing: str, problem: str) -> None:
    config = hf.compose([f"cluster.routing={routing}", "cluster.pools.llm.count=4", "workload.requests=3"])
    assert problems_of(config) == [f"cluster.routing{problem}"]
    own = with_pool(with_cluster(config, routing="round_robin"), "llm", routing=config.cluster.routing)
    assert problems_of(own) == [f"cluster.pools.llm.routing{problem}"]


def test_a_wrong_setting_of_a_pool_is_named_as_it_was_written() -> None:
    (problem,) = problems("cluster.pools.llm.routing={policy: heavy_light, threshold_tokens: 0}")
    assert problem == (
        "cluster.pools.llm.routing.threshold_tokens: 0 is out of range; expected an integer from 1 to 1e12"
    )


@pytest.mark.parametrize("name", ["random", "round_robin", "power_of_two", "heavy_light", "weighted"])
def test_what_scores_no_clients_has_no_weight(name: str) -> None:
    (problem,) = problems(f"cluster.routing={{policy: weighted, weights: {{least_kv: 1, {name}: 1}}}}")
    expected = (
        f"cluster.routing.weights.{name}: {name!r} scores no clients; expected one of: adapter_affinity"
    )
    assert problem.startswith(expected)


def test_there_is_a_weight_at_least() -> None:
    (problem,) = problems("cluster.routing={policy: weighted, weights: {}}")
    assert problem.startswith(
        "cluster.routing.weights: empty; expected weights of adapter_affinity, context_"
    )


@pytest.mark.parametrize("name", sorted({*POLICIES} - {"context_affinity"}))
def test_what_weighs_prompts_is_refused_for_several_hosts_with_the_key_to_set(name: str) -> None:
    policy = routing_policies.parse(POLICIES[name], "routing")
    routing = "{policy: weighted, weights: {least_requests: 1, prefix_affinity: 1}}"
    if name != "weighted":
        routing = "{policy: heavy_light, threshold_tokens: 9}" if name == "heavy_light" else name
    one_host = hf.compose([f"cluster.routing={routing}", "cluster.pools.llm.count=2", "workload.requests=3"])
    hf.compile(one_host)
    two_hosts = with_pool(with_pool(one_host, "llm", count=1), "host", count=2)
    if not needs_of(policy):
        hf.compile(two_hosts)
        return
    assert problems_of(two_hosts) == [
        f"cluster.routing: {name} compares the prompts of LLM clients, but the 2 clients of "
        "cluster.pools.host are of kind 'sequential'; "
        "set cluster.pools.host.routing to a policy that does not, such as least_requests"
    ]
    hf.compile(with_pool(two_hosts, "host", routing="least_requests"))
    cluster_routing = two_hosts.cluster.routing
    own = with_pool(with_cluster(two_hosts, routing="round_robin"), "host", routing=cluster_routing)
    (problem,) = problems_of(own)
    assert problem.startswith(f"cluster.pools.host.routing: {name} compares the prompts")


def test_policies_that_look_at_prompts_are_known() -> None:
    needs = {name: needs_of(routing_policies.parse(value, "routing")) for name, value in POLICIES.items()}
    assert {name for name, own in needs.items() if "contexts" in own} == {"context_affinity"}
    assert {name for name, own in needs.items() if "prompts" in own} == {
        "heavy_light",
        "least_expected_work",
        "least_input_tokens",
        "least_kv",
        "least_work_left",
        "prefix_affinity",
        "weighted",
    }
    for nested in (
        "{policy: session_affinity, first: least_kv}",
        "{policy: weighted, weights: {least_kv: 1}}",
    ):
        assert len(problems(f"cluster.routing={nested}", *TWO_HOSTS)) == 1
    assert not needs_of(
        routing_policies.parse({"policy": "weighted", "weights": {"nearest": 1, "least_tokens": 1}}, "")
    )


def test_a_part_must_fit_a_group_where_kv_arrives_and_the_pool_where_it_leaves() -> None:
    split = "{policy: heavy_light, threshold_tokens: 9, heavy_clients: 2}"
    groups = [*HALVES, "cluster.pools.decode.count=4"]
    assert problems(*groups, f"cluster.pools.decode.routing={split}") == [
        "cluster.pools.decode.routing.heavy_clients: 2 leaves none of 2 clients for short prompts; "
        "expected at most 1"
    ]
    hf.compile(hf.compose([*groups, f"cluster.pools.prefill.routing={split}"]))


@pytest.mark.parametrize("period", ["-1", "inf"])
def test_a_period_of_scrapes_is_finite_and_not_negative(period: str) -> None:
    with pytest.raises(
        hf.ConfigError, match=f"routing_stale_ms: {period} is out of range; expected a number 0, or from 0.01"
    ):
        hf.compose([f"cluster.routing_stale_ms={period}"])


def test_the_program_says_how_each_pool_is_routed() -> None:
    four = "cluster.pools.llm.count=4"
    plain = pool_line(four)
    assert plain.endswith("serving llama3_8b, round_robin routing")
    heavy = "cluster.routing={policy: heavy_light, threshold_tokens: 9, within: power_of_two}"
    assert pool_line(four, heavy).endswith("heavy_light (threshold_tokens=9, within=power_of_two) routing")
    assert pool_line(four, "cluster.routing=least_work_left").endswith("least_work_left routing (an oracle)")
    nested = "cluster.routing={policy: session_affinity, first: least_work_left}"
    assert pool_line(four, nested).endswith("session_affinity (first=least_work_left) routing (an oracle)")
    stale = pool_line(four, "cluster.routing=least_kv", "cluster.routing_stale_ms=50")
    assert stale.endswith("least_kv routing by loads of every 50 ms")
    assert "routing" not in pool_line(four, "cluster.routing_stale_ms=50", pool="host")


def test_weights_of_oracles_make_an_oracle() -> None:
    weights = "cluster.routing={policy: weighted, weights: {least_work_left: 1, nearest: 2}}"
    assert "(an oracle)" in pool_line("cluster.pools.llm.count=4", weights)
