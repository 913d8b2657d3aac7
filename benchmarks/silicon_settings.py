"""Engine settings of the benchmark runs of benchmarks/silicon.py: from InferenceMAX's public scripts, or defaults.

Scripts: github.com/SemiAnalysisAI/InferenceX, benchmarks/ (dsr1_*, minimaxm2.5_*), and its first releases, as
InferenceMAX (70b_*). They changed over time; which release a row was measured with is not recorded. The settings of
rows that are not InferenceMAX's are unknown, and the engines' defaults stand in.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

# How the engines batch: vLLM cuts prompts to its budget of tokens; TensorRT-LLM takes whole prompts beside decodes;
# SGLang prefills first, apart from decodes
BATCHING = {"vllm": "chunked", "trtllm": "mixed", "sglang": "continuous"}
INFERENCEMAX = ("source_file=2026-", "db-dump/")  # how the sources of its rows begin


@dataclass(frozen=True, slots=True)
class Settings:
    """What the simulator is told of an engine.

    ``memory`` is the fraction of a device's memory that weights and KV may take, or with ``of_free`` (TensorRT-LLM)
    the fraction of what weights leave that KV may take. ``eager_attention``: CUDA graphs do not hold the attention.
    ``sorts``: the sampler sorts the logits, as in vLLM up to 0.15.
    """

    batching: str
    sequences: int
    tokens: int
    kv: str
    memory: float = 0.9
    of_free: bool = False
    eager_attention: bool = False
    sorts: bool = False


def settings(row: dict[str, Any], users: int) -> Settings:
    """Return the settings of a row's engine under the load of so many users."""
    engine, narrow = row["backend"], row["precision"] == "fp8"
    default = Settings(
        batching=BATCHING[engine],
        sequences=max(512, users),
        tokens=8192,
        kv="fp8" if narrow and engine == "trtllm" else "bf16",
        of_free=engine == "trtllm",
        sorts=engine == "vllm",
    )
    if not row["silicon_data_source"].startswith(INFERENCEMAX):
        return default
    by_model = {"meta-llama/Llama-3.1-70B": _llama, "MiniMaxAI/MiniMax-M2.5": _minimax}
    return by_model.get(row["model_path"], _deepseek)(row, users, default)


def _llama(row: dict[str, Any], users: int, default: Settings) -> Settings:
    if row["backend"] == "trtllm":
        return replace(default, tokens=16384)
    if row["system"] == "h100_sxm":
        return replace(default, sequences=users)
    return replace(default, kv="fp8", sequences=512 if row["system"] == "b200_sxm" else users)


def _minimax(row: dict[str, Any], users: int, default: Settings) -> Settings:
    if row["system"] == "h100_sxm":
        return replace(default, sequences=256, eager_attention=True)
    if row["system"] == "h200_sxm":
        tokens = 16384 if users <= 32 else 32768
        return replace(default, tokens=tokens, kv="fp8", memory=0.95, eager_attention=True)
    return replace(default, sequences=1024, memory=0.95)


def _deepseek(row: dict[str, Any], users: int, default: Settings) -> Settings:
    on_b200, four = row["system"] == "b200_sxm", row["tp_size"] == 4
    if row["backend"] == "trtllm":
        free = 0.75 if four or not on_b200 else 0.8
        return replace(default, tokens=max(8192, row["isl"] + users), memory=free)
    if not on_b200:
        sequences = 512 if (row["isl"], row["osl"]) == (1024, 1024) else 256
        return replace(default, sequences=sequences, tokens=32768, memory=0.82)
    if four:
        return replace(default, sequences=32, kv="fp8", memory=0.95)
    return replace(default, sequences=128, tokens=32768, kv="fp8", memory=0.82)
