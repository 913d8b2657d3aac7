"""The text of some programs, word for word, each with what must hold whatever the words.

``HERMES_FLOW_REGENERATE=1 pytest tests/compiler/test_golden_programs.py`` writes the texts anew; read the
difference before you keep it. The floats shown are rounded so far that platforms agree.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path

import numpy as np
import pytest
from compiler.configs import config, with_stages

import hermes_flow as hf
from hermes_flow.program.pools import LLMClientSpec
from hermes_flow.program.program import Program
from hermes_flow.routing.least_requests import LeastRequests

GOLDEN = Path(__file__).parent / "golden"

BRANCHING = {
    "tokenize": {"kind": "tokenize"},
    "draft": {"kind": "prefill", "after": ["tokenize"], "share": 0.5},
    "draft_answer": {"kind": "decode", "after": ["draft"], "output_scale": 0.25},
    "clean": {"kind": "tokenize", "after": ["tokenize"], "when": "input_tokens > 1024", "per_token_us": 3.1},
    "prefill": {"kind": "prefill", "after": ["draft_answer", "clean"], "extra_tokens": 64},
    "decode": {"kind": "decode", "after": ["prefill"]},
    "detokenize": {"kind": "detokenize", "after": ["decode"]},
}
AFFINE = (
    "pipeline=llm",
    "cost=affine",
    "cost.fixed_us=6000",
    "cost.per_token_us=25",
    "cost.per_context_us=0.04",
    "cluster.pools.llm.count=3",
    "cluster.routing=least_requests",
    "workload=synthetic",
    "workload.requests=4",
    "workload.arrivals=constant",
    "workload.input_tokens=100",
    "workload.output_tokens=10",
)


PAIR = (
    "workload.requests=5",
    "cluster=disaggregated",
    "cluster.kv_transfer=layerwise",
    "cluster.first_token=decode",
    "cluster.kv_handover_us=500",
    "hardware@cluster.pools.decode.hardware=h200_sxm",
)
NODE = ("workload.requests=5", "cluster=hybrid", "pipeline=rag_kv_reuse", "seed=1")
PROGRAMS = ["chat", "branching", "affine_on_three_clients", "agent", "reasoning_multi", "pair", "node"]


@functools.cache
def program(name: str) -> Program:
    if name == "branching":
        return hf.compile(with_stages(BRANCHING, config("workload.requests=40")))
    on_agents = ("cluster=agent", "workload.requests=5", f"pipeline={name}")
    given = {"chat": ("workload.requests=5",), "affine_on_three_clients": AFFINE, "pair": PAIR, "node": NODE}
    return hf.compile(config(*given.get(name, on_agents)))


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_program_reads_as_it_did(name: str) -> None:
    path = GOLDEN / f"{name}.txt"
    text = str(program(name))
    if os.environ.get("HERMES_FLOW_REGENERATE") == "1":
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_text_names_every_pool_and_op_in_lines_of_a_terminals_width(name: str) -> None:
    lines = str(program(name)).splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0].startswith(f"program {program(name).name}: pipeline {program(name).pipeline} on cluster")
    for pool in program(name).pools:
        assert sum(line.startswith(f"  {pool.name}: {pool.count} × ") for line in lines) == 1
    for index, op in enumerate(program(name).ops):
        (line,) = (line for line in lines if line.startswith(f"  {index:>2}  {op.name} "))
        assert f"on {program(name).pools[op.pool].name}" in line


def test_the_chat_is_a_chain_of_three_ops_for_every_request() -> None:
    ops = program("chat").ops
    assert [(op.name, op.after) for op in ops] == [("tokenize", ()), ("generate", (0,)), ("detokenize", (1,))]
    assert [op.taken for op in ops] == [None, None, None]
    requests = program("chat").requests
    assert ops[1].llm is not None
    assert ops[1].llm is not None
    assert (ops[1].llm.prompt == requests.input_tokens).all()
    assert (ops[1].llm.output == requests.output_tokens).all()
    assert (np.diff(requests.arrival_ns) >= 0).all()


def test_the_branches_part_and_meet_again() -> None:
    compiled = program("branching")
    names = [op.name for op in compiled.ops]
    edges = {op.name: sorted(names[before] for before in op.after) for op in compiled.ops}
    assert edges == {
        "tokenize": [],
        "draft+draft_answer": ["tokenize"],
        "clean": ["tokenize"],
        "generate": ["clean", "draft+draft_answer"],
        "detokenize": ["generate"],
    }
    taken = {op.name: op.taken for op in compiled.ops}
    requests = compiled.requests
    assert taken["generate"] is None
    assert taken["clean"] is not None
    assert taken["draft+draft_answer"] is not None
    assert (taken["clean"] == (requests.input_tokens > 1024)).all()
    assert 8 <= taken["draft+draft_answer"].sum() <= 32  # half of 40, within four deviations
    drafted = int(requests.input_tokens[taken["draft+draft_answer"]].sum())
    assert f"{drafted:,} prompt and" in str(compiled)
    generate = compiled.ops[names.index("generate")]
    assert generate.llm is not None
    assert (generate.llm.prompt == requests.input_tokens + 64).all()


def test_an_agents_turns_are_ops_that_fewer_and_fewer_requests_take() -> None:
    ops = {op.name: op for op in program("agent").ops}
    turns = [name for name in ops if name.startswith("think+act")]
    masks = [ops[name].taken for name in turns]
    taken = [5 if mask is None else int(mask.sum()) for mask in masks]
    assert taken == sorted(taken, reverse=True)
    assert taken[0] == 5
    assert taken[-1] > 0
    assert ops["generate"].taken is None


def test_eight_branches_hold_one_prompt_and_end_together_at_the_latest() -> None:
    branches = [op for op in program("reasoning_multi").ops if op.generate is not None]
    prompts, outputs = (np.stack([getattr(op.llm, name) for op in branches]) for name in ("prompt", "output"))
    assert len(branches) == 8
    assert (prompts == program("reasoning_multi").requests.input_tokens).all()
    assert ((outputs == outputs.max(axis=0)).sum(axis=0) >= 4).all()  # the fifth to end, and those cut by it
    assert {op.with_op for op in branches[1:]} == {program("reasoning_multi").ops.index(branches[0])}


def test_three_clients_share_one_line_and_nothing_else_costs_time() -> None:
    compiled = program("affine_on_three_clients")
    (llm,) = (pool for pool in compiled.pools if pool.name == "llm")
    assert (llm.count, llm.routing) == (3, LeastRequests())
    assert isinstance(llm.client, LLMClientSpec)
    assert llm.client.cost.step_ps([(100, 0)], 2, 210) == 6_000_000_000 + 102 * 25_000_000 + 210 * 40_000
    assert [op.name for op in compiled.ops] == ["generate"]
    assert set(np.diff(compiled.requests.arrival_ns)) == {250_000_000}


def test_equal_configs_read_the_same_and_others_do_not() -> None:
    again = hf.compile(hf.compose(["workload.requests=5"]))
    assert str(again) == str(program("chat"))
    assert str(hf.compile(config("workload.requests=5", "seed=1"))) != str(program("chat"))


def test_what_is_long_is_wrapped_not_cut() -> None:
    base = config("workload.requests=200", "cluster.pools.llm.kv_blocks=100")
    compiled = hf.compile(base)
    lines = str(compiled).splitlines()
    assert max(map(len, lines)) <= 80
    start = lines.index("warnings")
    words = " ".join(line.strip() for line in lines[start + 1 :])
    assert words == compiled.warnings[0]
