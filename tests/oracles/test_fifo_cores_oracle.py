"""The reference for sequential clients, on examples small enough to check by hand."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from oracles.fifo_cores import FifoResult, simulate_fifo_cores


def test_one_core_serves_in_order_of_arrival() -> None:
    assert simulate_fifo_cores(1, [0, 1, 20], [10, 5, 1]) == FifoResult([0, 10, 20], [10, 15, 21])


def test_a_second_core_takes_what_waits() -> None:
    assert simulate_fifo_cores(2, [0, 0, 0, 3], [10, 4, 2, 1]) == FifoResult([0, 0, 4, 6], [10, 4, 6, 7])


def test_a_core_that_frees_at_an_arrival_takes_it_at_once() -> None:
    assert simulate_fifo_cores(1, [0, 10], [10, 10]) == FifoResult([0, 10], [10, 20])


def test_tasks_of_no_length_hold_no_core() -> None:
    assert simulate_fifo_cores(1, [5, 5, 5], [0, 0, 3]) == FifoResult([5, 5, 5], [5, 5, 8])


def test_order_of_arrival_counts_not_order_of_the_list() -> None:
    assert simulate_fifo_cores(1, [7, 0], [1, 9]) == FifoResult([9, 0], [10, 9])


def test_no_tasks_give_no_times() -> None:
    assert simulate_fifo_cores(3, [], []) == FifoResult([], [])


TASKS = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 10)), max_size=30)


@given(TASKS)
def test_one_core_follows_lindleys_recursion(tasks: list[tuple[int, int]]) -> None:
    tasks = sorted(tasks, key=lambda task: task[0])
    result = simulate_fifo_cores(1, [arrival for arrival, _ in tasks], [service for _, service in tasks])
    free_at = 0
    for (arrival, service), start, finish in zip(tasks, result.start_ns, result.finish_ns, strict=True):
        assert start == max(arrival, free_at)
        assert finish == start + service
        free_at = finish


@given(TASKS)
def test_as_many_cores_as_tasks_never_wait(tasks: list[tuple[int, int]]) -> None:
    arrivals = [arrival for arrival, _ in tasks]
    assert simulate_fifo_cores(max(1, len(tasks)), arrivals, [s for _, s in tasks]).start_ns == arrivals
