"""The interface of a kind of pool to the compiler, the machine and the tables.

A kind is one folder beside this module. Its ``kind`` module registers a class of it under the folder's name:

    @pool_kinds.register("sequential")
    class SequentialKind(PoolKind): ...

A kind has no state. Its methods are called in the order in which they stand here: the compiler checks and lowers, the
machine builds and records. No other package asks which kind a pool has.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field
from typing import Any, ClassVar, cast

from hermes_flow.config.pools import PoolConfig, pool_kinds
from hermes_flow.config.schema import Cluster, Network
from hermes_flow.cost import CostModel
from hermes_flow.errors import ConfigError
from hermes_flow.pools.client import Calls, PoolClient
from hermes_flow.pools.tasks import PoolTasks
from hermes_flow.program.network import HostMemory
from hermes_flow.program.ops import ContextEdge, Op
from hermes_flow.program.pools import Pool
from hermes_flow.program.program import Program
from hermes_flow.program.quick_dataclass import dataclass
from hermes_flow.program.requests import Requests
from hermes_flow.program.work import Work
from hermes_flow.recording.recording import ClientRecord, Recording
from hermes_flow.routing import RoutingPolicy
from hermes_flow.stages.graph import Graph, Stage
from hermes_flow.stages.placed import PlacedStage


@dataclass(frozen=True, slots=True)
class Handovers:
    """The costs of moving KV for a pool: each prompt takes ``handover_ps`` on the client that sends or receives it.

    ``early``: its KV leaves layer by layer. ``first_tokens``: the clients that receive emit the first tokens.
    ``polled``: they look once a step whether KV has arrived.
    """

    sends: bool = False
    receives: bool = False
    early: bool = False
    first_tokens: bool = False
    handover_ps: int = 0
    polled: bool = False

    @property
    def moves(self) -> bool:
        """Whether any KV moves to the pool or from it."""
        return self.sends or self.receives


@dataclass(frozen=True, slots=True)
class Lowering:
    """The parts of the configuration and the program that a kind needs to lower its pools and stages.

    By the name of a pool ``costs`` has its cost model, ``reckoned`` what ``check`` has returned, and ``handovers``
    how its KV moves. A kind appends to ``problems`` what is wrong, and to ``warnings`` what a user should know.
    """

    cluster: Cluster
    costs: Mapping[str, CostModel]
    graph: Graph
    requests: Requests
    seed: int
    reckoned: Mapping[str, object]
    handovers: Mapping[str, Handovers]
    network: Network
    problems: list[str]
    warnings: list[str]


def at_pool(error: ConfigError, name: str, pool: Any) -> ConfigError:
    """Return an error of a cost model with the key of the pool's own, where the pool called ``name`` has one."""
    own = getattr(pool, "cost", None) is not None and error.key.partition(".")[0] == "cost"
    return ConfigError(f"cluster.pools.{name}.{error.key}", error.problem) if own else error


@dataclass(frozen=True, slots=True)
class AskedWork:
    """The work that placed stages ask of their clients, by place, and the prefills of retrieved contexts."""

    work: Mapping[int, Work]
    contexts: Mapping[int, ContextEdge] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Asked:
    """A placed stage and the work that it asks for.

    With it come the retrieval whose contexts its prompts begin with, and the ``prefill`` that computes their KV on
    another pool.
    """

    stage: PlacedStage
    work: Work
    retrieval: Asked | None = None
    prefill: Asked | None = None


@dataclass(frozen=True, slots=True)
class KVShape:
    """The KV of a pool's prompts: bytes per token over all ``layers``, and bytes of each prompt's states."""

    bytes_per_token: float
    layers: int
    bytes_per_sequence: float = 0.0


class PoolKind(ABC):
    """One kind of pool; ``pool`` is always its own configuration, an instance of ``schema``, called ``name``.

    Checks append problems, each beginning with a full key.
    """

    schema: ClassVar[type[Any]]
    """The dataclass of a pool's keys; its first required field is ``kind``."""

    work: ClassVar[str]
    """Which stages it can serve: those whose ``client`` this is, and those that it ``can_serve`` besides."""

    prompts: ClassVar[bool] = False
    """Whether its clients keep the loads that routing policies by prompts compare (see program/routing.py)."""

    measured: ClassVar[bool] = False
    """Whether its clients can take measured times of single tasks in the place of reckoned ones."""

    takes_turns: ClassVar[bool] = False
    """Whether clients of other pools can take turns on the devices of its clients."""

    shares_router: ClassVar[bool] = False
    """Whether pools of one model may serve the same stages, each request routed over the clients of all."""

    def can_serve(self, stage: Stage) -> bool:
        """Return whether its clients can do the work of a stage."""
        return stage.params.client == self.work

    keeps_contexts: ClassVar[bool] = False
    """Whether its clients know which contexts they hold (``PoolClient.context_ns``)."""

    renews: ClassVar[bool] = False
    """Whether its tasks can change their requests while it runs (``PoolTasks.renew``), as streamed runs do."""

    takes_back: ClassVar[bool] = False
    """Whether its clients take tasks back that nobody waits for any more (``PoolClient.withdraw``)."""

    # Checks of the configuration.

    @abstractmethod
    def check(self, name: str, pool: Any, cluster: Cluster, problems: list[str]) -> object:
        """Check what does not depend on the pipeline.

        Return what was reckoned for that and is needed again (``Lowering.reckoned``), or None.
        """

    def unlike(self, first: Any, other: Any) -> str | None:
        """Return the first key in which two pools behind one router differ although it must be equal; else None."""
        return None

    def sharing_problems(self, name: str, pool: Any, taker: str) -> list[str]:
        """Return why pool ``taker`` cannot take turns on its devices, if it ``takes_turns``."""
        return []

    def check_prefixes(self, name: str, pool: Any, block_tokens: int, problems: list[str]) -> None:
        """Check that the pool can cut the workload's prefixes, blocks of ``block_tokens``, into its own blocks."""

    def check_handover(self, theirs: str, ours: str, cluster: Cluster, problems: list[str]) -> None:
        """Check that pool ``ours`` can decode what pool ``theirs`` has prefilled; one of them is of this kind."""

    def check_served(self, name: str, pool: Any, stage: Stage, problems: list[str]) -> None:
        """Check a stage that the pool serves."""

    def check_context(
        self, name: str, pool: Any, retrieval: Stage, prefill: Stage, problems: list[str]
    ) -> None:
        """Check a prefill on the pool whose prompts begin with a context that ``retrieval`` has found."""

    def check_branches(self, name: str, pool: Any, decode: Stage, problems: list[str]) -> None:
        """Check a prefill on the pool whose answers ``decode`` writes several times side by side."""

    def check_watched(self, name: str, pool: Any, guard: Stage, problems: list[str]) -> None:
        """Check a decode on the pool whose answer ``guard`` reads while it is written."""

    # Where clients stand, and what those on one machine share.

    def problems_at_sites(self, pool: Any, pools: Mapping[str, Any]) -> Iterator[str]:
        """Yield what keeps its clients from being at several sites, by setting; ``pools`` are all."""
        yield from ()

    def beside(self, pool: Any) -> str | None:
        """Return the pool beside whose clients its own clients stand; that pool's router decides for both."""
        return None

    def reads_host(self, pool: Any) -> bool:
        """Return whether the bandwidth of its machine's memory limits a client."""
        return False

    def computes_on_host(self, pool: Any) -> bool:
        """Return whether a client occupies cores of its machine all the time that it works."""
        return False

    # Lowering.

    @abstractmethod
    def lower_work(
        self, placed: Sequence[PlacedStage], places: Sequence[int], lowering: Lowering
    ) -> AskedWork:
        """Return what the stages on pools of this kind, at these ``places``, ask of their clients.

        A stage with a problem is left out.
        """

    @abstractmethod
    def lower(
        self, name: str, pool: Any, routing: RoutingPolicy, asked: Sequence[Asked], lowering: Lowering
    ) -> Pool:
        """Return the pool as the simulator sees it; ``asked`` are the stages that it serves with their work.

        Raises ConfigError where a figure that it needs is missing.
        """

    tries_again: ClassVar[bool] = False
    """Whether tasks that users gave up on may begin anew, as those of elastic kinds may."""
    elastic: ClassVar[bool] = False
    """Whether clients can stop and start again while the system runs (``renew``)."""

    def pace_problem(self, pool: Any) -> str | None:
        """Return why the clients of a pool cannot be slower for a time; None where they can (``set_pace``)."""
        return f"clients of kind {pool.kind!r} have one pace"

    def migration_problem(self, pool: Any) -> str | None:
        """Return why tasks of a lost client cannot go on elsewhere with what was done; None where they can."""
        return f"tasks of kind {pool.kind!r} have no answer with which they could go on"

    def weight_bytes(self, pool: Any, reckoned: object) -> float:
        """Return the bytes of weights that one device loads as a client starts."""
        return 0.0

    def kv_shape(self, pool: Any) -> KVShape | None:
        """Return the size of its prompts' KV; None if no KV leaves or enters its clients."""
        return None

    def place(self, lowered: Pool, memories: list[HostMemory]) -> Pool:
        """Return the lowered pool; the memories that its clients share are appended to those of the program."""
        return lowered

    def unservable(self, name: str, pool: Any, lowered: Pool, op: Op) -> dict[int, str]:
        """Return the requests whose task of an op no client can ever serve, each with the reason."""
        return {}

    # Estimates of queues. ``spec`` is as in the run.

    def servers(self, spec: Any) -> int | None:
        """Return how many tasks a client serves side by side, each on its own; None where that is not known."""
        return None

    def offered_ns(self, recording: Recording, pool: int, spec: Any) -> float | None:
        """Return the ns that the finished tasks of a pool keep one of its clients busy, in batches that are full.

        None where that is not known.
        """
        return None

    # The run. ``spec`` is the specification of a client, as ``lower`` has made it.

    notifies: ClassVar[bool] = False
    """Whether clients must be fired though nobody waits for their tasks; else they catch up when they are asked."""

    @abstractmethod
    def build(
        self, program: Program, index: int, ops: Sequence[int], calls: Calls
    ) -> tuple[PoolTasks, Sequence[PoolClient]]:
        """Return the tasks and the clients of pool ``index`` of the program, which serves the ops ``numbers``."""

    def join(self, program: Program, index: int, tasks: Any, calls: Calls) -> Sequence[PoolClient]:
        """Return the clients of a pool that shares the router, and so the ``tasks``, of another pool."""
        raise TypeError(f"{type(self).__name__} shares no router")

    def renew(self, program: Program, index: int, tasks: Any, calls: Calls, place: int) -> PoolClient:
        """Return client ``place`` of pool ``index`` as it starts again: without tasks, and with an empty cache."""
        raise TypeError(f"clients of {type(self).__name__} never start again")

    @abstractmethod
    def record(self, pool: int, spec: Any, client: Any) -> ClientRecord:
        """Return the record of a client of pool number ``pool``."""

    def summarize(self, lowered: Pool, records: Sequence[ClientRecord]) -> dict[str, Any]:
        """Return the pool's figures for sections of the summary that only some kinds have, by section."""
        return {}

    def run_warnings(self, lowered: Pool, records: Sequence[ClientRecord], end_ns: int) -> list[str]:
        """Return what a user must know before the results of a pool are used, seen in a run of ``end_ns``."""
        return []


def kind_of(pool: PoolConfig) -> PoolKind:
    """Return the kind of a pool."""
    return kind_called(pool.kind)


def kind_called(name: str) -> PoolKind:
    """Return the kind called ``name``, which a configuration has named."""
    return cast(type[PoolKind], pool_kinds.find(name, "kind"))()
