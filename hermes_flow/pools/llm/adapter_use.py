"""The figures of adapters after a run: what clients loaded, and how long requests were passed over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hermes_flow.pools.llm.adapter_slots import AdapterSlots
from hermes_flow.program.units import NS_PER_S, PS_PER_NS, Ints
from hermes_flow.recording.recording import ClientRecord


@dataclass(frozen=True, slots=True)
class AdapterUse:
    """The loads of one client: from host memory and from disk, their time, and admissions that needed none.

    ``wait_ps`` is the time for which requests were passed over, of ``seen`` in all.
    """

    loads: int
    reads: int
    load_ps: int
    found: int
    wait_ps: int
    seen: int


def adapter_use(slots: AdapterSlots, seen: Sequence[int], start_ps: Sequence[int]) -> AdapterUse:
    """Return the figures of a client that has seen the tasks ``seen``, which began at ``start_ps``."""
    waits = passed_over_ps(seen, start_ps)[1]
    return AdapterUse(slots.loads, slots.reads, slots.load_ps, slots.found, int(waits.sum()), len(seen))


def adapter_summary(records: Sequence[ClientRecord]) -> dict[str, Any]:
    """Return ``{"loads", "from_disk", "load_s", "found_share", "wait_mean_s"}`` of all clients of a pool.

    ``found_share`` is the share of admissions with an adapter that found it on the GPUs, ``wait_mean_s`` the time for
    which a request was passed over on average.
    """
    return adapter_figures([record.own for record in records])


def adapter_figures(uses: Sequence[AdapterUse]) -> dict[str, Any]:
    """Return the figures of several clients; see ``adapter_summary``."""
    loads, found = sum(use.loads for use in uses), sum(use.found for use in uses)
    return {
        "loads": loads,
        "from_disk": sum(use.reads for use in uses),
        "load_s": sum(use.load_ps for use in uses) / (PS_PER_NS * NS_PER_S),
        "found_share": found / (found + loads) if found + loads else None,
        "wait_mean_s": sum(use.wait_ps for use in uses)
        / (PS_PER_NS * NS_PER_S * max(1, sum(use.seen for use in uses))),
    }


def passed_over_ps(seen: Sequence[int], start_ps: Sequence[int]) -> tuple[Ints, Ints]:
    """Return the tasks that were passed over, and for how long, in picoseconds.

    ``seen`` are the tasks of a client in the order in which its scheduler saw them. A task is passed over from the
    first admission of one that came after it until its own.
    """
    tasks = np.array(seen, dtype=np.int64)
    never = np.iinfo(np.int64).max
    start = np.array([start_ps[task] for task in seen], dtype=np.int64)
    reached = np.where(start < 0, never, start)
    later = np.append(np.minimum.accumulate(reached[::-1])[::-1][1:], never) if len(reached) else reached
    over = (start >= 0) & (later < start)
    return tasks[over], start[over] - later[over]
