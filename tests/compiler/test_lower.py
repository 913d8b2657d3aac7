from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from compiler.configs import config, llm_pool, problems_of, with_pool, with_stages

import hermes_flow as hf
from hermes_flow.config.schema import Config
from hermes_flow.errors import CompileError
from hermes_flow.program.pools import LLMClientSpec, SequentialClientSpec
from hermes_flow.program.program import Program
from hermes_flow.routing.random import Random
from hermes_flow.routing.round_robin import RoundRobin

PREFILL_ONLY = {"prefill": {"kind": "prefill"}}


def llm_client(program: Program) -> LLMClientSpec:
    (client,) = (pool.client for pool in program.pools if pool.name == "llm")
    assert isinstance(client, LLMClientSpec)
    return client


def closed(input_tokens: int, output_tokens: int, **pool: Any) -> Config:
    """Three equal requests on an LLM pool of 100 blocks of 16 tokens, unless ``pool`` says otherwise."""
    base = config("workload=closed_loop", "workload.requests=3")
    workload = dataclasses.replace(base.workload, input_tokens=input_tokens, output_tokens=output_tokens)
    return with_pool("llm", dataclasses.replace(base, workload=workload), **({"kv_blocks": 100} | pool))


def test_the_kv_capacity_of_llama3_8b_on_an_h100_is_worked_from_its_memory() -> None:
    # (.9 · 84.94 GB − 16.06 GB of weights − 1.51 GB) over blocks of 2 MiB: see tests/pools/llm/test_capacity.py
    client = llm_client(hf.compile(config("workload.requests=5")))
    assert (client.kv_blocks, client.block_size, client.devices) == (28_071, 16, 1)


def test_a_pool_keeps_what_its_scheduler_needs() -> None:
    program = hf.compile(
        with_pool("llm", count=3, tensor_parallel=2, max_num_seqs=9, max_num_batched_tokens=512, lookahead=0)
    )
    client = llm_client(program)
    assert (client.max_num_seqs, client.max_num_batched_tokens, client.lookahead) == (9, 512, 0)
    assert (client.batching, client.model, client.devices) == ("chunked", "llama3_8b", 2)
    assert [pool.count for pool in program.pools if pool.name == "llm"] == [3]


def test_the_tables_cover_every_step_the_client_may_plan() -> None:
    cost = llm_client(hf.compile(with_pool("llm", max_num_seqs=9, max_num_batched_tokens=512))).cost
    assert len(cost.tokens_ps) == 513
    assert len(cost.sequences_ps) == len(cost.decode_attention_ps) == 10


def test_whole_prompts_need_tables_as_long_as_the_longest_prompt() -> None:
    program = hf.compile(closed(1500, 10, batching="continuous", max_num_batched_tokens=512))
    assert len(llm_client(program).cost.tokens_ps) > 1500


def test_a_host_has_the_cores_it_is_given_or_those_of_its_hardware() -> None:
    def cores(base: Config) -> int:
        client = hf.compile(base).pools[0].client
        assert isinstance(client, SequentialClientSpec)
        return client.cores

    assert cores(config("workload.requests=5")) == 56
    assert cores(with_pool("host", cores=3)) == 3


def test_a_client_costs_what_all_its_devices_cost() -> None:
    priced = dataclasses.replace(llm_pool().hardware, usd_per_hour=2.5)
    program = hf.compile(with_pool("llm", hardware=priced, tensor_parallel=4))
    assert [pool.usd_per_hour for pool in program.pools] == [None, 10.0]


def test_the_routing_of_a_pool_comes_before_that_of_the_cluster() -> None:
    routing = [pool.routing for pool in hf.compile(with_pool("llm", routing="random")).pools]
    assert routing == [RoundRobin(), Random()]


@pytest.mark.parametrize(
    ("prompt", "output", "pool", "served"),
    [
        (1590, 10, {}, True),  # the last token is emitted, never computed: 1,599 of 1,600 tokens
        (1591, 10, {}, True),
        (1592, 10, {}, False),
        (1590, 10, {"preemption": "none"}, True),  # whole sequences are reserved
        (1591, 10, {"preemption": "none"}, False),
        (131_000, 72, {"kv_blocks": None}, True),  # the context of 131,072 tokens holds prompt and answer
        (131_000, 73, {"kv_blocks": None}, False),
    ],
)
def test_a_request_is_rejected_when_no_client_can_ever_hold_it(
    prompt: int, output: int, pool: dict[str, Any], served: bool
) -> None:
    asked = closed(prompt, output, **pool)
    if served:
        assert hf.compile(asked).rejected == {}
        return
    (problem,) = problems_of(asked)
    limit, setting = "longer than the context of llama3_8b (131,072 tokens)", "a larger model.max_context"
    if prompt < 2000:
        limit = "larger than the KV cache of llm (1,600 tokens)"
        setting = "more cluster.pools.llm.kv_blocks (null has those that fit)"
    assert problem == (
        f"workload: every request is {limit}; nothing can be served; expected shorter requests, or {setting}"
    )


def test_the_setting_is_that_of_the_pool_that_rejects_them() -> None:
    tight = ["cluster=disaggregated", "pipeline=llm", "workload=synthetic", "workload.requests=5"]
    for name in ("prefill", "decode"):
        (problem,) = problems_of(
            hf.compose([*tight, "workload.input_tokens=900", f"cluster.pools.{name}.kv_blocks=10"])
        )
        assert f"larger than the KV cache of {name} (160 tokens)" in problem
        assert problem.endswith(f"or more cluster.pools.{name}.kv_blocks (null has those that fit)")


def test_some_rejected_requests_are_a_warning() -> None:
    program = hf.compile(config("workload.requests=200", "cluster.pools.llm.kv_blocks=100"))
    requests = program.requests
    too_large = requests.input_tokens + requests.output_tokens - 1 > 1600
    assert sorted(program.rejected) == too_large.nonzero()[0].tolist()
    assert set(program.rejected.values()) == {"larger than the KV cache of llm (1,600 tokens)"}
    count = int(too_large.sum())
    assert 0 < count < 200
    assert program.warnings == (
        f"{count} of 200 requests are rejected: larger than the KV cache of llm (1,600 tokens)",
    )


def test_a_request_that_skips_the_stage_is_not_rejected_for_it() -> None:
    base = config("workload.requests=200", "cluster.pools.llm.kv_blocks=100")
    stages = {"tokenize": {"kind": "tokenize"}, "prefill": {"kind": "prefill", "after": ["tokenize"]}}
    stages["prefill"]["when"] = "input_tokens <= 1600"  # type: ignore[assignment]
    program = hf.compile(with_stages(stages, base))
    assert program.rejected == {}
    assert program.requests.input_tokens.max() > 1600


def test_a_missing_figure_is_a_problem_of_the_pool_that_needs_it() -> None:
    base = config("workload.requests=5")
    bare = dataclasses.replace(llm_pool(base).hardware, engine=None)
    both = with_pool("llm", base, hardware=bare)
    spare = dataclasses.replace(llm_pool(base), serves=(), hardware=dataclasses.replace(bare, name="x"))
    pools = {**both.cluster.pools, "spare": spare}
    broken = dataclasses.replace(both, cluster=dataclasses.replace(both.cluster, pools=pools))
    assert problems_of(broken) == [
        f"cluster.pools.{name}.hardware.engine: null; the roofline needs the engine's overheads here"
        for name in ("llm", "spare")
    ]


def test_the_notes_tell_where_capacity_and_cost_come_from() -> None:
    host, llm = hf.compile(config("workload.requests=5")).pools
    assert host.notes[0] == "56 cores, first come first served"
    assert llm.notes[0] == "chunked batching, look-ahead 1, at most 256 sequences and 8,192 tokens a step"
    unused = "prefix cache off (by default: no prompt of this workload can be found again)"
    assert llm.notes[1] == unused
    assert llm.notes[2] == (
        "KV 28,071 blocks of 16 = 449,136 tokens: 0.9 of memory is 76.4 GB a device, less 16.1 GB of weights "
        "and 1.5 GB reserved (work spaces 0.10, sampler 1.38)"
    )
    assert llm.notes[3].startswith("a step of 1 decode 6.56 ms, of 32 8.68 ms")
    assert llm.notes[4:-2] == llm.client.cost.provenance  # type: ignore[union-attr]
    assert all(pool.notes[-1].startswith("power: ") for pool in (host, llm))
    given = hf.compile(with_pool("llm", kv_blocks=5000)).pools[1]
    assert given.notes[2] == "KV 5,000 blocks of 16 = 80,000 tokens (given by kv_blocks)"


def test_only_the_requested_requests_are_compiled() -> None:
    program = hf.compile(with_stages(PREFILL_ONLY))
    assert len(program.requests) == 5
    assert [len(op.llm.prompt) for op in program.ops if op.llm is not None] == [5]
    with pytest.raises(CompileError):
        hf.compile(with_stages({}))
