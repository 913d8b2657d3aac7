"""Small Programs and Recordings made by hand, for tests whose expected values are worked on paper."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from hermes_flow.program.ops import Op, ServedStage
from hermes_flow.program.pools import LLMClientSpec, Pool, SequentialClientSpec
from hermes_flow.program.program import Program, SLOBounds
from hermes_flow.program.requests import Requests
from hermes_flow.program.step_cost import StepCost
from hermes_flow.program.work import CoreTime, Generate
from hermes_flow.recording.recording import ClientRecord, OpRecord, Recording

MS = 1_000_000  # in ns
MS_IN_PS = 1_000_000_000
GENERATE = (ServedStage("prefill", "prefill"), ServedStage("decode", "decode"))


def ints(values: Sequence[int]) -> np.ndarray:
    return np.array(values, dtype=np.int64)


def in_ms(values: Sequence[int]) -> np.ndarray:
    """Milliseconds as nanoseconds; -1 stays -1."""
    return ints([value if value == -1 else value * MS for value in values])


def llm_pool(name="llm", count=1, context_ps=0, usd_per_hour=3.6) -> Pool:
    cost = StepCost([0], [0], [0], context_ps)
    spec = LLMClientSpec("llama3_8b", 1, 12, 16, 256, 8192, "chunked", 1, cost)
    return Pool(name, "h100_sxm", count, "round_robin", spec, usd_per_hour)


def host_pool(name="host", count=1, cores=2, usd_per_hour=None) -> Pool:
    return Pool(name, "grace_cpu", count, "round_robin", SequentialClientSpec(cores), usd_per_hour)


def host_op(
    name: str, kind: str, tokens: np.ndarray, after: tuple[int, ...] = (), taken: np.ndarray | None = None
) -> Op:
    """A stage on the first pool, a host, that handles ``tokens``; how long it takes is not part of it."""
    return Op(name, (ServedStage(name, kind),), 0, after, CoreTime(np.zeros_like(tokens), tokens), taken)


def segments_ms(rows: Sequence[Sequence[int]]) -> np.ndarray:
    """Rows of (start ms, end ms, steps, decodes, decode_context, prefill_tokens, joined)."""
    table = ints(rows).reshape(-1, 7)
    table[:, :2] *= MS_IN_PS
    return table


def four_requests(slo: SLOBounds | None = None) -> Recording:
    """Tokenize, prefill, decode and detokenize of four requests, the last of which fails.

    Milliseconds, one LLM client (12 KV blocks) and one host of two cores:

        request  arrival  tokenized  prefill starts  first token  decoded  finish  prompt  output
        0              0          1               1           11       41      42     100       4
        1             10         11              21           31       61      62      50       3
        2             20         21              31           41       41      42      30       1
        3             30         31          (never: it does not fit)                 900      10

    The LLM's steps: 1-11 prefills 0; 11-21 decodes 0; 21-31 decodes 0, prefills 1; 31-41 decodes 0 and 1,
    prefills 2; 41-61 decodes 1. So inter-token gaps are 10, 10, 10 (request 0) and 10, 20 (request 1).
    """
    prompt, output = ints([100, 50, 30, 900]), ints([4, 3, 1, 10])
    ops = (
        host_op("tokenize", "tokenize", prompt),
        Op("generate", GENERATE, 1, (0,), Generate(prompt, output)),
        host_op("detokenize", "detokenize", output, (1,)),
    )
    program = Program(
        "four",
        "chat",
        "small",
        (host_pool(), llm_pool()),
        ops,
        Requests(in_ms([0, 10, 20, 30]), prompt, output, session=ints([7, 7, 8, 8])),
        slo or SLOBounds("none"),
        warnings=("the kernel table was extrapolated",),
        rejected={3: "needs 57 KV blocks of 12"},
    )
    records = (
        OpRecord(ints([0] * 4), in_ms([0, 10, 20, 30]), in_ms([0, 10, 20, 30]), in_ms([1, 11, 21, 31])),
        OpRecord(
            ints([0, 0, 0, -1]),
            in_ms([1, 11, 21, 31]),
            in_ms([1, 21, 31, -1]),
            in_ms([41, 61, 41, -1]),
            first_ns=in_ms([11, 31, 41, -1]),
            preemptions=ints([0, 2, 0, -1]),
            cached_tokens=ints([16, 0, 0, -1]),
        ),
        OpRecord(
            ints([0, 0, 0, -1]), in_ms([41, 61, 41, -1]), in_ms([41, 61, 41, -1]), in_ms([42, 62, 42, -1])
        ),
    )
    steps = segments_ms(
        [
            (1, 11, 1, 0, 0, 100, 1),
            (11, 21, 1, 1, 100, 0, 0),
            (21, 31, 1, 1, 101, 50, 1),
            (31, 41, 1, 2, 152, 30, 0),
            (41, 61, 1, 1, 51, 0, 0),
        ]
    )
    clients = (
        ClientRecord(0, 0, 2, 7, 7 * MS),
        ClientRecord(1, 0, 1, 3, 60 * MS, steps, ints([]), kv_peak_blocks=6),
    )
    return Recording(
        program,
        in_ms([0, 10, 20, 30]),
        in_ms([42, 62, 42, -1]),
        np.array([0, 0, 0, 1], dtype=np.int8),
        records,
        clients,
        end_ns=62 * MS,
        events=19,
        wall_s=0.25,
        cpu_s=0.24,
        failures={3: "needs 57 KV blocks of 12"},
    )


def llm_run(segments: np.ndarray, context_ps: int = 0, resume_gaps_ps: Sequence[int] = ()) -> Recording:
    """One LLM client that ran ``segments``, with no requests on record."""
    none = ints([])
    op = Op("generate", GENERATE, 0, (), Generate(none, none))
    pools = (llm_pool(context_ps=context_ps),)
    program = Program("steps", "llm", "small", pools, (op,), Requests(none, none, none), SLOBounds("none"))
    client = ClientRecord(0, 0, 1, 0, 0, segments, ints(resume_gaps_ps), context_ps=context_ps)
    record = OpRecord(none, none, none, none, none)
    status = np.array([], dtype=np.int8)
    return Recording(program, none, none, status, (record,), (client,), 0, 0, 0.0, 0.0)


def single_stage_run(
    arrival_ms: Sequence[int],
    start_ms: Sequence[int],
    finish_ms: Sequence[int],
    concurrency: int | None = None,
    cores: int = 1,
) -> Recording:
    """Requests with one stage, ``tool``, on one host."""
    count = len(arrival_ms)
    op = host_op("tool", "tool", ints([0] * count))
    sizes = ints([1] * count)
    requests = Requests(in_ms(arrival_ms), sizes, sizes, concurrency=concurrency)
    program = Program("tools", "tool", "small", (host_pool(cores=cores),), (op,), requests, SLOBounds("none"))
    record = OpRecord(ints([0] * count), in_ms(arrival_ms), in_ms(start_ms), in_ms(finish_ms))
    busy = sum(finish - start for start, finish in zip(start_ms, finish_ms, strict=True))
    return Recording(
        program,
        in_ms(arrival_ms),
        in_ms(finish_ms),
        np.zeros(count, np.int8),
        (record,),
        (ClientRecord(0, 0, cores, count, busy * MS),),
        end_ns=max(finish_ms) * MS,
        events=2 * count,
        wall_s=0.0,
        cpu_s=0.0,
    )


def with_program(recording: Recording, **changes: object) -> Recording:
    """The same run of a program that differs in some fields."""
    return replace(recording, program=replace(recording.program, **changes))
