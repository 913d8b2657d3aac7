"""Guards that read an answer while it is written: times by hand, an LLM that does not notice, where they stop it."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from compiler.configs import problems_of
from metrics.test_critical_path import assert_parts_add_up

import hermes_flow as hf
from hermes_flow.compiler.parse import parse
from hermes_flow.config.schema import Config, Pipeline
from hermes_flow.machine.run import run
from hermes_flow.recording.recording import Recording

CALL: dict[str, Any] = {"prefill": {"kind": "prefill"}, "decode": {"kind": "decode", "after": ["prefill"]}}
GUARD: dict[str, Any] = {"kind": "guard", "of": "answer", "after": ["decode"], "every_tokens": 4}
LENGTHS: dict[str, Any] = {"distribution": "uniform", "min": 1, "max": 60}
MANY: dict[str, Any] = {
    "requests": 60,
    "rate_per_s": 150.0,
    "input_tokens": LENGTHS,
    "output_tokens": LENGTHS,
}


@functools.cache
def composed(*overrides: str) -> Config:
    affine = ("cost=affine", "cost.fixed_us=1000", "cost.per_token_us=10", "cost.per_context_us=0.01")
    return hf.compose(["cluster=guarded", "workload=synthetic", "slo=none", *affine, *overrides])


def guarded(
    guard: dict[str, Any] | None, *overrides: str, pool: dict[str, Any] | None = None, **workload: Any
) -> Config:
    """A call whose answer is guarded (None: is not), with keys of the LLM pool and the workload changed."""
    base: Any = composed(*overrides)
    stages = CALL if guard is None else CALL | {"guard": GUARD | guard}
    pools = dict(base.cluster.pools)
    if "llm" in pools:
        pools["llm"] = replace(pools["llm"], **(pool or {}))
    changed: Config = replace(
        base,
        pipeline=Pipeline("by_hand", stages),
        cluster=replace(base.cluster, pools=pools),
        workload=replace(base.workload, **workload),
    )
    return changed


def step_ms(tokens: int, context: int) -> float:
    """A step of the config by hand: 1 ms, 10 µs a token, 0.01 µs a token computed before."""
    return 1.0 + 0.01 * tokens + 0.00001 * context


def test_the_checks_of_an_answer_of_ten_tokens_begin_and_end_as_by_hand() -> None:
    guard = {"context_tokens": 2, "template_tokens": 3}
    result = hf.simulate(hf.compile(guarded(guard, requests=1, input_tokens=50, output_tokens=10)))
    written = [step_ms(50, 0)]
    for token in range(9):
        written.append(written[-1] + step_ms(1, 50 + token))
    checks = result.stages.filter(result.stages["stage"] == "guard")
    begin = np.array([written[3], written[7], written[9]])
    assert checks["tokens"].to_list() == [4 + 3, 4 + 2 + 3, 2 + 2 + 3]
    took = np.array([step_ms(tokens, 0) for tokens in (7, 9, 7)])
    (row,) = result.requests.rows(named=True)
    ready, finish = (checks[name].to_numpy() - row["arrival_s"] for name in ("ready_s", "finish_s"))
    np.testing.assert_allclose(ready * 1000, begin, atol=2e-6)
    np.testing.assert_allclose(finish * 1000, begin + took, atol=4e-6)
    assert row["ttft_s"] * 1000 == pytest.approx(written[0], abs=2e-6)
    assert row["tpot_s"] * 1000 == pytest.approx((written[9] - written[0]) / 9, abs=2e-6)
    assert row["e2e_s"] * 1000 == pytest.approx(written[9] + took[2], abs=4e-6)
    path = result.summary["critical_path"]["mean"]["shares"]
    assert path["guard"] == pytest.approx(took[2] / (written[9] + took[2]), rel=1e-5)


def test_a_check_that_is_late_holds_the_answer_back_and_the_path_goes_through_it() -> None:
    guard = {"template_tokens": 2000, "every_tokens": 9}  # 20 ms a check; tokens 10 come 9 ms after the first
    config = guarded(guard, requests=1, input_tokens=50, output_tokens=10)
    pools: dict[str, Any] = dict(config.cluster.pools)
    pools["guard"] = replace(pools["guard"], max_num_seqs=1)
    config = replace(config, cluster=replace(config.cluster, pools=pools))
    result = hf.simulate(hf.compile(config))
    first, last = result.stages.filter(result.stages["stage"] == "guard").rows(named=True)
    assert last["start_s"] == first["finish_s"]  # the second waits for the first
    assert result.requests["finish_s"][0] == last["finish_s"]
    assert_parts_add_up(result.recording)


def token_times(recording: Recording, op: int, request: int) -> list[int]:
    """When each token of an answer was written: with every decode step of its client, as nobody is preempted."""
    from hermes_flow.metrics.tables.steps import steps_frame

    record = recording.ops[op]
    assert record.first_ns is not None
    steps = steps_frame(recording)
    name = f"{recording.program.pools[recording.program.ops[op].pool].name}/{record.client[request]}"
    ends = steps.filter((steps["client"] == name) & (steps["decodes"] > 0))["end_s"].to_numpy() * 1e9
    first, finish = int(record.first_ns[request]), int(record.finish_ns[request])
    return [first, *(ends[(ends > first + 1) & (ends < finish + 1)].astype(int).tolist())]


@pytest.mark.parametrize("batching", ["chunked", "continuous", "mixed"])
@pytest.mark.parametrize("lookahead", [0, 1])
def test_a_check_begins_as_the_last_of_its_tokens_is_written(batching: str, lookahead: int) -> None:
    pool = {"batching": batching, "lookahead": lookahead, "count": 2}
    program = hf.compile(guarded({"every_tokens": 7}, pool=pool, **(MANY | {"requests": 25})))
    recording = run(program)
    (op,) = (number for number, op in enumerate(program.ops) if op.generate is not None)
    for request in range(25):
        times = token_times(recording, op, request)
        assert len(times) == program.requests.output_tokens[request]
        for check, number in enumerate(range(op + 1, len(program.ops)), start=1):
            ready = int(recording.ops[number].ready_ns[request])
            if (check - 1) * 7 >= len(times):
                assert ready == -1
            else:
                assert abs(ready - times[min(7 * check, len(times)) - 1]) <= 1


ANY_POOL: dict[str, dict[str, Any]] = {
    "plain": {},
    "no look-ahead": {"lookahead": 0},
    "continuous": {"batching": "continuous"},
    "under pressure": {"kv_blocks": 31, "block_size": 4, "max_num_seqs": 8},
    "swapped under pressure": {"kv_blocks": 31, "block_size": 4, "max_num_seqs": 8, "preemption": "swap"},
    "with a prefix cache": {"kv_blocks": 31, "block_size": 4, "max_num_seqs": 8, "prefix_cache": True},
    "in two stages": {"pipeline_parallel": 2},
    "in two stages under pressure": {"pipeline_parallel": 2, "kv_blocks": 31, "block_size": 4},
    "with a stale router": {"count": 3, "routing": "least_requests"},
}


@pytest.mark.parametrize("pool", ANY_POOL.values(), ids=ANY_POOL)
def test_the_llm_works_as_without_a_guard(pool: dict[str, Any]) -> None:
    alone, watched = (
        run(hf.compile(guarded(guard, pool=pool, **MANY))) for guard in (None, {"every_tokens": 5})
    )
    for column in ("client", "start_ns", "first_ns", "finish_ns", "preemptions", "cached_tokens"):
        np.testing.assert_array_equal(getattr(watched.ops[0], column), getattr(alone.ops[0], column))
    assert pool.get("kv_blocks") is None or alone.ops[0].preemptions.sum() > 0  # type: ignore[union-attr]
    check_guards(watched, 5)
    assert_parts_add_up(watched)


def check_guards(recording: Recording, every: int) -> None:
    """Every chunk is checked once, in order, between first token and end, and answers end with their last check."""
    program = recording.program
    answers = max(number for number, op in enumerate(program.ops) if op.generate is not None)
    output = program.ops[answers].llm.output
    assert output is not None
    first, ends = recording.ops[answers].first_ns, recording.ops[answers].finish_ns
    assert first is not None
    before = first
    for check, record in enumerate(recording.ops[answers + 1 :]):
        has = output > check * every
        assert ((record.client >= 0) == has).all()
        assert (record.ready_ns >= before)[has].all()
        last = has & (output <= (check + 1) * every)
        assert (record.ready_ns == ends)[last].all()
        assert (record.ready_ns <= ends)[has].all()
        before = np.where(has, record.ready_ns, before)
    finish = np.max([record.finish_ns for record in recording.ops[answers:]], axis=0)
    assert (recording.finish_ns == finish).all()


def test_decodes_on_a_pool_of_their_own_are_watched_there() -> None:
    words = ["cluster=disaggregated", "workload=synthetic", "workload.requests=40", "workload.rate_per_s=20"]
    base: Any = hf.compose(
        [*words, "workload.output_tokens=11", "cluster.pools.prefill.serves=[prefill,guard]"]
    )
    recordings = [
        run(hf.compile(replace(base, pipeline=Pipeline("test", stages))))
        for stages in (CALL, CALL | {"guard": GUARD})
    ]
    check_guards(recordings[1], 4)
    assert [record.client.max() for record in recordings[1].ops] == [0] * 5


def test_with_speculation_several_tokens_of_a_step_are_there_at_once() -> None:
    draft = "+model@cluster.pools.llm.speculative.draft=llama3_8b"
    recording = run(hf.compile(guarded({"every_tokens": 2}, draft, **MANY)))
    check_guards(recording, 2)


STOPPED = {"stop_share": 0.5, "lag_tokens": 3, "every_tokens": 10}


def test_a_stopped_answer_ends_with_the_chunk_that_is_stopped_and_what_came_meanwhile() -> None:
    program = hf.compile(guarded(STOPPED, requests=400, rate_per_s=100.0, input_tokens=10, output_tokens=35))
    result = hf.simulate(program)
    lengths, counts = np.unique(result.requests["output_tokens"].to_numpy(), return_counts=True)
    assert lengths.tolist() == [13, 23, 33, 35]  # the fourth check stops what is complete
    assert counts[:3].min() > 25  # a sixteenth is 50 each
    assert counts[3] > 200
    checks = np.stack([op.taken for op in program.ops[1:] if op.taken is not None]).sum(axis=0)
    stopped = result.requests["output_tokens"].to_numpy() // 10
    assert (checks == np.where(stopped < 3, stopped, checks)).all()
    ends = result.stages.group_by("request").agg(hf_max("finish_s")).sort("request")
    assert (
        ends["finish_s"] == result.requests["finish_s"]
    ).all()  # also where three more come after the verdict
    assert_parts_add_up(result.recording)


def hf_max(name: str) -> Any:
    import polars as pl

    return pl.col(name).max()


def test_what_comes_after_a_guard_waits_for_the_answer_too() -> None:
    stages = CALL | {"guard": GUARD | STOPPED, "send": {"kind": "detokenize", "after": ["guard"]}}
    config = replace(guarded(None, **MANY), pipeline=Pipeline("test", stages))
    recording = run(hf.compile(config))
    answer = recording.ops[0].finish_ns
    guards = np.max([record.finish_ns for record in recording.ops[1:-1]], axis=0)
    assert (recording.ops[-1].ready_ns == np.maximum(answer, guards)).all()
    assert (answer > guards).any()


def test_who_is_stopped_does_not_depend_on_the_share_of_others_and_only_the_guarded_are() -> None:
    def lengths(**guard: Any) -> Any:
        sizes: dict[str, Any] = {"requests": 500, "input_tokens": 10, "output_tokens": 100}
        program = hf.compile(guarded(STOPPED | guard, **sizes))
        return program.ops[0].llm.output, program.ops[1].taken

    few, _ = lengths(stop_share=0.2)
    many, _ = lengths(stop_share=0.6)
    assert ((few == many) | (few == 100)).all()
    cut, read = lengths(stop_share=1.0, share=0.3)
    assert ((cut < 100) <= read).all()
    assert 100 < read.sum() < 200


def test_the_ready_pipeline_runs() -> None:
    words = [
        "pipeline=chat_guarded_streaming",
        "cluster=guarded",
        "workload=synthetic",
        "workload.requests=60",
    ]
    result = hf.simulate(hf.compile(hf.compose([*words, "workload.rate_per_s=2"])))
    assert result.summary["requests"] == {"submitted": 60, "completed": 60, "failed": 0}
    assert list(result.summary["stages"]) == ["tokenize", "prefill", "decode", "guard", "detokenize"]


def parsing(guard: dict[str, Any], decode: dict[str, Any], loops: Any = None) -> list[str]:
    problems: list[str] = []
    stages = {"prefill": CALL["prefill"], "decode": CALL["decode"] | decode, "guard": GUARD | guard}
    if loops:
        stages["prefill"] = stages["prefill"] | {"repeat": "turns"}
    parse(Pipeline("test", stages, loops or {}), problems)
    return problems


KEY = "pipeline.stages.guard"


@pytest.mark.parametrize(
    ("guard", "problem"),
    [
        ({"every_tokens": 1}, f"{KEY}.every_tokens: 1 is below 2"),
        ({"stop_share": 1.5}, f"{KEY}.stop_share: 1.5 is out of range; expected a number from 0 to 1"),
        ({"lag_tokens": -1}, f"{KEY}.lag_tokens: -1 is out of range; expected an integer from 0 to 1e12"),
        (
            {"every_tokens": None, "stop_share": 0.1},
            f"{KEY}.stop_share: it needs every_tokens: only a guard that reads during generation has it",
        ),
        (
            {"of": "input"},
            f"{KEY}.every_tokens: it reads the input, which is complete from the start; expected 'of: answer'",
        ),
        (
            {"after": ["prefill"]},
            f"{KEY}.after: expected the one decode whose answer it reads as it is written",
        ),
    ],
)
def test_a_guard_that_cannot_read_so_is_named(guard: dict[str, Any], problem: str) -> None:
    assert problem in parsing(guard, {})


def test_answers_that_cannot_be_read_as_they_are_written_are_named() -> None:
    whole = "expected a guard of the whole answer"
    assert f"{KEY}.every_tokens: the decode 'decode' has branches; {whole}" in parsing({}, {"branches": 2})
    assert parsing({}, {"repeat": "turns"}, {"turns": {"times": 2}}) == [
        f"{KEY}.every_tokens: the decode 'decode' is part of a loop; {whole}"
    ]
    paused = parsing({}, {"pause": {"every_tokens": 5}})
    assert f"{KEY}.every_tokens: the decode 'decode' pauses; {whole}" in paused
    assert problems_of(guarded({}, pool={"batching": "static"}, requests=2)) == [
        "cluster.pools.llm.batching: a gang of 'static' is delivered as a whole, and 'guard' reads while it is "
        "written; expected another policy"
    ]
    assert problems_of(guarded({"every_tokens": 2}, requests=2, output_tokens=514)) == [
        f"{KEY}.every_tokens: gives 257 checks of an answer; expected at most 256"
    ]
