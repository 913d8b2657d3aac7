"""Answers that pause for more to be found: times by hand, tokens, prompts, and what cannot pause."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from compiler.configs import problems_of
from pipelines_by_hand import config_of

import hermes_flow as hf
from hermes_flow.compiler.parse import parse
from hermes_flow.config.schema import Pipeline
from hermes_flow.machine.run import run
from hermes_flow.metrics.spans import handled_tokens

MS = 1_000_000
PAUSED: dict[str, Any] = {
    "prefill": {"kind": "prefill"},
    "decode": {"kind": "decode", "after": ["prefill"], "pause": {"every_tokens": 4}},
    "look": {"kind": "tool", "during": "decode", "latency_ms": 50, "result_tokens": 21},
}
LENGTHS: dict[str, Any] = {"distribution": "uniform", "min": 1, "max": 40}
MANY: dict[str, Any] = {"requests": 40, "rate_per_s": 50.0, "input_tokens": LENGTHS, "output_tokens": LENGTHS}


def paused(changes: dict[str, dict[str, Any]] | None = None) -> dict[str, Any]:
    return {name: stage | (changes or {}).get(name, {}) for name, stage in PAUSED.items()}


def step_ms(tokens: int, context: int) -> float:
    """A step of the config by hand: 1 ms, 10 µs a token, 0.01 µs a token computed before."""
    return 1.0 + 0.01 * tokens + 0.00001 * context


@pytest.mark.parametrize("cached", [True, False])
def test_an_answer_of_ten_tokens_that_pauses_every_four_takes_what_it_takes_by_hand(cached: bool) -> None:
    config = config_of(paused(), pool={"prefix_cache": cached}, requests=1, input_tokens=50, output_tokens=10)
    result = hf.simulate(hf.compile(config))
    first = step_ms(50, 0)
    at = first + sum(step_ms(1, context) for context in (50, 51, 52))
    gaps = []
    for prompt, found, written in ((75, 48, 4), (100, 64, 2)):  # 50 + 4 + 21, 75 + 4 + 21; full blocks found
        known = found if cached else 0
        gaps.append(50 + step_ms(prompt - known, known))
        at += gaps[-1] + sum(step_ms(1, prompt + gained) for gained in range(written - 1))
    (row,) = result.requests.rows(named=True)
    assert row["ttft_s"] * 1000 == pytest.approx(first, abs=2e-6)
    assert row["e2e_s"] * 1000 == pytest.approx(at, abs=2e-5)
    assert row["tpot_s"] * 1000 == pytest.approx((at - first) / 9, abs=2e-6)
    assert row["output_tokens"] == 10
    assert row["cached_tokens"] == (48 + 64 if cached else 0)
    assert result.summary["itl_s"]["mean"] * 1000 == pytest.approx((at - first) / 9, rel=1e-6)
    assert result.summary["itl_s"]["p99"] * 1000 == pytest.approx(max(gaps), abs=2e-6)
    assert result.stages["stage"].to_list() == ["prefill", "decode", *["look", "prefill", "decode"] * 2]


@pytest.mark.parametrize("output", [1, 3, 4, 5, 8, 9])
def test_a_pause_comes_only_where_tokens_are_left(output: int) -> None:
    config = config_of(paused(), requests=2, input_tokens=5, output_tokens=output)
    result = hf.simulate(hf.compile(config))
    pauses = result.stages.filter(result.stages["stage"] == "look")
    assert len(pauses) == 2 * ((output - 1) // 4)
    assert result.requests["output_tokens"].to_list() == [output] * 2


@pytest.mark.parametrize("times", [1, 5, {"distribution": "uniform", "min": 1, "max": 9}])
def test_drawn_pauses_are_at_different_tokens_and_answers_as_long_as_without(times: Any) -> None:
    program = hf.compile(config_of(paused({"decode": {"pause": {"times": times}}}), **MANY))
    result = hf.simulate(program)
    assert result.requests["output_tokens"].to_list() == program.requests.output_tokens.tolist()
    most = 9 if isinstance(times, dict) else times
    segments = np.stack([op.llm.output for op in program.ops if op.llm is not None])
    taken = np.stack(
        [np.ones(40, bool) if op.taken is None else op.taken for op in program.ops if op.llm is not None]
    )
    assert 1 < len(segments) <= most + 1
    assert ((segments >= 1) | ~taken).all()
    lengths = np.array([len(set(row[here].tolist())) for row, here in zip(segments.T, taken.T, strict=True)])
    assert lengths.max() > 1  # cut anywhere, not in equal parts


def test_what_is_found_in_a_pause_is_in_every_prompt_after_it_and_what_a_request_skips_is_not() -> None:
    program = hf.compile(config_of(paused({"look": {"share": 0.5}}), **MANY))
    prompt = program.ops[0].llm.prompt
    assert prompt is not None
    said, going = prompt + program.requests.output_tokens.clip(max=4), np.ones(40, bool)
    for look, goes_on in zip(program.ops[1::2], program.ops[2::2], strict=True):
        assert look.taken is not None
        assert goes_on.taken is not None
        assert goes_on.llm is not None
        assert not (goes_on.taken & ~going).any()
        assert not (look.taken & ~goes_on.taken).any()
        going = goes_on.taken
        expected = said + np.where(look.taken, 21, 0)
        assert (goes_on.llm.prompt == expected)[going].all()
        said = expected + goes_on.llm.output
    both = next(op for op in program.ops if op.name == "look.2").taken
    assert both is not None
    assert 0 < both.sum() < 40


def test_an_answer_goes_on_where_its_kv_is() -> None:
    pool = {"count": 3, "routing": "random"}
    recording = run(hf.compile(config_of(paused(), pool=pool, **MANY)))
    generating = [
        record.client
        for op, record in zip(recording.program.ops, recording.ops, strict=True)
        if op.llm is not None
    ]
    assert len(set(generating[0].tolist())) == 3
    for clients in generating[1:]:
        assert ((clients == generating[0]) | (clients < 0)).all()


def test_the_first_token_is_as_early_as_without_pauses_where_nobody_waits() -> None:
    one: dict[str, Any] = {"requests": 1, "input_tokens": 500, "output_tokens": 30}
    with_pauses, without = (
        hf.simulate(hf.compile(config_of(stages, **one))).requests
        for stages in (
            paused(),
            {"prefill": PAUSED["prefill"], "decode": {"kind": "decode", "after": "prefill"}},
        )
    )
    assert with_pauses["ttft_s"][0] == without["ttft_s"][0]
    assert with_pauses["e2e_s"][0] > without["e2e_s"][0] + 7 * 0.05


def test_a_later_prompt_goes_on_from_the_whole_answer_and_one_that_reads_it_holds_all_its_segments() -> None:
    later = {
        "goes_on": {"kind": "prefill", "after": "decode", "continues": "decode", "turn_tokens": 3},
        "reads": {"kind": "prefill", "after": "decode", "reads": "decode"},
    }
    one: dict[str, Any] = {"requests": 1, "input_tokens": 50, "output_tokens": 10}
    ops = {op.name: op for op in hf.compile(config_of(paused() | later, **one)).ops}
    for name, tokens in {"goes_on": 50 + 10 + 2 * 21 + 3, "reads": 50 + 10}.items():
        prompt = ops[name].llm.prompt
        assert prompt is not None
        assert prompt.tolist() == [tokens]


def test_a_guard_of_the_answer_reads_all_segments_and_the_host_writes_them_all() -> None:
    guard = {"guard": {"kind": "guard", "of": "answer", "after": "decode"}}
    base = hf.compose(
        ["cluster=guarded", "workload=synthetic", "workload.requests=3", "workload.output_tokens=9"]
    )
    stages = {**paused({"look": {"kind": "word_filter"}}), **guard}
    stages["look"] = {"kind": "word_filter", "of": "answer", "during": "decode"}
    program = hf.compile(replace(base, pipeline=Pipeline("test", stages)))
    tokens = {op.name: handled_tokens(op).tolist()[0] for op in program.ops if op.generate is None}
    assert tokens == {"look.2": 4, "look.3": 8, "guard": 9}


def test_on_pools_of_their_own_every_segment_moves_its_prompt_and_tokens_add_up() -> None:
    overrides = [
        "cluster=disaggregated",
        "workload=synthetic",
        "workload.requests=20",
        "workload.rate_per_s=5",
    ]
    base = hf.compose([*overrides, "workload.output_tokens=9", "cluster.pools.host.serves=[tool]"])
    result = hf.simulate(hf.compile(replace(base, pipeline=Pipeline("test", paused()))))
    assert result.requests["output_tokens"].to_list() == [9] * 20
    assert (result.stages["kind"] == "decode").sum() == 20 * 2  # the third segment's token is its prefill's
    assert (result.requests["tpot_s"] > 2 * 0.05 / 8).all()


def test_every_token_but_the_first_has_its_gap() -> None:
    result = hf.simulate(hf.compile(config_of(paused(), **MANY)))
    rows = result.requests
    waited = float(((rows["output_tokens"] - 1) * rows["tpot_s"].fill_null(0.0)).sum())
    gaps = int((rows["output_tokens"] - 1).sum())
    assert result.summary["itl_s"]["mean"] == pytest.approx(waited / gaps, rel=1e-6)


def test_rag_that_searches_again_takes_its_stages_in_order_and_searches_of_any_pause_share_passes() -> None:
    words = ["pipeline=rag_iterative", "cluster=rag", "workload=synthetic", "workload.requests=40"]
    sizes = ["workload.rate_per_s=20", "workload.output_tokens=200", "cluster.pools.llm.prefix_cache=true"]
    program = hf.compile(hf.compose([*words, *sizes]))
    result = hf.simulate(program)
    assert result.summary["requests"] == {"submitted": 40, "completed": 40, "failed": 0}
    own = result.stages.filter(result.stages["request"] == 3)
    pause = ["requery", "research", "reread", "prefill", "decode"]
    begin = ["tokenize", "embed", "search", "rerank", "prefill", "decode"]
    assert own["stage"].to_list() == [*begin, *pause * 3, "detokenize"]
    assert (own["ready_s"][1:] == own["finish_s"][:-1]).all()
    assert result.requests["output_tokens"].to_list() == [200] * 40
    passes = result.stages.filter(result.stages["stage"] == "research").group_by("start_s", "finish_s").len()
    assert max(passes["len"].to_list()) > 1
    searching = {id(op.work.cost) for op in program.ops if op.stages == ("research",)}
    assert len(searching) == 1


def parsing(stages: dict[str, Any], loops: Any = None) -> list[str]:
    problems: list[str] = []
    parse(Pipeline("test", stages, loops or {}), problems)
    return problems


DECODE = "pipeline.stages.decode"


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"decode": {"pause": {}}}, f"{DECODE}.pause: neither given; expected one of every_tokens and times"),
        (
            {"decode": {"pause": {"times": 2, "every_tokens": 3}}},
            f"{DECODE}.pause: both given; expected one of every_tokens and times",
        ),
        (
            {"decode": {"pause": {"every_tokens": 0}}},
            f"{DECODE}.pause.every_tokens: 0 is out of range; expected an integer from 1 to 1e12",
        ),
        (
            {"decode": {"pause": {"every_token": 3}}},
            f"{DECODE}.pause.every_token: unknown key; did you mean 'every_tokens'?",
        ),
        (
            {"decode": {"pause": {"times": 0}}},
            f"{DECODE}.pause.times: 0 is out of range; expected an integer from 1 to 1e12",
        ),
        ({"decode": {"branches": 2}}, f"{DECODE}.pause: it has 2 branches, which do not pause; expected one"),
        (
            {"look": {"during": "decoed"}},
            "pipeline.stages.look.during: no decode that pauses is called 'decoed'; did you mean 'decode'?",
        ),
        (
            {"prefill": {"pause": {"every_tokens": 3}}},
            "pipeline.stages.prefill.pause: a prefill writes no answer; it is a key of a decode",
        ),
        (
            {"look": {"after": ["prefill"]}},
            "pipeline.stages.look.after: 'prefill' is not in the pauses of 'decode'; expected stages with 'during: "
            "decode', or none",
        ),
    ],
)
def test_a_pause_that_cannot_be_is_named(changes: Any, problem: str) -> None:
    assert problem in parsing(paused(changes))


def test_stages_that_cannot_come_in_a_pause_or_after_one_are_named() -> None:
    ask = {"ask": {"kind": "prefill", "during": "decode"}}
    assert "pipeline.stages.ask.during: a prefill cannot come in a pause" in parsing(paused() | ask)
    late = {"late": {"kind": "detokenize", "after": ["look"]}}
    assert parsing(paused() | late) == [
        "pipeline.stages.late.after: 'look' comes during the decode 'decode'; expected to come after that"
    ]
    alone = {name: PAUSED[name] for name in ("prefill", "decode")}
    assert parsing(alone) == [
        f"{DECODE}.pause: no stage runs during its pauses; mark one with 'during: decode'"
    ]


def test_loops_do_not_pause() -> None:
    stages = paused({name: {"repeat": "turns"} for name in PAUSED})
    assert parsing(stages, {"turns": {"times": 2}}) == [
        f"{DECODE}.pause: it is part of the loop 'turns'; expected a decode outside of loops",
        "pipeline.stages.look.during: it is part of the loop 'turns'; expected one or the other",
    ]


def test_too_many_segments_and_a_stage_in_a_pause_that_nobody_serves_are_named() -> None:
    config = config_of(paused({"decode": {"pause": {"every_tokens": 1}}}), requests=2, output_tokens=257)
    assert problems_of(config) == [f"{DECODE}.pause: gives 257 segments; expected at most 256"]
    embed = config_of(paused() | {"embed": {"kind": "embed", "during": "decode"}}, requests=2)
    assert problems_of(embed)[0].startswith(
        "pipeline.stages.embed: no pool of cluster 'agent' serves 'embed'"
    )
