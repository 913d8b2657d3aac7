"""The Program: what the compiler hands to the simulator. Plain data; no config objects, no simulated time.

Requests are columns, not objects: every per-request figure is a numpy array with one entry per request, in
order of arrival. Durations and instants are integers: nanoseconds, and picoseconds within an LLM step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from hermes_flow.batching.packing import PackingOrder
    from hermes_flow.coordinator.routing import RoutingPolicy

Ints = NDArray[np.int64]

PS_PER_NS = 1000
NS_PER_S = 1_000_000_000

_BLOCK_BITS = 44  # more blocks than any prompt has


@dataclass(frozen=True)
class StepCost:
    """How long one forward pass takes, lowered to tables and an affine decode form (all in picoseconds).

    A step that schedules ``decodes`` decoding sequences over ``decode_context`` already computed tokens in all, and
    prefill chunks (chunk, context)…, takes

        tokens_ps[decodes·tokens_per_decode + Σ chunk] + sequences_ps[decodes + number of chunks]
        + decode_attention_ps[decodes] + context_ps·decode_context
        + prefill_launch_ps (if there is a chunk)
        + Σ prefill_ps(chunk, context)

    ``tokens_ps`` covers 0 … the longest step a client may plan, ``sequences_ps`` and ``decode_attention_ps``
    0 … max_num_seqs.

    With ``ranks`` of data-parallel attention these are the tables of one rank, but for ``context_ps``, which is a
    rank's slope over the ranks. Decodes and their context are spread evenly; each chunk, in order, lies on the rank
    with the fewest tokens so far. The step takes the slowest rank's sum, and ``experts_ps`` of all tokens.
    """

    tokens_ps: list[int]
    sequences_ps: list[int]
    decode_attention_ps: list[int]
    context_ps: int
    prefill_launch_ps: int = 0
    prefill_pair_ps: float = 0.0  # per query-key pair of a causal prefill, all layers
    prefill_half_length: float = 0.0  # sequence length at which prefill attention reaches half its rate
    prefill_context_ps: int = 0  # per already computed token of a prefilling sequence
    ingest_ns: int = 0  # from a request's arrival at the client until its scheduler sees it
    provenance: tuple[str, ...] = ()
    tokens_per_decode: int = 1  # with speculation: the drafted tokens and the one before them
    prefill_token_ps: int = 0  # per token of a chunk: what the draft model's prefill adds
    ranks: int = 1
    experts_ps: list[int] = field(default_factory=list)  # by tokens of all ranks; empty: within tokens_ps

    @cached_property
    def decode_ps(self) -> list[int]:
        """The pure decode step by number of sequences, without the context term."""
        attention = self.decode_attention_ps
        width, ranks, experts = self.tokens_per_decode, self.ranks, self.experts_ps
        most = min(len(attention), (len(self.tokens_ps) - 1) // width + 1)
        fullest = [-(-n // ranks) for n in range(most)]
        table = [self.tokens_ps[n * width] + self.sequences_ps[n] + attention[n] for n in fullest]
        return [local + experts[n * width] for n, local in enumerate(table)] if experts else table

    def prefill_ps(self, chunk: int, context: int) -> int:
        """What one prefill chunk of ``chunk`` tokens after ``context`` computed ones adds: its attention."""
        duration = self.prefill_context_ps * context + self.prefill_token_ps * chunk
        if self.prefill_pair_ps:
            length = chunk + context
            pairs = chunk * (context + 0.5 * chunk)
            duration += int(self.prefill_pair_ps * pairs * (1.0 + self.prefill_half_length / length) + 0.5)
        return duration

    def step_ps(self, prefills: list[tuple[int, int]], decodes: int, decode_context: int) -> int:
        """The whole step, term by term as in the class docstring: the reference for every faster path."""
        duration = self.context_ps * decode_context if decodes else 0
        if self.ranks == 1:
            return duration + self._local_ps(prefills, decodes)
        each, left = divmod(decodes, self.ranks)
        running = [each + (rank < left) for rank in range(self.ranks)]
        tokens = [count * self.tokens_per_decode for count in running]
        chunks: list[list[tuple[int, int]]] = [[] for _ in running]
        for prefill in prefills:
            rank = tokens.index(min(tokens))
            tokens[rank] += prefill[0]
            chunks[rank].append(prefill)
        duration += max(self._local_ps(own, count) for own, count in zip(chunks, running, strict=True))
        return duration + (self.experts_ps[sum(tokens)] if self.experts_ps else 0)

    def _local_ps(self, prefills: list[tuple[int, int]], decodes: int) -> int:
        """One rank's part of a step, without the context of its decodes."""
        tokens = decodes * self.tokens_per_decode + sum(chunk for chunk, _ in prefills)
        duration = self.tokens_ps[tokens] + self.sequences_ps[decodes + len(prefills)]
        if decodes:
            duration += self.decode_attention_ps[decodes]
        if prefills:
            duration += self.prefill_launch_ps + sum(self.prefill_ps(chunk, past) for chunk, past in prefills)
        return duration


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
class Pool:
    """``count`` identical clients and the routing among them; no KV moves between their ``groups``."""

    name: str
    hardware: str
    count: int
    routing: RoutingPolicy
    client: LLMClientSpec | SequentialClientSpec
    usd_per_hour: float | None = None  # of one client, all its devices
    groups: int = 1
    routing_stale_ns: int = 0  # the routing sees loads as of the last multiple of this; 0: live
    notes: tuple[str, ...] = ()  # capacity and cost provenance, for the text form


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
    tokens: Ints | None = None  # tokens the op handles, for the stages table (sequential kinds)
    extends: int | None = None  # the op whose prompt this one's begins with, and ``extends_answer`` with its answer
    extends_answer: bool = False
    with_op: int | None = None  # the op whose client it goes to
    kv_from: int | None = None  # the op on another pool that computes the prompt's KV for this one
    kv_bytes: Ints | None = None  # bytes of that KV, per request
    kv_early_bytes: Ints | None = None  # of those, what moves while the prefill runs: all layers but the last


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
    warnings: tuple[str, ...] = ()
    rejected: dict[int, str] = field(default_factory=dict)  # request → why no client can ever serve it
    record_steps: bool = False

    @property
    def answers(self) -> tuple[int, ...]:
        """Indices of the ops that write an answer; the user reads that of the last one a request takes."""
        return tuple(index for index, op in enumerate(self.ops) if op.kind == "generate")

    def __str__(self) -> str:
        from hermes_flow.compiler.text import program_text

        return program_text(self)
