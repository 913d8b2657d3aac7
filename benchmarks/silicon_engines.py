"""The schedulers of SGLang and TensorRT-LLM in the benchmark runs, with the waits that InferenceMAX's scripts set."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache
from typing import Any

import hermes_flow as hf
from benchmarks.silicon_gpus import BLACKWELL, constants_of
from benchmarks.silicon_layouts import INFERENCEMAX, layout
from benchmarks.silicon_settings import Settings, has_script_of_b300
from hermes_flow.config.hardware_measurements import EngineKernels, GemmFit
from hermes_flow.config.mixer_shape import state_layers
from hermes_flow.config.schema import Hardware, SmallKernels, TwoStageFit
from hermes_flow.pools.llm.schema import LLMPool
from hermes_flow.pools.llm.tensorrt_llm.schema import AttentionDpConfig

_ENGINES = {"sglang": "sglang", "trtllm": "tensorrt_llm"}
_OF_THE_ENGINE = (
    "batching",
    "block_size",
    "lookahead",
    "max_num_batched_tokens",
    "max_prefill_tokens",
    "mixed_chunk",
    "preemption",
    "schedule_conservativeness",
    "capacity_scheduler_policy",
    "context_chunking_policy",
)
# source: SGLang 0.5, server arguments: what trtllm_mla and trtllm_mha (attention) ask for
_PAGE_ON_BLACKWELL = 64
# What FlashInfer's products in fp8 with scales of blocks (TensorRT-LLM's kernels) reach of B200's peak and bandwidth.
# source: least mean relative error against 17 products of 8 to 4,096 rows with matrices of 576 × 7,168 and
# 24,576 × 7,168 on GB200 (sgl-project/sglang, pull request 13528), 8.5 % off. They reach 446 TFLOPS, where DeepGEMM's
# have 2,770 in the same benchmark
_FLASHINFER_FP8 = {"compute": 0.098, "memory": 0.7}
# Experts in fp8 with scales of blocks by Triton's kernels on B200. source: least mean error of logarithms against
# AIConfigurator's table of vLLM 0.19 (Apache-2.0) on up to 8 devices that cut experts, 12 % off on average.
# Where 2 and 4 devices hold experts whole, prompts are 10 and 16 % off
_TRITON_FP8 = GemmFit(
    compute=0.145, memory=0.92, launch_us=17.0, quantize=0.129, tile_rows=65.0, cast_elsewhere=1.0
)
# Experts in fp8 with scales of blocks by CUTLASS's kernels on H200, where devices cut experts. source: least mean
# error of logarithms against AIConfigurator's table of TensorRT-LLM 1.3 (Apache-2.0), from which FlashInfer has these
# kernels, with balanced tokens on 2 to 8 devices, 11.7 % off on average. Where devices hold experts whole, the tables
# of vLLM and TensorRT-LLM are alike, and the fit of the hardware holds
_CUTLASS_FP8 = GemmFit(compute=0.762, memory=0.936, launch_us=38.5, quantize=0.069)

# All-reduces of SGLang up to 0.5.9 that are not fused with the norm after them. Eight devices reduce messages in two
# stages from 256 KiB on, and four from 512 KiB. source: AIConfigurator's table of SGLang 0.5.9 (Apache-2.0,
# custom_allreduce in CUDA graphs), by hand: 1 to 5 % off on B200 and 3 to 12 % on H200, up to 8 MiB. The table of
# 0.5.14 has no such step
_TWO_STAGES = {
    "b200_sxm": {
        4: TwoStageFit(from_kb=512, least_us=18.2, alpha_us=12.1, fraction=0.22),
        8: TwoStageFit(from_kb=256, least_us=26.0, alpha_us=12.6, fraction=0.24),
    },
    "h200_sxm": {8: TwoStageFit(from_kb=256, least_us=14.5, alpha_us=6.5, fraction=0.6)},
}


def with_scheduler(pool: LLMPool, row: dict[str, Any], told: Settings, users: int) -> LLMPool:
    """Return the pool with the scheduler of the row's engine, where that is not vLLM's.

    Its overheads are those of the engine, too. A model with states (linear attention) keeps a batching policy on
    TensorRT-LLM, whose scheduler is not modelled with it.
    """
    name = _ENGINES.get(row["backend"])
    if name is None:
        return pool
    own = _defaults(name, row["system"])
    engine = own.hardware.engine
    if name == "sglang" and engine is not None:
        engine = replace(engine, small_kernels=_of_release(engine.small_kernels, row["backend_version"]))
    pool = replace(pool, hardware=replace(pool.hardware, engine=engine))
    if state_layers(pool.model) and name != "sglang":
        return pool
    pool = replace(
        pool,
        engine=own.engine,
        prefix_cache=False,
        from_engine=tuple(key for key in pool.from_engine if key != "max_num_seqs"),  # the scripts give it
        **{key: getattr(own, key) for key in _OF_THE_ENGINE},
        **(waits(row, users) if row["silicon_data_source"].startswith(INFERENCEMAX) else {}),
    )
    if name == "tensorrt_llm":
        return replace(pool, max_num_batched_tokens=told.tokens)
    pages = {"block_size": _PAGE_ON_BLACKWELL} if row["system"] in BLACKWELL else {}
    return replace(pool, max_prefill_tokens=told.tokens, chunked_prefill_size=told.tokens, **pages)


def with_flashinfer(hardware: Hardware) -> Hardware:
    """Return the hardware with FlashInfer's products in fp8; their launches and casts are those of other kernels."""
    engine, measured = hardware.engine, hardware.efficiency
    assert engine is not None
    assert measured is not None
    kernels = engine.kernels or EngineKernels(source="sgl-project/sglang, pull request 13528")
    products = {**kernels.gemm, "fp8": replace(measured.gemm["fp8"], **_FLASHINFER_FP8)}
    return replace(hardware, engine=replace(engine, kernels=replace(kernels, gemm=products)))


def with_two_stages(hardware: Hardware) -> Hardware:
    """Return the hardware with SGLang's all-reduces of releases up to 0.5.9, where they are not fused with norms."""
    engine, measured = hardware.engine, hardware.efficiency
    assert engine is not None
    assert measured is not None
    kernels = engine.kernels or EngineKernels(source="AIConfigurator's tables of SGLang 0.5.9")
    reduces = {**measured.all_reduce, **kernels.all_reduce}
    staged = {
        devices: replace(reduces[devices], two_stage=fit)
        for devices, fit in _TWO_STAGES[constants_of(hardware.name)].items()
    }
    kernels = replace(kernels, all_reduce={**kernels.all_reduce, **staged})
    return replace(hardware, engine=replace(engine, kernels=kernels))


def with_triton(hardware: Hardware) -> Hardware:
    """Return B200 with Triton's kernels for experts in fp8."""
    return _with_experts(hardware, _TRITON_FP8)


def with_cutlass(hardware: Hardware) -> Hardware:
    """Return H200 with CUTLASS's kernels for experts in fp8 that devices cut."""
    return _with_experts(hardware, _CUTLASS_FP8)


def _with_experts(hardware: Hardware, fp8: GemmFit) -> Hardware:
    engine = hardware.engine
    assert engine is not None
    return replace(hardware, engine=replace(engine, experts={**(engine.experts or {}), "fp8": fp8}))


def waits(row: dict[str, Any], users: int) -> dict[str, Any]:
    """Return the keys that let requests of a row wait, by the script of its model, engine and GPU.

    TensorRT-LLM: 70b_fp8_h200_trt_slurm.sh and 70b_fp8_b200_trt_slurm.sh for prompts and answers of 1,024 tokens
    below TP8, and dsr1_fp8_b200_trt.sh for 64 to 255 users since release 1.2.0rc6. SGLang: dsr1_fp8_b200.sh,
    dsr1_fp4_b200.sh, qwen3.5_bf16_b200.sh and qwen3.5_fp8_b200.sh, and those of B300, which differ in
    qwen3.5_fp8_b300.sh alone.
    Ranks of attention: dsr1_fp8_b200_trt.sh, dsr1_fp8_h200_trt.sh, dsr1_fp4_b200_trt.sh and gptoss_fp4_b200_trt.sh.
    """
    chat, model, fp8 = (row["isl"], row["osl"]) == (1024, 1024), row["model_path"], row["precision"] == "fp8"
    on_b200, of_deepseek = row["system"] in BLACKWELL, "DeepSeek" in model
    if row["backend"] == "sglang":
        if not on_b200 or "GLM" in model:
            return {}
        few = users < 16 or (of_deepseek and fp8 and row["tp_size"] == 4) or has_script_of_b300(row)
        return {"scheduler_recv_interval": 10 if few else 30}
    if chat and model == "meta-llama/Llama-3.1-70B" and row["tp_size"] < 8:
        return {"batch_wait_timeout_iters": 20, "batch_wait_max_tokens_ratio": 0.9}
    if layout(row).data > 1:
        if of_deepseek:
            return {"attention_dp_config": AttentionDpConfig(True, timeout_iters=60, batching_wait_iters=0)}
        return {"attention_dp_config": AttentionDpConfig(True)} if on_b200 else {}
    recent = str(row["backend_version"]).startswith("1.2.0rc6")
    if of_deepseek and on_b200 and fp8 and chat and recent and 64 <= users < 256:
        return {"batch_wait_timeout_iters": 40, "batch_wait_max_tokens_ratio": 0.8}
    return {}


def _of_release(kernels: SmallKernels | None, release: str | None) -> SmallKernels | None:
    """Return the small kernels of a release of SGLang; builds without a number are of February 2026 and before.

    Gates of attention: pull request 28320 of June 2026 has two kernels in place of six (qwen3_5.py), and 0.5.10 is of
    April. Gated delta nets: pull request 21019 of 23 March 2026 has two products in place of four; 0.5.10 has it.
    """
    found = re.match(r"0\.5\.(\d+)", release or "")
    number = 0 if found is None else int(found[1])
    if kernels is None or number > 10:
        return kernels
    return replace(kernels, output_gate=4, delta_rule=kernels.delta_rule if number == 10 else 2)


@cache
def _defaults(engine: str, hardware: str) -> LLMPool:
    pool = hf.compose([f"engine={engine}", f"hardware={hardware}", "pipeline=llm"]).cluster.pools["llm"]
    assert isinstance(pool, LLMPool)
    return pool
