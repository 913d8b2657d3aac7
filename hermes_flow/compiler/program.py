"""The Program: what the compiler hands to the simulator. Plain data; no config objects, no simulated time.

Requests are columns, not objects: every per-request figure is a numpy array with one entry per request, in
order of arrival. Durations and instants are integers: nanoseconds, and picoseconds within an LLM step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hermes_flow.compiler.step_cost import StepCost as StepCost
from hermes_flow.compiler.step_energy import BusyPower as BusyPower
from hermes_flow.compiler.step_energy import StepEnergy as StepEnergy
from hermes_flow.compiler.tiers import KVLookup as KVLookup
from hermes_flow.compiler.tiers import MemoryClientSpec as MemoryClientSpec

if TYPE_CHECKING:
    from hermes_flow.batching.packing import PackingOrder
    from hermes_flow.coordinator.routing import RoutingPolicy

Ints = NDArray[np.int64]

PS_PER_NS = 1000
NS_PER_S = 1_000_000_000

_BLOCK_BITS = 44  # more blocks than any prompt has


@dataclass(frozen=True, slots=True)
class LLMClientSpec:
    """One LLM client as its scheduler sees it.

    With ``stages`` of pipeline parallelism a micro-batch passes all of them one after another: ``stages − 1`` that
    take ``upstream`` each and a hop to the next one, and the last, which takes ``cost``. ``speculation`` is the
    expected number of tokens that a decoding sequence gains in a step, as numerator and denominator.
    """

    model: str
    devices: int
    kv_blocks: int
    block_size: int
    max_num_seqs: int
    max_num_batched_tokens: int
    batching: str
    lookahead: int
    cost: StepCost
    packing: PackingOrder | None = None  # None: in order of arrival
    preemption: str = "recompute"
    swap_ps_per_block: int = 0
    prefix_cache: bool = False
    kv_export_ps: int = 0  # to hand over the KV of a prompt that is computed
    kv_import_ps: int = 0  # to take over the KV of one that another client has computed
    kv_layers: int = 0  # of a prefill whose KV leaves layer by layer; 0: it leaves when all is computed
    stages: int = 1
    upstream: StepCost | None = None  # None where there is one stage
    hop_ps_per_token: float = 0.0
    hop_ps: int = 0
    speculation: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class SequentialClientSpec:
    """One host that serves one task per core."""

    cores: int


@dataclass(frozen=True, slots=True)
class PassCost:
    """How long one pass over a batch takes on a batched client, and what it reads of the host's memory.

    Either by the number of tasks (``ns`` and ``bytes``, from 0 on), or a forward pass (``step``) over the tokens of
    all tasks, ``sequences`` of equal length each.
    """

    ns: tuple[int, ...] = ()
    bytes: tuple[int, ...] = ()
    step: StepCost | None = None
    sequences: int = 1
    provenance: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class BatchedClientSpec:
    """One client that serves up to ``max_batch`` tasks in a pass.

    ``hosts`` is, for each client of the pool, the memory that its passes read, among the program's hosts; empty
    where nobody else reads it. ``devices`` are accelerators, 0 on a CPU host.
    """

    max_batch: int
    wait_ns: int = 0
    model: str | None = None
    devices: int = 0
    hosts: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class HostMemory:
    """The memory of a host, which the clients on it share; or, by its ``level``, a link between host and devices."""

    name: str
    bytes_per_ns: float
    level: Literal["memory", "host link"] = "memory"


AnyClientSpec: TypeAlias = LLMClientSpec | SequentialClientSpec | BatchedClientSpec | MemoryClientSpec


@dataclass(frozen=True, slots=True)
class Pool:
    """``count`` identical clients and the routing among them; no KV moves between their ``groups``."""

    name: str
    hardware: str
    count: int
    routing: RoutingPolicy
    client: AnyClientSpec
    usd_per_hour: float | None = None  # of one client, all its devices
    groups: int = 1
    routing_stale_ns: int = 0  # the routing sees loads as of the last multiple of this; 0: live
    notes: tuple[str, ...] = ()  # capacity and cost provenance, for the text form
    energy: StepEnergy | BusyPower | None = None  # what one client draws; None where that is not known


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


@dataclass(frozen=True, slots=True)
class Prefixes:
    """What the prompts begin with: ids of blocks of ``block_tokens`` tokens, request by request.

    Request r has the ids ``ids[offsets[r]:offsets[r + 1]]``; equal ids are equal content, including all that
    comes before them.
    """

    ids: Ints
    offsets: Ints
    block_tokens: int

    def block_keys(self, request: int, block_size: int, prompt_tokens: int) -> list[int]:
        """Return a key for each full block of ``block_size`` tokens that the ids name within the prompt.

        ``block_size`` divides ``block_tokens`` or is a multiple of it.
        """
        ids: list[int] = self.ids[self.offsets[request] : self.offsets[request + 1]].tolist()
        covered = min(prompt_tokens, len(ids) * self.block_tokens)
        if block_size < self.block_tokens:
            parts = self.block_tokens // block_size
            return [ids[block // parts] * parts + block % parts for block in range(covered // block_size)]
        step = block_size // self.block_tokens
        return ids[step - 1 :: step][: covered // block_size]

    def reordered(self, order: NDArray[np.intp]) -> Prefixes:
        """Return the same prefixes with the requests in another order."""
        parts = [self.ids[self.offsets[row] : self.offsets[row + 1]] for row in order.tolist()]
        lengths = np.diff(self.offsets)[order]
        return Prefixes(np.concatenate(parts), np.concatenate(([0], np.cumsum(lengths))), self.block_tokens)


@dataclass(frozen=True, slots=True)
class SessionPrefixes:
    """What the requests of sessions share: a system prompt with other sessions, everything before with their own.

    A prompt is the session's system prompt (number ``system_prompt``, of ``system_tokens`` tokens), the earlier
    turns with their answers, and what is new; the next turn's prompt goes on from its answer. Sessions are
    numbered from 0; all columns have an entry per request.
    """

    session: Ints
    system_prompt: Ints
    system_tokens: Ints
    input_tokens: Ints
    output_tokens: Ints

    block_tokens: ClassVar[int] = 1  # content is known token by token: blocks of any size can be cut

    def block_keys(self, request: int, block_size: int, prompt_tokens: int) -> Sequence[int]:
        """Return a key for each full block of the prompt; what exceeds the session's own text has none."""
        covered = min(prompt_tokens, int(self.input_tokens[request]))
        return self._keys(request, block_size, 0, covered // block_size)

    def answer_keys(
        self, request: int, block_size: int, prompt_tokens: int, output_tokens: int
    ) -> Sequence[int]:
        """Return the keys of the full blocks after those of ``block_keys``, up to the answer's end.

        None where prompt or answer are not what the next turn begins with (documents were added, or reasoning).
        """
        prompt, answer = int(self.input_tokens[request]), int(self.output_tokens[request])
        if (prompt_tokens, output_tokens) != (prompt, answer):
            return ()
        return self._keys(request, block_size, prompt // block_size, (prompt + answer) // block_size)

    def _keys(self, request: int, block_size: int, first: int, last: int) -> Sequence[int]:
        """A key names its block's number and whose it is: even for system prompts, odd for sessions."""
        shared = int(self.system_tokens[request]) // block_size
        common = (2 * int(self.system_prompt[request])) << _BLOCK_BITS
        own = (2 * int(self.session[request]) + 1) << _BLOCK_BITS
        if first >= shared:
            return range(own + first, own + last)
        if last <= shared:
            return range(common + first, common + last)
        return [*range(common + first, common + shared), *range(own + shared, own + last)]


@dataclass(frozen=True, slots=True)
class Requests:
    """The workload as columns; ``arrival_ns`` is sorted.

    With ``concurrency`` set the run is a closed loop: at most that many requests are in the system, and the
    next one arrives ``think_ns`` after any one finishes; ``arrival_ns`` is then all zero and arrivals are
    recorded as they happen.

    With ``previous`` set there are sessions: a request arrives ``think_ns`` after request ``previous`` (a lower
    number; -1: none, it arrives at ``arrival_ns``) finishes. The ``arrival_ns`` of such a follow-up is when its
    session begins.
    """

    arrival_ns: Ints
    input_tokens: Ints
    output_tokens: Ints
    session: Ints | None = None
    priority: Ints | None = None
    model: Ints | None = None  # which of ``models`` each request asks for
    models: tuple[str, ...] = ()
    pipeline: Ints | None = None  # which of ``pipelines`` each request takes, where several run at once
    pipelines: tuple[str, ...] = ()
    prefixes: Prefixes | SessionPrefixes | None = None
    concurrency: int | None = None
    think_ns: Ints | None = None
    previous: Ints | None = None

    def __len__(self) -> int:
        return len(self.arrival_ns)

    @property
    def wait_for_answers(self) -> bool:
        """Whether some arrive only after others have finished."""
        return self.concurrency is not None or self.previous is not None


@dataclass(frozen=True, slots=True)
class NetworkLevel:
    """What links of a level reach of their line rate, and what a transfer waits on top."""

    efficiency: float
    latency_ns: int
    bytes_per_ns: float = 0.0  # of a rack's link to the datacenter; the others belong to the clients


@dataclass(frozen=True, slots=True)
class Network:
    """Where the clients stand (``nodes[c]``, numbered over all pools) and how fast their links are."""

    name: str
    clients: tuple[str, ...]
    nodes: tuple[int, ...]
    nodes_per_rack: int
    node_bytes_per_ns: tuple[float, ...]
    rack_bytes_per_ns: tuple[float, ...]
    node: NetworkLevel
    rack: NetworkLevel
    datacenter: NetworkLevel


@dataclass(frozen=True, slots=True)
class SLOBounds:
    """Latency bounds in seconds: ``{"ttft": {50.0: 0.5, …}, "tpot": …, "e2e": …}``, percentile → bound."""

    name: str
    bounds: dict[str, dict[float, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Program:
    """A compiled simulation: pools, the DAG of ops, and each request's sizes."""

    name: str
    pipeline: str
    cluster: str
    pools: tuple[Pool, ...]
    ops: tuple[Op, ...]
    requests: Requests
    slo: SLOBounds
    seed: int = 0
    network: Network | None = None  # None where nothing moves between clients
    hosts: tuple[HostMemory, ...] = ()  # memories that several clients share
    load_routes: tuple[LoadRoute, ...] = ()
    warnings: tuple[str, ...] = ()
    rejected: dict[int, str] = field(default_factory=dict)  # request → why no client can ever serve it
    record_steps: bool = False

    @property
    def answers(self) -> tuple[int, ...]:
        """Indices of the ops that write an answer; the user reads that of the last one a request takes."""
        return tuple(index for index, op in enumerate(self.ops) if op.kind == "generate" and op.branch == 0)

    def __str__(self) -> str:
        from hermes_flow.compiler.text import program_text

        return program_text(self)
