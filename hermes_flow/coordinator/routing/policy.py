"""The registry of routing policies, what one must offer, and what it may know."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, TypeAlias

import numpy as np

from hermes_flow.config.registry import Registry

Choose: TypeAlias = Callable[[int, int], int]  # (task, now_ns) → index of the client that serves it


class Routable(Protocol):
    """A client as routing sees it. True output lengths are not to be had."""

    def outstanding(self, now_ns: int) -> int:
        """Number of tasks submitted and not finished before ``now_ns``."""

    def queued_tokens(self, now_ns: int) -> int:
        """Work known to be still processed, in the client's own unit (tokens, or core time)."""


class TaskFacts(Protocol):
    """What is known of a task that is ready, by its number."""

    def input_tokens(self, task: int) -> int:
        """Tokens of its prompt; 0 where it has none."""

    def output_tokens(self, task: int) -> int:
        """Tokens of its answer: for policies marked ``oracle`` only."""

    def session(self, task: int) -> int:
        """The request's session, -1 where it has none."""

    def prefix_keys(self, task: int) -> Sequence[Hashable]:
        """A key for each of the prompt's first full blocks; equal keys stand for equal content."""

    def transfer_ns(self, task: int, client: int) -> int:
        """How long the task's KV would take to a client over idle links; 0 where nothing has to move."""


@dataclass(frozen=True, slots=True)
class RoutedPool:
    """The clients to choose among, the pool's own random stream, and the facts of its tasks."""

    clients: Sequence[Routable]
    rng: np.random.Generator
    facts: TaskFacts


class RoutingPolicy(Protocol):
    """A way to choose, with its settings; ``oracle`` policies read true output lengths."""

    oracle: ClassVar[bool]

    def start(self, pool: RoutedPool) -> Choose:
        """Return the function that chooses a client for each task as it is ready; made anew for every run."""


routing_policies: Registry[RoutingPolicy] = Registry("routing policy", tag="policy")
