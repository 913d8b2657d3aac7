"""Small random systems of batched clients: several ops on one pool, and few distinct instants, so that many tie."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import strategies as st
from oracles.random_systems import build_affine_cost

from hermes_flow.program.ops import Op, ServedStage
from hermes_flow.program.pools import BatchedClientSpec, Pool
from hermes_flow.program.program import Program, SLOBounds
from hermes_flow.program.requests import Requests
from hermes_flow.program.work import PassCost, Passes
from hermes_flow.routing import routing_policies

MOST_TOKENS = 6
MOST_SEQUENCES = 3


def batched_op(name: str, pool: int, cost: PassCost, count: int, after: tuple[int, ...] = ()) -> Op:
    """Return an op without tokens that all of ``count`` requests take."""
    none = np.zeros(count, dtype=np.int64)
    return Op(name, (ServedStage(name, "vector_search"),), pool, after, Passes(cost, none))


def batched_pool(name: str, count: int, spec: BatchedClientSpec) -> Pool:
    """Return a pool whose clients take turns."""
    return Pool(name, "cpu", count, routing_policies.parse("round_robin", "routing"), spec)


def batched_program(pools: tuple[Pool, ...], ops: tuple[Op, ...], arrival_ns: list[int]) -> Program:
    """Return the program of these pools and ops."""
    ones = np.ones(len(arrival_ns), dtype=np.int64)
    requests = Requests(np.array(arrival_ns, dtype=np.int64), ones, ones)
    return Program("batches", "batches", "batches", pools, ops, requests, SLOBounds("none"))


@st.composite
def random_batches(draw: st.DrawFn) -> Program:
    """Draw one to three pools, one to five ops with any order among them, and up to 25 requests."""
    count = draw(st.integers(1, 25))
    arrival_ns = np.cumsum(draw(st.lists(st.sampled_from([0, 0, 1, 3, 10]), min_size=count, max_size=count)))
    pools = []
    for index in range(draw(st.integers(1, 3))):
        spec = BatchedClientSpec(draw(st.integers(1, 4)), wait_ns=draw(st.sampled_from([0, 0, 2, 9])))
        pools.append(batched_pool(f"p{index}", draw(st.integers(1, 2)), spec))
    ops: list[Op] = []
    for index in range(draw(st.integers(1, 5))):
        pool = draw(st.integers(0, len(pools) - 1))
        after = draw(st.sets(st.integers(0, index - 1), max_size=2)) if index else set()
        op = batched_op(f"s{index}", pool, _table(draw), count, tuple(sorted(after)))
        if draw(st.booleans()):
            tokens = draw(st.lists(st.integers(1, MOST_TOKENS), min_size=count, max_size=count))
            sequences = draw(st.integers(1, MOST_SEQUENCES))
            op = replace(op, work=Passes(_forward_pass(draw, sequences), np.array(tokens) * sequences))
        if draw(st.integers(0, 2)) == 0:
            taken = draw(st.lists(st.booleans(), min_size=count, max_size=count))
            op = replace(op, taken=np.array(taken, dtype=np.bool_))
        ops.append(op)
    return batched_program(tuple(pools), tuple(ops), arrival_ns.tolist())


def _table(draw: st.DrawFn) -> PassCost:
    each = draw(st.lists(st.integers(0, 3), min_size=4, max_size=4))
    return PassCost(ns=(0, *np.cumsum(each).__add__(1).tolist()))


def _forward_pass(draw: st.DrawFn, sequences: int) -> PassCost:
    per_token_us = draw(st.sampled_from([0.0, 0.001, 0.002]))
    cost = build_affine_cost(0.003, per_token_us, 0.0, 4 * sequences * MOST_TOKENS, 4 * sequences)
    return PassCost(step=cost, sequences=sequences)
