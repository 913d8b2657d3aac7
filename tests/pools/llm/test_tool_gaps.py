"""What becomes of the KV of a turn while a tool runs before the next one of its request."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from oracles.worked_examples import client

import hermes_flow as hf
from hermes_flow.errors import CompileError, ConfigError
from hermes_flow.pools.llm.batching import batching_policies
from hermes_flow.pools.llm.offload.batch import OffloadingBatch
from hermes_flow.pools.llm.offload.client import OffloadingClient
from hermes_flow.pools.llm.offload.links import LoadLinks
from hermes_flow.pools.llm.offload.store import OffloadingStore
from hermes_flow.pools.llm.offload.tiers import Tiers
from hermes_flow.pools.llm.prefix_cache import Held
from hermes_flow.pools.llm.tasks import LLMTasks
from hermes_flow.program.kv_store import TierSpec
from hermes_flow.program.offload import OffloadSpec
from hermes_flow.program.units import NEVER

PS_PER_US = 1_000_000
HOST = TierSpec("host", capacity_bytes=10, bytes_per_ns=1.0)
GAP = "cluster.pools.llm.tool_gap"
NONE = OffloadSpec((), 1, 1.0)


def turns(gap: str, ttl_us: int | None = None, *tiers: TierSpec) -> tuple[OffloadingClient, LLMTasks]:
    """Run a turn of request 0, then requests 1 and 2, which fill all six blocks of two tokens, then its next turn."""
    ttl_ps = NEVER if ttl_us is None else ttl_us * PS_PER_US
    offload = OffloadSpec(tiers, 1, 1.0, prefetch=False, gap=gap, ttl_ps=ttl_ps)
    spec = replace(client("chunked", 0, kv_blocks=6), prefix_cache=True, offload=offload)
    tasks = LLMTasks(
        prompt=[6, 6, 6, 8, 1, 1],
        output=[1] * 6,
        block_runs=lambda task, size, prompt: [("r0", 0, prompt // size)] if task % 3 == 0 else [],
    )
    tasks.requests, tasks.goes_on = 3, bytearray([1, 0, 0, 0, 0, 0])
    policy = batching_policies.parse("chunked", "batching")
    engine = OffloadingClient(0, spec, tasks, policy, lambda task, now: None, notify=False)
    for task, at_us in ((0, 0), (1, 20), (2, 60), (3, 100)):
        engine.submit(task, 1000 * at_us)
    engine.settle(NEVER)
    return engine, tasks


@pytest.mark.parametrize(
    ("gap", "ttl_us", "tiers", "found"),
    [
        ("cache", None, (), 0),  # requests 1 and 2 have evicted all of it
        ("keep", None, (), 6),
        ("ttl", 10, (), 0),
        ("ttl", 100, (), 6),
        ("drop", None, (), 0),
        ("offload", None, (HOST,), 6),
    ],
)
def test_the_next_turn_finds_what_was_held_or_moved(
    gap: str, ttl_us: int | None, tiers: tuple[TierSpec, ...], found: int
) -> None:
    engine, tasks = turns(gap, ttl_us, *tiers)
    assert tasks.cached.get(3, 0) == found
    # 10 µs and 1 µs for each token that is not found. A load of three bytes takes 3 ns, after three bytes of others,
    # whose blocks it takes, are written.
    load_ps = 6_000 if gap == "offload" else 0
    assert tasks.finish_ps[3] == (100 + 10 + 8 - found) * PS_PER_US + load_ps
    assert tasks.tier_hits == ({"host": {3: 6}} if gap == "offload" else {})
    batch = engine.batch
    assert isinstance(batch, OffloadingBatch)
    assert batch.free == 6
    assert (batch.pinned, batch.expired) == (gap in ("keep", "ttl"), ttl_us == 10)


def test_dropped_blocks_are_the_next_to_be_taken() -> None:
    store = OffloadingStore(4, Tiers(NONE, LoadLinks(NONE)), writes_computed=False)
    first, second = Held(), Held()
    for held, chain in ((first, "a"), (second, "b")):
        store.take(2)
        store.remember(held, [(chain, 0, 2)], 2)
        store.release(held, unnamed=0, blank=0)
    store.drop(second)
    store.take(2)
    assert store.hits([("a", 0, 2)], 2).blocks == 2
    assert store.hits([("b", 0, 2)], 2).blocks == 0


def test_dropping_leaves_what_others_hold() -> None:
    store = OffloadingStore(4, Tiers(NONE, LoadLinks(NONE)), writes_computed=False)
    held = Held()
    store.take(4)
    store.remember(held, [("a", 0, 4)], 4)
    store.share(held.first(2))
    store.release(held, unnamed=0, blank=0)
    store.drop(held)
    assert store.hits([("a", 0, 4)], 4).blocks == 2
    assert store.free == 2


AGENTS = [
    *("pipeline=agent", "workload=azure_conv", "workload.requests=40", "workload.rate_per_s=4"),
    *("workload.arrivals=poisson", "workload.drift=[]", "slo=none", "cluster.pools.llm.kv_blocks=5500"),
]
AGENTS.append("pipeline.stages.tool.latency_ms.mean=5000")


def agents(*overrides: str) -> hf.Result:
    return hf.simulate(hf.compile(hf.compose([*AGENTS, *overrides])))


def test_agents_whose_kv_is_kept_find_more_of_it_than_those_whose_kv_others_may_evict(tmp_path: Path) -> None:
    from hermes_flow.validation.invariants.check import check_run

    cached, kept, dropped = (agents(f"{GAP}.policy={policy}") for policy in ("cache", "keep", "drop"))
    shares = [result.summary.get("prefix", {}).get("hit_share") for result in (dropped, cached, kept)]
    assert shares[0] == 0
    assert shares[0] < shares[1] < shares[2]
    held = kept.summary["offload"]["llm"]
    assert held["held_turns"] > held["gave_way_turns"] > 0  # memory for all of them there is not
    assert kept.summary["requests"]["completed"] == 40
    kept.write(tmp_path / "run")
    assert not check_run(tmp_path / "run").violations


def test_agents_whose_kv_moves_to_the_host_load_all_that_they_find() -> None:
    result = agents(f"{GAP}.policy=offload", "cluster.pools.llm.offload.tiers=[host]")
    host, found = (result.requests[name].sum() for name in ("host_hit_tokens", "cached_tokens"))
    # Where memory is short, some give what was loaded back, and find it on the device.
    assert 100_000 < host <= found < 1.05 * host


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([f"{GAP}.policy=ttl"], "ttl_s: null with policy=ttl; expected a time with policy=ttl, else null"),
        ([f"{GAP}.policy=keep", f"{GAP}.ttl_s=3"], "ttl_s: 3 with policy=keep"),
        ([f"{GAP}.policy=offload"], "there are no tiers; expected tiers in offload.tiers"),
        ([f"{GAP}.policy=drop", "engine=sglang"], "not modelled with the scheduler of sglang"),
        (
            [f"{GAP}.policy=keep", "cluster.pools.llm.count=2"],
            "routing is round_robin; expected session_affinity",
        ),
        ([f"{GAP}.policy=keep", "workload.timeout_s=9"], "users that give up between turns; expected ttl"),
    ],
)
def test_settings_that_do_not_fit_are_refused_by_name(overrides: list[str], message: str) -> None:
    with pytest.raises((CompileError, ConfigError), match=message):
        hf.compile(hf.compose([*AGENTS, *overrides]))


def test_a_policy_without_next_turns_is_a_warning() -> None:
    program = hf.compile(
        hf.compose(["pipeline=llm", "workload=sessions", "workload.sessions=9", f"{GAP}.policy=drop"])
    )
    assert any("tool_gap has no effect" in text for text in program.warnings)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            ("pipeline=agent", "cluster=disaggregated", "cluster.pools.decode.tool_gap.policy=drop"),
            "cluster.pools.decode.tool_gap.policy: drop is not modelled on clients that take over KV from 'prefill'",
        ),
        (
            ("pipeline=kv_reuse", f"{GAP}.policy=drop"),
            f"{GAP}.policy: drop is not modelled for prompts that begin with the context of 'recall'",
        ),
        (
            ("pipeline=agent", "model=gpt_oss_20b", f"{GAP}.policy=drop"),
            f"{GAP}.policy: drop: it is not modelled for the sliding windows or states of gpt_oss_20b",
        ),
        (
            ("pipeline=agent", "model=qwen3_5_27b", "hardware=h200_sxm", f"{GAP}.policy=drop"),
            f"{GAP}.policy: drop: it is not modelled for the sliding windows or states of qwen3_5_27b",
        ),
    ],
)
def test_gaps_are_refused_where_offload_is(given: tuple[str, ...], message: str) -> None:
    with pytest.raises(CompileError) as refused:
        hf.compile(hf.compose(given))
    assert [problem for problem in refused.value.problems if problem.startswith(message)]
    assert len(set(refused.value.problems)) == len(refused.value.problems)
