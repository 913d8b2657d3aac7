"""Runs a long list of given arrivals with the memory of a few windows of requests.

The machine is built for as many requests as a few windows have, its slots. A request takes the slot of its number
modulo the slots. Before the first request of a window arrives, what happened to the window that had the same slots is
written to the disk, and the slots get the new requests. Clients and queues see the same tasks at the same instants as
in a machine with a slot for every request, and nothing in them goes by the number of a task, so results are equal.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any, cast

import numpy as np

from hermes_flow.errors import HermesFlowError
from hermes_flow.machine.arrivals import OpenArrivals
from hermes_flow.machine.record import Ran, finish_ns, record_client
from hermes_flow.machine.windowed_arrivals import WindowedArrivals
from hermes_flow.machine.wiring import Machine
from hermes_flow.pools.client import PoolClient
from hermes_flow.pools.llm.step_log import logged_rows
from hermes_flow.program.disk_columns import DiskColumn, forget_pages
from hermes_flow.program.program import WINDOWS_IN_MEMORY, Program
from hermes_flow.program.rows import program_rows
from hermes_flow.program.units import NEVER, PS_PER_NS, Ints
from hermes_flow.recording.recording import FAILED, ClientRecord, OpRecord, Recording


def run_windowed(program: Program, progress: Callable[[int], None] | None = None) -> Recording:
    """Simulate a program that has ``stream_requests``, and return the recording, whose columns lie on the disk.

    Raises HermesFlowError where a request stays longer than its slot is free, or the disk is full.
    """
    wall, cpu = time.perf_counter(), time.process_time()
    collecting = gc.isenabled()
    gc.disable()  # nothing here is cyclic, as in an ordinary run
    try:
        return _Windows(program).run(progress, wall, cpu)
    finally:
        if collecting:
            gc.enable()


class _WindowedMachine(Machine):
    """A machine whose requests arrive window by window."""

    def _build_source(self) -> OpenArrivals:
        self.windowed = WindowedArrivals(self.coordinator.arrive)
        return cast(OpenArrivals, self.windowed)  # the machine asks both for the same


class _Windows:
    """The windows of a run, from their arrival until what happened to them is on the disk."""

    def __init__(self, program: Program) -> None:
        assert program.stream_requests is not None
        self._program = program
        self._window = program.stream_requests
        self._slots = WINDOWS_IN_MEMORY * self._window
        self._machine = _WindowedMachine(program_rows(program, 0, self._slots))
        self._count = len(program.requests)
        self._loaded = 0  # windows that have arrived, or arrive now
        self._written = 0  # windows that are on the disk
        self._rejected = np.array(sorted(program.rejected), dtype=np.int64)
        self._columns: list[dict[str, DiskColumn]] = [{} for _ in program.ops]
        self._finish = DiskColumn()
        self._end_ns = 0
        self._logs: dict[tuple[int, int], DiskColumn] = {}
        source = self._machine.windowed
        source.opened, source.closed = self._open, self._load
        self._load()

    def run(self, progress: Callable[[int], None] | None, wall: float, cpu: float) -> Recording:
        """Run to the end, and return what happened."""
        self._machine.engine.run(progress)
        while self._written * self._window < self._count:
            self._write(NEVER)
        self._take_logs()
        clients = tuple(
            self._client(pool, client)
            for pool, clients in enumerate(self._machine.clients)
            for client in clients
        )
        status = np.zeros(self._count, dtype=np.int8)
        status[self._rejected] = FAILED
        columns: list[dict[str, Any]] = [
            {name: column.array() for name, column in own.items()} for own in self._columns
        ]
        ops = tuple(OpRecord(**own) for own in columns)
        rows = sum(client.segments.shape[0] for client in clients if client.segments is not None)
        last = int(self._program.requests.arrival_ns[-1])
        return Recording(
            program=self._program,
            arrival_ns=self._program.requests.arrival_ns,
            finish_ns=self._finish.array(),
            status=status,
            ops=ops,
            clients=clients,
            end_ns=max(0, last, self._end_ns),
            events=self._machine.engine.events + rows,
            wall_s=time.perf_counter() - wall,
            cpu_s=time.process_time() - cpu,
            failures=dict(self._program.rejected),
        )

    def _load(self) -> None:
        """Let the next window arrive after the present one."""
        first, last = self._range(self._loaded)
        if first >= self._count:
            return
        self._loaded += 1
        low, high = np.searchsorted(self._rejected, (first, last))
        skipped = set((self._rejected[low:high] - first).tolist())
        times = self._program.requests.arrival_ns[first:last].tolist()
        self._machine.windowed.load(times, first % self._slots, skipped)

    def _open(self, now_ns: int) -> None:
        """Give the slots of a window to its requests, as the first of them arrives."""
        number = self._loaded - 1
        if number < WINDOWS_IN_MEMORY:
            return
        for clients in self._machine.clients:
            for client in clients:
                client.deliveries.settle(now_ns)
                if client.plans is not None:
                    client.plans.settle(now_ns)
        self._write(now_ns)
        self._take_logs()
        first, last = self._range(number)
        work = program_rows(self._program, first, last).ops
        slot, coordinator = first % self._slots, self._machine.coordinator
        for place, op in enumerate(work):
            coordinator.renew(place, slot, last - first)
            self._machine.tasks[op.pool].renew(self._task(place, slot), op.work)
        forget_pages(self._program.requests, self._program.ops)

    def _range(self, window: int) -> tuple[int, int]:
        """Return the first request of a window, and the one after its last."""
        return window * self._window, min(self._count, (window + 1) * self._window)

    def _task(self, op: int, slot: int) -> int:
        return self._machine.offsets[self._program.ops[op].pool][op] + slot

    def _write(self, now_ns: int) -> None:
        """Write down what happened to the oldest window; all of its requests must be over before ``now_ns``."""
        first, last = self._range(self._written)
        slot, count = first % self._slots, last - first
        low, high = np.searchsorted(self._rejected, (first, last))
        rejected = self._rejected[low:high] - first
        records = [self._op_record(op, slot, count) for op in range(len(self._program.ops))]
        for op, record in enumerate(records):
            over = (record.finish_ns >= 0) & (record.finish_ns < now_ns)
            over[rejected] = True
            task = self._task(op, slot)
            clients = self._machine.clients[self._program.ops[op].pool]
            if not over.all() or any(client.holds(task, task + count) for client in clients):
                others = (WINDOWS_IN_MEMORY - 1) * self._window
                raise HermesFlowError(
                    f"output.stream_requests: {self._window:,}, but a request is still in the system as {others:,} "
                    f"later ones have arrived; expected more, as {4 * self._window}, or null"
                )
        arrival = self._program.requests.arrival_ns[first:last]
        finish = finish_ns(self._program, tuple(records), arrival, dict.fromkeys(rejected.tolist(), ""))
        self._finish.append(finish)
        self._end_ns = max(self._end_ns, int(finish.max(initial=0)))
        for op, record in enumerate(records):
            self._append(self._columns[op], record)
        self._written += 1

    def _op_record(self, op: int, slot: int, count: int) -> OpRecord:
        coordinator, pool = self._machine.coordinator, self._program.ops[op].pool
        client = np.array(coordinator.client[op][slot : slot + count], dtype=np.int64)
        ready = np.array(coordinator.ready_ns[op][slot : slot + count], dtype=np.int64)
        return self._machine.tasks[pool].record(self._task(op, slot), count, client, ready)

    def _append(self, columns: dict[str, DiskColumn], record: OpRecord) -> None:
        for field in fields(record):
            values: Ints | None = getattr(record, field.name)
            if values is not None:
                if field.name not in columns:
                    columns[field.name] = DiskColumn(np.int32 if field.name == "client" else np.int64)
                columns[field.name].append(values)

    def _take_logs(self) -> None:
        """Write the steps of all clients to the disk."""
        for pool, clients in enumerate(self._machine.clients):
            for client in clients:
                log = self._logs.setdefault((pool, client.index), DiskColumn())
                log.append(np.frombuffer(client.take_log(), dtype=np.int64))

    def _client(self, pool: int, client: PoolClient) -> ClientRecord:
        """Return the record of a client, with the steps that are on the disk."""
        abandoned = client.take_abandoned()
        record = record_client(self._ran(), pool, client)
        if record.segments is None:
            return record
        rows = logged_rows(self._logs[pool, client.index].array(), abandoned)
        busy_ps = int((rows[:, 1] - rows[:, 0]).sum())
        if not isinstance(rows, np.memmap):
            settled = DiskColumn()
            settled.append(rows.ravel())
            rows = settled.array().reshape(rows.shape)
        forget_pages(rows)
        return replace(record, segments=rows, busy_ns=busy_ps // PS_PER_NS)

    def _ran(self) -> Ran:
        machine = self._machine
        return Ran(
            machine.program,
            machine.coordinator,
            machine.program.requests.arrival_ns,
            machine.tasks,
            machine.clients,
            machine.offsets,
            machine.engine.events,
        )
