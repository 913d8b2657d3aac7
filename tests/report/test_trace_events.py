"""The exported trace is valid, nests as viewers demand, and shows what ran."""

from __future__ import annotations

import gzip
import json
from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest
from metrics.handmade import (
    MS_IN_PS,
    four_requests,
    host_op,
    in_ms,
    ints,
    segments_ms,
    single_stage_run,
    with_program,
)
from oracles.random_batches import batched_op, batched_pool, batched_program

from hermes_flow.errors import HermesFlowError
from hermes_flow.machine.run import run as run_program
from hermes_flow.metrics.trace_events import write_trace_events
from hermes_flow.program.pools import BatchedClientSpec
from hermes_flow.program.work import PassCost
from hermes_flow.recording.recording import OpRecord, Recording


def fan_out() -> Recording:
    """One request whose second and third stage run side by side: 0-5, then 5-9 and (waiting to 6) 6-12."""
    recording = single_stage_run([0], [0], [5], cores=2)
    more = [host_op(name, "tool", ints([0]), (0,)) for name in ("left", "right")]
    records = [
        OpRecord(ints([0]), in_ms([5]), in_ms([start]), in_ms([end])) for start, end in ((5, 9), (6, 12))
    ]
    recording = with_program(recording, ops=(*recording.program.ops, *more))
    return replace(recording, ops=(*recording.ops, *records), finish_ns=in_ms([12]), end_ns=in_ms([12])[0])


def busy_host() -> Recording:
    """Six requests on two cores, at most two at a time."""
    return single_stage_run([0, 0, 1, 2, 3, 9], [0, 0, 4, 6, 8, 9], [4, 6, 8, 9, 9, 20], cores=2)


def two_batched_clients() -> Recording:
    """Nine tasks on two clients by turns, in passes of up to three; passes overlap between clients only."""
    cost = PassCost(ns=(0, 4_000_000, 5_000_000, 6_000_000))
    pool = batched_pool("retrieval", 2, BatchedClientSpec(3))
    arrivals = [1_000_000 * ms for ms in (0, 0, 1, 1, 2, 2, 3, 3, 3)]
    return run_program(batched_program((pool,), (batched_op("search", 0, cost, 9),), arrivals))


RUNS = {
    "pipeline": four_requests,
    "fan-out": fan_out,
    "host": busy_host,
    "batches": two_batched_clients,
}


def events_of(recording: Recording, folder) -> list[dict]:
    with gzip.open(write_trace_events(recording, folder / "trace.json.gz")) as file:
        document = json.load(file)
    assert set(document) == {"displayTimeUnit", "traceEvents"}
    return document["traceEvents"]


@pytest.mark.parametrize("run", RUNS)
def test_slices_of_a_thread_follow_one_another(run, tmp_path):
    ends: dict[tuple[int, int], float] = defaultdict(float)
    slices = [event for event in events_of(RUNS[run](), tmp_path) if event["ph"] == "X"]
    assert slices
    for event in slices:
        thread = event["pid"], event["tid"]
        assert event["dur"] >= 0
        assert event["ts"] >= ends[thread]
        ends[thread] = event["ts"] + event["dur"]


@pytest.mark.parametrize("run", RUNS)
def test_asynchronous_spans_nest_and_time_does_not_go_back(run, tmp_path):
    open_spans: dict[str, list[str]] = defaultdict(list)
    last: dict[str, float] = defaultdict(float)
    edges = [event for event in events_of(RUNS[run](), tmp_path) if event["ph"] in "be"]
    assert edges
    for event in edges:
        track = event["id"]
        assert event["ts"] >= last[track]
        last[track] = event["ts"]
        if event["ph"] == "b":
            open_spans[track].append(event["name"])
        else:
            assert open_spans[track].pop() == event["name"]
    assert not any(open_spans.values())


@pytest.mark.parametrize("run", RUNS)
def test_every_process_and_thread_has_a_name(run, tmp_path):
    events = events_of(RUNS[run](), tmp_path)
    processes = {event["pid"] for event in events if event["ph"] == "M" and event["name"] == "process_name"}
    threads = {(event["pid"], event["tid"]) for event in events if event["name"] == "thread_name"}
    assert {event["pid"] for event in events} <= processes
    assert {(event["pid"], event["tid"]) for event in events if event["ph"] in "XC"} <= threads


def test_processes_are_pools_and_threads_their_clients_or_cores(tmp_path):
    events = events_of(four_requests(), tmp_path)
    names = [event["args"]["name"] for event in events if event["ph"] == "M"]
    assert names == ["requests", "host", "llm", "host/0 core 0", "host/0 core 1", "llm/0"]


def test_tasks_of_a_pass_lie_side_by_side_and_clients_apart(tmp_path):
    events = events_of(two_batched_clients(), tmp_path)
    names = {event["tid"]: event["args"]["name"] for event in events if event["name"] == "thread_name"}
    assert set(names.values()) == {
        f"retrieval/{client} place {place}" for client in (0, 1) for place in range(3)
    }


def test_llm_slices_tell_what_the_steps_did(tmp_path):
    events = events_of(four_requests(), tmp_path)
    steps = [event for event in events if event["ph"] == "X" and "steps" in event["args"]]
    assert [(event["name"], event["ts"], event["dur"]) for event in steps] == [
        ("prefill", 1000.0, 10_000.0),
        ("decode", 11_000.0, 10_000.0),
        ("prefill + decode", 21_000.0, 10_000.0),
        ("prefill + decode", 31_000.0, 10_000.0),
        ("decode", 41_000.0, 20_000.0),
    ]
    assert steps[3]["args"] == {
        "steps": 1, "decodes": 2, "decode_context": 152, "prefill_tokens": 30, "joined": 0,
    }  # fmt: skip


def test_a_counter_follows_the_decoding_sequences_and_ends_at_zero(tmp_path):
    events = events_of(four_requests(), tmp_path)
    counts = [(event["ts"], event["args"]["sequences"]) for event in events if event["ph"] == "C"]
    assert counts == [(11_000, 1), (31_000, 2), (41_000, 1), (61_000, 0)]


def test_the_counter_falls_to_zero_while_the_client_idles(tmp_path):
    recording = four_requests()
    host, llm = recording.clients
    later = llm.segments.copy()
    later[-1, :2] += 5 * MS_IN_PS  # idle from 41 to 46 ms
    events = events_of(replace(recording, clients=(host, replace(llm, segments=later))), tmp_path)
    counts = [(event["ts"], event["args"]["sequences"]) for event in events if event["ph"] == "C"]
    assert counts == [(11_000, 1), (31_000, 2), (41_000, 0), (46_000, 1), (66_000, 0)]


def test_each_micro_batch_has_a_thread_and_a_counter_of_its_own(tmp_path):
    recording = four_requests()
    host, llm = recording.clients
    clients = (host, replace(llm, lane_rows=(2, 3)), replace(llm, client=1, lane_rows=(5, 0)))
    events = events_of(replace(recording, clients=clients), tmp_path)
    threads = {
        event["tid"]: event["args"]["name"]
        for event in events
        if event["name"] == "thread_name" and event["pid"] == 3
    }
    names = [f"llm/{client} micro-batch {lane}" for client in (0, 1) for lane in (0, 1)]
    assert threads == dict(enumerate(names, start=1))
    steps = [(event["tid"], event["ts"]) for event in events if event["ph"] == "X" and event["pid"] == 3]
    starts = [1000, 11_000, 21_000, 31_000, 41_000]
    assert steps == list(zip([1, 1, 2, 2, 2], starts, strict=True)) + [(3, start) for start in starts]
    counters = {event["tid"]: event["name"] for event in events if event["ph"] == "C"}
    assert counters == {1: f"{names[0]} decodes", 2: f"{names[1]} decodes", 3: f"{names[2]} decodes"}


def test_what_takes_no_time_is_no_slice(tmp_path):
    # A sequence that came computed, and a further token of a speculative step in which a prefill ended.
    recording = four_requests()
    host, llm = recording.clients
    came, gained = segments_ms([(2, 2, 0, 0, 0, 0, 1), (31, 31, 0, 1, 102, 0, 1)])
    rows = np.vstack((llm.segments[:1], came, llm.segments[1:3], gained, llm.segments[3:]))
    rows[3, 6] = 0
    events = events_of(replace(recording, clients=(host, replace(llm, segments=rows))), tmp_path)
    assert events == events_of(recording, tmp_path)


def test_requests_hold_their_stages_and_their_waiting(tmp_path):
    events = events_of(four_requests(), tmp_path)
    second = [(event["ph"], event["name"], event["ts"]) for event in events if event.get("id") == "1"]
    assert second == [
        ("b", "request 1", 10_000.0),
        ("b", "tokenize", 10_000.0),
        ("e", "tokenize", 11_000.0),
        ("b", "prefill queue", 11_000.0),
        ("e", "prefill queue", 21_000.0),
        ("b", "prefill", 21_000.0),
        ("e", "prefill", 31_000.0),
        ("b", "decode", 31_000.0),
        ("e", "decode", 61_000.0),
        ("b", "detokenize", 61_000.0),
        ("e", "detokenize", 62_000.0),
        ("e", "request 1", 62_000.0),
    ]


def test_stages_side_by_side_get_tracks_of_their_own(tmp_path):
    events = events_of(fan_out(), tmp_path)
    tracks = {event["name"]: event["id"] for event in events if event["ph"] == "b"}
    assert tracks == {"request 0": "0", "tool": "0", "left": "0", "right": "0.1", "right queue": "0.1"}


def test_a_failed_request_is_an_instant_with_its_reason(tmp_path):
    (failed,) = [event for event in events_of(four_requests(), tmp_path) if event["ph"] == "n"]
    assert (failed["name"], failed["ts"]) == ("request 3 failed", 30_000.0)
    assert failed["args"] == {"reason": "needs 57 KV blocks of 12"}


def test_tasks_take_the_lowest_free_core(tmp_path):
    events = events_of(busy_host(), tmp_path)
    cores = {event["args"]["request"]: event["tid"] - 1 for event in events if event["ph"] == "X"}
    assert cores == {0: 0, 1: 1, 2: 0, 3: 1, 4: 0, 5: 0}


def test_names_with_quotes_stay_valid(tmp_path):
    recording = fan_out()
    pools = tuple(replace(pool, name='the "big" host\\') for pool in recording.program.pools)
    names = [event["args"].get("name") for event in events_of(with_program(recording, pools=pools), tmp_path)]
    assert 'the "big" host\\' in names


def test_equal_runs_give_equal_bytes(tmp_path):
    first = write_trace_events(four_requests(), tmp_path / "a.json.gz")
    second = write_trace_events(four_requests(), tmp_path / "b.json.gz")
    assert first.read_bytes() == second.read_bytes()


def test_a_trace_that_cannot_be_written_names_its_path(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(HermesFlowError, match=r"file/trace\.json\.gz: cannot be written"):
        write_trace_events(four_requests(), tmp_path / "file" / "trace.json.gz")
