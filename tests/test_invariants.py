"""What holds in every run, whatever the pipeline, the cluster, the policies and the load."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from heapq import heapify, heappop, heappush
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from oracles.fifo_cores import simulate_fifo_cores
from oracles.llm_client import simulate_llm_client
from oracles.random_programs import Wanted, random_program, random_programs
from oracles.symmetries_in_time import (
    check_a_later_start,
    check_same_times,
    check_what_has_happened_without_who_comes_later,
)
from oracles.watched_run import Submission, WatchedRun, as_oracle_sees_it, watch

import hermes_flow as hf
from hermes_flow.machine.run import run
from hermes_flow.pools.llm.client import LLMClient
from hermes_flow.pools.sequential.client import SequentialClient
from hermes_flow.program.ops import ServedStage
from hermes_flow.program.pools import LLMClientSpec
from hermes_flow.program.units import PS_PER_NS
from hermes_flow.program.work import CoreTime
from hermes_flow.recording.recording import STEP_FIELDS, Recording

START, END, STEPS, DECODES, CONTEXT, PREFILL, JOINED = range(len(STEP_FIELDS))

any_program = settings(max_examples=40)


def llm_clients(watched: WatchedRun) -> Iterator[tuple[LLMClientSpec, LLMClient, list[Submission]]]:
    """Yield every LLM client with what it was given, in order."""
    for (pool, index), client in watched.clients.items():
        spec = watched.program.pools[pool].client
        if isinstance(client, LLMClient):
            assert isinstance(spec, LLMClientSpec)
            yield spec, client, watched.given(pool, index)


def pools_deliver_at_once(recording: Recording) -> bool:
    """Tell whether tasks of different pools ever finish in the same nanosecond."""
    instants: dict[int, set[int]] = {}
    for op, record in zip(recording.program.ops, recording.ops, strict=True):
        instants.setdefault(op.pool, set()).update(record.finish_ns[record.finish_ns >= 0].tolist())
    return any(one & other for one, other in combinations(instants.values(), 2))


@pytest.mark.filterwarnings("error")
@any_program
@given(program=random_programs())
def test_every_request_is_completed_or_reported_with_its_reason(program: hf.Program) -> None:
    result = hf.simulate(program)
    recording = result.recording
    for request, status in enumerate(recording.status):
        assert (status == 1) == (request in recording.failures) == (request in program.rejected)
        for op, record in zip(program.ops, recording.ops, strict=True):
            runs = status == 0 and (op.taken is None or op.taken[request])
            times = [record.client, record.ready_ns, record.start_ns]
            if op.kv is None:  # else: a request without a decode is answered by its prefill
                times += [record.finish_ns] + ([] if record.first_ns is None else [record.first_ns])
            assert all((column[request] >= 0) == runs for column in times)
        assert (recording.finish_ns[request] >= recording.arrival_ns[request] >= 0) == (status == 0)
    counts = result.summary["requests"]
    assert counts["submitted"] == len(program.requests) == len(result.requests)
    assert counts["failed"] == len(program.rejected)
    assert counts["completed"] == counts["submitted"] - counts["failed"]
    assert all(reason for reason in recording.failures.values())


@any_program
@given(program=random_programs())
def test_clocks_never_go_back(program: hf.Program) -> None:
    recording = run(program)
    for op, record in zip(program.ops, recording.ops, strict=True):
        done = record.start_ns >= 0
        ready, start, finish = (
            column[done] for column in (record.ready_ns, record.start_ns, record.finish_ns)
        )
        assert (recording.arrival_ns[done] <= ready).all()
        assert (ready <= start).all()
        assert (start <= finish).all()
        if record.transfer_ns is not None:
            assert (record.transfer_ns >= 0).all()
            assert (ready + record.transfer_ns[done] <= start).all()
        if record.first_ns is not None:
            begin = start if op.kv is None else recording.ops[op.kv.source].start_ns[done]
            assert (begin <= record.first_ns[done]).all()
            assert (record.first_ns[done] <= finish).all()
        for before in op.after:
            earlier = recording.ops[before].finish_ns
            both = done & (earlier >= 0)
            assert (earlier[both] <= record.ready_ns[both]).all()
        assert (finish <= recording.finish_ns[done]).all()
    assert recording.finish_ns.max() <= recording.end_ns


@any_program
@given(program=random_programs())
def test_a_host_serves_one_task_per_core_and_in_order(program: hf.Program) -> None:
    watched = watch(program)
    for (pool, index), client in watched.clients.items():
        if not isinstance(client, SequentialClient):
            continue
        given = watched.given(pool, index)
        times = [watched.times(entry) for entry in given]
        for start, _ in times:
            assert sum(other <= start < finish for other, finish in times) <= client.cores
        services = [finish - start for start, finish in times]
        expected = simulate_fifo_cores(client.cores, [entry.at_ns for entry in given], services)
        assert [start for start, _ in times] == expected.start_ns
        assert client.busy_ns == sum(services)
        assert client.served == len(given)


@any_program
@given(program=random_programs())
def test_an_llm_client_runs_one_step_at_a_time(program: hf.Program) -> None:
    for record in run(program).clients:
        if record.segments is None or not len(record.segments):
            continue
        segments = record.segments[record.segments[:, STEPS] > 0]  # else: a sequence that came computed
        assert (segments[:, START] >= 0).all()
        assert (segments[:, START] < segments[:, END]).all()
        assert (segments[:-1, END] <= segments[1:, START]).all()
        assert (segments[segments[:, STEPS] > 1, PREFILL] == 0).all()
        assert record.busy_ns == int((segments[:, END] - segments[:, START]).sum()) // PS_PER_NS


@any_program
@given(program=random_programs())
def test_every_kv_block_that_was_allocated_is_freed(program: hf.Program) -> None:
    watched = watch(program)
    for spec, client, entries in llm_clients(watched):
        batch = client.batch
        assert batch.free == batch.blocks == spec.kv_blocks
        assert bool(entries) <= batch.peak <= spec.kv_blocks
        assert not batch.running
        assert not client.waiting
        assert (batch.backlog, batch.decodes, batch.context) == (0, 0, 0)


@any_program
@given(program=random_programs())
def test_tokens_are_computed_once_and_again_only_after_a_preemption(program: hf.Program) -> None:
    watched = watch(program)
    for spec, client, entries in llm_clients(watched):
        if spec.batching == "static":  # pads
            continue
        segments = client.segments()
        computed = int((segments[:, STEPS] * segments[:, DECODES] + segments[:, PREFILL]).sum())
        needed = again = 0
        for entry in entries:
            op, _ = watched.op_and_request(entry)
            prompt, answer = client.tasks.prompt[entry.task], client.tasks.output[entry.task] - 1
            elsewhere = watched.program.ops[op].kv is not None
            needed += answer + (0 if elsewhere else prompt - client.tasks.cached.get(entry.task, 0))
            again += (prompt + answer) * client.tasks.preemptions.get(entry.task, 0)
        assert needed <= computed <= needed + again
        busiest = segments[:, DECODES].max(initial=0)
        assert busiest <= spec.max_num_seqs


@any_program
@given(program=random_programs())
def test_a_client_with_work_is_never_idle(program: hf.Program) -> None:
    watched = watch(program)
    # A task whose KV is on its way asks for blocks before; it is work from when the KV is there.
    there = {(entry.pool, entry.client, entry.task): entry.at_ns for entry in watched.brought}
    gone = {(entry.pool, entry.client, entry.task): entry.at_ns * PS_PER_NS for entry in watched.let_go}
    for spec, client, entries in llm_clients(watched):
        segments = client.segments()
        segments = segments[segments[:, STEPS] > 0]
        tasks = client.tasks
        since = [there.get((entry.pool, entry.client, entry.task), entry.at_ns) for entry in entries]
        spans = [
            ((at_ns + spec.cost.ingest_ns) * PS_PER_NS, tasks.finish_ps[entry.task])
            for at_ns, entry in zip(since, entries, strict=True)
        ]
        # Blocks of KV that waits for another client are not free, so that a client may wait with work.
        held = [
            (tasks.finish_ps[entry.task], gone.get((entry.pool, entry.client, entry.task), 0))
            for entry in entries
        ]
        ends = [0, *segments[:-1, END].tolist()]
        for end, start in zip(ends, segments[:, START].tolist(), strict=False):
            if end < start and not any(finish < start and left > end for finish, left in held):
                assert not [seen for seen, finish in spans if seen < start and finish > end]
                assert any(seen == start for seen, _ in spans)
        assert len(segments) or not entries


def test_every_llm_client_does_what_the_naive_one_does_with_what_it_was_given() -> None:
    rng = random.Random(3)
    preempted = fed_by_llm = 0
    for _ in range(120):
        watched = watch(random_program(rng))
        if any(op.kv is not None for op in watched.program.ops):  # the naive client receives no KV
            continue
        for spec, client, entries in llm_clients(watched):
            expected = simulate_llm_client(spec, *as_oracle_sees_it(watched, entries))
            tasks = [entry.task for entry in entries]
            assert [client.tasks.start_ps[task] for task in tasks] == expected.start_ps
            assert [client.tasks.first_ps[task] for task in tasks] == expected.first_ps
            assert [client.tasks.finish_ps[task] for task in tasks] == expected.finish_ps
            assert [client.tasks.preemptions.get(task, 0) for task in tasks] == expected.preemptions
            assert client.segments()[:, STEPS].sum() == len(expected.steps)
            preempted += any(expected.preemptions)
        fed_by_llm += sum(op.generate is not None for op in watched.program.ops) > 1
    assert preempted > 5
    assert fed_by_llm > 25


def test_every_byte_that_is_sent_is_received() -> None:
    rng = random.Random(31)
    moved = 0
    for _ in range(100):
        recording = run(random_program(rng))
        sent = sum(link.bytes for link in recording.links if link.name.endswith("out"))
        received = sum(link.bytes for link in recording.links if link.name.endswith("in"))
        wanted = 0
        for op, record in zip(recording.program.ops, recording.ops, strict=True):
            if op.kv is None:
                continue
            assert op.kv is not None
            assert record.bytes is not None
            takes = record.client >= 0
            assert (record.bytes == np.where(takes, op.kv.bytes, 0)).all()
            wanted += int(record.bytes.sum())
        assert sent == received == wanted
        moved += wanted > 0
    assert moved > 5


@settings(max_examples=80)
@given(program=random_programs(Wanted(closed=True)))
def test_a_closed_loop_keeps_its_users_busy_and_has_no_more_of_them(program: hf.Program) -> None:
    recording = run(program)
    requests = program.requests
    assert requests.concurrency is not None
    assert requests.think_ns is not None
    arrivals = recording.arrival_ns.tolist()
    left = np.where(recording.status == 0, recording.finish_ns, recording.arrival_ns).tolist()
    started = min(requests.concurrency, len(requests))
    assert arrivals[:started] == [0] * started
    releases = left[:started]
    heapify(releases)
    for request in range(started, len(requests)):
        assert arrivals[request] == heappop(releases) + requests.think_ns[request]
        heappush(releases, left[request])


@settings(max_examples=25)
@given(program=random_programs())
def test_equal_programs_give_equal_tables(program: hf.Program) -> None:
    first, second = hf.simulate(program), hf.simulate(program)
    assert first.requests.equals(second.requests)
    assert first.stages.equals(second.stages)
    assert first.clients.equals(second.clients)
    assert first.steps.equals(second.steps)


def test_the_order_in_which_pools_are_written_does_not_matter() -> None:
    rng = random.Random(21)
    compared = 0
    for _ in range(100):
        program = random_program(rng)
        before = run(program)
        # Pools deliver in the order in which they are written if they do so at once, and are placed in it.
        if pools_deliver_at_once(before) or program.network is not None:
            continue
        number = len(program.pools)
        turned = replace(
            program,
            pools=program.pools[::-1],
            ops=tuple(replace(op, pool=number - 1 - op.pool) for op in program.ops),
        )
        check_same_times(before, run(turned))
        compared += number > 1 and len(program.ops) > 1
    assert compared > 30


@settings(max_examples=40)
@given(program=random_programs(Wanted(closed=False)))
def test_what_has_happened_does_not_depend_on_who_comes_later(program: hf.Program) -> None:
    check_what_has_happened_without_who_comes_later(program)


@settings(max_examples=40)
@given(program=random_programs(Wanted(closed=False)))
def test_a_later_start_moves_everything_by_as_much(program: hf.Program) -> None:
    check_a_later_start(program)


@pytest.mark.parametrize("routing", ["round_robin", "least_requests", "least_tokens"])
def test_an_answer_takes_as_long_whether_or_not_anyone_waits_for_it(routing: str) -> None:
    rng = random.Random(11)
    wanted = Wanted(pipeline="llm", routing=(routing,), closed=False)
    for _ in range(30):
        program = random_program(rng, wanted)
        pools = [
            index for index, pool in enumerate(program.pools) if not isinstance(pool.client, LLMClientSpec)
        ]
        answer, none = program.ops[0], np.zeros(len(program.requests), np.int64)
        free = replace(
            answer,
            name="detokenize",
            serves=(ServedStage("detokenize", "detokenize"),),
            pool=pools[0],
            after=(0,),
            work=CoreTime(none, none),
        )
        lazy, notified = run(program), run(replace(program, ops=(answer, free)))
        check_same_times(lazy, replace(notified, ops=notified.ops[:1]))
        for ours, theirs in zip(lazy.clients, notified.clients, strict=True):
            if ours.segments is not None and theirs.segments is not None:
                np.testing.assert_array_equal(ours.segments, theirs.segments)


def test_a_closed_loop_played_back_as_open_arrivals_is_the_same_run() -> None:
    rng = random.Random(12)
    compared = 0
    for _ in range(80):
        program = random_program(rng, Wanted(pipeline="llm", closed=True))
        closed = run(program)
        if (np.diff(closed.arrival_ns) < 0).any():  # a long think time lets a later request overtake
            continue
        requests = replace(program.requests, arrival_ns=closed.arrival_ns, concurrency=None, think_ns=None)
        check_same_times(closed, run(replace(program, requests=requests)))
        compared += 1
    assert compared > 30
