"""Whose the joules of a run are: exact totals against naive clients, and shares that leave nothing over."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from metrics.handmade import four_requests
from oracles.llm_client import simulate_llm_client
from oracles.random_programs import random_programs
from oracles.watched_run import as_oracle_sees_it, watch
from trace_files import write_trace

import hermes_flow as hf
from hermes_flow.metrics.energy import energies
from hermes_flow.program.pools import BatchedClientSpec, LLMClientSpec
from hermes_flow.program.power import BusyPower, StepEnergy
from hermes_flow.program.program import Program
from hermes_flow.program.step_cost import StepCost
from hermes_flow.recording.recording import Recording

PRESSED = [
    "workload=synthetic",
    "workload.requests=40",
    "workload.rate_per_s=40",
    "workload.input_tokens={distribution: choice, values: [1, 17, 300, 900]}",
    "workload.output_tokens={distribution: choice, values: [1, 2, 30, 90]}",
    "pipeline=llm",
    "cluster.pools.llm.kv_blocks=130",
    "cluster.pools.llm.max_num_batched_tokens=512",
]


SHORT = [
    "workload.input_tokens={distribution: fixed, value: 300}",
    "workload.output_tokens={distribution: fixed, value: 200}",
]


def compiled(*overrides: str) -> Program:
    return hf.compile(hf.compose([*PRESSED, *overrides]))


def naive_joules(program: Program) -> list[float]:
    """Step by step what each client of the program's LLM pool draws, by a client that knows nothing of runs."""
    (number,) = [index for index, pool in enumerate(program.pools) if isinstance(pool.client, LLMClientSpec)]
    pool = program.pools[number]
    assert isinstance(pool.client, LLMClientSpec)
    assert isinstance(pool.energy, StepEnergy)
    watched = watch(program)
    end_s = watched.recording.end_ns / 1e9
    step_ps = StepCost.step_ps
    found = []
    for index in range(pool.count):
        asked: list[Any] = []

        def noting(self: StepCost, *step: Any, asked: list[Any] = asked) -> int:
            asked.append(step)
            return step_ps(self, *step)

        requests, policy = as_oracle_sees_it(watched, watched.given(number, index))
        with patch.object(StepCost, "step_ps", noting):
            result = simulate_llm_client(pool.client, requests, policy)
        busy = [(step.end_ps - step.start_ps) * 1e-12 for step in result.steps]
        timed = [seconds for step, seconds in zip(result.steps, busy, strict=True) if step.tokens]
        assert len(timed) == len(asked)
        joules = sum(
            pool.energy.step_joules(*step, seconds=seconds)
            for step, seconds in zip(asked, timed, strict=True)
        )
        copies = sum(busy) - sum(timed)
        found.append(joules + copies * pool.energy.active_w + (end_s - sum(busy)) * pool.energy.idle_w)
    return found


@pytest.mark.parametrize(
    "overrides",
    [
        ["cluster.pools.llm.count=2"],
        ["cluster.pools.llm.lookahead=0"],
        ["cluster.pools.llm.batching=continuous"],
        ["cluster.pools.llm.batching=mixed"],
        ["cluster.pools.llm.batching=static"],
        ["cluster.pools.llm.preemption=swap"],
        ["cluster.pools.llm.max_num_seqs=64", "+model@cluster.pools.llm.speculative.draft=llama3_8b"],
    ],
    ids=lambda overrides: overrides[-1].rpartition(".")[2],
)
def test_a_clients_joules_are_those_of_its_steps_one_by_one(overrides: list[str]) -> None:
    program = compiled(*overrides)
    clients = hf.simulate(program).clients.filter(pl.col("pool") == "llm")
    assert clients["energy_j"].to_list() == pytest.approx(naive_joules(program), rel=1e-9)


def check_shares(recording: Recording) -> None:
    """Nothing is negative, and what is not rest is the tasks', client by client."""
    found = energies(recording)
    for number, client in enumerate(recording.clients):
        if np.isnan(found.work_j[number]):
            continue
        assert found.idle_j[number] >= 0
        mine, column = 0.0, 0
        for op, record in zip(recording.program.ops, recording.ops, strict=True):
            stages = 2 if len(op.stages) == 2 and record.first_ns is not None else 1
            here = (record.client == client.client) & (op.pool == client.pool) & (record.finish_ns >= 0)
            for joules in found.stages_j[column : column + stages]:
                assert (joules[here] >= 0).all()
                mine += float(joules[here].sum())
            column += stages
        assert mine == pytest.approx(found.work_j[number], rel=1e-9, abs=1e-12)


@settings(max_examples=25)
@given(program=random_programs())
def test_tasks_share_all_that_is_not_rest_in_any_run(program: Program) -> None:
    check_shares(hf.simulate(program).recording)


@pytest.mark.parametrize(
    "overrides",
    [
        ["cluster=disaggregated"],
        ["cluster=disaggregated", "cluster.pools.decode.kv_blocks=100", *SHORT],
        ["pipeline=rag", "cluster=rag"],
        ["model=llama3_70b", "cluster.pools.llm.tensor_parallel=2", "cluster.pools.llm.pipeline_parallel=2"],
        ["model=mixtral_8x7b", "cluster.pools.llm.data_parallel=4", "cluster.pools.llm.expert_parallel=true"],
    ],
    ids=["disaggregated", "pressed decode", "rag", "stages", "ranks"],
)
def test_tables_and_summary_add_up(overrides: list[str]) -> None:
    load = ["workload=synthetic", "workload.requests=40", "workload.rate_per_s=20"]
    result = hf.simulate(hf.compile(hf.compose([*load, *overrides])))
    check_shares(result.recording)
    energy = result.summary["energy"]
    assert energy["unmetered"] == []
    assert result.clients["energy_j"].sum() == pytest.approx(energy["total_j"])
    for table in (result.requests, result.stages):
        assert table["energy_j"].null_count() == 0
        assert table["energy_j"].sum() + energy["idle_j"] == pytest.approx(energy["total_j"])
    tokens = result.requests["output_tokens"].sum()
    assert energy["j_per_output_token"] == pytest.approx(energy["total_j"] / tokens)


def test_sequences_that_decode_together_share_a_step_equally_but_for_their_contexts() -> None:
    program = compiled(
        "workload.requests=2",
        "workload.arrivals={process: closed_loop, concurrency: 2}",
        "workload.input_tokens={distribution: fixed, value: 200}",
        "workload.output_tokens={distribution: fixed, value: 30}",
    )
    result = hf.simulate(program)
    prefill, decode = (result.stages.filter(stage=name)["energy_j"] for name in ("prefill", "decode"))
    assert prefill[0] == pytest.approx(prefill[1])
    assert decode[0] == pytest.approx(decode[1])


def test_the_tasks_of_a_pass_share_its_energy_equally_whatever_their_number() -> None:
    """A client draws the same power in every pass, so a pass of four takes as many joules a second as one of one."""
    load = ["workload=synthetic", "workload.requests=60", "workload.rate_per_s=300"]
    batches = ["cluster.pools.embed.max_batch=4", "cluster.pools.retrieval.max_batch=4"]
    result = hf.simulate(hf.compile(hf.compose(["pipeline=rag", "cluster=rag", *load, *batches])))
    sizes: set[int] = set()
    for pool in result.program.pools:
        if not isinstance(pool.client, BatchedClientSpec):
            continue
        assert isinstance(pool.energy, BusyPower)
        tasks = result.stages.filter((pl.col("pool") == pool.name) & pl.col("finish_s").is_not_null())
        passes = tasks.group_by("client", "start_s", "finish_s").agg(
            pl.len().alias("tasks"), pl.col("energy_j").sum(), pl.col("energy_j").n_unique().alias("unequal")
        )
        assert passes["unequal"].to_list() == [1] * len(passes)
        sizes |= set(passes["tasks"])
        watts = (passes["energy_j"] / (passes["finish_s"] - passes["start_s"])).to_list()
        assert watts == pytest.approx([pool.energy.busy_w - pool.energy.idle_w] * len(watts), rel=1e-6)
    assert sizes == {1, 2, 3, 4}


def test_a_request_that_decodes_alone_takes_all_of_its_steps() -> None:
    shape = [
        "workload.input_tokens={distribution: fixed, value: 100}",
        "workload.output_tokens={distribution: fixed, value: 11}",
    ]
    program = compiled("workload.requests=1", *shape)
    (pool,) = [pool for pool in program.pools if isinstance(pool.client, LLMClientSpec)]
    energy, cost = pool.energy, pool.client.cost
    assert isinstance(energy, StepEnergy)
    result = hf.simulate(program)
    steps = [([(100, 0)], 0, 0), *(([], 1, 100 + step) for step in range(10))]
    joules = [energy.step_joules(*step, seconds=cost.step_ps(*step) * 1e-12) for step in steps]
    stages = dict(result.stages.select("stage", "energy_j").iter_rows())
    assert stages["prefill"] == pytest.approx(joules[0])
    assert stages["decode"] == pytest.approx(sum(joules[1:]))


def test_a_longer_answer_takes_the_steps_that_it_decodes_alone_and_its_own_contexts(tmp_path: Path) -> None:
    """Both prompts of 100 tokens are computed in the first step; then 5 steps of two decodes, and 20 of one."""
    trace = write_trace(tmp_path / "two.csv", [(0, 100, 6), (0, 100, 26)])
    asked = ["pipeline=llm", "cluster.pools.llm.max_num_batched_tokens=512"]
    program = hf.compile(hf.compose([*trace, *asked]))
    (pool,) = [pool for pool in program.pools if isinstance(pool.client, LLMClientSpec)]
    energy, cost = pool.energy, pool.client.cost
    assert isinstance(energy, StepEnergy)
    expected = [0.0, 0.0]
    for step in range(25):
        decoding = [0, 1] if step < 5 else [1]
        contexts = len(decoding) * (100 + step)
        whole = energy.step_joules(
            [], len(decoding), contexts, seconds=cost.step_ps([], len(decoding), contexts) * 1e-12
        )
        for request in decoding:
            alike = (whole - energy.context_j * contexts) / len(decoding)
            expected[request] += alike + energy.context_j * (100 + step)
    decode = hf.simulate(program).stages.filter(stage="decode").sort("request")["energy_j"]
    assert decode.to_list() == pytest.approx(expected, rel=1e-9)


def test_a_device_that_stands_by_draws_its_active_power_for_as_long_as_given() -> None:
    apart = ["workload.requests=3", "workload.rate_per_s=0.1", "workload.arrivals=constant"]
    short = "workload.output_tokens={distribution: fixed, value: 5}"
    never, always = (
        hf.simulate(compiled(*apart, short, f"hardware.energy.standby_s={seconds}")) for seconds in (0, 3)
    )
    figures = always.program.pools[-1].energy
    assert isinstance(figures, StepEnergy)
    further = always.summary["energy"]["idle_j"] - never.summary["energy"]["idle_j"]
    assert further == pytest.approx(2 * 3 * (figures.active_w - figures.idle_w))


def test_hosts_without_figures_are_listed_and_accelerators_without_them_leave_it_unknown() -> None:
    load = ["workload=synthetic", "workload.requests=5"]
    host = hf.simulate(hf.compile(hf.compose([*load, "cluster.pools.host.hardware.power_w=null"])))
    assert host.summary["energy"]["unmetered"] == ["host"]
    assert host.summary["energy"]["total_j"] == pytest.approx(host.clients["energy_j"].sum())
    for overrides in (["hardware=tpu_v6e"], ["cost=affine", "cost.fixed_us=5000"]):
        result = hf.simulate(hf.compile(hf.compose([*load, *overrides])))
        energy = result.summary["energy"]
        assert energy == {
            "total_j": None, "j_per_output_token": None, "idle_j": None, "unmetered": ["llm"],
        }  # fmt: skip
        assert result.requests["energy_j"].null_count() == 5
        assert result.clients.filter(pl.col("pool") == "host")["energy_j"].null_count() == 0


def test_a_recording_of_pools_without_power_has_no_joules() -> None:
    found = energies(four_requests())
    assert np.isnan(found.clients_j).all()
    assert np.isnan(found.requests_j(4)).all()


def with_only(program: Program, pool: str, **joules: float) -> Program:
    """Return the program with a pool that draws nothing but what is given; the other pools draw nothing."""
    pools = []
    for own in program.pools:
        energy = None
        if own.name == pool:
            assert isinstance(own.energy, StepEnergy)
            nothing = {
                "tokens_j": [0.0] * len(own.energy.tokens_j),
                "decodes_j": [0.0] * len(own.energy.decodes_j),
            }
            none: dict[str, Any] = dict.fromkeys(
                ("idle_w", "active_w", "context_j", "pair_j", "chunk_token_j"), 0.0
            )
            energy = replace(own.energy, **{**none, **nothing, **joules})
        pools.append(replace(own, energy=energy))
    return replace(program, pools=tuple(pools))


def test_a_prompt_takes_the_attention_of_what_it_computes_over_what_it_found() -> None:
    """The second turn finds 96 of its 206 tokens, and computes the attention of the last 110."""
    one = ["workload.sessions=1", "workload.turns=2", "workload.system_prompt_tokens=0"]
    sizes = ["workload.input_tokens=100", "workload.output_tokens=6"]
    cached = ["cluster.pools.llm.prefix_cache=true", "pipeline=llm"]
    program = hf.compile(hf.compose(["workload=sessions", *one, *sizes, *cached]))
    result = hf.simulate(with_only(program, "llm", pair_j=1.0))
    assert result.requests["input_tokens"].to_list() == [100, 206]
    assert result.requests["cached_tokens"].to_list() == [0, 96]
    assert result.stages.filter(stage="prefill")["energy_j"].to_list() == pytest.approx(
        [100**2 / 2, (206**2 - 96**2) / 2]
    )


def test_who_is_preempted_on_a_decode_client_takes_the_energy_of_computing_its_prompt_again() -> None:
    load = ["workload=synthetic", "workload.requests=40", "workload.rate_per_s=60", "pipeline=llm", *SHORT]
    pressed = ["cluster=disaggregated", "cluster.pools.decode.kv_blocks=100"]
    result = hf.simulate(with_only(hf.compile(hf.compose([*load, *pressed])), "decode", chunk_token_j=1.0))
    preempted = result.requests["preemptions"].to_numpy()
    joules = result.stages.filter(stage="decode")["energy_j"].to_numpy()
    assert 0 < (preempted > 0).sum() < len(preempted)
    assert joules[preempted == 0].max() == 0.0
    each = joules[preempted > 0] / preempted[preempted > 0]
    assert each == pytest.approx(np.full(len(each), each[0]))  # all prompts are of 300 tokens
    assert each[0] >= 300
