"""The timelines of the LLM clients of a run, which tell why their tasks waited."""

from __future__ import annotations

from typing import cast

import numpy as np

from hermes_flow.metrics.client_rows import ClientRows
from hermes_flow.metrics.rows import forget
from hermes_flow.metrics.why.held_back import StepTimes
from hermes_flow.metrics.why.llm_model import LLMLoad
from hermes_flow.metrics.why.llm_timeline import ClientTasks, DecodeTime, Floats, Occupancy, OccupancyFacts
from hermes_flow.pools.kind import kind_called
from hermes_flow.program.freed_memory import MANY_REQUESTS
from hermes_flow.program.ops import Op
from hermes_flow.program.pools import LLMClientSpec
from hermes_flow.program.units import Ints
from hermes_flow.recording.recording import OpRecord, Recording


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
