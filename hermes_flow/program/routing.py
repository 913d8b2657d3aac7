"""The contract between a pool and its routing policy, method by method.

A policy is a frozen dataclass whose fields are its settings: ``routing: {policy: name, field: value}``. Its
``start`` is called once for each pool and run, or each group of the pool's clients, before the first task, and
returns the function ``choose(task, now_ns)``. The coordinator calls that once for each task, at the instant when the
task is ready for the pool: all stages before it are over, or for a decode with KV from another pool, its prefill is
over or the prefill's first layer is computed. It returns the place of a client in ``RoutedPool.clients``, from 0; the
task is on its way there at once and is not moved later. A pool of one client has no choice to make, and ``start`` is
not called. Where the clients of a pool come and go, ``start`` is called again as they change (see ``RoutedPool``).

What a policy may read at the instant ``now_ns``:

- of a client (``Routable``): ``outstanding`` and ``queued_tokens``, and where the policy ``needs`` "prompts", its
  ``Load``;
- of the task that is ready (``TaskFacts``): the tokens of its prompt, its session, its adapter, its prefix keys, and
the
  time that its KV takes to each client;
- the pool's random stream ``rng``, and what the policy itself remembers of its own choices.

What it may not read: true lengths of answers (``output_tokens``, ``work_left_tokens``), unless it is marked
``oracle``; then the compiled program says so. Asking changes nothing: a client answers as left by all that happened
before ``now_ns``, and ``now_ns`` never goes back. With ``routing_stale_ms`` the answers are those of the last scrape.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, Literal, Protocol, TypeAlias, TypeVar, runtime_checkable

import numpy as np

from hermes_flow.program.quick_dataclass import dataclass

Choose: TypeAlias = Callable[[int, int], int]  # (task, now_ns) → index of the client that serves it
Need: TypeAlias = Literal["prompts", "contexts"]
Remembered = TypeVar("Remembered")


class Load(Protocol):
    """The load of an LLM client: a task counts from its routing until its last token is delivered."""

    @property
    def unfinished(self) -> int:
        """Number of tasks."""

    @property
    def input_tokens(self) -> int:
        """Tokens of their prompts."""

    @property
    def kv_tokens(self) -> int:
        """Tokens of their prompts and of their answers so far."""

    @property
    def backlog_tokens(self) -> int:
        """The prompt tokens that no plan has scheduled yet; a prompt whose KV is sent counts as one."""

    @property
    def work_left_tokens(self) -> int:
        """The backlog plus the answer tokens still to come, for policies marked ``oracle`` only."""

    @property
    def finished(self) -> int:
        """The number of finished tasks."""

    @property
    def finished_tokens(self) -> int:
        """The answer tokens of finished tasks."""


class Routable(Protocol):
    """The client as a routing policy sees it."""

    def outstanding(self, now_ns: int) -> int:
        """Number of tasks submitted and not finished before ``now_ns``."""

    def queued_tokens(self, now_ns: int) -> int:
        """The known remaining work, in the client's own unit (tokens, or core time)."""


@runtime_checkable
class LoadKeeper(Protocol):
    """The additional interface of LLM clients for routing policies."""

    def keep_load(self) -> None:
        """Record the figures of ``load`` from now on; this is called before the first task arrives."""

    def load(self, now_ns: int) -> Load:
        """The load from all events before ``now_ns``; it must be read before the next call."""


class TaskFacts(Protocol):
    """The known facts of a ready task, by its number."""

    def input_tokens(self, task: int) -> int:
        """Tokens of its prompt; 0 where it has none."""

    def output_tokens(self, task: int) -> int:
        """Tokens of its answer, for policies marked ``oracle`` only."""

    def session(self, task: int) -> int:
        """The request's session, -1 where it has none."""

    def adapter(self, task: int) -> int:
        """The LoRA adapter that the request asks for, as a number; -1 for none."""

    def request(self, task: int) -> int:
        """The number of its request, which all tasks of the request share."""

    def prefix_keys(self, task: int) -> Sequence[Hashable]:
        """A key for each of the prompt's first full blocks that others may contain; equal keys are equal content.

        None where nothing of a prompt is found again: the pool has no prefix cache, or the workload no prefixes.
        """

    def transfer_ns(self, task: int, client: int) -> int:
        """The time that the task's KV would take to a client over idle links; 0 if nothing moves."""

    def context_ns(self, task: int, client: int) -> int | None:
        """The time in which a client's store would find and read the task's context; None if it does not have it.

        For policies that need "contexts".
        """


class FewestTasks(Protocol):
    """Knows the client with the fewest unfinished tasks without asking any client."""

    def least(self, now_ns: int) -> int:
        """Return the client with the fewest tasks not finished before ``now_ns``, the first of equals."""


@dataclass(frozen=True, slots=True)
class RoutedPool:
    """The clients to choose from, the pool's own random stream, and the facts of its tasks.

    The clients are those of the facts from number ``first`` on. ``kv_blocks`` has the blocks of each of all clients
    that the facts count (None: they are no LLM clients). ``unfinished`` is given where clients report what comes and
    ends, to policies with ``counts = True``.

    Where the clients of a pool come and go, the policy is started anew as they change, with those that are up.
    ``numbers`` are then their numbers among all clients, which do not change, and ``memory`` is handed on from one
    start to the next: what a policy remembers of sessions or clients belongs there, under a key of its own.
    """

    clients: Sequence[Routable]
    rng: np.random.Generator
    facts: TaskFacts
    kv_blocks: Sequence[int] | None = None
    first: int = 0
    unfinished: FewestTasks | None = None
    numbers: Sequence[int] | None = None
    memory: dict[str, Any] | None = None

    def part(self, first: int, count: int, rng: np.random.Generator) -> RoutedPool:
        """Return ``count`` of the clients from ``first`` on as a pool of their own."""
        clients = self.clients[first : first + count]
        if self.numbers is None:
            return RoutedPool(clients, rng, self.facts, self.kv_blocks, self.first + first)
        numbers = self.numbers[first : first + count]
        memory: dict[str, Any] = self.remembered("first part" if first == 0 else "second part", dict)
        return RoutedPool(clients, rng, self.facts, self.kv_blocks, numbers=numbers, memory=memory)

    def number(self, client: int) -> int:
        """Return the number of one of these clients among all clients of the facts."""
        return self.first + client if self.numbers is None else self.numbers[client]

    def remembered(self, key: str, new: Callable[[], Remembered]) -> Remembered:
        """Return what the policy has kept under ``key``; ``new()`` where there is nothing yet."""
        if self.memory is None:
            return new()
        kept: Remembered = self.memory.setdefault(key, new())
        return kept

    def blocks(self) -> Sequence[int | None]:
        """Return how many blocks of KV each of the clients has; None where they are no LLM clients."""
        if self.kv_blocks is None:
            return [None] * len(self.clients)
        if self.numbers is not None:
            return [self.kv_blocks[number] for number in self.numbers]
        return self.kv_blocks[self.first : self.first + len(self.clients)]

    def loads(self) -> list[Callable[[int], Load]]:
        """Return each client's ``load``; they keep its figures from now on. For policies that need prompts."""
        keepers = [client for client in self.clients if isinstance(client, LoadKeeper)]
        assert len(keepers) == len(self.clients), "checked by the compiler"
        for client in keepers:
            client.keep_load()
        return [client.load for client in keepers]

    def context_ns(self, task: int, client: int) -> int | None:
        """The time in which the store of one of these clients would read the task's context; None: it has it not."""
        return self.facts.context_ns(task, self.number(client))

    def transfer_ns(self, task: int, client: int) -> int:
        """The time that the task's KV would take to one of these clients over idle links."""
        return self.facts.transfer_ns(task, self.number(client))


class RoutingPolicy(Protocol):
    """A routing policy with its settings; policies marked ``oracle`` read true output lengths.

    It may have ``needs``, a set that may hold "prompts" (the pool's clients must be LLM clients, whose loads it
    reads by ``RoutedPool.loads``) and "contexts" (they must be stores of KV, or have stores beside them), and
    ``check_parts`` (``PartingPolicy``). With ``counts``, True, it asks ``RoutedPool.unfinished``, where that is
    given, and no client. With ``remembers``, True, it is started for a single client, too, where clients come and go.
    With ``ignores_loads``, True, it reads no load of a client, so that ``routing_stale_ms`` has no effect on it.
    """

    @property
    def oracle(self) -> bool:
        """Whether it reads true output lengths, which no router knows."""

    def start(self, pool: RoutedPool) -> Choose:
        """Return the function that chooses a client for each task as it is ready; made anew for every run."""


@runtime_checkable
class PartingPolicy(Protocol):
    """A policy that divides a pool into parts."""

    def check_parts(self, clients: int) -> None:
        """Raise ConfigError with the policy's key if ``clients`` (above 1) cannot be divided so."""
