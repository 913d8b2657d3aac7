"""A client with SGLang's hierarchical cache, whose steps wait for loaded layers and for writes of evictions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from hermes_flow.pools.client import Calls
from hermes_flow.pools.llm.decided_steps import Step
from hermes_flow.pools.llm.deciding_client import DecidingClient
from hermes_flow.pools.llm.offload.record import OffloadTier, OffloadUse
from hermes_flow.pools.llm.sglang.host_pool import HostPool, HostScheduler
from hermes_flow.pools.llm.sglang.host_tree import Write
from hermes_flow.pools.llm.sglang.sequence import Sequence
from hermes_flow.pools.llm.tasks import LLMTasks
from hermes_flow.program.offload import OffloadSpec
from hermes_flow.program.pools import LLMClientSpec, SGLangSettings
from hermes_flow.program.units import NEVER
from hermes_flow.recording.recording import ClientRecord


def host_client(
    index: int,
    spec: LLMClientSpec,
    settings: SGLangSettings,
    offload: OffloadSpec,
    tasks: LLMTasks,
    calls: Calls,
    sequence_of: Callable[[int], Sequence],
) -> HostClient:
    """Return a client with host memory behind its radix tree."""
    write: Write = "reused" if offload.writes_reused else "computed" if offload.writes_computed else "evicted"
    pool = HostPool(spec.kv_blocks, spec.block_size, offload, write)
    scheduler = HostScheduler(settings, pool, spec.max_num_seqs, overlap=bool(spec.lookahead))
    scheduler.from_host = tasks.tier_hits.setdefault(offload.tiers[0].name, {})
    if offload.fetch is not None:
        scheduler.from_disk = tasks.tier_hits.setdefault(offload.tiers[1].name, {})
    client = HostClient(index, spec, tasks, calls, scheduler, sequence_of)
    client.attach(pool, offload)
    return client


class HostClient(DecidingClient):
    """One client. The layers of a load arrive evenly until it is over, and a layer is computed when it is here."""

    __slots__ = ("_host", "_layers", "_offload", "_pool", "_waits")

    def attach(self, pool: HostPool, offload: OffloadSpec) -> None:
        """Set the memory of the client; this is called once, before the first task arrives."""
        self._pool, self._host = pool, pool.host
        self._offload, self._layers = offload, offload.layers
        self._waits = False  # nothing runs until a write or a load is over, or a request comes

    def _take_in(self, task: int, at_ps: int) -> None:
        super()._take_in(task, at_ps)
        if self._waits:
            self.plan_ps = min(self.plan_ps, max(at_ps, self._host.blocked_ps))

    def _decide(self, now_ps: int) -> None:
        self._host.at(now_ps)
        self._waits = False
        super()._decide(now_ps)
        if self.plan_ps < NEVER:
            self.plan_ps = max(self.plan_ps, self._host.blocked_ps)
        elif not self._scheduler.idle:  # who waits for memory is tried again as a write lets go of some
            self.plan_ps = max(self._host.next_ps(), self._host.blocked_ps)
            self._waits = True

    def _after_decision(self, now_ps: int) -> None:
        # source: SGLang 0.5, event_loop_overlap: the thread that waits in the decision then handles the step before.
        if self._in_flight is not None:
            self._in_flight.end_ps = max(self._in_flight.end_ps, self._host.blocked_ps)

    def _times(self, start_ps: int, duration_ps: int) -> tuple[int, int]:
        start_ps = max(start_ps, self._host.blocked_ps)
        end_ps, over_ps = start_ps + duration_ps, self._pool.over_ps
        if over_ps:
            layers, from_ps = self._layers, self._host.now_ps
            first = from_ps - (from_ps - over_ps) // layers  # rounded up
            last = -(-duration_ps // layers)
            end_ps = max(end_ps, first + duration_ps, over_ps + last)
        return start_ps, end_ps

    def _deliver(self, step: Step) -> None:
        self._host.at(step.end_ps)
        super()._deliver(step)

    def record(self, pool: int) -> ClientRecord:
        """Return the steps of the client and their totals, and what moved between devices and host."""
        host, links = self._host, self._pool.links
        read, size = self._pool.read, self._offload.block_bytes
        first = self._offload.tiers[0]
        uses = [
            OffloadTier(
                first.name, read, host.written, 0, host.dropped, host.peak, host.capacity, first.bytes_per_ns
            )
        ]
        if host.storage is not None:
            drive, disk = self._offload.tiers[1], host.storage
            moved = (disk.read, disk.written, 0, disk.dropped, disk.peak, disk.capacity)
            uses.append(OffloadTier(drive.name, *moved, drive.bytes_per_ns))
        own = OffloadUse(tuple(uses), size, links.loads, links.load_ps, links.waited_ps, 0, 0, 0)
        return replace(super().record(pool), own=own, links=links.records())
