"""Small random deployments under pressure, through the compiler: any pipeline, one or two LLM pools, few blocks.

Arrivals and costs share a coarse grid in half of them, so that arrivals, deliveries and plans fall on one
instant again and again; in the others nothing is even a whole nanosecond.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Literal, TypeVar

import numpy as np
from hypothesis import strategies as st

import hermes_flow as hf
from hermes_flow.config.schema import Cluster, Pipeline, SessionsWorkload, Speculative, SyntheticWorkload
from hermes_flow.pools.llm.schema import LLMPool
from hermes_flow.pools.sequential.schema import SequentialPool
from hermes_flow.program.prefixes import Prefixes
from hermes_flow.program.units import Ints

T = TypeVar("T")

ROUTING = ("round_robin", "random", "least_requests", "least_tokens")
BATCHING = ("chunked", "chunked", "chunked", "continuous", "mixed", "static")
PACKING = ("fcfs", "fcfs", "fcfs", "shortest_prompt", "least_work_left")
PREEMPTION: tuple[Literal["recompute", "swap", "none"], ...] = (
    "recompute",
    "recompute",
    "recompute",
    "swap",
    "none",
)
PROMPTS = (1, 1, 2, 3, 7, 8, 9, 20, 33)
OUTPUTS = (1, 2, 5, 8, 9, 20, 20, 40)
HOST_KINDS = ("tokenize", "detokenize")
LLM_STAGES: dict[str, dict[str, Any]] = {
    "prefill": {"kind": "prefill", "pool": "llm"},
    "decode": {"kind": "decode", "pool": "llm", "after": ["prefill"]},
}

Between = Callable[[int, int], int]  # draws an integer between two bounds, both included


@dataclass(frozen=True)
class Wanted:
    """What to draw.

    ``pipeline`` "llm" is prefill → decode on one pool, "any" a random DAG, some of whose decodes have a pool of
    their own. LLM pools have one of ``stages`` of pipeline parallelism; with ``drafting`` some of those with a
    single one speculate.
    """

    pipeline: str = "any"
    routing: Sequence[str] = ROUTING
    closed: bool | None = None  # None: a sixth comes in sessions, half of the others
    clients: tuple[int, int] = (1, 4)
    roofline: bool = True
    stages: Sequence[int] = (1,)
    drafting: bool = False


ANYTHING = Wanted()


@dataclass(frozen=True)
class Draw:
    """A source of random choices, hypothesis or a seeded generator."""

    between: Between

    def pick(self, options: Sequence[T]) -> T:
        return options[self.between(0, len(options) - 1)]

    def some(self, options: Sequence[T], most: int) -> list[T]:
        """Draw one to ``most`` of ``options``, repeats allowed."""
        return [self.pick(options) for _ in range(self.between(1, most))]


@st.composite
def random_programs(draw: st.DrawFn, wanted: Wanted = ANYTHING) -> hf.Program:
    """Draw a program through hypothesis, which shrinks a failing one."""
    return _draw_program(Draw(lambda low, high: draw(st.integers(low, high))), wanted)


def random_program(rng: random.Random, wanted: Wanted = ANYTHING) -> hf.Program:
    """Draw a program from a seeded generator."""
    return _draw_program(Draw(rng.randint), wanted)


@cache
def base_config(cost: str) -> hf.Config:
    """Return the composed default of a cost model; what is random is replaced in it."""
    fixed = ["cost.fixed_us=1"] if cost == "affine" else []
    return hf.compose(["pipeline=llm", "workload=synthetic", "slo=none", f"cost={cost}", *fixed])


def _draw_program(draw: Draw, wanted: Wanted) -> hf.Program:
    """Draw and compile a config; a system that can serve nobody is enlarged."""
    cost = "roofline" if wanted.roofline and draw.between(0, 7) == 7 else "affine"
    base = base_config(cost)
    workload = _workload(draw, wanted)
    block_size = draw.pick([1, 2, 3, 16])
    pools = _pools(draw, base, wanted, workload, block_size)
    llm_pools = {name: pool for name, pool in pools.items() if isinstance(pool, LLMPool)}
    config = replace(
        base,
        pipeline=Pipeline("random", LLM_STAGES if wanted.pipeline == "llm" else _stages(draw, llm_pools)),
        cluster=Cluster("random", pools, draw.pick(wanted.routing)),
        workload=workload,
        cost=_affine(draw) if cost == "affine" else base.cost,
        seed=draw.between(0, 99),
    )
    try:
        program = hf.compile(config)
    except hf.CompileError as error:
        assert "nothing can be served" in str(error)  # noqa: PT017 (any other problem is a mistake here)
        roomy = {name: _roomy(pool) for name, pool in pools.items()}
        program = hf.compile(replace(config, cluster=replace(config.cluster, pools=roomy)))
    requests = program.requests
    if requests.prefixes is None and any(pool.prefix_cache for pool in llm_pools.values()):
        requests = replace(requests, prefixes=_prefixes(draw, len(requests), block_size))
    if requests.concurrency is None:
        sessions = np.arange(len(requests)) if requests.session is None else requests.session
        begins = np.array(_arrivals(draw, int(sessions[-1]) + 1, config))
        requests = replace(requests, arrival_ns=begins[sessions])
    return replace(program, requests=requests)


def _pools(
    draw: Draw,
    base: hf.Config,
    wanted: Wanted,
    workload: SyntheticWorkload | SessionsWorkload,
    block_size: int,
) -> dict[str, LLMPool | SequentialPool]:
    """Draw one or two LLM pools and a host pool, in any order."""
    assert isinstance(workload.input_tokens, dict)
    assert isinstance(workload.output_tokens, dict)
    longest = max(workload.input_tokens["values"]) + max(workload.output_tokens["values"])
    if isinstance(workload, SessionsWorkload):
        assert isinstance(workload.turns, int)
        longest = longest * workload.turns + 20
    longest += 2
    pools: dict[str, LLMPool | SequentialPool] = {
        "llm": _llm_pool(draw, base, wanted, longest, block_size),
        "host": _host(draw, base, wanted),
    }
    if wanted.pipeline == "any" and draw.between(0, 1):
        pools["other"] = _llm_pool(draw, base, wanted, longest, block_size)
    order = sorted(pools, key=lambda _: draw.between(0, 9))
    return {name: pools[name] for name in order}


def _llm_pool(draw: Draw, base: hf.Config, wanted: Wanted, longest: int, block_size: int) -> LLMPool:
    pool = base.cluster.pools["llm"]
    assert isinstance(pool, LLMPool)
    assert pool.hardware.engine is not None
    engine = replace(pool.hardware.engine, ingest_ms=draw.pick([0.0, 0.0, 8.0, 0.001]))
    seats = draw.pick([1, 2, 4, 8, 16])
    enough = -(-longest // block_size) + draw.between(0, 3)
    prefix_cache = draw.between(0, 4) == 4
    pool = replace(
        pool,
        hardware=replace(pool.hardware, engine=engine),
        count=min(draw.between(*wanted.clients), draw.between(*wanted.clients)),
        routing=draw.pick([None, *wanted.routing]),
        max_num_seqs=seats,
        max_num_batched_tokens=seats + draw.pick([0, 1, 5, 30, 60]),
        block_size=block_size,
        kv_blocks=draw.pick([enough, enough, enough, enough, draw.between(1, 9)]),
        batching=draw.pick([name for name in BATCHING if not prefix_cache or name != "static"]),
        packing=draw.pick(PACKING),
        preemption="recompute" if prefix_cache else draw.pick(PREEMPTION),
        prefix_cache=prefix_cache,
        lookahead=draw.pick([0, 1]),
    )
    return pool if wanted.stages == (1,) and not wanted.drafting else _cut_or_drafting(draw, wanted, pool)


def _cut_or_drafting(draw: Draw, wanted: Wanted, pool: LLMPool) -> LLMPool:
    stages = draw.pick(wanted.stages)
    drafted = 0 if stages > 1 or not wanted.drafting else draw.between(0, 4)
    if stages == 1 and not drafted:
        return pool
    return replace(
        pool,
        batching="mixed" if pool.batching == "static" else pool.batching,  # gangs are not for either
        pipeline_parallel=stages,
        max_num_batched_tokens=pool.max_num_batched_tokens + pool.max_num_seqs * drafted,
        speculative=Speculative(pool.model if drafted else None, max(1, drafted), draw.pick([0.0, 0.5, 0.9])),
    )


def _roomy(pool: LLMPool | SequentialPool) -> LLMPool | SequentialPool:
    return replace(pool, kv_blocks=200) if isinstance(pool, LLMPool) else pool


def _host(draw: Draw, base: hf.Config, wanted: Wanted) -> SequentialPool:
    pool = base.cluster.pools["host"]
    assert isinstance(pool, SequentialPool)
    return replace(
        pool,
        count=min(draw.between(*wanted.clients), draw.between(*wanted.clients)),
        cores=draw.between(1, 3),
        routing=draw.pick([None, *wanted.routing]),
    )


def _workload(draw: Draw, wanted: Wanted) -> SyntheticWorkload | SessionsWorkload:
    if wanted.closed is None and not draw.between(0, 5):
        return _sessions(draw)
    arrivals: dict[str, Any] | str = "poisson"
    if wanted.closed or (wanted.closed is None and draw.between(0, 1)):
        think: Any = draw.pick([0.0, 0.0, 1e-6, {"distribution": "choice", "values": [0, 1e-6, 3e-5]}])
        arrivals = {"process": "closed_loop", "concurrency": draw.pick([1, 3, 9, 20]), "think_time_s": think}
    return SyntheticWorkload(
        kind="synthetic",
        name="random",
        requests=draw.pick([1, 3, 15, 30, 45]),
        rate_per_s=1.0,
        arrivals=arrivals,
        input_tokens={"distribution": "choice", "values": draw.some(PROMPTS, 4)},
        output_tokens={"distribution": "choice", "values": draw.some(OUTPUTS, 4)},
        seed=draw.between(0, 99),
    )


def _sessions(draw: Draw) -> SessionsWorkload:
    return SessionsWorkload(
        kind="sessions",
        name="random",
        sessions=draw.pick([1, 3, 9, 12]),
        rate_per_s=1.0,
        arrivals="poisson",
        turns=draw.between(1, 4),
        think_time_s=draw.pick([0.0, 1e-6, {"distribution": "choice", "values": [0, 1e-6, 3e-5]}]),
        input_tokens={"distribution": "choice", "values": draw.some(PROMPTS[:-2], 4)},
        output_tokens={"distribution": "choice", "values": draw.some(OUTPUTS[:-3], 4)},
        system_prompt_tokens=draw.pick([0, 1, 9, 20]),
        system_prompts=draw.between(1, 3),
        system_prompt_skew=float(draw.between(0, 1)),
        seed=draw.between(0, 99),
    )


def _affine(draw: Draw) -> dict[str, Any]:
    if draw.between(0, 1):
        fixed, per_token, per_context = draw.between(1, 3), draw.between(0, 1), draw.between(0, 1)
        return {"kind": "affine", "fixed_us": fixed, "per_token_us": per_token, "per_context_us": per_context}
    per_token_us = draw.pick([0, 0.070707])
    return {"kind": "affine", "fixed_us": 0.731731, "per_token_us": per_token_us, "per_context_us": 0.000333}


def _arrivals(draw: Draw, count: int, config: hf.Config) -> Ints:
    """Draw gaps of a few units: µs beside an affine cost, ms beside the roofline's steps."""
    unit_ns = 1_000 if config.cost["kind"] == "affine" else 1_000_000
    gaps = [draw.pick([0, 0, 0, 1, 2, 5, 60]) for _ in range(count)]
    return np.cumsum(gaps) * unit_ns + draw.pick([0, 0, 0, 10**15 + 1])


def _prefixes(draw: Draw, count: int, block_size: int) -> Prefixes:
    """Let each prompt begin like those of its family, some with a block of their own behind that."""
    families = draw.between(1, 3)
    ids: list[int] = []
    offsets = [0]
    for request in range(count):
        family = draw.between(1, families)
        ids += [family * 1000 + block for block in range(draw.pick([0, 1, 3, 8]))]
        ids += [10**6 + request] * draw.between(0, 1)
        offsets.append(len(ids))
    return Prefixes(np.array(ids, dtype=np.int64), np.array(offsets, dtype=np.int64), block_size)


def _stages(draw: Draw, llm_pools: dict[str, LLMPool]) -> dict[str, dict[str, Any]]:
    """Draw up to five nodes (a node is a host stage, a prefill, or a prefill with its decode) and edges."""
    stages: dict[str, dict[str, Any]] = {}
    ends: list[str] = []  # the stage that others may follow, of each node
    pairing = {name for name, pool in llm_pools.items() if pool.batching != "static"}
    receiving = sorted(name for name in pairing if not llm_pools[name].prefix_cache)
    for number, kind in enumerate(draw.some([*HOST_KINDS, "prefill", "generate", "generate"], 5)):
        name = f"{kind}{number}"
        options = _condition(draw)
        if ends and draw.between(0, 5):
            options["after"] = sorted(set(draw.some(ends, 3)))
        if kind in HOST_KINDS:
            fixed, per_token = draw.pick([(0, 0), (1, 0), (2, 1), (0.3337, 0.0501)])
            stages[name] = {"kind": kind, "fixed_us": fixed, "per_token_us": per_token} | options
        else:
            pool = draw.pick(list(llm_pools))
            stages[name] = {"kind": "prefill", "pool": pool, "extra_tokens": draw.pick([0, 2])} | options
            if kind == "generate":
                decode = f"decode{number}"
                if pool in pairing:
                    pool = draw.pick([pool, *(name for name in receiving if name != pool)])
                stages[decode] = {"kind": "decode", "pool": pool, "after": [name]} | _condition(draw)
                name = decode
        ends.append(name)
    return _connected(_without_circles(stages), ends)


def _without_circles(stages: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Let answers stay where their prompt was prefilled if KV moved from one pool to another and back."""
    sources = {
        name: stages[before]["pool"]
        for name, stage in stages.items()
        for before in stage.get("after", ())
        if stage["kind"] == "decode" and stages[before]["kind"] == "prefill"
    }
    moves = {(source, stages[name]["pool"]) for name, source in sources.items()}
    for name, source in sources.items():
        if (stages[name]["pool"], source) in moves:
            stages[name]["pool"] = source
    return stages


def _connected(stages: dict[str, dict[str, Any]], ends: list[str]) -> dict[str, dict[str, Any]]:
    """Let a stage that nothing comes before or after follow the first node, or be followed by another one."""
    for name, stage in stages.items():
        followed = {before for other in stages.values() for before in other.get("after", [])}
        if len(ends) > 1 and "after" not in stage and name not in followed:
            if name == ends[0]:
                stage = next(other for end, other in stages.items() if end != name and "after" not in other)
            stage["after"] = [ends[0]]
    return stages


def _condition(draw: Draw) -> dict[str, Any]:
    """Draw which requests take a stage: most often all of them."""
    some: list[dict[str, Any]] = [
        {"share": 0.5},
        {"when": "input_tokens > 7"},
        {"when": "output_tokens < 9", "share": 0.8},
    ]
    return dict(draw.pick([{}, {}, {}, *some]))
