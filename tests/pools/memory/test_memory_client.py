"""Retrievals as they run: what they take, what they spare the prefill, what is kept and where it is found."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from kv_configs import FAST, SLOW, TOKEN_BYTES, composed, config_of, run
from oracles.lru_tiers import ListedTiers
from polars.testing import assert_frame_equal

import hermes_flow as hf
from hermes_flow.machine import wiring as simulation
from hermes_flow.machine.run import run as run_program
from hermes_flow.metrics.result import Result
from hermes_flow.pools.llm.client import LLMClient
from hermes_flow.pools.memory.schema import MemoryTier, TierBuffer

FAST_NS, SLOW_NS = 10_000, 200_000
ONE: dict[str, Any] = {
    "requests": 1,
    "rate_per_s": 1.0,
    "arrivals": "constant",
    "input_tokens": 50,
    "output_tokens": 3,
}


def retrievals(result: Result) -> pl.DataFrame:
    """Return the rows of the retrieval, by request."""
    return result.stages.filter(pl.col("stage") == "recall").sort("request")


def service_ns(result: Result) -> list[int]:
    """Return how long each request's retrieval took."""
    return [round(seconds * 1e9) for seconds in retrievals(result)["service_s"]]


def test_a_hit_takes_its_lookup_and_its_bytes_and_spares_the_prefill_the_context() -> None:
    result = run({"context_tokens": 1000, "hits": {"slow": 1.0}}, "output.steps=true", **ONE)
    assert service_ns(result) == [SLOW_NS + 1000 * TOKEN_BYTES // 10]
    assert retrievals(result)["bytes"].to_list() == [1000 * TOKEN_BYTES]
    assert result.requests["cached_tokens"].to_list() == [1000]
    assert result.steps["prefill_tokens"].sum() == 50


def test_a_miss_is_computed() -> None:
    result = run({"context_tokens": 1000, "hits": {"slow": 0.0}}, "output.steps=true", **ONE)
    assert service_ns(result) == [0]
    assert retrievals(result)["bytes"].to_list() == [0]
    assert result.requests["cached_tokens"].to_list() == [0]
    assert result.steps["prefill_tokens"].sum() == 1050
    spared = run({"context_tokens": 1000, "hits": {"slow": 1.0}}, **ONE)
    gained_s = result.requests["ttft_s"][0] - spared.requests["ttft_s"][0]
    assert gained_s == pytest.approx(1000 * 10e-6 - 200e-6 - 1000 * TOKEN_BYTES / 10e9, abs=2e-9)


@pytest.mark.parametrize("batching", ["chunked", "continuous", "mixed"])
def test_every_policy_computes_exactly_what_was_not_found(batching: str) -> None:
    recall = {
        "context_tokens": {"distribution": "uniform", "min": 1, "max": 900},
        "hits": {"fast": 0.4, "slow": 0.5},
    }
    workload = {"requests": 300, "rate_per_s": 30.0}
    result = run(recall, "output.steps=true", llm={"batching": batching}, **workload)
    assert result.requests["preemptions"].sum() == 0
    prompts = result.stages.filter(pl.col("stage") == "prefill")["tokens"].sum()
    cached = result.requests["cached_tokens"].sum()
    assert 0 < cached < prompts
    assert result.steps["prefill_tokens"].sum() == prompts - cached
    tiers = result.summary["memory"]["store"]["tiers"]
    assert sum(tier["read_bytes"] for tier in tiers.values()) == cached * TOKEN_BYTES
    assert retrievals(result)["bytes"].sum() == cached * TOKEN_BYTES


def test_two_reads_of_one_tier_at_once_take_twice_as_long() -> None:
    pair = {**ONE, "requests": 2, "arrivals": {"process": "closed_loop", "concurrency": 2}}
    result = run({"context_tokens": 1000, "hits": {"slow": 1.0}}, **pair)
    assert service_ns(result) == [SLOW_NS + 2 * (1000 * TOKEN_BYTES // 10)] * 2
    link = result.links.row(0, named=True)
    assert (link["link"], link["level"], link["transfers"]) == ("store/0 slow memory", "memory", 2)
    assert link["bytes"] == 2000 * TOKEN_BYTES
    assert link["delay_s"] == pytest.approx(1000 * TOKEN_BYTES / 10e9)


def test_reads_of_different_tiers_do_not_slow_each_other() -> None:
    workload = {**ONE, "requests": 40, "arrivals": {"process": "closed_loop", "concurrency": 2}}
    tiers = {"fast": FAST, "slow": FAST}
    result = run({"context_tokens": 1000, "hits": {"fast": 0.5, "slow": 1.0}}, tiers=tiers, **workload)
    alone = FAST_NS + round(1000 * TOKEN_BYTES / 100)
    assert min(service_ns(result)) == alone
    assert max(service_ns(result)[:2]) in (alone, alone + round(1000 * TOKEN_BYTES / 100))


def test_what_a_buffer_holds_comes_at_its_rate() -> None:
    ahead = replace(SLOW, latency_us=5, buffer=TierBuffer(size_mb=1.0, gb_s=50, read_ahead=True))
    cache = replace(SLOW, latency_us=5, buffer=TierBuffer(size_mb=1.0, gb_s=50))
    small = {"context_tokens": 7, "hits": {"slow": 1.0}}
    for tier in (ahead, cache):
        result = run(small, tiers={"slow": tier}, **ONE)
        assert service_ns(result) == [SLOW_NS + round(7 * TOKEN_BYTES / 50)]
    large = {"context_tokens": 100, "hits": {"slow": 1.0}}
    rest = round((100 * TOKEN_BYTES - 1_000_000) / 10)
    assert service_ns(run(large, tiers={"slow": ahead}, **ONE)) == [SLOW_NS + 5000 + 20_000 + rest]
    assert service_ns(run(large, tiers={"slow": cache}, **ONE)) == [
        SLOW_NS + 5000 + round(100 * TOKEN_BYTES / 10)
    ]


def test_an_expectation_is_taken_by_every_request() -> None:
    recall = {"context_tokens": 1000, "hits": {"fast": 0.5, "slow": 0.8}, "expected": True}
    result = run(recall, **{**ONE, "requests": 5})
    (expected,) = set(service_ns(result))
    assert expected == round(0.5 * (10_000 + TOKEN_BYTES * 10) + 0.4 * (200_000 + TOKEN_BYTES * 100))
    assert result.requests["cached_tokens"].to_list() == [900] * 5
    store = result.summary["memory"]["store"]
    assert (store["lookups"], store["misses"]) == (5, 0.5)
    assert [tier["hits"] for tier in store["tiers"].values()] == [2.5, 2]


def test_a_context_is_found_from_the_end_of_its_writing_on() -> None:
    """The tier takes 1.31 s to write 131 MB; requests come every half second and are served in a few ms."""
    tiers = {"fast": MemoryTier(1.0, 0.1)}
    workload = {**ONE, "requests": 5, "rate_per_s": 2.0}
    result = run({"context_tokens": 1000, "contexts": 1}, tiers=tiers, **workload)
    assert result.requests["cached_tokens"].to_list() == [0, 0, 0, 1000, 1000]
    tier = result.summary["memory"]["store"]["tiers"]["fast"]
    assert tier["written_bytes"] == 1000 * TOKEN_BYTES
    assert tier["hits"] == 2


def test_a_context_is_written_when_the_answer_is_complete() -> None:
    """The second request comes while the first, of 2,000 tokens, still decodes: 1 ms a step and more."""
    workload = {**ONE, "output_tokens": 2000, "requests": 3, "rate_per_s": 1.0}
    result = run({"context_tokens": 1000, "contexts": 1}, **workload)
    assert result.requests["cached_tokens"].to_list() == [0, 0, 0]
    assert result.requests["finish_s"][0] > result.requests["arrival_s"][1]
    later = run({"context_tokens": 1000, "contexts": 1}, **{**workload, "rate_per_s": 0.1})
    assert later.requests["cached_tokens"].to_list() == [0, 1000, 1000]


def test_lookups_of_all_tiers_that_are_asked_add_up() -> None:
    """Of two contexts of 131 MB the first tier holds one."""
    tiers = {"fast": replace(FAST, capacity_gb=0.132), "slow": SLOW}
    recall = {"context_tokens": 1000, "contexts": 2}
    result = run(recall, tiers=tiers, **{**ONE, "requests": 30})
    miss = FAST_NS + SLOW_NS
    hits = {
        miss,
        FAST_NS + round(1000 * TOKEN_BYTES / 100),
        FAST_NS + SLOW_NS + 1000 * TOKEN_BYTES // 10,
    }
    assert set(service_ns(result)) == hits
    assert service_ns(result).count(miss) == 2


@pytest.mark.parametrize("capacities", [(0.2,), (0.15, 0.3), (0.14, 0.14, 0.3)])
def test_hits_demotions_and_drops_are_those_of_plain_lists(capacities: tuple[float, ...]) -> None:
    """Requests come one by one: what is asked for is found where the lists have it."""
    tiers = {f"tier{level}": MemoryTier(capacity, 100) for level, capacity in enumerate(capacities)}
    lengths = {"distribution": "uniform", "min": 300, "max": 1000}
    workload = {**ONE, "requests": 300}
    program = hf.compile(
        config_of({"context_tokens": lengths, "contexts": 9, "skew": 0.5}, tiers=tiers, **workload)
    )
    lookup = program.ops[0].work
    assert lookup is not None
    assert lookup.key is not None
    listed = ListedTiers([round(capacity * 1e9) for capacity in capacities])
    cached, found_in = [], [0] * (len(capacities) + 1)
    for key, tokens in zip(lookup.key.tolist(), lookup.tokens.tolist(), strict=True):
        level, held, _ = listed.find(key)
        listed.put(key, tokens, tokens * TOKEN_BYTES)
        cached.append(held)
        found_in[level] += 1
    result = hf.simulate(program)
    assert result.requests["cached_tokens"].to_list() == cached
    store = result.summary["memory"]["store"]
    own = list(store["tiers"].values())
    assert store["misses"] == found_in[-1] > 9
    assert [tier["hits"] for tier in own] == found_in[:-1]
    assert [tier["demoted"] for tier in own] == listed.demoted
    assert [tier["dropped"] for tier in own] == [0] * (len(own) - 1) + [listed.dropped]
    assert all(tier["peak_bytes"] <= capacity * 1e9 for tier, capacity in zip(own, capacities, strict=True))


def test_a_session_finds_the_context_that_it_came_with_before() -> None:
    sessions = {"sessions": 20, "turns": 3, "rate_per_s": 1.0}
    result = run({"context_tokens": 500, "per_session": True}, "workload=sessions", **sessions)
    by_turn = result.requests.with_columns(turn=pl.int_range(pl.len()).over("session"))
    assert by_turn.filter(pl.col("turn") == 0)["cached_tokens"].unique().to_list() == [0]
    assert by_turn.filter(pl.col("turn") > 0)["cached_tokens"].unique().to_list() == [500]


def test_a_session_finds_what_was_said_before() -> None:
    """Prompt and answer of the turn before, but for the answer's last token, whose KV is never computed."""
    sessions = {"sessions": 20, "turns": 4, "rate_per_s": 1.0, "system_prompt_tokens": 0}
    result = run({"per_session": True}, "workload=sessions", "output.steps=true", **sessions)
    requests = result.requests
    program = result.program
    assert requests["input_tokens"].to_list() == program.requests.input_tokens.tolist()
    before = program.requests.previous
    assert before is not None
    said = program.requests.input_tokens + program.requests.output_tokens - 1
    expected = [0 if turn < 0 else int(said[turn]) for turn in before.tolist()]
    assert requests["cached_tokens"].to_list() == expected
    assert result.steps["prefill_tokens"].sum() == requests["input_tokens"].sum() - sum(expected)
    tier = result.summary["memory"]["store"]["tiers"]["fast"]
    last = [int(said[turn]) for turn in range(len(said)) if turn not in set(before.tolist())]
    assert tier["written_bytes"] == sum(last) * TOKEN_BYTES  # each turn writes what is new


def free_blocks(monkeypatch: pytest.MonkeyPatch, program: hf.Program) -> list[tuple[int, int]]:
    """Run a program; return the free and all blocks of every LLM client when it is over."""
    seen: list[LLMClient] = []
    build = simulation.build_clients

    def watched(*given: Any, **named: Any) -> Any:
        tasks, clients = build(*given, **named)
        seen.extend(client for client in clients if isinstance(client, LLMClient))
        return tasks, clients

    monkeypatch.setattr(simulation, "build_clients", watched)
    run_program(program)
    return [(client.batch.free, client.batch.blocks) for client in seen]


@pytest.mark.parametrize("preemption", ["recompute", "swap", "none"])
@pytest.mark.parametrize("batching", ["chunked", "continuous", "mixed"])
def test_blocks_taken_are_freed(monkeypatch: pytest.MonkeyPatch, batching: str, preemption: str) -> None:
    recall = {"context_tokens": {"distribution": "uniform", "min": 1, "max": 400}, "hits": {"fast": 0.7}}
    llm = {"batching": batching, "preemption": preemption, "kv_blocks": 300, "max_num_batched_tokens": 512}
    lengths = {"distribution": "uniform", "min": 1, "max": 500}
    workload = {"requests": 200, "rate_per_s": 100.0, "input_tokens": lengths, "output_tokens": lengths}
    program = hf.compile(config_of(recall, llm=llm, **workload))
    if preemption != "none":
        assert hf.simulate(program).requests["preemptions"].sum() > 0
    assert free_blocks(monkeypatch, program) == [(300, 300)]


def test_what_was_loaded_is_computed_again_after_a_preemption() -> None:
    """Two sequences of 11 blocks grow to 14 each; of 24 blocks the second runs out and begins anew, alone."""
    pair = {"requests": 2, "arrivals": {"process": "closed_loop", "concurrency": 2}}
    lengths = {"input_tokens": 16, "output_tokens": 48}
    recall = {"context_tokens": 160, "hits": {"fast": 1.0}}
    result = run(recall, "output.steps=true", llm={"kv_blocks": 24}, **pair, **lengths)
    assert result.requests["cached_tokens"].to_list() == [160, 160]
    assert result.requests["preemptions"].to_list() == [0, 1]
    computed = [tokens for tokens in result.steps["prefill_tokens"] if tokens]
    assert sum(computed[:-1]) == 2 * 16
    generated = computed[-1] - 176
    assert generated in (16, 17)  # the 13th block is wanted after 16 decodes; a token may be in flight


def with_pools_apart(recall: dict[str, Any], **workload: Any) -> hf.Program:
    """Return a program whose prefill and decode are on pools of their own."""
    config = config_of(recall, **workload)
    none = ("cluster.pools.prefill.prefix_cache=false", "cluster.pools.decode.prefix_cache=false")
    pools: dict[str, Any] = dict(composed("cluster=disaggregated", *none).cluster.pools)
    pools["store"] = config.cluster.pools["store"]
    return hf.compile(replace(config, cluster=replace(config.cluster, pools=pools)))


def test_where_decodes_have_a_pool_contexts_are_kept_after_them() -> None:
    """While the first answer of 2,000 tokens is written, the second and third requests find nothing."""
    workload = {**ONE, "output_tokens": 2000, "requests": 5}
    result = hf.simulate(with_pools_apart({"context_tokens": 1000, "contexts": 1}, **workload))
    finished = result.requests["finish_s"][0]
    arrivals = result.requests["arrival_s"].to_list()
    cached = result.requests["cached_tokens"].to_list()
    assert cached == [1000 if arrival > finished else 0 for arrival in arrivals]
    assert {0, 1000} == set(cached)
    at_once = {**ONE, "output_tokens": 1, "requests": 3}
    result = hf.simulate(with_pools_apart({"context_tokens": 1000, "contexts": 1}, **at_once))
    assert result.requests["cached_tokens"].to_list() == [0, 1000, 1000]


def test_a_store_beside_a_client_is_read_by_that_client() -> None:
    recall = {"context_tokens": 400, "contexts": 3}
    pools: dict[str, Any] = {"llm": {"count": 3, "routing": "random"}, "store": {"count": 3, "beside": "llm"}}
    result = run(recall, **pools, requests=60, rate_per_s=5.0)
    asked = [name.partition("/")[2] for name in retrievals(result)["client"]]
    prefills = result.stages.filter(pl.col("stage") == "prefill").sort("request")["client"]
    assert [name.partition("/")[2] for name in prefills] == asked
    assert len(set(asked)) == 3


@pytest.mark.parametrize("overlap", [True, False])
def test_the_router_of_the_llm_pool_decides_whose_store_is_asked(overlap: bool) -> None:
    """Each request goes to the client with the fewest unfinished requests, those looked up for it included."""
    recall = {"context_tokens": 400, "hits": {"slow": 0.5}, "overlap": overlap}
    llm = {"count": 3, "routing": "least_requests"}
    tiers = {"slow": replace(SLOW, bandwidth_gb_s=1.0)}
    result = run(
        recall, llm=llm, store={"count": 3, "beside": "llm"}, tiers=tiers, requests=150, rate_per_s=40.0
    )
    asked = [int(name.partition("/")[2]) for name in retrievals(result)["client"]]
    prefills = result.stages.filter(pl.col("stage") == "prefill").sort("request")["client"]
    assert [int(name.partition("/")[2]) for name in prefills] == asked
    arrivals, ends = (result.requests[name].to_list() for name in ("arrival_s", "finish_s"))
    decided_by_load = 0
    for request, client in enumerate(asked):
        unfinished = [
            sum(ends[other] >= arrivals[request] for other in range(request) if asked[other] == one)
            for one in range(3)
        ]
        assert client == unfinished.index(min(unfinished))
        decided_by_load += len(set(unfinished)) > 1
    assert decided_by_load > 75


def test_a_router_weighs_prompts_whose_context_is_looked_up(tmp_path: Path) -> None:
    """Two long prompts arrive first: the others go to the third client, also while nothing is computed yet."""
    recall = {"context_tokens": 400, "hits": {"slow": 1.0}}
    llm = {"count": 3, "routing": "least_input_tokens"}
    trace = tmp_path / "requests.csv"
    rows = [(0, 5000), (1, 4000), (2, 100), (3, 200), (4, 300)]
    trace.write_text(
        "arrival_us,input_tokens,output_tokens\n" + "".join(f"{at},{size},2\n" for at, size in rows)
    )
    overrides = ("workload=trace", f"workload.path={trace}")
    result = run(recall, *overrides, llm=llm, store={"count": 3, "beside": "llm"}, tiers={"slow": SLOW})
    prefills = result.stages.filter(pl.col("stage") == "prefill").sort("request")["client"]
    assert prefills.to_list() == ["llm/0", "llm/1", "llm/2", "llm/2", "llm/2"]


def test_requests_that_skip_the_retrieval_have_no_context() -> None:
    result = run({"context_tokens": 700, "hits": {"fast": 1.0}, "share": 0.5}, requests=100)
    asked = retrievals(result)["request"].to_list()
    assert 0 < len(asked) < 100
    cached = result.requests["cached_tokens"].to_list()
    assert [request for request, tokens in enumerate(cached) if tokens == 700] == asked
    prompts = result.stages.filter(pl.col("stage") == "prefill").sort("request")["tokens"]
    assert (prompts - result.requests["input_tokens"]).to_list() == cached


def test_equal_configs_give_equal_tables() -> None:
    recall = {"context_tokens": 900, "contexts": 20, "skew": 0.7}
    tiers = {"fast": replace(FAST, capacity_gb=0.5), "slow": replace(SLOW, capacity_gb=1.0)}
    one, other = (run(recall, tiers=tiers, requests=400, rate_per_s=20.0) for _ in range(2))
    for name in ("requests", "stages", "clients", "links"):
        assert_frame_equal(getattr(one, name), getattr(other, name), check_exact=True)
    assert one.summary["memory"] == other.summary["memory"]
    assert one.summary["memory"]["store"]["tiers"]["slow"]["dropped"] > 0


SHARED: dict[str, Any] = {
    "context_tokens": {"distribution": "uniform", "min": 1, "max": 700},
    "contexts": 12,
    "skew": 0.5,
}
LOOP: dict[str, dict[str, Any]] = {
    "think": {"kind": "prefill", "after": ["recall"], "repeat": "turns", "extra_tokens": 30},
    "act": {"kind": "decode", "after": ["think"], "repeat": "turns"},
}
ROUTED: dict[str, dict[str, Any]] = {
    "small": {"kind": "prefill", "after": ["recall"], "route": {"size": "small"}},
    "answer": {"kind": "decode", "after": ["small"]},
    "large": {"kind": "prefill", "after": ["recall"], "route": {"size": "large"}},
    "long_answer": {"kind": "decode", "after": ["large"]},
}


@pytest.mark.parametrize(
    ("changes", "more"),
    [
        ({"llm": {"pipeline_parallel": 2}}, {}),
        ({"llm": {"lookahead": 0, "packing": "shortest_prompt"}}, {}),
        ({"llm": {"count": 2}, "store": {"count": 3, "routing": "least_requests"}}, {}),
        ({"arrivals": {"process": "closed_loop", "concurrency": 8}}, {}),
        ({"stages": LOOP}, {"loops": {"turns": {"times": 3}}}),
        ({"stages": ROUTED}, {"routes": {"size": {"small": 0.4, "large": 0.6}}}),
    ],
    ids=["stages of devices", "no look-ahead", "several stores", "closed loop", "loop", "routes"],
)
def test_what_is_found_and_what_is_computed_make_up_the_prompts(
    changes: dict[str, Any], more: dict[str, Any]
) -> None:
    config = config_of(SHARED, "output.steps=true", **{"requests": 100, "rate_per_s": 20.0, **changes})
    result = hf.simulate(hf.compile(replace(config, pipeline=replace(config.pipeline, **more))))
    prompts = result.stages.filter(pl.col("kind") == "prefill")["tokens"].sum()
    cached = result.requests["cached_tokens"].sum()
    assert cached > 0
    assert result.steps["prefill_tokens"].sum() == prompts - cached
    assert result.summary["memory"]["store"]["lookups"] == 100


def test_the_files_of_a_run_hold_what_was_retrieved(tmp_path: Path) -> None:
    result = run(SHARED, requests=30)
    written = {path.name for path in result.write(tmp_path, trace=True)}
    assert {"links.parquet", "trace.json.gz", "summary.json"} <= written
    links = pl.read_parquet(tmp_path / "links.parquet")
    assert links["link"].to_list() == ["store/0 fast memory"]
    assert links["level"].to_list() == ["memory"]
    (store,) = pl.read_parquet(tmp_path / "clients.parquet").filter(pl.col("pool") == "store").to_dicts()
    assert 0 < store["busy_fraction"] < 1
