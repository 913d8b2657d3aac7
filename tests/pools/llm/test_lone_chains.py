"""The column of chains tells of each task what its own content tells; and batches that use either agree."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pipelines_by_hand import AGENT, config_of
from tries import tries

import hermes_flow as hf
from benchmarks.fingerprints import fingerprints
from hermes_flow.pools.llm.lone_chains import NOBODY, SEVERAL
from hermes_flow.pools.llm.prompt_blocks import PoolContent
from hermes_flow.program.program import Program

SIZE = 4
LOAD = ("workload=synthetic", "workload.requests=30")
BRANCHES = {"prefill": {"kind": "prefill"}, "decode": {"kind": "decode", "after": ["prefill"], "branches": 3}}
# Two models go on from the same answer: the second one parts from the first, and has blocks of another name.
PARTED = {
    "prefill": {"kind": "prefill"},
    "decode": {"kind": "decode", "after": ["prefill"]},
    "one": {"kind": "prefill", "after": ["decode"], "continues": "decode"},
    "answer": {"kind": "decode", "after": ["one"]},
    "other": {"kind": "prefill", "after": ["answer"], "continues": "decode"},
    "second": {"kind": "decode", "after": ["other"]},
    "last": {"kind": "prefill", "after": ["second"], "continues": "second"},
    "final": {"kind": "decode", "after": ["last"]},
}


def compiled(stages: dict[str, Any], **changes: Any) -> Program:
    return hf.compile(config_of(stages, requests=12, input_tokens=10, output_tokens=6, **changes))


def chains_seen(program: Program, pool: str = "llm") -> set[str]:
    """Compare column and content for each task of a pool; return which kinds of tasks there were."""
    index = [each.name for each in program.pools].index(pool)
    numbers = [number for number, op in enumerate(program.ops) if op.pool == index]
    asked = [program.ops[number].llm for number in numbers]
    prompt = [tokens for work in asked if work is not None for tokens in work.prompt.tolist()]
    output = [tokens for work in asked if work is not None for tokens in work.output.tolist()]
    content = PoolContent(program, numbers)
    chains = content.lone_chains(prompt)
    assert chains is not None
    kinds = set()
    for task, (tokens, answer) in enumerate(zip(prompt, output, strict=True)):
        number, request = numbers[task // len(program.requests)], task % len(program.requests)
        taken = program.ops[number].taken
        if taken is not None and not taken[request]:
            continue
        first, total = chains.first[task], tokens + answer
        found = list(content.prompt_runs(task, SIZE, tokens))
        more = list(content.answer_runs(task, SIZE, tokens, answer))
        if first == SEVERAL:
            kinds.add("several")
        elif first == NOBODY:
            kinds.add("nobody")
            assert not found
            assert not more
        else:
            last = min(chains.limit[task], tokens) // SIZE
            assert found == ([((first, chains.name[task]), 0, last)] if last else [])
            end = min(chains.limit[task], total) // SIZE
            assert more == ([((first, chains.name[task]), last, end)] if end > last else [])
            kinds.add("answer" if chains.limit[task] > total else "prompt")
            if first >= len(program.ops):
                kinds.add("context")
                assert not chains.one_by_one[task]
    return kinds


def one_by_one(program: Program) -> set[int]:
    numbers = [number for number, op in enumerate(program.ops) if op.llm is not None]
    chains = PoolContent(program, numbers).lone_chains([10] * len(numbers) * len(program.requests))
    assert chains is not None
    return set(chains.one_by_one)


def test_turns_of_an_agent_are_one_chain_and_the_last_answer_is_nobodys() -> None:
    loop = {"turns": {"times": {"distribution": "choice", "values": [1, 3], "weights": [0.5, 0.5]}}}
    program = compiled(AGENT, loops=loop)
    assert chains_seen(program) == {"answer", "prompt"}
    assert one_by_one(program) == {1}


def test_branches_have_the_prompt_in_common() -> None:
    program = compiled(BRANCHES)
    assert chains_seen(program) == {"answer", "prompt"}
    assert one_by_one(program) == {0}


def test_prompts_with_the_same_context_begin_with_its_chain() -> None:
    program = hf.compile(hf.compose(["pipeline=kv_reuse", *LOAD, "pipeline.stages.recall.contexts=2"]))
    assert chains_seen(program) == {"context", "prompt"}


def test_prompts_that_go_on_from_the_same_answer_part_and_are_looked_up() -> None:
    assert "several" in chains_seen(compiled(PARTED))


def test_who_skips_the_first_that_goes_on_from_an_answer_has_one_chain_with_the_second() -> None:
    stages = {**PARTED, "one": {**PARTED["one"], "share": 0.5}}
    program = compiled(stages)
    assert [op.name for op in program.ops] == ["generate", "one+answer", "other+second", "last+final"]
    taken = program.ops[1].taken
    assert taken is not None
    assert set(taken.tolist()) == {True, False}
    chains = PoolContent(program, list(range(4))).lone_chains([10] * 12 * 4)
    assert chains is not None
    assert list(chains.first[2 * 12 : 3 * 12]) == [SEVERAL if has else 0 for has in taken]


@pytest.mark.parametrize("pipeline", ["llm", "rag", "kv_reuse", "agent", "reasoning_multi"])
def test_columns_are_what_the_content_of_each_task_says(pipeline: str) -> None:
    program = hf.compile(hf.compose([f"pipeline={pipeline}", *LOAD, "cluster.pools.llm.prefix_cache=true"]))
    assert chains_seen(program)


@settings(max_examples=tries(3, of=200))
@given(
    pipeline=st.sampled_from(["llm", "kv_reuse", "agent", "reasoning_multi"]),
    count=st.integers(1, 3),
    rate=st.sampled_from([2, 30, 1000]),
    room=st.sampled_from(
        [
            (),
            ("max_num_batched_tokens=256", "max_num_seqs=200"),
            ("kv_blocks=900",),
            ("preemption=swap", "kv_blocks=1100"),
            ("batching=mixed",),
            ("pipeline_parallel=2", "kv_blocks=900"),
        ]
    ),
    # Users give up, or tasks are lost with their client and begin anew.
    trouble=st.sampled_from(
        [(), ("workload.timeout_s=4",), ("cluster.pools.llm.failures={mtbf_s: 5, repair_s: 1}",)]
    ),
    seed=st.integers(0, 99),
)
def test_results_are_those_of_a_batch_that_looks_every_content_up(
    pipeline: str, count: int, rate: int, room: tuple[str, ...], trouble: tuple[str, ...], seed: int
) -> None:
    few = ("pipeline.stages.recall.contexts=4",) if pipeline == "kv_reuse" else ()
    if pipeline == "kv_reuse" and any("failures" in text for text in trouble):
        trouble = (
            *trouble,
            "cluster.pools.llm.failures.on_failure=lose",
        )  # with contexts nothing begins anew
    pool = [f"cluster.pools.llm.{setting}" for setting in (f"count={count}", "prefix_cache=true", *room)]
    load = (*LOAD, f"pipeline={pipeline}", f"workload.rate_per_s={rate}", f"seed={seed}")
    program = hf.compile(hf.compose([*load, *few, *pool, *trouble]))
    found = fingerprints(hf.simulate(program), steps=True)
    with patch.object(PoolContent, "lone_chains", lambda *_: None):
        assert fingerprints(hf.simulate(program), steps=True) == found
