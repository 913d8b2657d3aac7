"""Pass 5, power: what the clients draw that are not LLM clients, and the notes that tell where it is from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hermes_flow.config.schema import BatchedPool, Cluster, MemoryPool, SequentialPool
from hermes_flow.cost.energy import busy_power, power_notes
from hermes_flow.errors import ConfigError
from hermes_flow.program.pools import Pool
from hermes_flow.program.power import BusyPower


def with_power(pools: Sequence[Pool], cluster: Cluster, problems: list[str]) -> tuple[Pool, ...]:
    """Return the pools told what their clients draw; problems are appended.

    Clients on the machines of another pool (``host``) draw nothing at rest: that counts there.
    """
    lowered = []
    for pool in pools:
        own = cluster.pools[pool.name]
        try:
            if isinstance(own, SequentialPool | BatchedPool):
                power = _power(own, f"cluster.pools.{pool.name}.hardware")
                notes = (*pool.notes, *power_notes(own.hardware, power))
                pool = replace(pool, energy=power, notes=notes)
            elif isinstance(own, MemoryPool):
                note = "power: not known; what memory draws is not modelled"
                pool = replace(pool, notes=(*pool.notes, note))
        except ConfigError as error:
            problems.append(str(error))
        lowered.append(pool)
    return tuple(lowered)


def _power(pool: SequentialPool | BatchedPool, key: str) -> BusyPower | None:
    devices = max(1, pool.devices) if isinstance(pool, BatchedPool) else 1
    share = pool.cores / pool.hardware.cores if pool.cores and pool.hardware.cores else 1.0
    power = busy_power(pool.hardware, key, devices, share)
    if power is None or pool.host is None:
        return power
    return BusyPower(0.0, power.busy_w - power.idle_w)
