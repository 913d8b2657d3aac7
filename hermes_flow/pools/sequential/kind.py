"""The kind ``sequential``: hosts that serve one task per core, first come first served."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from hermes_flow.config.pools import pool_kinds
from hermes_flow.config.schema import Cluster
from hermes_flow.cost.energy import power_notes
from hermes_flow.errors import ConfigError
from hermes_flow.pools.client import Calls, column_of
from hermes_flow.pools.hosts import host_power
from hermes_flow.pools.kind import Asked, AskedWork, Lowering, PoolKind
from hermes_flow.pools.sequential.client import SequentialClient, SequentialTasks
from hermes_flow.pools.sequential.schema import SequentialPool
from hermes_flow.pools.sequential.shared_client import SharedDeviceClient
from hermes_flow.program.pools import Pool, SequentialClientSpec
from hermes_flow.program.program import Program
from hermes_flow.program.stage_sizes import UNKNOWN
from hermes_flow.program.work import CoreTime, Work
from hermes_flow.recording.recording import ClientRecord, Recording
from hermes_flow.routing import RoutingPolicy
from hermes_flow.stages.graph import Stage
from hermes_flow.stages.placed import PlacedStage


@pool_kinds.register("sequential")
class SequentialKind(PoolKind):
    """The kind of pool for tokenizers, detokenizers and tools."""

    schema: ClassVar[type[SequentialPool]] = SequentialPool
    work = "sequential"
    takes_back = True
    renews = True
    elastic = True
    measured = True
    takes_turns = True

    def can_serve(self, stage: Stage) -> bool:
        """Return whether a stage takes core time, or, of whatever kind, a time that may be measured."""
        timed = stage.role in ("none", "encode", "guard", "score") and stage.params.client in (
            "batched",
            "llm",
        )
        return timed or stage.params.client == self.work

    def check(self, name: str, pool: SequentialPool, cluster: Cluster, problems: list[str]) -> None:
        """Check its cores and its hardware."""
        key = f"cluster.pools.{name}"
        if pool.cores is None and pool.hardware.cores is None and pool.shares_device_with is None:
            problems.append(f"{key}.cores: null, and {pool.hardware.name} has no figure for it either")

    def sharing_problems(self, name: str, pool: SequentialPool, taker: str) -> list[str]:
        """Return the problem of a host of several cores, which has no single queue to share."""
        cores = pool.cores or pool.hardware.cores
        if cores == 1:
            return []
        return [f"cluster.pools.{name}.cores: {cores}, but {taker!r} takes turns on its device; expected 1"]

    def lower_work(
        self, placed: Sequence[PlacedStage], places: Sequence[int], lowering: Lowering
    ) -> AskedWork:
        """Return the core time of each stage."""
        found: dict[int, Work] = {}
        for place in places:
            try:
                found[place] = _core_time(placed[place])
            except ConfigError as error:
                if str(error) not in lowering.problems:
                    lowering.problems.append(str(error))
        return AskedWork(found)

    def lower(
        self,
        name: str,
        pool: SequentialPool,
        routing: RoutingPolicy,
        asked: Sequence[Asked],
        lowering: Lowering,
    ) -> Pool:
        """Return the pool as the simulator sees it."""
        shares = pool.shares_device_with is not None
        cores = 1 if shares else pool.cores or pool.hardware.cores or 1
        power = host_power(pool, f"cluster.pools.{name}.hardware")
        return Pool(
            name=name,
            hardware=pool.hardware.name,
            count=pool.count,
            routing=routing,
            client=SequentialClientSpec(cores),
            usd_per_hour=0.0 if shares else pool.hardware.usd_per_hour,
            notes=(f"{cores} cores, first come first served", *power_notes(pool.hardware, power)),
            energy=power,
        )

    def build(
        self, program: Program, index: int, ops: Sequence[int], calls: Calls
    ) -> tuple[SequentialTasks, Sequence[SequentialClient | SharedDeviceClient]]:
        """Return the tasks and the hosts."""
        pool = program.pools[index]
        spec = pool.client
        assert isinstance(spec, SequentialClientSpec)
        asked = [program.ops[number].work for number in ops]
        service_ns = column_of([work.service_ns for work in asked if isinstance(work, CoreTime)])
        tasks = SequentialTasks(service_ns, calls.waited)
        if pool.device is not None or any(other.device == index for other in program.pools):
            return tasks, [SharedDeviceClient(i, tasks, calls.done) for i in range(pool.count)]
        return tasks, [SequentialClient(i, spec, tasks, calls.done) for i in range(pool.count)]

    def renew(
        self, program: Program, index: int, tasks: SequentialTasks, calls: Calls, place: int
    ) -> SequentialClient:
        """Return a host that starts again."""
        spec = program.pools[index].client
        assert isinstance(spec, SequentialClientSpec)
        return SequentialClient(place, spec, tasks, calls.done)

    def servers(self, spec: SequentialClientSpec) -> int:
        """Return the cores of a host."""
        return spec.cores

    def offered_ns(self, recording: Recording, pool: int, spec: SequentialClientSpec) -> float:
        """Return the time that all cores were busy, as a share of a host."""
        return math.fsum(own.busy_ns / own.capacity for own in recording.clients if own.pool == pool)

    def record(
        self, pool: int, spec: SequentialClientSpec, client: SequentialClient | SharedDeviceClient
    ) -> ClientRecord:
        """Return the busy time of a host."""
        return ClientRecord(pool, client.index, client.cores, client.served, client.busy_ns)


def _core_time(placed: PlacedStage) -> CoreTime:
    """Return the time of a stage's tasks: measured where that is known, else as its kind reckons it.

    Raises ConfigError where a task has no time.
    """
    known, service = placed.known_ns, placed.service_ns
    if known is None and service is not None:
        return CoreTime(service, placed.tokens)
    stage = placed.stage
    nobody = np.full_like(placed.tokens, UNKNOWN) if known is None else known
    times = np.where(nobody == UNKNOWN, UNKNOWN if service is None else service, nobody)
    missing = times == UNKNOWN if placed.taken is None else (times == UNKNOWN) & placed.taken
    if missing.any():
        raise ConfigError(
            f"{stage.key}.measured",
            f"null, and {int(missing.sum()):,} of its tasks have no duration_us in the trace; a host does not reckon "
            f"the time of a {stage.kind}: expected fixed_us and per_token_us, or path",
        )
    return CoreTime(np.maximum(times, 0), placed.tokens)
