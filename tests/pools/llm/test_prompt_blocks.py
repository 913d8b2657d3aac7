"""Which blocks of a request's prompts hold the same content, over branches, turns and other models' pools."""

from __future__ import annotations

import dataclasses
from typing import Any

from oracles.llm_prefix_cache import each_block
from pipelines_by_hand import AGENT, config_of

import hermes_flow as hf
from hermes_flow.config.schema import Pipeline
from hermes_flow.pools.llm.prompt_blocks import PoolContent
from hermes_flow.program.program import Program

SIZE = 4


def content(program: Program, pool: str = "llm") -> tuple[PoolContent, dict[str, int]]:
    """Return a pool's content, and the first task of each of its ops."""
    index = [each.name for each in program.pools].index(pool)
    numbers = [number for number, op in enumerate(program.ops) if op.pool == index]
    count = len(program.requests)
    places = {program.ops[number].name: place * count for place, number in enumerate(numbers)}
    return PoolContent(program, numbers), places


def compiled(stages: dict[str, Any], *overrides: str, **changes: Any) -> Program:
    return hf.compile(config_of(stages, *overrides, requests=3, input_tokens=10, output_tokens=6, **changes))


def prompt_keys(program: Program, name: str, request: int = 0) -> list[Any]:
    known, places = content(program)
    op = next(op for op in program.ops if op.name == name)
    assert op.llm is not None
    prompt = int(op.llm.prompt[request])
    keys = each_block(known.prompt_runs(places[name] + request, SIZE, prompt))
    named = known.prompt_keys(places[name] + request, SIZE, prompt)
    assert len({*keys}) == len(keys) == len(named)
    return keys


def answer_keys(program: Program, name: str, request: int = 0) -> list[Any]:
    known, places = content(program)
    op = next(op for op in program.ops if op.name == name)
    assert op.llm is not None
    sizes = int(op.llm.prompt[request]), int(op.llm.output[request])
    return each_block(known.answer_runs(places[name] + request, SIZE, *sizes))


def test_a_branch_shares_the_full_blocks_of_the_prompt_and_no_answer() -> None:
    program = compiled(
        {"prefill": {"kind": "prefill"}, "decode": {"kind": "decode", "after": ["prefill"], "branches": 3}}
    )
    assert prompt_keys(program, "generate") == prompt_keys(program, "generate/2")
    assert len(prompt_keys(program, "generate/3")) == 10 // SIZE
    assert answer_keys(program, "generate/2") == []
    assert len(answer_keys(program, "generate")) == 16 // SIZE - 10 // SIZE
    assert not set(prompt_keys(program, "generate", 1)) & set(prompt_keys(program, "generate", 0))


def test_each_turn_begins_with_the_blocks_of_the_turn_before_and_its_answer() -> None:
    program = compiled(AGENT, loops={"turns": {"times": 3}})  # prompts of 40, 67 and 94 tokens, then 121
    names = ["think+act", "think+act.2", "think+act.3", "generate"]
    prompts = [prompt_keys(program, name) for name in names]
    assert [len(keys) for keys in prompts] == [40 // SIZE, 67 // SIZE, 94 // SIZE, (94 + 6) // SIZE]
    lengths = (40, 67, 94)
    for before, name, after, prompt in zip(prompts, names, prompts[1:], lengths, strict=False):
        sequence = before + answer_keys(program, name)
        assert len(sequence) == (prompt + 6) // SIZE
        assert after[: len(sequence)] == sequence


def test_the_last_prompt_goes_on_from_the_last_turn_that_the_request_has_taken() -> None:
    loop = {"turns": {"times": {"distribution": "choice", "values": [1, 3], "weights": [0.5, 0.5]}}}
    program = hf.compile(config_of(AGENT, loops=loop, requests=30, input_tokens=10, output_tokens=6))
    taken = next(op for op in program.ops if op.name == "think+act.2").taken
    assert taken is not None
    for request in range(30):
        last = "think+act.3" if taken[request] else "think+act"
        sequence = prompt_keys(program, last, request) + answer_keys(program, last, request)
        assert prompt_keys(program, "generate", request) == sequence
        assert len(sequence) == ((94 if taken[request] else 40) + 6) // SIZE


def test_nothing_is_named_that_nobody_asks_for() -> None:
    program = compiled({"prefill": {"kind": "prefill"}, "decode": {"kind": "decode", "after": ["prefill"]}})
    assert prompt_keys(program, "generate") == answer_keys(program, "generate") == []


def test_a_reward_model_finds_the_steps_it_has_scored_and_a_guard_finds_nothing() -> None:
    stages: dict[str, Any] = {
        "guard": {"kind": "guard"},
        "expand": {"kind": "prefill", "after": ["guard"], "repeat": "search"},
        "step": {"kind": "decode", "after": ["expand"], "repeat": "search", "branches": 2},
        "score": {"kind": "reward", "after": ["step"], "repeat": "search", "template_tokens": 5},
    }
    pool: dict[str, Any] = {"prefix_cache": True}
    config = config_of(
        stages,
        "cluster=guarded",
        "cluster.pools.guard.prefix_cache=true",
        pool=pool,
        loops={"search": {"times": 2}},
        requests=3,
        input_tokens=10,
        output_tokens=6,
    )
    program = hf.compile(config)
    known, places = content(program, "guard")

    def scored(name: str, prompt: int) -> list[Any]:
        return list(known.prompt_keys(places[name], SIZE, prompt))

    assert scored("guard", 10) == []
    first, second, third = scored("score", 21), scored("score/2", 21), scored("score.2", 27)
    assert (len(first), len(second), len(third)) == (
        4,
        4,
        5,
    )  # 16 and 22 tokens; the template's blocks are its own
    assert first[:2] == second[:2]
    assert not set(first[2:]) & set(second[2:])
    assert third[:4] == first


def test_a_later_turn_finds_its_prompt_on_a_prefill_pool() -> None:
    stages = {name: fields for name, fields in AGENT.items() if fields["kind"] != "tool"}
    stages["prefill"] = stages["prefill"] | {"after": ["act"]}
    config = hf.compose(["cluster=disaggregated", "cluster.pools.prefill.prefix_cache=true", "pipeline=llm"])
    changed = dataclasses.replace(config, pipeline=Pipeline("turns", stages, {"turns": {"times": 2}}))
    program = hf.compile(changed)
    known, places = content(program, "prefill")
    prompts = [op.llm.prompt for op in program.ops if op.name in ("think", "think.2")]
    assert prompts[0] is not None
    assert prompts[1] is not None
    assert program.requests.output_tokens[0] > 1
    first = list(known.prompt_keys(places["think"], SIZE, int(prompts[0][0])))
    second = list(known.prompt_keys(places["think.2"], SIZE, int(prompts[1][0])))
    assert first
    assert second[: len(first)] == first
