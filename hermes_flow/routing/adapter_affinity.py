"""The policy ``adapter_affinity`` keeps the requests for an adapter on the clients that have it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from hermes_flow.config.quantities import Count, CountOrZero
from hermes_flow.program.routing import Choose, RoutedPool
from hermes_flow.routing.policy import routing_policies
from hermes_flow.routing.scoring import Scorer


@routing_policies.register("adapter_affinity")
@dataclass(frozen=True, slots=True)
class AdapterAffinity:
    """Chooses the least loaded of the clients that have the task's adapter, by what the router has sent to them.

    The router remembers the last ``slots`` adapters that it has sent to each client. Where no client has the adapter,
    or all that have it have ``most_more`` more unfinished tasks than the least loaded client, that one is chosen. A
    task without an adapter goes to the least loaded client. The scheduler of the Gateway API Inference Extension
    prefers clients with the adapter in the same way, as long as their queues are short.
    """

    oracle: ClassVar[bool] = False
    remembers: ClassVar[bool] = True
    slots: Count = 8
    most_more: CountOrZero = 8

    def scorer(self, pool: RoutedPool) -> Scorer:
        """Score the clients that have the adapter 0 and the others 1."""
        return _Held(pool, self.slots)

    def start(self, pool: RoutedPool) -> Choose:
        """Return the choice of a client that has the adapter."""
        held = _Held(pool, self.slots)
        counts = [client.outstanding for client in pool.clients]

        def choose(task: int, now_ns: int) -> int:
            loads = [count(now_ns) for count in counts]
            least = min(loads)
            scores = held.scores(task, now_ns)
            near = [
                (load, client)
                for client, load in enumerate(loads)
                if scores[client] == 0 and load < least + max(1, self.most_more)
            ]
            chosen = min(near)[1] if near else loads.index(least)
            held.routed(task, chosen)
            return chosen

        return choose


class _Held:
    """The adapters that each client has, the one sent last at the end; clients by their lasting numbers."""

    def __init__(self, pool: RoutedPool, slots: int) -> None:
        self._adapter = pool.facts.adapter
        self._numbers = [pool.number(client) for client in range(len(pool.clients))]
        held: dict[int, dict[int, None]] = pool.remembered("adapter_affinity", dict)
        self._held = held
        self._slots = slots
        for number in [number for number in held if pool.numbers is not None and number not in self._numbers]:
            del held[number]  # it has stopped: if it comes back, it has none

    def scores(self, task: int, now_ns: int) -> Sequence[float]:
        """Return 0 for the clients that have the task's adapter and 1 for the others; all 0 where it needs none."""
        adapter = self._adapter(task)
        if adapter < 0:
            return [0] * len(self._numbers)
        return [0 if adapter in self._held.get(number, ()) else 1 for number in self._numbers]

    def routed(self, task: int, client: int) -> None:
        """Note that a client gets the task's adapter, in the place of the one that was sent there longest ago."""
        adapter = self._adapter(task)
        if adapter < 0:
            return
        held = self._held.setdefault(self._numbers[client], {})
        held.pop(adapter, None)
        held[adapter] = None
        if len(held) > self._slots:
            del held[next(iter(held))]
