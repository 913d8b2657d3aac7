"""The ready pipelines and loops, branches and routes at run time: closed forms, conservation, and who answers."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles.watched_run import watch
from pipelines_by_hand import AGENT, config_of

import hermes_flow as hf
from hermes_flow.machine.run import run
from hermes_flow.pools.llm.client import LLMClient
from hermes_flow.recording.recording import STEP_FIELDS

SIZE = 16
STEPS, DECODES, PREFILL = (STEP_FIELDS.index(name) for name in ("steps", "decodes", "prefill_tokens"))

SMALL = ("workload=synthetic", "workload.requests=60", "workload.rate_per_s=2")
READY = {
    "chat_guarded": ("cluster=guarded",),
    "reasoning_single": (),
    "reasoning_multi": ("cluster=agent",),
    "tree_search": ("cluster=guarded", "cluster.pools.llm.prefix_cache=true"),
    "cascade": ("cluster=two_models",),
    "routed": ("cluster=routed",),
    "agent": ("cluster=agent",),
    "fan_out": ("cluster=agent",),
}


def branching(branches: int, **options: Any) -> dict[str, Any]:
    decode = {"kind": "decode", "after": ["prefill"], "branches": branches} | options
    return {"prefill": {"kind": "prefill"}, "decode": decode}


def prefilled(recording: Any) -> int:
    """The prompt tokens that LLM clients have computed."""
    return sum(int(c.segments[:, PREFILL].sum()) for c in recording.clients if c.segments is not None)


@pytest.mark.parametrize("name", READY)
def test_every_ready_pipeline_runs_all_its_stages(name: str) -> None:
    config = hf.compose([f"pipeline={name}", *READY[name], *SMALL])
    result = hf.simulate(hf.compile(config))
    assert result.summary["requests"] == {"submitted": 60, "completed": 60, "failed": 0}
    assert set(result.summary["stages"]) == set(config.pipeline.stages)
    ends = result.stages.group_by("request").agg(pl.col("finish_s").max()).sort("request")
    assert (ends["finish_s"] == result.requests["finish_s"]).all()


@pytest.mark.parametrize("prompt", [1, 15, 16, 17, 48, 100])
@pytest.mark.parametrize("branches", [2, 5])
def test_branches_compute_their_prompt_once_and_its_last_partial_block_each(
    prompt: int, branches: int
) -> None:
    config = config_of(branching(branches), requests=7, input_tokens=prompt, output_tokens=20)
    result, recording = hf.simulate(hf.compile(config)), run(hf.compile(config))
    found = (prompt - 1) // SIZE * SIZE  # a hit never covers the last token
    assert result.requests["cached_tokens"].to_list() == [(branches - 1) * found] * 7
    assert prefilled(recording) == 7 * (prompt + (branches - 1) * (prompt - found))


def test_branches_go_to_the_client_of_the_first_and_a_prompt_is_held_once() -> None:
    config = config_of(
        branching(4), pool={"count": 3}, requests=12, rate_per_s=500.0, input_tokens=160, output_tokens=8
    )
    recording = run(hf.compile(config))
    clients = [record.client for record in recording.ops]
    assert all((own == clients[0]).all() for own in clients)
    assert len(set(clients[0].tolist())) == 3
    alone = run(hf.compile(config_of(branching(4), requests=1, input_tokens=161, output_tokens=8)))
    (llm,) = (client for client in alone.clients if client.segments is not None)
    assert llm.kv_peak_blocks == 160 // SIZE + 4  # and a block of its own for each answer


@pytest.mark.parametrize(("output", "result_tokens"), [(1, 3), (16, 16), (23, 100)])
def test_a_turn_finds_the_full_blocks_of_the_one_before(output: int, result_tokens: int) -> None:
    stages = AGENT | {"tool": AGENT["tool"] | {"result_tokens": result_tokens}}
    config = config_of(
        stages, loops={"turns": {"times": 4}}, requests=3, input_tokens=50, output_tokens=output
    )
    recording = run(hf.compile(config))
    sequence, computed = 0, 0
    for op, record in zip(recording.program.ops, recording.ops, strict=True):
        if op.llm is None:
            continue
        prompt = 80 if not sequence else sequence + result_tokens
        assert op.llm.prompt.tolist() == [prompt] * 3
        known = max(sequence - 1, 0) // SIZE * SIZE  # an answer's last token is never computed
        assert record.cached_tokens is not None
        assert record.cached_tokens.tolist() == [known] * 3
        computed += 3 * (prompt - known)
        sequence = prompt + output
    assert prefilled(recording) == computed


def test_without_a_prefix_cache_every_turn_computes_its_whole_prompt() -> None:
    sizes: dict[str, Any] = {"requests": 3, "input_tokens": 50, "output_tokens": 9}
    config = config_of(AGENT, loops={"turns": {"times": 3}}, pool={"prefix_cache": False}, **sizes)
    recording = run(hf.compile(config))
    assert prefilled(recording) == 3 * sum(80 + turn * 30 for turn in range(4))


def test_turns_follow_each_other_with_the_tools_time_between() -> None:
    config = config_of(AGENT, loops={"turns": {"times": 2}}, requests=1, input_tokens=50, output_tokens=9)
    result = hf.simulate(hf.compile(config))
    stages = result.stages["stage"].to_list()
    assert stages == ["think", "act", "tool", "think", "act", "tool", "prefill", "decode"]
    assert np.allclose(result.stages["service_s"].to_numpy()[[2, 5]], 0.05)
    assert (result.stages["ready_s"][1:] == result.stages["finish_s"][:-1]).all()
    assert result.requests["first_token_s"][0] == result.stages["finish_s"][6]


def test_a_request_skips_hundreds_of_turns() -> None:
    loop = {"turns": {"times": {"distribution": "choice", "values": [1, 256], "weights": [0.5, 0.5]}}}
    sizes: dict[str, Any] = {"requests": 4, "input_tokens": 5, "output_tokens": 1}
    result = hf.simulate(hf.compile(config_of(AGENT, loops=loop, **sizes)))
    turns = result.stages.filter(result.stages["stage"] == "tool").group_by("request").len()["len"].to_list()
    assert sorted(set(turns)) == [1, 256]
    assert result.summary["requests"]["completed"] == 4


def test_a_vote_ends_all_branches_together() -> None:
    config = config_of(branching(5, spread_cv=0.5, vote=3), requests=20, input_tokens=64, output_tokens=100)
    recording = run(hf.compile(config))
    outputs = np.stack([op.llm.output for op in recording.program.ops if op.llm is not None])
    finish = np.stack([record.finish_ns for record in recording.ops])
    longest = outputs == outputs.max(axis=0)
    assert (longest.sum(axis=0) == 3).all()  # those that decide: the others were shorter or are cut
    assert (finish.max(axis=0) == recording.finish_ns).all()


def test_the_answer_is_the_first_branchs_and_the_request_ends_with_the_last() -> None:
    config = config_of(branching(4, spread_cv=0.5), requests=20, input_tokens=64, output_tokens=100)
    program = hf.compile(config)
    result = hf.simulate(program)
    assert program.ops[0].llm is not None
    assert result.requests["output_tokens"].to_list() == program.ops[0].llm.output.tolist()
    last = result.stages.group_by("request").agg(pl.col("finish_s").max()).sort("request")
    assert (last["finish_s"] == result.requests["finish_s"]).all()


def test_the_model_that_answered_is_named_and_the_share_that_escalates_is_drawn() -> None:
    overrides = [*READY["cascade"], "pipeline=cascade", "workload=synthetic", "workload.requests=2000"]
    program = hf.compile(hf.compose([*overrides, "workload.rate_per_s=1", "workload.output_tokens=3"]))
    result = hf.simulate(program)
    large = next(op for op in program.ops if op.name == "escalate+answer").taken
    assert large is not None
    assert abs(large.mean() - 0.3) < 4 * np.sqrt(0.21 / 2000)
    expected = np.where(large, "llama3_70b", "llama3_8b").tolist()
    assert result.requests["model"].to_list() == expected
    asked = result.stages.filter(result.stages["stage"] == "escalate")["request"].to_list()
    assert asked == np.flatnonzero(large).tolist()
    answers = result.stages.filter(result.stages["stage"] == "answer")
    assert (answers["finish_s"] <= result.requests["finish_s"][asked]).all()


def test_a_route_by_condition_asks_the_model_that_it_names() -> None:
    condition = "pipeline.routes.model={small: 'input_tokens < 600', large: else}"
    config = hf.compose(["pipeline=routed", *READY["routed"], *SMALL, condition])
    result = hf.simulate(hf.compile(config))
    small = result.requests["input_tokens"] < 600
    assert 0 < small.sum() < 60
    assert ((result.requests["model"] == "llama3_8b") == small).all()


def test_a_reward_scores_every_branch_of_every_step() -> None:
    overrides = ["pipeline=tree_search", *READY["tree_search"], *SMALL, "pipeline.loops.search.times=3"]
    result = hf.simulate(hf.compile(hf.compose([*overrides, "cluster.pools.guard.count=2"])))
    scores = result.stages.filter(result.stages["stage"] == "score")
    steps = result.stages.filter(result.stages["stage"] == "step")
    assert len(scores) == len(steps) == 60 * 3 * 4
    assert set(scores["pool"]) == {"guard"}


@settings(max_examples=40)
@given(
    blocks=st.integers(17, 60),
    branches=st.integers(1, 4),
    turns=st.integers(1, 4),
    batching=st.sampled_from(["chunked", "continuous", "mixed"]),
    lookahead=st.sampled_from([0, 1]),
    clients=st.integers(1, 2),
    seed=st.integers(0, 999),
)
def test_blocks_are_conserved_under_pressure(
    blocks: int, branches: int, turns: int, batching: str, lookahead: int, clients: int, seed: int
) -> None:
    length = {"distribution": "uniform", "min": 1, "max": 12}
    stages = AGENT | {
        "think": AGENT["think"] | {"extra_tokens": 3},
        "act": AGENT["act"] | {"branches": branches, "spread_cv": 0.5},
        "tool": AGENT["tool"] | {"result_tokens": 2, "latency_ms": 1},
    }
    pool: dict[str, Any] = {
        "kv_blocks": blocks,
        "block_size": 4,
        "batching": batching,
        "lookahead": lookahead,
        "count": clients,
        "max_num_batched_tokens": 64,
        "max_num_seqs": 16,
    }
    sizes: dict[str, Any] = {
        "requests": 15,
        "rate_per_s": 400.0,
        "input_tokens": length,
        "output_tokens": length,
        "seed": seed,
    }
    loop = {"turns": {"times": {"distribution": "uniform", "min": 1, "max": turns}}}
    program = hf.compile(config_of(stages, loops=loop, pool=pool, **sizes))
    watched = watch(program)
    recording = watched.recording
    served = ~np.isin(np.arange(15), list(program.rejected))
    for op, record in zip(program.ops, recording.ops, strict=True):
        asked = served if op.taken is None else served & op.taken
        assert ((record.finish_ns >= 0) == asked).all()
        assert ((record.client >= 0) == asked).all()
    for client in watched.clients.values():
        if isinstance(client, LLMClient):
            assert client.batch.free == client.batch.blocks == blocks
            assert not client.batch.running
            assert (client.batch.backlog, client.batch.decodes, client.batch.context) == (0, 0, 0)


def test_that_pressure_preempts_branches_and_evicts_prompts() -> None:
    stages = branching(4)
    sizes: dict[str, Any] = {"requests": 40, "rate_per_s": 2000.0, "input_tokens": 40, "output_tokens": 60}
    pool: dict[str, Any] = {"kv_blocks": 30, "block_size": 4}
    pressed = hf.simulate(hf.compile(config_of(stages, pool=pool, **sizes)))
    assert pressed.requests["preemptions"].sum() > 40
    assert pressed.summary["requests"]["completed"] == 40


def test_routing_by_prefix_brings_a_turn_to_the_client_that_knows_the_one_before() -> None:
    def found(routing: str) -> float:
        pool: dict[str, Any] = {"count": 4, "routing": routing}
        sizes: dict[str, Any] = {"requests": 100, "rate_per_s": 20.0, "input_tokens": 50, "output_tokens": 30}
        result = hf.simulate(hf.compile(config_of(AGENT, loops={"turns": {"times": 5}}, pool=pool, **sizes)))
        prompts = result.stages.filter(result.stages["kind"] == "prefill")["tokens"].to_numpy().sum()
        return float(result.requests["cached_tokens"].to_numpy().sum() / prompts)

    assert found("prefix_affinity") > 2 * found("round_robin")


def test_on_pools_of_their_own_branches_share_the_prefill_and_each_moves_its_prompt() -> None:
    pools = (
        "cluster=disaggregated",
        "cluster.pools.prefill.prefix_cache=true",
        "cluster.pools.decode.prefix_cache=false",
        "cluster.pools.decode.count=2",
    )
    sizes = (
        "workload.input_tokens=100",
        "workload.output_tokens=20",
        "pipeline.stages.decode.branches=4",
        "pipeline.stages.decode.vote=2",
    )
    result = hf.simulate(hf.compile(hf.compose(["pipeline=reasoning_multi", *pools, *SMALL, *sizes])))
    decodes = result.stages.filter(result.stages["kind"] == "decode")
    assert len(decodes) == 60 * 4
    assert decodes["bytes"].n_unique() == 1
    assert decodes["bytes"][0] > 0
    assert result.requests["cached_tokens"].to_list() == [3 * 96] * 60
