"""The keys of an LLM pool."""

from __future__ import annotations

from dataclasses import field
from typing import Any, ClassVar, Literal

from hermes_flow.config.adapters import Adapters
from hermes_flow.config.convert import INTERNAL
from hermes_flow.config.engine import Engine
from hermes_flow.config.failures import Failures
from hermes_flow.config.quantities import (
    Blocks,
    BlockTokens,
    Count,
    CountOrZero,
    Factor,
    Milliseconds,
    PositiveShare,
    Sequences,
    Share,
    StepTokens,
    StepTokensOrZero,
)
from hermes_flow.config.schema import Hardware, Model, Speculative
from hermes_flow.config.speculative import head_model
from hermes_flow.pools.llm.offload.schema import Offload, ToolGap
from hermes_flow.pools.llm.tensorrt_llm.schema import AttentionDpConfig
from hermes_flow.program.quick_dataclass import dataclass


@dataclass(frozen=True, slots=True)
class LLMPool:
    """``count`` identical LLM clients: an engine on ``devices`` devices.

    ``data_parallel`` replicas of the attention layers stand in one client, on tensor_parallel devices each;
    ``expert_parallel`` keeps experts whole, spread over tensor_parallel × data_parallel devices.
    ``from_engine`` names the keys that were null in the configuration: they have the defaults of ``engine``.
    ``max_prefill_tokens`` to ``mixed_chunk`` are settings of SGLang's scheduler, under its own names:
    ``chunked_prefill_size`` auto is its default for the memory of the hardware, null does not cut prompts.
    ``prefix_cache`` null is true where the pool's settings allow it and prompts can be found again, else false.
    """

    host: ClassVar[None] = None
    left_open: ClassVar[tuple[str, ...]] = ("model", "hardware", "engine")
    kind: Literal["llm"]
    serves: tuple[str, ...]
    """The kinds of stages that the pool serves."""
    model: Model
    """The model that the clients hold; null takes the one chosen for the whole configuration."""
    hardware: Hardware
    """The machine of one client; null takes the hardware chosen for the whole configuration."""
    count: Count = 1
    """The number of identical clients."""
    routing: dict[str, Any] | str | None = None
    """How tasks choose among the clients: the name of a routing policy, or a mapping with its settings. Null is as
    ``cluster.routing``.
    """
    autoscale: dict[str, Any] | str | None = None
    """Starts and stops clients while the system runs: a scaling policy with its settings, and the keys of
    ``autoscale`` below. Null keeps ``count`` clients.
    """
    failures: Failures | None = None
    """Lets clients fail; null for none."""
    site: dict[str, Count] | str | None = None
    """Where the clients stand, with ``cluster.sites``: a site, or the number of clients by site; null: ``count`` at
    every site.
    """
    if_needed: bool = False
    """True leaves the pool out where other pools serve all that it would."""
    tensor_parallel: Count = 1
    """The devices that every matrix is cut over."""
    pipeline_parallel: Count = 1
    """The number of ranks that the layers are cut into."""
    data_parallel: Count = 1
    """The number of replicas of the attention layers in one client. Each of these ranks is a scheduler with its own
    ``max_num_seqs``, ``max_num_batched_tokens`` or ``chunked_prefill_size``, ``kv_blocks`` and queue; all ranks begin
    each step together. SGLang's flags for requests and chunks are those of all ranks, which it divides.
    """
    rank_routing: (
        Literal["least_requests", "round_robin", "shortest_queue", "follow_bootstrap_room"] | None
    ) = None
    """How the front end gives requests to the ranks of ``data_parallel``: to the one with the least 4 × waiting +
    running requests, counted every 100 ms as in vLLM; in turns; or as SGLang's shortest_queue, with which those with
    the fewest requests, counted every 100 ms, get the next ones until all have as many; or as SGLang's
    follow_bootstrap_room, with which the rank of a prompt whose KV another client awaits is drawn at random. Null is
    least_requests with vLLM, and round_robin with SGLang but for such prompts, which follow their rooms; the ranks of
    TensorRT-LLM share one queue, which gives requests to the rank with the fewest prompt tokens.
    """
    expert_parallel: bool = False
    """True keeps experts whole and spreads them over tensor_parallel × data_parallel devices."""
    all2all_backend: Literal["allgather_reducescatter", "alltoall"] | None = None
    """How ranks of ``data_parallel`` exchange tokens with ``expert_parallel``: all devices gather the tokens of all
    ranks and scatter the sums (vLLM's allgather_reducescatter, SGLang's none), or each token goes to the devices of
    its experts (kernels as DeepEP's, or over NVLink as TensorRT-LLM's). Null gathers within a node whose hardware has
    measured times of it (``hardware.efficiency.gather``), and sends otherwise.
    """
    redundant_experts: CountOrZero = 0
    """With ``expert_parallel``, how many copies of much-used experts the devices hold besides all experts, in each
    mixture layer, so that their loads are alike (EPLB). The devices divide experts and copies together.
    """
    max_num_seqs: Sequences = 256
    """The most sequences in one step; null takes the default of the engine."""
    max_num_batched_tokens: StepTokens = 8192
    """The token budget of one step; null takes the default of the engine."""
    block_size: BlockTokens = 16
    """The tokens of one KV block; null takes the default of the engine."""
    kv_blocks: Blocks | None = None
    """The KV blocks of one client, or of each rank of ``data_parallel``; null computes them from the memory."""
    memory_utilization: PositiveShare = 0.9
    """The share of the device memory that the engine takes; null takes the default of the engine."""
    batching: dict[str, Any] | str = "chunked"
    """Which sequences go into the next step: the name of a batching policy, or a mapping with its settings."""
    lookahead: Literal[0, 1] = 1
    """1 plans a step while the one before it runs; 0 plans it when that has ended."""
    packing: dict[str, Any] | str = "fcfs"
    """In which order waiting requests are admitted: the name of a packing order, or a mapping with its settings."""
    scheduling_policy: Literal["fcfs", "priority"] = "fcfs"
    """How vLLM's scheduler treats urgent requests: ``fcfs`` not at all, ``priority`` admits the requests with the
    lowest ``priority`` first, and where blocks run out it preempts the running request with the highest. It is vLLM's
    flag of this name; ``packing`` must be fcfs with it.
    """
    encoder_cache_size: Count | None = None
    """The tokens of images that an engine which encodes them keeps, as in vLLM; null: ``max_num_batched_tokens``."""
    long_prefill_token_threshold: StepTokensOrZero = 0
    """The most tokens of one prompt in a step of vLLM's scheduler with chunked batching; 0 for no such limit."""
    preemption: Literal["recompute", "swap", "none"] = "recompute"
    """What happens to a sequence when blocks run out: its context is computed again, or swapped to the host, or
    nobody is preempted.
    """
    cost: dict[str, Any] | None = None
    """How long its steps take: a cost model with its settings. Null takes the one of the whole configuration."""
    adapters: Adapters | None = None
    """LoRA adapters that requests may ask for; null: none is loaded."""
    prefix_cache: bool | None = None
    """True reuses the KV blocks of prompts that begin alike; null does so where the settings of the pool allow it and
    prompts can be found again.
    """
    retrieved_kv: Literal["at_admission", "held"] = "at_admission"
    """When a prompt whose context is read from a store gets its blocks. ``at_admission``: with its seat; the context
    is read before, at once. ``held``: in its turn in the queue and before the context is read, as with a KV connector
    of vLLM; the blocks of the whole prompt are held while it is read, moved, and waits for a seat.
    """
    offload: Offload | None = None
    """Moves prefix blocks to the memory of the host and to a drive; null for none."""
    tool_gap: ToolGap = field(default_factory=ToolGap)
    """What becomes of the KV of a turn while a tool runs before the next one."""
    max_prefill_tokens: StepTokens | None = None
    """The most prompt tokens in one step of SGLang's scheduler; null takes the default of the engine."""
    chunked_prefill_size: StepTokens | Literal["auto"] | None = "auto"
    """The prompt tokens of one step to which SGLang's scheduler cuts prompts; auto is its default for the memory of
    the hardware, null does not cut prompts.
    """
    schedule_conservativeness: Factor | None = None
    """How much of their limits SGLang expects running requests to write, as a factor; null takes the default of the
    engine. With ``data_parallel`` SGLang takes 0.3 of it, and so does the pool.
    """
    mixed_chunk: bool | None = None
    """True lets SGLang's decodes run along with prompts; null takes the default of the engine."""
    mamba_full_memory_ratio: Factor | None = None
    """How much memory SGLang sets aside for states (Mamba, linear attention), as a factor on that of KV, where
    ``max_num_seqs`` is null; null is SGLang's default of 0.9. With ``max_num_seqs`` each seat has a state.
    """
    num_reserved_decode_tokens: StepTokensOrZero | None = None
    """The tokens that a decode client with SGLang's scheduler keeps free for each of its requests before it takes the
    KV of a further one; null is SGLang's default of 512.
    """
    scheduler_recv_interval: Count | None = None
    """After how many decode steps SGLang's scheduler looks for new requests; it also does so after every step with
    prompts, and at once where nothing runs. Null is SGLang's default of 1.
    """
    capacity_scheduler_policy: Literal["guaranteed_no_evict", "max_utilization", "static_batch"] | None = None
    """Which requests TensorRT-LLM lets have memory: those whose whole answers fit, up to their limits; all that fit
    now, so that the last ones may be paused; or one batch at a time. Null takes the default of the engine.
    """
    context_chunking_policy: Literal["none", "first_come_first_served", "equal_progress"] | None = None
    """How TensorRT-LLM cuts prompts to what is left of a step: not at all, in order, or all by turns. Null takes the
    default of the engine.
    """
    batch_wait_timeout_iters: CountOrZero | None = None
    """For how many steps TensorRT-LLM lets prompts wait beside running answers while the step has fewer than
    ``batch_wait_max_tokens_ratio`` of its tokens. Null is its default of 0.
    """
    batch_wait_max_tokens_ratio: Share | None = None
    """The share of ``max_num_batched_tokens`` at which TensorRT-LLM lets prompts wait no longer, see
    ``batch_wait_timeout_iters``. Null is its default of 0.
    """
    batch_wait_timeout_ms: Milliseconds | None = None
    """How long TensorRT-LLM waits before each of its decisions for new requests, unless ``max_num_seqs`` of them come
    sooner. Null is its default of 0.
    """
    attention_dp_config: AttentionDpConfig = field(default_factory=AttentionDpConfig)
    """How TensorRT-LLM's ranks of ``data_parallel`` wait for each other's prompts."""
    speculative: Speculative = field(default_factory=Speculative)
    """Speculative decoding; it is on where ``draft`` names a model, or ``head`` a kind of head."""
    engine: Engine = field(default_factory=Engine)
    """The serving engine; null takes the one chosen for the whole configuration."""
    from_engine: tuple[str, ...] = field(default=(), compare=False, metadata=INTERNAL)

    @property
    def devices(self) -> int:
        """Devices of one client."""
        return self.tensor_parallel * self.pipeline_parallel * self.data_parallel

    @property
    def drafter(self) -> Model | None:
        """The model or the head that drafts; None without speculation."""
        return self.speculative.draft or head_model(self.speculative, self.model)

    @property
    def model_name(self) -> str:
        """The model that answers."""
        return self.model.name
