"""LoRA adapters on an engine: every instant as in a naive scheduler, memory, times and what is refused."""

from __future__ import annotations

import random
import re
from dataclasses import replace
from typing import Any

import pytest
from oracles.client_runs import run_alone
from oracles.llm_client import OraclePolicy, simulate_llm_client
from oracles.random_systems import RandomSystem, random_system
from tries import tries

import hermes_flow as hf
from hermes_flow.pools.llm.adapter_client import AdapterClient
from hermes_flow.program.pools import AdapterSpec, LLMClientSpec

BASE = ["pipeline=llm", "workload=synthetic", "workload.rate_per_s=8", "workload.requests=80"]
ASKED = "workload.adapters={count: 12}"


def simulated(*overrides: str) -> hf.Result:
    return hf.simulate(hf.compile(hf.compose([*BASE, *overrides])))


def with_adapters(system: RandomSystem, rng: random.Random) -> RandomSystem:
    """Return the system with an adapter for most requests, few places, and times in the unit of its steps."""
    unit = max(7, system.spec.cost.tokens_ps[1])
    slots = rng.randint(1, 4)
    host = rng.choice([None, slots + rng.randint(0, 2)])
    most = len(system.spec.cost.tokens_ps)
    adapters = AdapterSpec(
        slots=slots,
        host_slots=host,
        load_ps=rng.choice([unit, unit // 7]),
        read_ps=0 if host is None else 3 * unit,
        tokens_ps=[0, *(unit // 5 + tokens * rng.choice([0, 3]) for tokens in range(1, most))],
        each_ps=unit // 11,
        smaller={number: (unit // 9, unit // 2) for number in range(slots + 3) if rng.random() < 0.3},
    )
    names = [-1, *range(slots + rng.randint(0, 3))]
    requests = [replace(one, adapter=rng.choice(names)) for one in system.requests]
    keyed = [replace(one, block_keys=tuple((one.adapter, key) for key in one.block_keys)) for one in requests]
    return replace(system, spec=replace(system.spec, adapters=adapters), requests=keyed)


@pytest.mark.parametrize("lookahead", [0, 1])
@pytest.mark.parametrize("batching", ["chunked", "mixed"])
def test_equals_the_naive_scheduler_on_random_systems(batching: str, lookahead: int) -> None:
    rng = random.Random(16_07 + lookahead)
    policies = [
        OraclePolicy(),
        OraclePolicy(prefix_cache=True),
        OraclePolicy(preemption="swap", swap_ps_per_block=1),
        OraclePolicy(preemption="none"),
    ]
    passed = loads = preempting = 0
    for attempt in range(tries(32, of=600)):
        policy = policies[attempt % len(policies)]
        system = with_adapters(random_system(rng, batching, lookahead, policy), rng)
        client, tasks = run_alone(AdapterClient, system)
        expected = simulate_llm_client(system.spec, system.requests, system.policy)
        assert list(tasks.start_ps) == expected.start_ps
        assert list(tasks.first_ps) == expected.first_ps
        assert list(tasks.finish_ps) == expected.finish_ps
        assert (client.adapters.slots.loads, client.adapters.slots.reads) == (
            expected.adapter_loads,
            expected.adapter_reads,
        )
        assert not client.adapters.slots.users
        assert not client.waiting
        assert len(client.waiting) == 0
        record = tasks.record(0, len(system.requests), tasks.start_ps, tasks.start_ps)  # type: ignore[arg-type]
        assert record.adapter_wait_ns is not None
        passed += int((record.adapter_wait_ns > 0).sum())
        loads += client.adapters.slots.loads
        preempting += bool(tasks.preemptions)
    assert min(passed, loads, preempting) > 5


def test_a_client_never_runs_more_adapters_than_it_has_places() -> None:
    """Also from outside: at no instant do the requests in service have more different adapters."""
    result = simulated(ASKED, "cluster.pools.llm.adapters={slots: 3}")
    rows = [row for row in result.stages.to_dicts() if row["stage"] in ("prefill", "decode")]
    adapter = dict(enumerate(result.requests["adapter"].to_list()))
    for at in sorted({row["start_s"] for row in rows}):
        running = {adapter[row["request"]] for row in rows if row["start_s"] <= at < row["finish_s"]}
        assert len(running) <= 3
    waits = result.requests["adapter_wait_s"].to_list()
    assert sum(wait > 0 for wait in waits) > 10
    for row in result.requests.to_dicts():
        assert row["adapter_wait_s"] <= row["ttft_s"]


def test_an_adapter_of_llama3_8b_has_42_million_weights_and_takes_them_from_kv() -> None:
    plain = hf.compile(hf.compose(BASE))
    program = hf.compile(hf.compose([*BASE, ASKED, "cluster.pools.llm.adapters={slots: 10, rank: 16}"]))
    # queries and output 4096 → 4096, keys and values 4096 → 1024, gate and up 4096 → 14336, down 14336 → 4096
    weights = 32 * 16 * (2 * (4096 + 4096) + 2 * (4096 + 1024) + 3 * (4096 + 14336))
    assert weights == 41_943_040
    client, before = program.pools[-1].client, plain.pools[-1].client
    assert isinstance(client.kv_blocks, int)
    assert isinstance(before.kv_blocks, int)
    block = 2 * 32 * 8 * 128 * 2 * 16
    assert before.kv_blocks - client.kv_blocks == pytest.approx(10 * 2 * weights / block, abs=1)
    link = hf.compose(BASE).cluster.pools["llm"].hardware.host_link_gb_s
    assert client.adapters.load_ps == round(2 * weights / (link * 1e9) * 1e12)  # type: ignore[attr-defined]


def test_a_lone_request_loads_its_adapter_once_and_computes_its_matrices() -> None:
    alone = [*BASE, "workload.arrivals=constant", "workload.rate_per_s=0.05", "workload.requests=4"]
    lone = ["workload.adapters={count: 1}", "cluster.pools.llm.adapters={slots: 2}"]
    program = hf.compile(hf.compose([*alone, *lone]))
    adapters = program.pools[-1].client.adapters  # type: ignore[attr-defined]
    with_it, plain = hf.simulate(program).requests, hf.simulate(hf.compile(hf.compose(alone))).requests
    prompts = plain["input_tokens"].to_list()
    for request, (ours, theirs) in enumerate(zip(with_it["ttft_s"], plain["ttft_s"], strict=True)):
        chunks = [min(8192, prompts[request] - done) for done in range(0, prompts[request], 8192)]
        extra = sum(adapters.tokens_ps[chunk] for chunk in chunks) + (adapters.load_ps if request == 0 else 0)
        assert ours - theirs == pytest.approx(extra / 1e12, abs=2e-9)
    assert with_it["adapter_load_s"].to_list() == [pytest.approx(adapters.load_ps / 1e12, abs=1e-9), 0, 0, 0]


def test_an_adapter_of_a_lower_rank_is_copied_in_less_time_and_has_a_place_of_the_highest_rank() -> None:
    highest = "cluster.pools.llm.adapters={slots: 4, rank: 64}"
    mixed = "cluster.pools.llm.adapters={slots: 4, rank: 64, ranks: {adapter_1: 8, adapter_2: 16}}"
    equal, own = (hf.compile(hf.compose([*BASE, ASKED, one])) for one in (highest, mixed))
    whole, smaller = (next(pool.client for pool in one.pools if pool.name == "llm") for one in (equal, own))
    assert isinstance(whole, LLMClientSpec)
    assert isinstance(smaller, LLMClientSpec)
    assert whole.adapters is not None
    assert smaller.adapters is not None
    assert whole.kv_blocks == smaller.kv_blocks
    assert whole.adapters.tokens_ps == smaller.adapters.tokens_ps
    names = own.requests.adapters
    loads = {names[number]: load_ps for number, (load_ps, _) in smaller.adapters.smaller.items()}
    load_ps = whole.adapters.load_ps
    assert loads == {"adapter_1": round(load_ps / 8), "adapter_2": round(load_ps / 4)}
    times = [one.summary["adapters"]["llm"] for one in map(hf.simulate, (equal, own))]
    assert times[1]["load_s"] < times[0]["load_s"]


@pytest.mark.parametrize(
    ("ranks", "message"),
    [
        ("{adapter_1: 65}", "cluster.pools.llm.adapters.ranks.adapter_1: 65 is above rank (16)"),
        ("{adaptor_1: 8}", "cluster.pools.llm.adapters.ranks.adaptor_1: no request asks for this adapter"),
    ],
)
def test_ranks_that_no_place_has_and_adapters_that_nobody_asks_for_are_named(
    ranks: str, message: str
) -> None:
    own = f"cluster.pools.llm.adapters={{slots: 4, ranks: {ranks}}}"
    with pytest.raises(hf.HermesFlowError, match=re.escape(message)):
        hf.compile(hf.compose([*BASE, ASKED, own]))


def test_prompts_for_different_adapters_share_no_prefix() -> None:
    shared = ["workload.prefix_share=0.5", "cluster.pools.llm.prefix_cache=true"]
    one = simulated(*shared, "cluster.pools.llm.adapters={slots: 12}", "workload.adapters={count: 1}")
    many = simulated(*shared, "cluster.pools.llm.adapters={slots: 12}", ASKED)
    hits = [result.requests["cached_tokens"].to_list() for result in (one, many)]
    assert sum(tokens > 0 for tokens in hits[0]) == 79  # all but the first
    names = many.requests["adapter"].to_list()
    first = {names.index(name) for name in names}
    assert all(hits[1][request] == 0 for request in first)
    assert sum(tokens > 0 for tokens in hits[1]) > 40


def test_where_nobody_asks_for_an_adapter_only_the_memory_is_missing() -> None:
    plain, waste = simulated(), simulated("cluster.pools.llm.adapters={slots: 4}")
    assert plain.requests.equals(waste.requests)
    assert any("no request asks for any" in text for text in waste.summary["warnings"])
    unheeded = simulated(ASKED)
    assert any(
        "requests ask for adapters, but no pool has any" in text for text in unheeded.summary["warnings"]
    )
    assert unheeded.requests.drop("adapter").equals(plain.requests)


def test_adapters_are_drawn_by_zipf_and_by_session() -> None:
    program = hf.compile(
        hf.compose([*BASE, "workload.requests=4000", "workload.adapters={count: 3, base_share: 0.2}"])
    )
    adapter = program.requests.adapter
    assert adapter is not None
    shares = [float((adapter == number).mean()) for number in (-1, 0, 1, 2)]
    total = 1 + 1 / 2 + 1 / 3
    assert shares == pytest.approx([0.2, 0.8 / total, 0.4 / total, 0.8 / 3 / total], abs=0.02)
    turns = hf.compile(
        hf.compose(["workload=sessions", "workload.sessions=50", "workload.adapters={count: 9}"])
    ).requests
    assert turns.session is not None
    assert turns.adapter is not None
    pairs = set(zip(turns.session.tolist(), turns.adapter.tolist(), strict=True))
    assert len(pairs) == 50


def test_classes_and_traces_name_adapters(tmp_path: Any) -> None:
    classes = "workload.classes={a: {share: 0.5, adapter: legal}, b: {share: 0.5}}"
    names = simulated(classes, "cluster.pools.llm.adapters={slots: 1}").requests["adapter"].to_list()
    assert set(names) == {"legal", None}
    path = tmp_path / "t.csv"
    path.write_text("arrival_s,input_tokens,output_tokens,adapter\n0,10,2,sql\n1,10,2,\n")
    trace = hf.simulate(
        hf.compile(
            hf.compose(["workload=trace", f"workload.path={path}", "cluster.pools.llm.adapters={slots: 1}"])
        )
    )
    assert trace.requests["adapter"].to_list() == ["sql", None]
    with pytest.raises(
        hf.HermesFlowError, match="the workload says so of each request; leave the adapters of classes out"
    ):
        simulated(classes, ASKED)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["engine=sglang"],
            "cluster.pools.llm.engine: sglang is not modelled with adapters; expected engine=vllm",
        ),
        (["cluster.pools.llm.batching=continuous"], "cluster.pools.llm.batching: continuous is not modelled"),
        (
            ["cluster.pools.llm.packing=shortest_prompt"],
            "cluster.pools.llm.packing: shortest_prompt is not modelled",
        ),
        (["cluster.pools.llm.pipeline_parallel=2"], "cluster.pools.llm.pipeline_parallel: 2 is not modelled"),
        (["model=mixtral_8x7b", "hardware=b200_sxm"], "adapters of experts"),
        (["model=deepseek_v3"], "has other layers than plain attention"),
        (["cluster.pools.llm.adapters.targets=[]"], "cluster.pools.llm.adapters.targets: empty"),
        (
            ["+cluster.pools.llm.adapters.host_slots=2"],
            "cluster.pools.llm.adapters.host_slots: 2 is below the 4 slots",
        ),
        (
            ["+cluster.pools.llm.adapters.host_slots=8"],
            "cluster.pools.llm.adapters.disk_gb_s: null; host_slots needs it",
        ),
        (["cluster.pools.llm.adapters.slots=4000"], "leaves no room for KV"),
        (
            ["cluster.pools.llm.hardware.host_link_gb_s=null"],
            "cluster.pools.llm.hardware.host_link_gb_s: null",
        ),
        (["+cluster.pools.llm.adapters.rang=8"], "cluster.pools.llm.adapters.rang: unknown key"),
    ],
)
def test_what_is_not_modelled_with_adapters_is_refused_by_name(overrides: list[str], message: str) -> None:
    adapters = "cluster.pools.llm.adapters={slots: 4, targets: [attention, mlp]}"
    with pytest.raises(hf.HermesFlowError) as caught:
        hf.compile(hf.compose([*BASE, ASKED, adapters, *overrides]))
    assert message in str(caught.value)


def test_adapters_where_kv_moves_are_refused() -> None:
    both = [f"cluster.pools.{name}.adapters={{slots: 4}}" for name in ("prefill", "decode")]
    with pytest.raises(
        hf.CompileError, match=r"cluster\.pools\.prefill\.adapters: KV moves between this pool"
    ):
        hf.compile(hf.compose(["pipeline=llm", "cluster=disaggregated", ASKED, *both]))
