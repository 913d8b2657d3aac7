"""Pools of identical clients, with one specification per kind of client."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import ClassVar, Literal, Protocol

from hermes_flow.program.batching import BatchingPolicy
from hermes_flow.program.evidence import Evidence
from hermes_flow.program.fleet import Fleet
from hermes_flow.program.offload import OffloadSpec
from hermes_flow.program.packing import PackingOrder
from hermes_flow.program.power import BusyPower, StepEnergy
from hermes_flow.program.quick_dataclass import dataclass
from hermes_flow.program.routing import RoutingPolicy
from hermes_flow.program.step_cost import StepCost


class ClientSpec(Protocol):
    """The specification of a client; each kind of pool extends it (see hermes_flow/pools)."""

    @property
    def kind(self) -> str:
        """The name of the kind, which the machine needs to build such clients."""

    @property
    def model(self) -> str | None:
        """The model that it holds."""

    @property
    def devices(self) -> int:
        """The number of accelerators that it uses."""

    @property
    def kv_blocks(self) -> int | None:
        """The number of KV blocks of the client; None if it has none."""


@dataclass(frozen=True, slots=True)
class SGLangSettings:
    """The settings of SGLang's scheduler that vLLM's does not have.

    ``chunked_prefill_size`` None: prompts are not cut. ``longest_prefix``: the waiting requests with the longest
    known prefix come first. ``receive_interval`` is the number of decode steps after which it looks for new requests.
    ``reserved_decode_tokens`` are kept free on a decode client for each request that it has;
    ``side`` says which part of the work a client does where KV moves. With ``seats_of_states`` there are as many
    seats as the memory that is set aside for states has room for. ``room_seed`` draws the rooms of requests, which
    choose the ranks of prompts whose KV leaves. ``key`` is that of the pool, for messages.
    """

    max_prefill_tokens: int
    chunked_prefill_size: int | None
    schedule_conservativeness: float = 1.0
    mixed_chunk: bool = False
    longest_prefix: bool = False
    receive_interval: int = 1
    reserved_decode_tokens: int = 512
    side: Literal["both", "prefill", "decode"] = "both"
    seats_of_states: bool = False
    room_seed: int = 0
    key: str = "cluster.pools.llm"


@dataclass(frozen=True, slots=True)
class TensorRTSettings:
    """The settings of TensorRT-LLM's scheduler that vLLM's does not have.

    ``capacity`` names its policy for memory, ``chunking`` its rule for cutting prompts to ``chunk_unit`` tokens;
    None: prompts are not cut. Prompts wait for at most ``wait_steps`` while a step beside decodes has fewer than
    ``wait_tokens``, and every decision waits for ``wait_ps`` for new requests. With ``balance`` prompts wait until
    every rank has one, as its numbers of steps say: while not all have one, and when all have. ``side`` says which
    part of the work a client does where KV moves. ``key`` is that of the pool, for messages.
    """

    capacity: str
    chunking: str
    chunk_unit: int | None
    wait_steps: int = 0
    wait_tokens: float = 0.0
    wait_ps: int = 0
    balance: tuple[int, int] | None = None
    side: Literal["both", "prefill", "decode"] = "both"
    key: str = "cluster.pools.llm"


@dataclass(frozen=True, slots=True)
class AdapterSpec:
    """The LoRA adapters of an LLM client: places on its GPUs and in its host memory (None: for all), and times.

    ``load_ps`` is the copy from host memory, ``read_ps`` comes before it where an adapter is not there; ``smaller``
    has both of adapters of a lower rank than that of the places, by their number among the requests'. A step takes
    ``tokens_ps`` by its tokens longer where one adapter is in use, and ``each_ps`` more for each further one.
    """

    slots: int
    host_slots: int | None
    load_ps: int
    read_ps: int
    tokens_ps: list[int]
    each_ps: int
    smaller: Mapping[int, tuple[int, int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LLMClientSpec:
    """One LLM client as its scheduler sees it.

    With ``pipeline_ranks`` a micro-batch goes through all of them one after another: ``pipeline_ranks − 1`` that
    take ``upstream`` each and a hop to the next one, and the last, which takes ``cost``. ``speculation`` is the
    expected number of tokens that a decoding sequence gains in a step, as numerator and denominator.

    With ``attention_ranks`` each of them is a scheduler, with ``max_num_seqs`` seats, ``max_num_batched_tokens`` a
    step and its part of ``kv_blocks``; ``rank_routing`` names the rule by which they get their requests.
    """

    kind: ClassVar[str] = "llm"
    model: str
    devices: int
    kv_blocks: int
    block_size: int
    max_num_seqs: int
    max_num_batched_tokens: int
    batching: str  # the name of its policy
    lookahead: int
    cost: StepCost
    policy: BatchingPolicy | None = None  # with its settings; None: that of ``batching``, with its defaults
    packing: PackingOrder | None = None  # None: in order of arrival
    preemption: str = "recompute"
    swap_ps_per_block: int = 0
    sequence_blocks: int = 0  # that every sequence takes besides those of its tokens
    prefix_cache: bool = False
    kv_export_ps: int = 0  # to hand over the KV of a prompt that is computed
    kv_import_ps: int = 0  # to take over the KV of one that another client has computed
    polls_kv: bool = False  # whether KV that has arrived is noticed as a step begins, and reported as it ends
    kv_layers: int = 0  # of a prefill whose KV leaves layer by layer; 0: it leaves when all is computed
    attention_ranks: int = 1
    rank_routing: str = "least_requests"
    pipeline_ranks: int = 1
    upstream: StepCost | None = None  # None where there is one rank
    hop_ps_per_token: float = 0.0
    hop_ps: int = 0
    speculation: tuple[int, int] | None = None
    sglang: SGLangSettings | None = None  # with them, SGLang's scheduler runs the client
    tensorrt_llm: TensorRTSettings | None = None  # with them, TensorRT-LLM's does
    longest_chunk: int = (
        0  # the most tokens of one prompt in a step of chunked batching; 0: no limit of its own
    )
    by_priority: bool = False  # vLLM's scheduler by priority runs the client
    holds_contexts: bool = False  # prompts get their blocks before their contexts are read
    server_seats: int = 0  # that the engine's own server has by default, where they are more; else 0
    adapters: AdapterSpec | None = None  # None: no request is served with an adapter
    offload: OffloadSpec | None = None  # tiers of memory below the prefix cache

    @property
    def reserves_first(self) -> bool:
        """Whether a client that decodes has memory for the KV of a prompt before that is computed (SGLang)."""
        return self.sglang is not None and self.sglang.side == "decode"

    @property
    def seats(self) -> int:
        """The most sequences of the client, on all ranks of data-parallel attention."""
        return self.max_num_seqs * self.attention_ranks


def findable_blocks(client: ClientSpec) -> int | None:
    """Return in how many blocks a client can find KV, on its devices and in its tiers; None if it has none."""
    if isinstance(client, LLMClientSpec) and client.offload is not None:
        return client.kv_blocks + sum(client.offload.blocks_in(tier) for tier in client.offload.tiers)
    return client.kv_blocks


@dataclass(frozen=True, slots=True)
class SequentialClientSpec:
    """One host that serves one task per core."""

    kind: ClassVar[str] = "sequential"
    devices: ClassVar[int] = 0
    model: ClassVar[None] = None
    kv_blocks: ClassVar[None] = None
    cores: int


@dataclass(frozen=True, slots=True)
class BatchedClientSpec:
    """One client that serves up to ``max_batch`` tasks in a pass.

    ``hosts`` is, for each client of the pool, the memory that its passes read, among the program's hosts; empty
    where nobody else reads it. ``devices`` are accelerators, 0 on a CPU host.
    """

    kind: ClassVar[str] = "batched"
    kv_blocks: ClassVar[None] = None
    max_batch: int
    wait_ns: int = 0
    model: str | None = None
    devices: int = 0
    hosts: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Pool:
    """``count`` identical clients and the routing among them; no KV moves between their ``groups``."""

    name: str
    hardware: str | None  # None: not known, and not of the cluster
    count: int
    routing: RoutingPolicy
    client: ClientSpec
    usd_per_hour: float | None = None  # of one client, all its devices
    paid_by_use: bool = False  # a client costs what its record says, in place of a price per hour
    groups: int = 1
    routing_label: str = ""  # the routing policy and its settings, for the text form
    routing_stale_ns: int = 0  # the routing sees loads as of the last multiple of this; 0: live
    notes: tuple[str, ...] = ()  # capacity and cost provenance, for the text form
    beside: int | None = (
        None  # the pool whose clients these stand next to, one by one; its router decides for both
    )
    joins: int | None = (
        None  # the pool whose router serves these clients, too, after its own; ops name that pool
    )
    device: int | None = None  # the pool on whose devices these clients take turns, client by client
    energy: StepEnergy | BusyPower | None = None  # what one client draws; None where that is not known
    fleet: Fleet | None = (
        None  # what changes its clients during the run; ``count`` are then those it has at most
    )
    evidence: Evidence | None = None  # of the step times of an LLM client
