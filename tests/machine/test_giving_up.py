"""Requests that are given up at any moment of any pipeline: every client goes on as the naive one does."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
from oracles.llm_client import simulate_llm_client
from oracles.random_programs import Wanted, random_program
from oracles.symmetries_in_time import check_same_times
from oracles.watched_run import WatchedRun, as_oracle_sees_it, watch
from tries import tries

import hermes_flow as hf
from hermes_flow.machine.run import run
from hermes_flow.pools.llm.client import LLMClient
from hermes_flow.pools.sequential.client import SequentialClient
from hermes_flow.program.pools import LLMClientSpec
from hermes_flow.program.units import PS_PER_NS
from hermes_flow.recording.recording import COMPLETED, FAILED, TIMED_OUT


def impatient(program: hf.Program, rng: random.Random) -> hf.Program:
    """Return the program with timeouts for two thirds of its requests: from nothing to what a request may take."""
    recording = run(program)
    done = recording.status == COMPLETED
    if not done.any():
        return program
    longest = int((recording.finish_ns - recording.arrival_ns)[done].max())
    timeouts = [
        rng.choice((0, rng.randint(0, longest), rng.randint(0, longest // 4 + 1)))
        if rng.random() < 0.67
        else -1
        for _ in range(len(program.requests))
    ]
    return replace(program, requests=replace(program.requests, timeout_ns=np.array(timeouts, dtype=np.int64)))


def withdrawn_ns(watched: WatchedRun, request: int) -> int | None:
    recording, timeouts = watched.recording, watched.program.requests.timeout_ns
    assert timeouts is not None
    given_up = recording.status[request] == TIMED_OUT
    return int(recording.arrival_ns[request] + timeouts[request]) if given_up else None


def check_clients(watched: WatchedRun) -> int:
    """Compare every LLM client with the naive one that loses the same tasks; return how many it has lost."""
    lost = 0
    for (pool, index), client in watched.clients.items():
        if isinstance(client, SequentialClient):
            assert client.outstanding(watched.recording.end_ns + 1) == 0
            continue
        assert not client.waiting
        assert not len(client._inbox)
        assert not client._leaving
        assert any(batch.free == batch.blocks for batch in client.batches)
        assert not any(batch.running or batch.decodes or batch.context for batch in client.batches)
        assert sum(batch.backlog for batch in client.batches) == 0
        spec = watched.program.pools[pool].client
        assert isinstance(spec, LLMClientSpec)
        given = watched.given(pool, index)
        if not isinstance(client, LLMClient) or spec.cost.attention_ranks > 1:
            continue
        if any(entry.pool == pool for entry in [*watched.brought, *watched.let_go]):
            continue  # what waits for blocks leaves at once; the naive client takes it out at its next plan
        requests, policy = as_oracle_sees_it(watched, given)
        at = [withdrawn_ns(watched, watched.op_and_request(entry)[1]) for entry in given]
        lost += sum(one is not None for one in at)
        requests = [replace(one, withdrawn_ns=when) for one, when in zip(requests, at, strict=True)]
        result = simulate_llm_client(spec, requests, policy)
        expected = [
            -1 if when is not None and ps >= (when + 1) * PS_PER_NS else ps // PS_PER_NS
            for ps, when in zip(result.finish_ps, at, strict=True)
        ]
        assert [watched.times(entry)[1] for entry in given] == expected
    return lost


def test_every_client_loses_exactly_what_was_given_up() -> None:
    rng = random.Random(7)
    lost = timed_out = 0
    for turn in range(tries(16, of=600)):
        wanted = (
            Wanted(stages=(1, 1, 2), roofline=False, clients=(1, 3)) if turn % 2 else Wanted(pipeline="llm")
        )
        program = impatient(random_program(rng, wanted), rng)
        if program.requests.timeout_ns is None:
            continue
        watched = watch(program)
        recording = watched.recording
        lost += check_clients(watched)
        timed_out += int((recording.status == TIMED_OUT).sum())
        took = np.where(recording.finish_ns >= 0, recording.finish_ns - recording.arrival_ns, -1)
        limit = program.requests.timeout_ns
        assert (took <= np.where(limit >= 0, limit, np.iinfo(np.int64).max)).all()
        assert ((recording.finish_ns >= 0) == (recording.status == COMPLETED)).all()
        assert set(np.flatnonzero(recording.status != COMPLETED).tolist()) == set(recording.failures)
        if program.requests.previous is None:  # else: the later turns of a session never come
            assert set(np.flatnonzero(recording.status == FAILED).tolist()) == set(program.rejected)
    assert lost > 25
    assert timed_out > 50


def test_patience_that_is_never_exhausted_changes_nothing() -> None:
    rng = random.Random(8)
    for _ in range(tries(4, of=100)):
        program = random_program(rng)
        patient = np.full(len(program.requests), 10**15, dtype=np.int64)
        check_same_times(
            run(replace(program, requests=replace(program.requests, timeout_ns=patient))), run(program)
        )
