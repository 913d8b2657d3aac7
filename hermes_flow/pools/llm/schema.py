"""The keys of an LLM pool."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from hermes_flow.config.convert import INTERNAL
from hermes_flow.config.engine import Engine
from hermes_flow.config.schema import Hardware, Model, Speculative


@dataclass(frozen=True, slots=True)
class LLMPool:
    """``count`` identical LLM clients: an engine on ``devices`` devices.

    ``data_parallel`` replicas of the attention layers stand in one client, on tensor_parallel devices each;
    ``expert_parallel`` keeps experts whole, spread over tensor_parallel × data_parallel devices.
    ``from_engine`` names the keys that were null in the configuration: they have the defaults of ``engine``.
    ``prefix_cache`` null is true where the pool's settings allow it and prompts can be found again, else false.
    """

    host: ClassVar[None] = None
    left_open: ClassVar[tuple[str, ...]] = ("model", "hardware", "engine")
    kind: Literal["llm"]
    serves: tuple[str, ...]
    model: Model
    hardware: Hardware
    count: int = 1
    routing: dict[str, Any] | str | None = None
    if_needed: bool = False
    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    data_parallel: int = 1
    expert_parallel: bool = False
    max_num_seqs: int = 256
    max_num_batched_tokens: int = 8192
    block_size: int = 16
    kv_blocks: int | None = None
    memory_utilization: float = 0.9
    batching: dict[str, Any] | str = "chunked"
    lookahead: Literal[0, 1] = 1
    packing: dict[str, Any] | str = "fcfs"
    preemption: Literal["recompute", "swap", "none"] = "recompute"
    prefix_cache: bool | None = None
    speculative: Speculative = field(default_factory=Speculative)
    engine: Engine = field(default_factory=Engine)
    from_engine: tuple[str, ...] = field(default=(), compare=False, metadata=INTERNAL)

    @property
    def devices(self) -> int:
        """Devices of one client."""
        return self.tensor_parallel * self.pipeline_parallel * self.data_parallel

    @property
    def model_name(self) -> str:
        """The model that answers."""
        return self.model.name
