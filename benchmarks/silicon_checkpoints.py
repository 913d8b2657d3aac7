"""The checkpoints that the benchmark runs of benchmarks/silicon.py served, as models of the catalog.

A row names a model and a precision. Where the catalog has the published checkpoint of that precision, with the parts
that it leaves in 16 bits, it is taken as it is. Otherwise the model has weights and activations of that precision.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from benchmarks.silicon_gpus import BLACKWELL


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model of the catalog, and what its precision is in place of that of the entry, as overrides.

    ``on_b200`` are overrides for that GPU and its siblings, whose kernels compute in another precision than others.
    """

    model: str
    precision: tuple[str, ...] = ()
    on_b200: tuple[str, ...] = ()

    def precision_on(self, system: str) -> tuple[str, ...]:
        """Return the overrides that hold on a system."""
        return (*self.precision, *(self.on_b200 if system in BLACKWELL else ()))


def _whole(precision: str) -> tuple[str, ...]:
    return f"weights={precision}", f"activations={precision}"


# DeepSeek-R1 has the shape of DeepSeek-V3, and Kimi K2.5 that of Kimi K2.6 (their config.json). gpt-oss on B200: its
# scripts choose kernels with activations in mxfp8 (VLLM_USE_FLASHINFER_MOE_MXFP4_MXFP8, and TensorRT-LLM's own)
CHECKPOINTS = {
    ("MiniMaxAI/MiniMax-M2.5", "fp4"): Checkpoint("minimax_m2_5_nvfp4"),
    ("MiniMaxAI/MiniMax-M2.5", "fp8"): Checkpoint("minimax_m2_5", _whole("fp8")),
    ("Qwen/Qwen3-235B-A22B-FP8", "fp8"): Checkpoint("qwen3_235b_a22b", (*_whole("fp8"), "fp8_blocks=true")),
    ("Qwen/Qwen3-32B", "bf16"): Checkpoint("qwen3_32b"),
    ("Qwen/Qwen3-32B", "fp8"): Checkpoint("qwen3_32b", _whole("fp8")),
    ("Qwen/Qwen3.5-397B-A17B", "bf16"): Checkpoint("qwen3_5_397b_a17b"),
    ("Qwen/Qwen3.5-397B-A17B", "fp8"): Checkpoint("qwen3_5_397b_a17b", _whole("fp8")),
    ("deepseek-ai/DeepSeek-R1", "fp4"): Checkpoint("deepseek_r1_nvfp4"),
    ("deepseek-ai/DeepSeek-R1", "fp8"): Checkpoint("deepseek_v3", _whole("fp8")),
    ("deepseek-ai/DeepSeek-V3", "fp4"): Checkpoint("deepseek_r1_nvfp4"),
    ("deepseek-ai/DeepSeek-V3", "fp8"): Checkpoint("deepseek_v3", _whole("fp8")),
    ("meta-llama/Llama-3.1-70B", "fp4"): Checkpoint("llama3_70b", _whole("nvfp4")),
    ("meta-llama/Llama-3.1-70B", "fp8"): Checkpoint("llama3_70b", _whole("fp8")),
    ("meta-llama/Llama-3.1-8B-Instruct", "bf16"): Checkpoint("llama3_8b"),
    ("meta-llama/Llama-3.1-8B-Instruct", "fp8"): Checkpoint("llama3_8b", _whole("fp8")),
    ("moonshotai/Kimi-K2.5", "fp4"): Checkpoint("kimi_k2_6_nvfp4"),
    ("moonshotai/Kimi-K2.5", "int4"): Checkpoint("kimi_k2_5"),
    ("nvidia/DeepSeek-R1-NVFP4", "fp4"): Checkpoint("deepseek_r1_nvfp4"),
    ("nvidia/Llama-3.1-8B-Instruct-FP8", "fp8"): Checkpoint("llama3_8b", _whole("fp8")),
    ("openai/gpt-oss-120b", "fp4"): Checkpoint("gpt_oss_120b", on_b200=("activations=fp8",)),
    ("openai/gpt-oss-120b", "fp8"): Checkpoint("gpt_oss_120b"),
    ("zhipuai/GLM-5", "fp8"): Checkpoint("glm_5_fp8"),
}


def checkpoint(row: dict[str, Any]) -> Checkpoint | None:
    """Return the checkpoint of a row; None where its parts are not known."""
    return CHECKPOINTS.get((row["model_path"], row["precision"] or "bf16"))
