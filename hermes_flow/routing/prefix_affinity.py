"""The policy ``prefix_affinity`` chooses the client that has the beginning of the prompt cached."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from hermes_flow.config.quantities import Blocks, FactorFromOne, Tokens
from hermes_flow.program.routing import Choose, Need, RoutedPool
from hermes_flow.routing.policy import routing_policies
from hermes_flow.routing.prefix_index import PrefixIndex
from hermes_flow.routing.scoring import Scorer


@routing_policies.register("prefix_affinity")
@dataclass(frozen=True, slots=True)
class PrefixAffinity:
    """Chooses the client that was sent the most of the prompt's first blocks; the least loaded of equals.

    As routers do that do not see the caches (SGLang's, vLLM production stack's, llm-d's approximate scorer), it
    remembers what it has sent: of each client the last ``capacity_blocks`` blocks (null: as many as the client
    has). Load is the number of unfinished tasks. Where the most loaded client has more than ``imbalance_requests``
    above the least loaded one and more than ``imbalance_ratio`` times as many, the least loaded client is chosen;
    so it is where nothing of a prompt would be found again (no prefix cache, no prefixes in the workload). What was
    sent to a client that has stopped or failed is forgotten, as its cache is.
    """

    oracle: ClassVar[bool] = False
    remembers: ClassVar[bool] = True
    needs: ClassVar[frozenset[Need]] = frozenset({"prompts"})
    capacity_blocks: Blocks | None = None
    # balance-abs-threshold and balance-rel-threshold in the documentation of SGLang's model gateway
    imbalance_requests: Tokens = 64
    imbalance_ratio: FactorFromOne = 1.5

    def scorer(self, pool: RoutedPool) -> Scorer:
        """Score by the prompt's blocks that a client lacks, regardless of loads."""
        return _Sent(pool, self.capacity_blocks)

    def start(self, pool: RoutedPool) -> Choose:
        """Return the choice of the client that was sent the longest beginning of the prompt."""
        sent = _Sent(pool, self.capacity_blocks)
        counts = [client.outstanding for client in pool.clients]

        def choose(task: int, now_ns: int) -> int:
            loads = [count(now_ns) for count in counts]
            if self._out_of_balance(min(loads), max(loads)):
                chosen = loads.index(min(loads))
            else:
                keys = list(zip(sent.scores(task, now_ns), loads, strict=True))
                chosen = keys.index(min(keys))
            sent.routed(task, chosen)
            return chosen

        return choose

    def _out_of_balance(self, least: int, most: int) -> bool:
        return most - least > self.imbalance_requests and most > self.imbalance_ratio * least


class _Sent:
    """What the router has sent to the clients of a pool."""

    __slots__ = ("_clients", "_keys", "_none")

    def __init__(self, pool: RoutedPool, capacity: int | None) -> None:
        self._keys = pool.facts.prefix_keys
        kept: dict[int, PrefixIndex] = pool.remembered("prefix_affinity", dict)
        new = [PrefixIndex(capacity or blocks) for blocks in pool.blocks()]
        self._clients = [kept.get(pool.number(client), index) for client, index in enumerate(new)]
        kept.clear()  # the cache of a client that has stopped is gone
        kept.update({pool.number(client): index for client, index in enumerate(self._clients)})
        self._none = [0 for _ in pool.clients]

    def scores(self, task: int, now_ns: int) -> Sequence[int]:
        """Return the blocks of the task's prompt that each client lacks."""
        keys = self._keys(task)
        if not keys:
            return self._none
        return [len(keys) - client.matched(keys) for client in self._clients]

    def routed(self, task: int, client: int) -> None:
        """Remember the blocks of the task's prompt."""
        keys = self._keys(task)
        if keys:
            self._clients[client].note(keys)
