"""Engine settings of benchmark runs on GB200 with prefill and decode apart, from the recipes of InferenceMAX's runs.

Recipes: github.com/ishandhanani/srt-slurm, recipes/gb200-fp4, gb200-fp8 (SGLang) and trtllm/gptoss-fp4, and
NVIDIA/srt-slurm, recipes/vllm/kimi-k2.5 and recipes/kimi2.5/trtllm_dynamo/disagg/gb200Nvfp4 (April 2026). Those of
SGLang in December 2025 are not at hand: its own of February 2026 stand in. Seats that TensorRT-LLM's recipes have in
their names (..._batch16_...) are in ``benchmarks.silicon_apart_settings``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

LONG = 8192
_MANY = 30000  # max-running-requests of wide layouts: no limit in effect
# max-total-tokens of clients that prefill without ranks, by whether prompts have 8,192 tokens
MOST_HELD = {False: 8192, True: 32768}
SELDOM = 10  # scheduler-recv-interval of clients that decode without ranks
_LOW_LATENCY_TOKENS = {("fp4", False): 8192, ("fp4", True): 24576, ("fp8", False): 8192, ("fp8", True): 16384}


@dataclass(frozen=True, slots=True)
class Limits:
    """Tokens of a step and seats, both of a rank, and the share of memory in the words of the engine.

    ``held`` is the number of tokens with KV where the recipe limits it, else None. A client that decodes looks for
    requests every ``interval`` steps (scheduler-recv-interval).
    """

    tokens: int
    seats: int
    memory: float
    held: int | None = None
    interval: int = 1


def prefill_limits(row: dict[str, Any], clients: int, ranks: int, devices: int) -> Limits:
    """Return what the recipe tells the clients that prefill, each with so many ranks of attention and devices."""
    long, precision = row["isl"] >= LONG, row["precision"]
    if row["backend"] == "vllm":
        return Limits(16384, 64 if long else 1024, 0.9)
    if row["backend"] == "trtllm":
        if "gpt-oss" in row["model_path"]:
            return Limits(20000, 32, 0.85)
        if "Kimi" in row["model_path"]:
            return Limits(16384, 2 if long else 16, 0.4)
        return Limits(16640, 2, 0.6) if long else Limits(8320, 8, 0.6)
    if ranks == 1 and not (long and clients > 1):
        memory = 0.6 if (precision, long, devices) == ("fp8", True, 8) else 0.95
        return Limits(
            _LOW_LATENCY_TOKENS[precision, long], 32 if memory < 0.95 else 512, memory, MOST_HELD[long]
        )
    if ranks == 1:  # max-total-tokens and chunked-prefill-size of ten clients of four devices
        return Limits(131072, _MANY, 0.95, 131072)
    tokens = 65536 if (precision, long) == ("fp4", False) else 131072  # of all ranks
    memory = 0.75 if precision == "fp8" else (0.95 if long else 0.84)
    return Limits(tokens // ranks, _MANY // ranks, memory)


def decode_limits(row: dict[str, Any], ranks: int, share: int, devices: int) -> Limits:
    """Return what the recipe tells the clients that decode, where ``share`` users come to a rank."""
    long, fp8 = row["isl"] >= LONG, row["precision"] == "fp8"
    if row["backend"] == "vllm":
        return Limits(10240, 256 if ranks > 1 else (16 if long else 1024), 0.9)
    if row["backend"] == "trtllm":
        return Limits(8192, max(1, share), 0.9)
    if ranks == 1:
        wide = fp8 and long and devices == 8  # on four devices the weights leave no room below 0.95
        return Limits(8192, 32 if wide else 512, 0.7 if wide else 0.95, interval=SELDOM)
    return Limits(8192, max(share, _MANY // ranks), (0.75 if long else 0.82) if fp8 else 0.83)
