"""A request's critical path: what it waited for, back from its end to its arrival; its parts add up to E2E."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from metrics.handmade import MS, four_requests, host_op, host_pool, in_ms, ints
from oracles.random_programs import random_program, random_programs
from tries import tries

import hermes_flow as hf
from hermes_flow.machine.run import run
from hermes_flow.metrics.critical_path import critical_path, path_figures
from hermes_flow.metrics.result import Result
from hermes_flow.program.program import Program, SLOBounds
from hermes_flow.program.requests import Requests
from hermes_flow.recording.recording import OpRecord, Recording

Task = tuple[int, int, int] | None  # ready, start, finish in ms; None: skipped


def graph_run(arrival_ms: list[int], **stages: tuple[tuple[str, ...], list[Task]]) -> Recording:
    """A run of sequential stages: what comes directly before each, and its task of each request."""
    names, count = list(stages), len(arrival_ms)
    ops, records, ends = [], [], np.array(arrival_ms)
    for name, (after, tasks) in stages.items():
        taken = np.array([task is not None for task in tasks])
        before = tuple(names.index(other) for other in after)
        ops.append(host_op(name, "tool", ints([0] * count), before, taken))
        ready, start, finish = zip(*(task or (-1, -1, -1) for task in tasks), strict=True)
        client = ints([0 if task else -1 for task in tasks])
        records.append(OpRecord(client, in_ms(ready), in_ms(start), in_ms(finish)))
        ends = np.maximum(ends, finish)
    sizes = ints([1] * count)
    requests = Requests(in_ms(arrival_ms), sizes, sizes)
    program = Program("graph", "graph", "small", (host_pool(),), tuple(ops), requests, SLOBounds("none"))
    return Recording(
        program, in_ms(arrival_ms), in_ms(ends.tolist()), np.zeros(count, np.int8), tuple(records), (),
        end_ns=int(ends.max()) * MS, events=0, wall_s=0.0, cpu_s=0.0,
    )  # fmt: skip


def on_path(recording: Recording, request: int = 0) -> dict[str, tuple[int, int]]:
    """The stages on a request's path, with queueing and service in ms."""
    return {
        stage: (int(part.queue_ns[request]) // MS, int(part.service_ns[request]) // MS)
        for stage, part in critical_path(recording).items()
        if part.total_ns[request]
    }


def assert_parts_add_up(recording: Recording) -> None:
    total = np.zeros(len(recording.program.requests), dtype=np.int64)
    for part in critical_path(recording).values():
        assert min(part.queue_ns.min(), part.transfer_ns.min(), part.service_ns.min()) >= 0
        total += part.total_ns
    e2e = np.where(recording.status == 0, recording.finish_ns - recording.arrival_ns, 0)
    assert total.tolist() == e2e.tolist()


@settings(max_examples=tries(50, of=100))
@given(program=random_programs())
def test_the_parts_of_every_completed_request_add_up_to_its_e2e(program: hf.Program) -> None:
    assert_parts_add_up(run(program))


def test_random_runs_have_what_can_go_wrong() -> None:
    rng = random.Random(3)
    seen = dict.fromkeys(("fan in", "skipped", "moved", "failed", "off the path"), 0)
    for _ in range(60):
        recording = run(random_program(rng))
        assert_parts_add_up(recording)
        ops = recording.program.ops
        seen["fan in"] += any(len(op.after) > 1 for op in ops)
        seen["skipped"] += any(op.taken is not None and not op.taken.all() for op in ops)
        seen["moved"] += any(op.kv is not None for op in ops)
        seen["failed"] += bool((recording.status != 0).any())
        worked = sum(
            int((record.finish_ns - record.ready_ns)[(record.client >= 0) & (recording.status == 0)].sum())
            for record in recording.ops
        )
        parts = critical_path(recording).values()
        seen["off the path"] += worked > sum(int(part.total_ns.sum()) for part in parts)
    assert min(seen.values()) >= 4, seen


def test_of_two_branches_the_slower_one_is_on_the_path() -> None:
    recording = graph_run(
        [10],
        top=((), [(10, 11, 14)]),
        quick=(("top",), [(14, 14, 20)]),
        slow=(("top",), [(14, 20, 60)]),
        bottom=(("quick", "slow"), [(60, 61, 63)]),
    )
    assert on_path(recording) == {"top": (1, 3), "slow": (6, 40), "bottom": (1, 2)}


def test_a_diamond_within_a_diamond_is_followed_to_its_slowest_corner() -> None:
    recording = graph_run(
        [0],
        top=((), [(0, 0, 1)]),
        left=(("top",), [(1, 1, 5)]),
        inner_a=(("left",), [(5, 5, 30)]),
        inner_b=(("left",), [(5, 9, 31)]),
        joined=(("inner_a", "inner_b"), [(31, 31, 33)]),
        right=(("top",), [(1, 2, 32)]),
        bottom=(("joined", "right"), [(33, 33, 40)]),
    )
    expected = {"top": (0, 1), "left": (0, 4), "inner_b": (4, 22), "joined": (0, 2), "bottom": (0, 7)}
    assert on_path(recording) == expected


def test_each_request_has_a_path_of_its_own() -> None:
    recording = graph_run(
        [0, 100],
        a=((), [(0, 0, 9), (100, 100, 101)]),
        b=((), [(0, 0, 2), (100, 100, 140)]),
        join=(("a", "b"), [(9, 9, 10), (140, 150, 151)]),
    )
    assert on_path(recording, 0) == {"a": (0, 9), "join": (0, 1)}
    assert on_path(recording, 1) == {"b": (0, 40), "join": (10, 1)}


def test_of_two_that_end_at_once_the_first_is_on_the_path_and_counted_once() -> None:
    recording = graph_run(
        [0],
        a=((), [(0, 0, 7)]),
        b=((), [(0, 3, 7)]),
        join=(("b", "a"), [(7, 7, 8)]),
    )
    assert on_path(recording) == {"b": (3, 4), "join": (0, 1)}  # the first that it comes after


def test_of_several_ends_the_last_one_counts() -> None:
    recording = graph_run(
        [0],
        answer=((), [(0, 0, 5)]),
        log=(("answer",), [(5, 5, 6)]),
        audit=(("answer",), [(5, 8, 20)]),
    )
    assert on_path(recording) == {"answer": (0, 5), "audit": (3, 12)}


def test_the_path_goes_through_a_skipped_stage_to_what_is_before_it() -> None:
    recording = graph_run(
        [0, 0],
        slow=((), [(0, 0, 50), (0, 0, 50)]),
        filtered=(("slow",), [None, (50, 51, 52)]),
        quick=((), [(0, 0, 5), (0, 0, 5)]),
        join=(("filtered", "quick"), [(50, 50, 51), (52, 52, 53)]),
    )
    assert on_path(recording, 0) == {"slow": (0, 50), "join": (0, 1)}
    assert on_path(recording, 1) == {"slow": (0, 50), "filtered": (1, 1), "join": (0, 1)}


def test_a_fused_prefill_and_decode_come_apart_at_the_first_token_and_failed_requests_have_no_parts() -> None:
    recording = four_requests()
    assert on_path(recording, 1) == {
        "tokenize": (0, 1),
        "prefill": (10, 10),
        "decode": (0, 30),
        "detokenize": (0, 1),
    }
    assert on_path(recording, 3) == {}
    assert_parts_add_up(recording)


def test_a_transfer_is_apart_from_the_queue_behind_it() -> None:
    recording = graph_run([0], prefill=((), [(0, 0, 10)]), decode=(("prefill",), [(10, 17, 30)]))
    first, second = recording.ops
    moved = replace(second, transfer_ns=in_ms([4]))
    part = critical_path(replace(recording, ops=(first, moved)))["decode"]
    assert (part.transfer_ns[0], part.queue_ns[0], part.service_ns[0]) == (4 * MS, 3 * MS, 13 * MS)


def test_turns_of_a_loop_count_as_one_stage() -> None:
    recording = graph_run([0], one=((), [(0, 0, 5)]), two=(("one",), [(5, 6, 8)]))
    first, second = recording.program.ops
    looped = replace(recording.program, ops=(first, replace(second, serves=first.serves)))
    assert on_path(replace(recording, program=looped)) == {"one": (1, 7)}


def test_the_summary_names_the_stage_with_most_of_the_mean_and_of_the_slowest_requests() -> None:
    # 99 requests of 9 ms in a and 1 ms in b; the last waits 100 ms for b.
    arrivals = [1000 * request for request in range(100)]
    last = arrivals[-1]
    recording = graph_run(
        arrivals,
        a=((), [(at, at, at + 9) for at in arrivals]),
        b=(
            ("a",),
            [*((at + 9, at + 9, at + 10) for at in arrivals[:-1]), (last + 9, last + 109, last + 110)],
        ),
    )
    found = Result(recording).summary["critical_path"]
    assert found["mean"] == {
        "stage": "a",
        "share": pytest.approx(900 / 1100),
        "queue_share": pytest.approx(100 / 1100),
        "transfer_share": 0.0,
        "service_share": pytest.approx(1000 / 1100),
        "shares": {"a": pytest.approx(900 / 1100), "b": pytest.approx(200 / 1100)},
    }
    assert found["p99"] == {
        "stage": "b",
        "share": pytest.approx(101 / 110),
        "queue_share": pytest.approx(100 / 110),
        "transfer_share": 0.0,
        "service_share": pytest.approx(10 / 110),
        "shares": {"a": pytest.approx(9 / 110), "b": pytest.approx(101 / 110)},
    }


def test_the_slowest_requests_are_those_at_or_beyond_the_p99_of_the_completed_ones() -> None:
    durations = [*range(1, 200), 10_000, 20_000, 30_000]
    fast = [(0, 0, duration) if duration < 199 else None for duration in durations]
    slow = [(0, 0, duration) if duration >= 199 else None for duration in durations]
    recording = graph_run([0] * 202, fast=((), fast), slow=((), slow))
    status = recording.status.copy()
    status[-1] = 1  # the slowest fails: it is neither in the percentile nor among the slow
    # Of 201 completed requests, rank 198 of 0 … 200 is the P99: 199, 10,000 and 20,000 ms are at or beyond it.
    found = path_figures(replace(recording, status=status))
    assert found["p99"]["shares"] == {"fast": 0.0, "slow": 1.0}
    assert found["mean"]["shares"]["fast"] == pytest.approx(
        sum(range(1, 199)) / (sum(range(1, 200)) + 30_000)
    )


def test_where_nothing_completed_there_is_no_path() -> None:
    recording = four_requests()
    failed = replace(recording, status=np.ones(4, np.int8))
    assert path_figures(failed) == {"mean": None, "p99": None}
