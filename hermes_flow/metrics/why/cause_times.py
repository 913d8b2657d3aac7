"""Measures how long requests waited or were served, by stage, pool and cause, within a window of their time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import cast

import numpy as np
from numpy.typing import NDArray

from hermes_flow.metrics.client_rows import ClientRows
from hermes_flow.metrics.critical_path import ops_on_path
from hermes_flow.metrics.rows import forget
from hermes_flow.metrics.why.causes import Cause, Part
from hermes_flow.metrics.why.held_back import StepTimes, waiting_keys, waits_between_steps
from hermes_flow.metrics.why.llm_model import LLMLoad, step_ps
from hermes_flow.metrics.why.llm_timeline import ClientTasks, DecodeTime, Occupancy, OccupancyFacts
from hermes_flow.metrics.why.windows import Window
from hermes_flow.pools.kind import kind_called
from hermes_flow.program.freed_memory import MANY_REQUESTS
from hermes_flow.program.held_contexts import holding_readers
from hermes_flow.program.ops import Op
from hermes_flow.program.pools import LLMClientSpec
from hermes_flow.program.step_cost import StepCost
from hermes_flow.program.units import PS_PER_NS, Ints
from hermes_flow.recording.recording import OpRecord, Recording

Floats = NDArray[np.float64]


class Clients:
    """The timelines of all LLM clients, built when first asked for.

    Whoever asks for a client once only need not keep its timeline, which takes more memory than its tasks.
    """

    def __init__(self, recording: Recording, keep: bool = True) -> None:
        self.recording = recording
        self._keep = (
            keep and len(recording.status) < MANY_REQUESTS
        )  # of such a run, one takes a tenth of the memory
        self._occupancy: dict[tuple[int, int], Occupancy] = {}
        self._facts: dict[tuple[int, int], OccupancyFacts] = {}
        self._decodes: dict[tuple[int, int], DecodeTime] = {}
        self._steps: dict[tuple[int, int], StepTimes] = {}
        self.loads: dict[int, LLMLoad | None] = {}  # of pools, those that loads.py has measured
        self._rows = ClientRows(recording)
        self._window: tuple[float, float] | None = None
        self._records = {(record.pool, record.client): record for record in recording.clients}

    def spec(self, pool: int) -> LLMClientSpec | None:
        """Return the specification of an LLM pool's clients that run steps; None for every other pool."""
        spec = self.recording.program.pools[pool].client
        segments = self._records[pool, 0].segments if (pool, 0) in self._records else None
        steps = segments is not None and kind_called(spec.kind).work == "llm"
        return cast(LLMClientSpec, spec) if steps else None

    def occupancy(self, pool: int, client: int) -> Occupancy:
        """Return the sequences and the KV of a client over time."""
        if (pool, client) not in self._occupancy:
            if not self._keep:
                self._occupancy.clear()
            spec = self.spec(pool)
            assert spec is not None
            tasks = client_tasks(self.recording, pool, client, self._rows)
            forget(self.recording)
            self._occupancy[pool, client] = Occupancy(tasks, spec, self._records[pool, client])
        return self._occupancy[pool, client]

    def facts(self, pool: int, client: int) -> OccupancyFacts:
        """Return the means of a client over the time in which requests arrive, and what its KV memory held."""
        if self._window is None:
            arrivals = self.recording.arrival_ns[self.recording.status == 0]
            self._window = (float(arrivals.min()), float(arrivals.max())) if len(arrivals) else (0.0, 0.0)
        if (pool, client) not in self._facts:
            self._facts[pool, client] = self.occupancy(pool, client).facts(*self._window)
        return self._facts[pool, client]

    def decodes(self, pool: int, client: int) -> DecodeTime:
        """Return the time of a client's steps."""
        if (pool, client) not in self._decodes:
            if not self._keep:
                self._decodes.clear()
            spec = self.spec(pool)
            assert spec is not None
            self._decodes[pool, client] = DecodeTime(self._records[pool, client], spec)
        return self._decodes[pool, client]

    def steps(self, pool: int, client: int) -> StepTimes:
        """Return when a client ran steps."""
        if (pool, client) not in self._steps:
            self._steps[pool, client] = StepTimes(self._records[pool, client])
        return self._steps[pool, client]


def client_tasks(recording: Recording, pool: int, client: int, all_rows: ClientRows) -> ClientTasks:
    """Return all tasks that one LLM client served to their end."""
    columns: list[list[Floats]] = [[] for _ in range(8)]
    spec = recording.program.pools[pool].client
    holds = isinstance(spec, LLMClientSpec) and spec.holds_contexts
    for number, (op, record) in enumerate(zip(recording.program.ops, recording.ops, strict=True)):
        if op.pool != pool or op.llm is None:
            continue
        rows = all_rows.of(number, client)
        rows = rows[(record.finish_ns[rows] >= 0) & (record.start_ns[rows] >= 0)]
        work, start, finish = op.llm, record.start_ns[rows], record.finish_ns[rows]
        first = finish if record.first_ns is None else record.first_ns[rows]
        first = np.clip(first, start, finish)  # of a decode elsewhere the prefill has emitted the first token
        moved = op.kv is not None and record.transfer_ns is not None  # a decode has room before its KV comes
        held = start - record.transfer_ns[rows] if moved else start  # type: ignore[index]
        if op.context is not None and holds:  # it has its blocks before its context is read
            reading = recording.ops[op.context.source].start_ns[rows]
            held = np.where(reading >= 0, np.minimum(reading, start), start)
        found = _found_tokens(op, record, rows)
        own = (record.ready_ns[rows], held, start, first, finish, work.prompt[rows], work.output[rows], found)
        for column, values in zip(columns, own, strict=True):
            column.append(values.astype(np.float64))
    return ClientTasks(*(np.concatenate(column) if column else np.zeros(0) for column in columns))


def _found_tokens(op: Op, record: OpRecord, rows: Ints) -> Ints:
    """Return the tokens of each prompt whose KV the client held before: found in its cache, or not sent to it."""
    assert op.llm is not None
    found = np.zeros(len(rows), np.int64)
    if record.cached_tokens is not None:
        found += np.maximum(record.cached_tokens[rows], 0)
    if op.kv is not None and record.bytes is not None:
        kept = 1.0 - record.bytes[rows] / np.maximum(op.kv.bytes[rows], 1)
        found += (kept * op.llm.prompt[rows]).astype(np.int64)
    return found


def cause_times(recording: Recording, window: Window, clients: Clients) -> dict[Part, Floats]:
    """Return the seconds of each part for every request of the window; together they are the window's time."""
    on_path, until = ops_on_path(recording)
    found: dict[Part, Floats] = {}
    if recording.admitted_ns is not None and window.stage is None:
        admitted = recording.admitted_ns[window.rows]
        waited = np.minimum(admitted, window.end_ns) - np.maximum(
            recording.arrival_ns[window.rows], window.begin_ns
        )
        if recording.travel is not None:  # the gateway stands at the site
            whole = window.begin_ns == recording.arrival_ns[window.rows]
            ways = (recording.travel.out_ns + recording.travel.before_ns)[window.rows]
            waited = np.where(whole, waited - ways, waited)
        gateway = Part("gateway", recording.program.ops[0].pool, "gateway")
        found[gateway] = np.maximum(waited, 0).astype(np.float64) * 1e-9
    if recording.travel is not None and window.stage is None:
        travel, rows = recording.travel, window.rows
        whole = window.begin_ns == recording.arrival_ns[rows]  # else: from one token to a later one
        both_ns = np.where(whole, travel.both_ns[rows], 0)
        found[Part("round_trip", recording.program.ops[0].pool, "round_trip")] = both_ns * 1e-9
        if travel.before_ns.any():
            earlier = np.where(whole, travel.before_ns[rows], 0) * 1e-9
            part = Part("earlier_tries", recording.program.ops[0].pool, "earlier_tries")
            found[part] = np.asarray(earlier, dtype=np.float64)
        back = travel.back_ns[rows]
        begin = np.where(whole, window.begin_ns, window.begin_ns - back)
        window = replace(window, begin_ns=begin, end_ns=window.end_ns - back)
    for number, (op, record) in enumerate(zip(recording.program.ops, recording.ops, strict=True)):
        own = record.client[window.rows] >= 0
        if window.stage is None:
            own &= on_path[number][window.rows]
        elif window.stage not in op.stages:
            continue
        if not own.any():
            continue
        end = None if until[number] is None else until[number][window.rows]  # type: ignore[index]
        for part, times in _pool_parts(recording, number, window, own, end, clients):
            if window.stage is not None and part.stage != window.stage:
                continue
            found[part] = found.get(part, np.zeros(len(window.rows))) + times * 1e-9
    return found


def _pool_parts(
    recording: Recording,
    number: int,
    window: Window,
    own: NDArray[np.bool_],
    until: Ints | None,
    clients: Clients,
) -> Iterator[tuple[Part, Floats]]:
    """Yield the parts of one op's tasks; who waits for memory of a decode client waits on the pool of that one."""
    op, record = recording.program.ops[number], recording.ops[number]
    if record.reserved_ns is not None:
        receiver = next(other for other in recording.program.ops if other.kv and other.kv.source == number)
        reserved = np.clip(record.reserved_ns, record.ready_ns, np.maximum(record.start_ns, record.ready_ns))
        low, high = (
            np.clip(at[window.rows], window.begin_ns, window.end_ns).astype(np.float64)
            for at in (record.ready_ns, reserved)
        )
        part = Part("+".join(op.stages), receiver.pool, "kv_memory")
        yield part, np.where(own, np.maximum(high - low, 0.0), 0.0)
        record = replace(record, ready_ns=reserved)
    readers = holding_readers(recording.program, number)
    for stage, cause, times in _op_parts(op, record, window, own, until, clients):
        if cause == "queue" and readers:
            yield from _waits_of_readers(recording, readers[0], stage, record, window, own, clients)
        else:
            yield Part(stage, op.pool, cause), times


def _waits_of_readers(
    recording: Recording,
    reader: int,
    stage: str,
    record: OpRecord,
    window: Window,
    own: NDArray[np.bool_],
    clients: Clients,
) -> Iterator[tuple[Part, Floats]]:
    """Yield why the prompts of a retrieval had to wait for blocks on their own client."""
    pool = recording.program.ops[reader].pool
    low, high = (
        np.clip(at[window.rows], window.begin_ns, window.end_ns).astype(np.float64)
        for at in (record.ready_ns, record.start_ns)
    )
    client = np.where(own, recording.ops[reader].client[window.rows], -1)
    waits = _by_client(
        client,
        (low, np.maximum(low, high)),
        lambda index, *span: clients.occupancy(pool, index).waits_ns(*span),
    )
    for cause, times in zip(("seats", "kv_memory", "transfer", "prompts_ahead"), waits, strict=False):
        yield Part(stage, pool, cause), times  # type: ignore[arg-type]


def _op_parts(
    op: Op, record: OpRecord, window: Window, own: NDArray[np.bool_], until: Ints | None, clients: Clients
) -> Iterator[tuple[str, Cause, Floats]]:
    """Yield the parts of one op's tasks, by stage and cause, in nanoseconds per request of the window."""
    rows = window.rows
    ready, start, finish = (column[rows] for column in (record.ready_ns, record.start_ns, record.finish_ns))
    if until is not None:
        finish = np.minimum(finish, until)
    transfer = np.zeros_like(ready) if record.transfer_ns is None else record.transfer_ns[rows]
    apart = op.comes_apart and record.first_ns is not None
    first_stage, last_stage = (op.stages[0], op.stages[1]) if apart else ("+".join(op.stages),) * 2

    def within(begin: Ints, end: Ints) -> tuple[Floats, Floats]:
        low = np.clip(begin, window.begin_ns, window.end_ns).astype(np.float64)
        return low, np.maximum(np.clip(end, window.begin_ns, window.end_ns), low)

    waited = within(ready, start - transfer)
    moved = within(start - transfer, start)
    yield first_stage, "transfer", np.where(own, moved[1] - moved[0], 0.0)
    spec = clients.spec(op.pool)
    if spec is None or op.llm is None:
        yield first_stage, "queue", np.where(own, waited[1] - waited[0], 0.0)
        alone = finish if record.alone_ns is None else np.minimum(start + record.alone_ns[rows], finish)
        for cause, span in (("service", within(start, alone)), ("sharing", within(alone, finish))):
            yield first_stage, cause, np.where(own, span[1] - span[0], 0.0)  # type: ignore[misc]
        return
    client = np.where(own, record.client[rows], -1)
    if record.adapter_wait_ns is not None:
        passed = start - np.minimum(record.adapter_wait_ns[rows], start - ready)
        for_slot = within(passed, start)
        yield first_stage, "adapters", np.where(own, for_slot[1] - for_slot[0], 0.0)
        waited = within(ready, passed)
    waits = _by_client(
        client, waited, lambda index, low, high: clients.occupancy(op.pool, index).waits_ns(low, high)
    )
    if waiting_keys(spec):
        waits += _by_client(
            client,
            waited,
            lambda index, low, high: [clients.steps(op.pool, index).without_prompts_ns(low, high)],
        )
        waits[4] = np.minimum(waits[3], waits[4])
        waits[3] -= waits[4]
    for cause, times in zip(
        ("seats", "kv_memory", "transfer", "prompts_ahead", "held_back"), waits, strict=False
    ):
        yield first_stage, cause, times  # type: ignore[misc]
    prefills = op.kv is None
    first = (
        finish
        if record.first_ns is None or op.kv is not None
        else np.clip(record.first_ns[rows], start, finish)
    )
    if op.kv is not None:
        first = start

    def idle(span: tuple[Floats, Floats]) -> Floats:
        """Return for how long the client lets its tasks wait between steps within a span."""
        if not waits_between_steps(spec):
            return np.zeros(len(rows))
        found = _by_client(
            client, span, lambda index, low, high: [clients.steps(op.pool, index).idle_ns(low, high)]
        )
        return found[0] if found else np.zeros(len(rows))

    if prefills:
        span = within(start, first)
        waited_for = idle(span)
        yield first_stage, "held_back", waited_for
        yield from _prefill_parts(
            first_stage, op, record, rows, own, span, first - start, spec.cost, waited_for
        )
    if op.generate is not None and (apart or op.kv is not None):
        span = within(first, finish)
        waited_for = idle(span)
        yield last_stage, "held_back", waited_for
        yield from _decode_parts(last_stage, op, record, rows, own, client, span, clients, waited_for)


def _prefill_parts(
    stage: str,
    op: Op,
    record: OpRecord,
    rows: Ints,
    own: NDArray[np.bool_],
    span: tuple[Floats, Floats],
    whole: Ints,
    cost: StepCost,
    idle: Floats,
) -> Iterator[tuple[str, Cause, Floats]]:
    """Yield the prefill alone, and what sharing its steps with others adds; ``idle`` is the time between steps."""
    assert op.llm is not None
    cached = np.zeros(len(rows), np.int64) if record.cached_tokens is None else record.cached_tokens[rows]
    alone = np.array(
        [
            prefill_alone_ns(cost, int(prompt), int(found)) if here else 0.0
            for prompt, found, here in zip(op.llm.prompt[rows], np.maximum(cached, 0), own, strict=True)
        ]
    )
    time = np.where(own, span[1] - span[0], 0.0) - idle
    share = np.minimum(1.0, alone / np.maximum(whole, 1))
    yield stage, "service", time * share
    yield stage, "prefills", time * (1.0 - share)


def _decode_parts(
    stage: str,
    op: Op,
    record: OpRecord,
    rows: Ints,
    own: NDArray[np.bool_],
    client: Ints,
    span: tuple[Floats, Floats],
    clients: Clients,
    idle: Floats,
) -> Iterator[tuple[str, Cause, Floats]]:
    """Yield a decode alone, what its batch and the prefills in its steps add, and the time after a preemption."""
    assert op.generate is not None
    parts = _by_client(
        client, span, lambda index, low, high: clients.decodes(op.pool, index).parts_ns(low, high)
    )
    alone, batch, prefills, steps = parts
    total = np.where(own, span[1] - span[0], 0.0) - idle
    away = np.zeros(len(rows))
    if record.preemptions is not None:
        needed = np.maximum(op.generate.output[rows] - 1.0, 1.0)
        lost = np.clip(1.0 - needed / np.maximum(steps, 1.0), 0.0, 1.0)
        away = np.where(own & (record.preemptions[rows] > 0), lost, 0.0)
    known = np.maximum(alone + batch + prefills, 1e-9)
    scale = np.where(known > 1e-6, total * (1.0 - away) / known, 0.0)
    yield stage, "kv_memory", total * away
    yield stage, "batch", batch * scale
    yield stage, "prefills", prefills * scale
    yield stage, "service", np.maximum(total * (1.0 - away) - (batch + prefills) * scale, 0.0)


def _by_client(client: Ints, span: tuple[Floats, Floats], parts: object) -> list[Floats]:
    """Return what ``parts`` gives for the tasks of each client, zeros where there is no task."""
    low, high = span
    found: list[Floats] = []
    for index in np.unique(client[client >= 0]).tolist():
        here = client == index
        for number, values in enumerate(parts(index, low[here], high[here])):  # type: ignore[operator]
            if number == len(found):
                found.append(np.zeros(len(client)))
            found[number][here] = values
    return found


def prefill_alone_ns(cost: StepCost, prompt: int, cached: int) -> float:
    """Return the time of the prefill of a prompt on an idle client, in the largest chunks that its steps may have."""
    most, total, done = max(1, len(cost.tokens_ps) - 1), 0.0, min(cached, prompt - 1)
    while done < prompt:
        chunk = min(most, prompt - done)
        total += step_ps(cost, chunk, done, 0, 0)
        done += chunk
    return total / PS_PER_NS
