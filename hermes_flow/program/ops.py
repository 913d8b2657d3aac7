"""The tasks of a request: the nodes of the compiled graph."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hermes_flow.program.kv_store import KVLookup
from hermes_flow.program.units import Ints
from hermes_flow.program.work import PassCost


@dataclass(frozen=True, slots=True)
class Op:
    """One task per request that takes it: a stage, or several fused ones, served by one pool.

    ``taken`` tells which requests run it (None: all). ``service_ns`` is the demand on a sequential client,
    ``prompt`` and ``output`` the tokens of a ``generate`` on an LLM client. ``after`` are indices of ops. Where a
    decode has a pool of its own, its prefill is a ``generate`` of one token and the decode a ``generate`` that
    receives the prompt's KV (``kv_from``) and goes on from that token.
    """

    name: str
    kind: str
    stages: tuple[str, ...]
    stage_kinds: tuple[str, ...]
    pool: int
    after: tuple[int, ...]
    taken: NDArray[np.bool_] | None = None
    service_ns: Ints | None = None
    prompt: Ints | None = None
    output: Ints | None = None
    tokens: Ints | None = None  # tokens the op handles (sequential and batched kinds)
    cost: PassCost | None = None  # of a batched kind
    lookup: KVLookup | None = None  # of a retrieval of KV
    context_from: int | None = None  # the op that retrieves what the prompt begins with
    joins_early: bool = False  # and as that begins, it takes its place in its client's queue
    branch: int = 0  # of the answers that are written side by side, the first (0) is the one that counts
    extends: tuple[int, ...] = ()  # the prompt begins with that of the first of these that the request takes
    extends_answer: bool = False  # and then with its answer
    with_op: int | None = None  # the op whose client it goes to
    written: Ints | None = None  # tokens of the answer that was paused before, which this op goes on with
    decided: tuple[int, int] | None = None  # of those in ``taken`` who has this outcome of this route by load
    at_token: Ints | None = None  # begins with this token of the answer that it comes after
    kv_from: int | None = None  # the op on another pool that computes the prompt's KV for this one
    emits_first: bool = (
        False  # with kv_from: computes the prompt's last token itself, and emits the first one
    )
    kv_bytes: Ints | None = None  # bytes of that KV, per request
    kv_early_bytes: Ints | None = None  # of those, what moves while the prefill runs: all layers but the last


@dataclass(frozen=True, slots=True)
class LoadRoute:
    """A route that loads decide at run time: the first outcome whose pool has less than its limit a client.

    ``pools`` and ``limits`` are those of all ``outcomes`` but the last. Loads are unfinished tasks, or ``tokens``
    known to be still processed.
    """

    name: str
    outcomes: tuple[str, ...]
    pools: tuple[int, ...]
    limits: tuple[float, ...]
    tokens: bool = False
