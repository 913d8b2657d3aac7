"""The sentence on what limits a run names the right stage, and overload is told from chance."""

from __future__ import annotations

import heapq
import random
from dataclasses import replace

import numpy as np
import pytest
from metrics.handmade import four_requests, single_stage_run

from hermes_flow.metrics.bottleneck import backlog_growth, find_limits
from hermes_flow.metrics.result import Result
from hermes_flow.recording.recording import Recording


def queue(load: float, count: int, seed: int, cores: int = 4) -> Recording:
    """Requests with random arrivals and services (mean 1 s) at ``load`` times what the cores can serve."""
    rng = random.Random(seed)
    free, now = [0] * cores, 0.0
    arrival, start, finish = [], [], []
    for _ in range(count):
        now += rng.expovariate(load * cores / 1000)
        arrival.append(int(now))
        start.append(max(heapq.heappop(free), arrival[-1]))
        finish.append(start[-1] + 1 + int(rng.expovariate(1 / 1000)))
        heapq.heappush(free, finish[-1])
    return single_stage_run(arrival, start, finish, cores=cores)


@pytest.mark.parametrize("load", [0.3, 0.7, 0.9])
def test_a_system_below_capacity_is_not_called_saturated(load):
    assert sum(backlog_growth(queue(load, 2000, seed)) is not None for seed in range(20)) <= 1


@pytest.mark.parametrize(("load", "count"), [(1.2, 5000), (1.5, 1000), (3.0, 200)])
def test_a_system_above_capacity_is_called_saturated(load, count):
    assert sum(backlog_growth(queue(load, count, seed)) is not None for seed in range(20)) >= 18


def test_a_burst_of_all_requests_at_once_is_saturated():
    recording = single_stage_run([0] * 50, list(range(50)), list(range(1, 51)))
    early, late = backlog_growth(recording)
    assert (early, late) == (15.5, 45.5)  # the 11th … 20th and 41st … 50th find as many in the system


@pytest.mark.parametrize("late", [15, 16])
def test_growth_counts_beyond_two_standard_deviations_of_chance(late):
    """The 60 of 100 arrivals from the second to the last fifth wander by √60, twice of which is 15.49 requests."""
    arrival = list(range(0, 1000, 10))
    # Each is served for 1 ms, alone in the system, but for the first ``late`` of the third fifth, which stay.
    finish = [1000 if 40 <= row < 40 + late else at + 1 for row, at in enumerate(arrival)]
    found = backlog_growth(single_stage_run(arrival, arrival, finish, cores=100))
    assert found == (None if late == 15 else (1, 1 + late))


def test_few_requests_prove_nothing():
    assert backlog_growth(single_stage_run([0] * 19, list(range(19)), list(range(1, 20)))) is None


def test_a_closed_loop_is_never_saturated():
    arrival = [0] * 40 + list(range(1, 11))
    start = list(range(50))
    recording = single_stage_run(arrival, start, [time + 1 for time in start], concurrency=40)
    assert backlog_growth(recording) is None
    open_loop = single_stage_run(arrival, start, [time + 1 for time in start])
    assert backlog_growth(open_loop) is not None


def test_the_limit_is_the_stage_with_the_largest_share():
    limits = Result(four_requests()).summary["limits"]
    assert (limits["stage"], limits["pool"], limits["cause"]) == ("decode", "llm", "service")
    # E2E: 42 + 52 + 22 ms; decode: 30 + 30 + 0 ms.
    assert limits["share_of_e2e"] == pytest.approx(60 / 116)
    assert limits["saturated"] is False
    assert limits["text"] == (
        "Bottleneck: decode on pool llm takes 52 % of the end-to-end time; requests hardly queue for it."
    )


def test_waiting_longer_than_being_served_is_queueing():
    # Served 1 ms each, waiting 0, 1, 2 and 3 ms: 6 of 10 ms.
    limits = Result(single_stage_run([0] * 4, [0, 1, 2, 3], [1, 2, 3, 4])).summary["limits"]
    assert (limits["stage"], limits["cause"]) == ("tool", "queueing")
    assert limits["text"] == (
        "Bottleneck: tool on pool host takes 100 % of the end-to-end time; 60 % of that is queueing."
    )


def test_the_sentence_says_how_the_backlog_grew():
    limits = Result(single_stage_run([0] * 50, list(range(50)), list(range(1, 51)))).summary["limits"]
    assert limits["saturated"] is True
    assert "rose from 16 to 46" in limits["text"]


def test_without_completed_requests_nothing_is_blamed():
    recording = replace(single_stage_run([0], [0], [1]), status=np.array([1], np.int8))
    limits = find_limits(recording, {}, {}, {"mean": None, "p99": None})
    assert (limits["pool"], limits["stage"], limits["cause"], limits["saturated"]) == (
        None,
        None,
        None,
        False,
    )
    assert limits["text"] == "No request completed, so no stage limits the run."


def test_nearly_all_is_not_called_all():
    # Served 1 ms each after waiting 0, 1, … 399 ms: 99.5 % of the time is waiting.
    limits = Result(single_stage_run([0] * 400, list(range(400)), list(range(1, 401)))).summary["limits"]
    start = "Bottleneck: tool on pool host takes 100 % of the end-to-end time; 99.5 % of that is queueing"
    assert limits["text"].startswith(start)
