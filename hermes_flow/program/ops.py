"""The tasks of a request: the nodes of the compiled graph, and the typed edges between them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hermes_flow.program.quick_dataclass import dataclass
from hermes_flow.program.units import Ints
from hermes_flow.program.work import Forward, Generate, Work


@dataclass(frozen=True, slots=True)
class ServedStage:
    """A stage of the pipeline that an op serves, by name and kind."""

    name: str
    kind: str


@dataclass(frozen=True, slots=True)
class KVEdge:
    """The KV of a prompt, computed by op ``source`` on another pool, that moves to the op over the network.

    ``bytes`` has an entry per request. Layer by layer, ``early_bytes`` of them (all layers but the last) leave while
    the prefill runs; None: everything leaves when it is over. With ``emits_first`` the receiving op computes the
    prompt's last token itself and emits the first one; without, it goes on from the token that ``source`` emits.
    """

    source: int
    bytes: Ints
    early_bytes: Ints | None = None
    emits_first: bool = False


@dataclass(frozen=True, slots=True)
class ContextEdge:
    """The context that op ``source`` retrieves and that the op's prompt begins with.

    With ``joins_early`` the op takes its place in its client's queue as the retrieval begins, else when that is over.
    """

    source: int
    joins_early: bool = False


@dataclass(frozen=True, slots=True)
class DataEdge:
    """The data that op ``source`` sends to the op: a query, vectors, documents, or the KV of a context.

    ``bytes`` has an entry per request; None: as many as the retrieval ``source`` has found.
    It moves over the network where their clients stand on different nodes, and the op begins when it is there.
    """

    source: int
    bytes: Ints | None


@dataclass(frozen=True, slots=True)
class Op:
    """One task per request that takes it: a stage, or a prefill with its decode, served by one pool.

    ``after`` are indices of ops, and ``work`` is what each task asks of its client. ``taken`` tells which requests
    run it (None: all). Where loads decide, ``decided`` is the route and its outcome that an op belongs to, and of the
    requests in ``taken`` those run it that have this outcome. ``with_op`` is the op whose client it goes to.
    ``at_token`` is the token of the answer before it with which it begins, while the rest is written.
    """

    name: str
    serves: tuple[ServedStage, ...]
    pool: int
    after: tuple[int, ...]
    work: Work
    taken: NDArray[np.bool_] | None = None
    decided: tuple[int, int] | None = None
    with_op: int | None = None
    at_token: Ints | None = None
    kv: KVEdge | None = None
    context: ContextEdge | None = None
    data: tuple[DataEdge, ...] = ()

    @property
    def stages(self) -> tuple[str, ...]:
        """The names of its stages."""
        return tuple(stage.name for stage in self.serves)

    @property
    def stage_kinds(self) -> tuple[str, ...]:
        """The kinds of its stages."""
        return tuple(stage.kind for stage in self.serves)

    @property
    def llm(self) -> Generate | Forward | None:
        """Its work on an LLM client; None if another kind of client serves it."""
        return self.work if isinstance(self.work, Generate | Forward) else None

    @property
    def generate(self) -> Generate | None:
        """Its work if it generates tokens of an answer, else None."""
        return self.work if isinstance(self.work, Generate) else None

    @property
    def comes_apart(self) -> bool:
        """Whether it is a prefill and its decode on one pool, which come apart at the first token."""
        return isinstance(self.work, Generate) and len(self.serves) == 2


@dataclass(frozen=True, slots=True)
class LoadRoute:
    """A route by load: a request takes the first outcome whose pool is below its limit per client.

    ``pools`` and ``limits`` are those of all ``outcomes`` but the last. Loads are unfinished tasks, or ``tokens``
    known to be still processed.
    """

    name: str
    outcomes: tuple[str, ...]
    pools: tuple[int, ...]
    limits: tuple[float, ...]
    tokens: bool = False
