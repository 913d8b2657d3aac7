"""Small random deployments under pressure, through the compiler: any pipeline, one or two LLM pools, few blocks.

Arrivals and costs share a coarse grid in some of them, so that arrivals, deliveries and plans fall on one
instant again and again; in others nothing is even a whole nanosecond.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
from hypothesis import reject
from hypothesis import strategies as st

import hermes_flow as hf
from hermes_flow.config.schema import Cluster, LLMPool, Pipeline, SequentialPool, SyntheticWorkload

STATELESS_ROUTING = ("round_robin", "random")
ROUTING = (*STATELESS_ROUTING, "least_requests", "least_tokens")


@cache
def base_config(cost: str) -> hf.Config:
    """Return the composed default of a cost model; what is random is replaced in it."""
    fixed = ["cost.fixed_us=1"] if cost == "affine" else []
    return hf.compose(["pipeline=llm", "workload=synthetic", "slo=none", f"cost={cost}", *fixed])


@st.composite
def random_configs(draw: st.DrawFn, pipeline: str = "any", routing: tuple[str, ...] = ROUTING) -> hf.Config:
    """Draw a config; ``pipeline`` "llm" is prefill → decode on one pool, "any" a random DAG."""
    cost = draw(st.sampled_from(["affine", "affine", "affine", "roofline"]))
    base = base_config(cost)
    pools = {"llm": _llm_pool(draw, base, routing), "host": _host(draw, base, routing)}
    two_llm_pools = pipeline == "any" and draw(st.booleans())
    if two_llm_pools:
        pools["other"] = _llm_pool(draw, base, routing)
    names = draw(st.permutations(sorted(pools)))
    stages = _llm_stages(draw) if pipeline == "llm" else _stages(draw, ["llm", "other"][: 1 + two_llm_pools])
    return replace(
        base,
        pipeline=Pipeline("random", stages),
        cluster=Cluster("random", {name: pools[name] for name in names}, draw(st.sampled_from(routing))),
        workload=_workload(draw),
        cost=_affine(draw) if cost == "affine" else base.cost,
        seed=draw(st.integers(0, 99)),
    )


@st.composite
def random_programs(
    draw: st.DrawFn, pipeline: str = "any", routing: tuple[str, ...] = ROUTING, closed: bool | None = None
) -> hf.Program:
    """Draw a config, compile it, and put open arrivals on a grid; ``closed`` fixes the kind of arrivals."""
    config = draw(random_configs(pipeline, routing))
    if closed is None:
        closed = draw(st.booleans())
    if closed:
        think = draw(st.sampled_from([0.0, 0.0, 1e-6, {"distribution": "choice", "values": [0, 1e-6, 3e-5]}]))
        arrivals = {"process": "closed_loop", "concurrency": draw(st.integers(1, 9)), "think_time_s": think}
        config = replace(config, workload=replace(config.workload, arrivals=arrivals))
    try:
        program = hf.compile(config)
    except hf.CompileError as error:
        assert "nothing can be served" in str(error)
        reject()
    if not closed:
        requests = replace(program.requests, arrival_ns=_arrivals(draw, len(program.requests), config))
        program = replace(program, requests=requests)
    return program


def _llm_pool(draw: st.DrawFn, base: hf.Config, routing: tuple[str, ...]) -> LLMPool:
    pool = base.cluster.pools["llm"]
    assert isinstance(pool, LLMPool)
    engine = replace(pool.hardware.engine, ingest_ms=draw(st.sampled_from([0.0, 0.0, 8.0, 0.001])))
    seats = draw(st.integers(1, 8))
    return replace(
        pool,
        hardware=replace(pool.hardware, engine=engine),
        count=draw(st.integers(1, 4)),
        routing=draw(st.sampled_from([None, *routing])),
        max_num_seqs=seats,
        max_num_batched_tokens=seats + draw(st.sampled_from([0, 1, 5, 30])),
        block_size=draw(st.sampled_from([1, 2, 3, 16])),
        kv_blocks=draw(st.sampled_from([1, 4, 12, 30])) + draw(st.integers(0, 6)),
        batching=draw(st.sampled_from(["chunked", "chunked", "continuous"])),
        lookahead=draw(st.sampled_from([0, 1])),
    )


def _host(draw: st.DrawFn, base: hf.Config, routing: tuple[str, ...]) -> SequentialPool:
    pool = base.cluster.pools["host"]
    assert isinstance(pool, SequentialPool)
    return replace(
        pool,
        count=draw(st.integers(1, 3)),
        cores=draw(st.integers(1, 3)),
        routing=draw(st.sampled_from([None, *routing])),
    )


def _workload(draw: st.DrawFn) -> SyntheticWorkload:
    lengths = st.lists(st.sampled_from([1, 1, 2, 3, 7, 8, 9, 20, 33]), min_size=1, max_size=3)
    return SyntheticWorkload(
        kind="synthetic",
        name="random",
        requests=draw(st.sampled_from([1, 2, 5, 12, 25])),
        rate_per_s=1.0,
        arrivals="poisson",
        input_tokens={"distribution": "choice", "values": draw(lengths)},
        output_tokens={"distribution": "choice", "values": draw(lengths)},
        seed=draw(st.integers(0, 99)),
    )


def _affine(draw: st.DrawFn) -> dict[str, Any]:
    if draw(st.booleans()):
        fixed, per_token, per_context = draw(st.integers(1, 3)), draw(st.integers(0, 1)), draw(st.integers(0, 1))
    else:
        fixed, per_token, per_context = 0.731731, draw(st.sampled_from([0, 0.070707])), 0.000333
    return {"kind": "affine", "fixed_us": fixed, "per_token_us": per_token, "per_context_us": per_context}


def _arrivals(draw: st.DrawFn, count: int, config: hf.Config) -> np.ndarray:
    """Draw gaps of a few units: µs beside an affine cost, ms beside the roofline's steps."""
    unit_ns = 1_000 if config.cost["kind"] == "affine" else 1_000_000
    gaps = st.lists(st.sampled_from([0, 0, 0, 1, 2, 5, 60]), min_size=count, max_size=count)
    offset = draw(st.sampled_from([0, 0, 0, 10**15 + 1]))
    return np.cumsum(draw(gaps)) * unit_ns + offset


def _llm_stages(draw: st.DrawFn) -> dict[str, dict[str, Any]]:
    return {"prefill": {"kind": "prefill", "pool": "llm"}, "decode": {"kind": "decode", "after": ["prefill"]}}


def _stages(draw: st.DrawFn, llm_pools: list[str]) -> dict[str, dict[str, Any]]:
    """Draw up to five nodes (a node is a host stage, a prefill, or a prefill with its decode) and edges."""
    nodes = draw(
        st.lists(
            st.sampled_from(["tokenize", "detokenize", "prefill", "generate", "generate"]), min_size=1, max_size=5
        )
    )
    stages: dict[str, dict[str, Any]] = {}
    ends: list[str] = []  # the stage that others may follow, of each node
    for number, kind in enumerate(nodes):
        name = f"{kind}{number}"
        options: dict[str, Any] = _condition(draw)
        if ends:
            options["after"] = draw(st.lists(st.sampled_from(ends), min_size=1, max_size=3, unique=True))
        if kind in ("tokenize", "detokenize"):
            fixed, per_token = draw(st.sampled_from([(0, 0), (1, 0), (2, 1), (0.3337, 0.0501)]))
            stages[name] = {"kind": kind, "fixed_us": fixed, "per_token_us": per_token} | options
        else:
            pool = draw(st.sampled_from(llm_pools))
            stages[name] = {"kind": "prefill", "pool": pool} | options
            if draw(st.booleans()):
                stages[name]["extra_tokens"] = 2
            if kind == "generate":
                stages[f"decode{number}"] = {"kind": "decode", "pool": pool, "after": [name]}
                name = f"decode{number}"
                stages[name] |= _condition(draw)
        ends.append(name)
    return stages


def _condition(draw: st.DrawFn) -> dict[str, Any]:
    return draw(
        st.sampled_from(
            [{}, {}, {}, {"share": 0.5}, {"when": "input_tokens > 7"}, {"when": "output_tokens < 9", "share": 0.8}]
        )
    )
