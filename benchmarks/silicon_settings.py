"""Engine settings of the benchmark runs of benchmarks/silicon.py: from InferenceMAX's public scripts, or defaults.

Scripts: github.com/SemiAnalysisAI/InferenceX, benchmarks/ (dsr1_*, glm5_*, gptoss_*, kimik2.5_*, minimaxm2.5_*,
qwen3.5_*), and its first releases, as InferenceMAX (70b_*). They changed over time; which release a row was measured
with is not recorded. Rows of MiniMax have the scripts of their day: those of March 2026 (vLLM 0.16 to 0.18) on H200
and B200, and that of April 2026 on B200 (0.19). Scripts of B300 are of mid April 2026, and are those of B200 but for
Qwen3.5 in fp8. Rows of B300 of 3 April are older, and have the scripts of B200 for the same image. The settings of
rows that are not from InferenceMAX are unknown, and the defaults stand in.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

from benchmarks.silicon_gpus import BLACKWELL
from benchmarks.silicon_layouts import INFERENCEMAX
from hermes_flow.config.mixers import StatePrecision
from hermes_flow.config.model import ExpertKernels, RouterPrecision

# How the engines batch: vLLM cuts prompts to its budget of tokens; TensorRT-LLM takes whole prompts beside decodes;
# SGLang prefills first, apart from decodes
BATCHING = {"vllm": "chunked", "trtllm": "mixed", "sglang": "continuous"}
# SGLang 0.5.10 came with transformers 5.3 (0.5.9 with 4.57.1), in which InferenceMAX's client made other texts of its
# random tokens of DeepSeek than the server: a prompt of 7,140 tokens had 35,921 there (InferenceX, pull request 937).
# With DeepSeek's vocabulary and both readings, prompts of 1,024 and of 8,192 tokens are 5.0 times as long on average.
# Its runs of DeepSeek on B200 and B300 were repeated for this reason, from the second day on (pull request 1502)
READ_ANEW = 35921 / 7140
CLIENT_MENDED = "2026-05-18"
# The first day of rows of Kimi K2.5 on B200 whose script has CUDA graphs of 2,048 tokens (InferenceX, pull request
# 1047). That of B300 has none (pull request 1698)
GRAPHS_OF_KIMI = "2026-04-20"
# qwen3.5_fp8_b200.sh keeps states in bf16 since March 2026, and did not at first (InferenceX, pull request 804).
# This is the first day of its later rows. The scripts of H200 and B300 do so from the first
STATES_IN_BF16 = "2026-03-24"
# source: --tokenizer-worker-num 6 in the scripts of Qwen3.5
WORKERS_OF_QWEN = 6
# How many prompts a server tokenizes at once, where it can tokenize several. source: 16 prompts take 31.6 ms
# together and one alone 10.7 ms on the host of eight H100 (vllm-project/vllm, issue 19012), 5.4 times as fast;
# batches of 32 are 4.7 times as fast (pull request 45759). Each prompt has one core of them
TOKENIZED_AT_ONCE = 5


@dataclass(frozen=True, slots=True)
class Settings:
    """What the simulator is told of an engine.

    ``memory`` is the fraction of a device's memory that weights and KV may take, or with ``of_free`` (TensorRT-LLM)
    the fraction of what weights leave that KV may take. ``eager_attention``: CUDA graphs do not hold the attention.
    ``captured``: the tokens of the largest CUDA graph, where a flag says so. ``whole_experts``: the script spreads
    experts whatever the row says. ``router``: the precision of the experts' router, where it is not the model's.
    ``kernels``: those of experts, by VLLM_MXFP4_USE_MARLIN=1 or by TensorRT-LLM's moe_config.backend.
    ``dependent_launches``: kernels of CUDA graphs start before those before them are over (TensorRT-LLM).
    ``sorts``: the sampler can sort the logits, as in vLLM up to 0.15, and reserves memory for it. ``greedy``: no
    request samples. ``random_prompts``: they are entries of the vocabulary and no text. ``read_anew``: the tokens
    that the server makes of a token of the client. ``flashinfer``: products in fp8 are FlashInfer's, not DeepGEMM's.
    ``triton`` and ``cutlass``: experts in fp8 have Triton's or CUTLASS's kernels. ``two_stages``: all-reduces are not
    fused with norms, and SGLang up to 0.5.9 reduces messages of many bytes in two stages. Each user asks
    ``requests_per_user`` times. The server tokenizes ``tokenizers`` prompts at once.
    ``states``: the precision of the delta rule's states, where a flag says so.
    """

    batching: str
    sequences: int
    tokens: int
    kv: str
    memory: float = 0.9
    of_free: bool = False
    eager_attention: bool = False
    captured: int | None = None
    whole_experts: bool = False
    router: RouterPrecision | None = None
    kernels: ExpertKernels = "default"
    dependent_launches: bool = False
    sorts: bool = False
    greedy: bool = False
    random_prompts: bool = False
    read_anew: float = 1.0
    flashinfer: bool = False
    triton: bool = False
    two_stages: bool = False
    cutlass: bool = False
    requests_per_user: int = 10
    tokenizers: int = 1
    states: StatePrecision | None = None


def settings(row: dict[str, Any], users: int) -> Settings:
    """Return the settings of a row's engine under the load of so many users."""
    engine, narrow = row["backend"], row["precision"] in ("fp8", "fp4")
    default = Settings(
        batching=BATCHING[engine],
        sequences=max(512, users),
        tokens=8192,
        kv="fp8" if narrow and engine == "trtllm" else "bf16",
        of_free=engine == "trtllm",
        sorts=engine == "vllm" and _is_before_0_16(row["backend_version"]),
        # source: InferenceMAX's client (bench_serving, backend_request_func.py) asks with a temperature of 0
        greedy=row["silicon_data_source"].startswith(INFERENCEMAX),
        random_prompts=row["silicon_data_source"].startswith(INFERENCEMAX),
        dependent_launches=engine == "trtllm" and _launches_ahead(row["backend_version"]),
        tokenizers=TOKENIZED_AT_ONCE if _tokenizes_at_once(row) else 1,
    )
    if not row["silicon_data_source"].startswith(INFERENCEMAX):
        return default
    return _BY_MODEL[row["model_path"]](row, users, default)


def _launches_ahead(release: str | None) -> bool:
    """Return whether a release of TensorRT-LLM has dependent launches by default, as 1.2 has."""
    return release is not None and release >= "1.2.0rc6"


def _tokenizes_at_once(row: dict[str, Any]) -> bool:
    """Return whether the server of a row tokenizes several prompts at once.

    TensorRT-LLM's does so in threads since 1.2 (openai_server.py, pull request 7515); before, its event loop
    tokenizes each prompt. So does that of SGLang's tokenizer manager (tokenizer_manager.py;
    --enable-dynamic-batch-tokenizer is off by default). vLLM hands up to 32 prompts at once to the tokenizer
    (AsyncMicrobatchTokenizer in async_utils.py), which gives each of them a core. Since 0.16 it asks the
    tokenizer to cut each prompt at the length of its context (renderers/params.py, get_encode_kwargs), and
    prompts with such a limit are tokenized one by one in its only thread. The tokenizer of Kimi is one of Python,
    which takes a list of prompts one by one.
    """
    release = row["backend_version"]
    if row["backend"] == "trtllm":
        return release is not None and release >= "1.2" and release[0].isdigit()
    return row["backend"] == "vllm" and _is_before_0_16(release) and "Kimi" not in row["model_path"]


def _is_before_0_16(release: str | None) -> bool:
    """Return whether a release of vLLM is before 0.16, as those are that are not known: they are of 2025.

    Those before sort logits.
    """
    if release is None:
        return True
    numbers = release.split(".")
    return numbers[0] == "0" and int(numbers[1]) < 16  # nightly builds are of 2026


def _llama(row: dict[str, Any], users: int, default: Settings) -> Settings:
    if row["backend"] == "trtllm":
        return replace(default, tokens=16384 if row["system"] == "b200_sxm" else row["isl"] + row["osl"])
    if row["system"] == "h100_sxm":
        return replace(default, sequences=users)
    return replace(default, kv="fp8", sequences=512 if row["system"] == "b200_sxm" else users)


def _minimax(row: dict[str, Any], users: int, default: Settings) -> Settings:
    if row["system"] == "h100_sxm":
        return replace(default, sequences=256, eager_attention=True)
    default = replace(default, sequences=1024)
    if row["backend_version"].startswith("nightly"):  # the first script of the checkpoint in nvfp4
        return replace(default, sequences=users, kv="fp8")
    if row["backend_version"] < "0.17":  # the first script of H200 (pull request 831) cuts experts
        # FlashInfer's CUTLASS experts came before Triton's on H200 until vllm-project/vllm, pull request 34260
        # (February 2026). Since then Triton's do where experts are cut, and these where they are spread
        return replace(default, memory=0.95, cutlass=True)
    if (
        row["backend_version"] < "0.19"
    ):  # from pull request 869 to 947 the scripts' test was true of every row
        # VLLM_USE_FLASHINFER_MOE_FP8=0 and VLLM_MOE_USE_DEEP_GEMM=0 leave Triton's kernels on B200
        triton = row["system"] in BLACKWELL
        return replace(default, memory=0.95, whole_experts=True, triton=triton)
    # VLLM_FLOAT32_MATMUL_PRECISION=high, as in vllm-project/recipes, pull request 353
    # (pull request 1068); on B300 pull request 1106
    since = "2026-04-21" if row["system"] == "b300_sxm" else "2026-04-22"
    router: RouterPrecision | None = "tf32" if measured(row) >= since else None
    return replace(default, tokens=2 * row["isl"], kv="fp8", captured=2048, router=router)


def has_script_of_b300(row: dict[str, Any]) -> bool:
    """Return whether a row has qwen3.5_fp8_b300.sh, the only script of B300 that is not that of B200."""
    of_qwen = row["model_path"] == "Qwen/Qwen3.5-397B-A17B" and row["precision"] == "fp8"
    return of_qwen and row["system"] == "b300_sxm" and measured(row) > "2026-04-03"


def measured(row: dict[str, Any]) -> str:
    """Return the day of a row's measurement; empty where it is not known."""
    _, _, rest = row["silicon_data_source"].partition("measured=")
    return str(rest[:10])


def has_split_tokens(row: dict[str, Any]) -> bool:
    """Return whether the server of a row read other tokens than the client meant (see ``READ_ANEW``)."""
    if row["backend"] != "sglang" or "DeepSeek" not in row["model_path"]:
        return False
    release = [int(number) for number in re.findall(r"\d+", row["backend_version"] or "")[:3]]
    return release >= [0, 5, 10] and "" < measured(row) < CLIENT_MENDED


def _deepseek(row: dict[str, Any], users: int, default: Settings) -> Settings:
    on_b200, four, fp4 = row["system"] in BLACKWELL, row["tp_size"] == 4, row["precision"] == "fp4"
    if has_split_tokens(row):
        default = replace(default, read_anew=READ_ANEW)
    if row["backend"] == "trtllm":
        free = 0.8 if fp4 or (on_b200 and not four) else 0.75
        # One prompt a step, until pull request 258 (January 2026) asked for more tokens
        tokens = (users + row["isl"] + 127) // 64 * 64
        if _of_2026(row):
            tokens = max(8192, tokens)
        captured = tokens if _captures_prompts(row, users) else None
        return replace(
            default, tokens=tokens, memory=free, captured=captured, kernels=_deepseek_kernels(row, users)
        )
    if fp4:
        return replace(default, sequences=256, tokens=16384, kv="fp8", memory=0.85)
    if not on_b200:
        sequences = 512 if (row["isl"], row["osl"]) == (1024, 1024) else 256
        return replace(default, sequences=sequences, tokens=32768, memory=0.82)
    # dsr1_fp8_b200.sh: SGLANG_ENABLE_JIT_DEEPGEMM=false and SGLANG_ENABLE_FLASHINFER_GEMM=true
    default = replace(default, kv="fp8", flashinfer=True)
    if four:
        return replace(default, sequences=32, memory=0.95)
    return replace(default, sequences=128, tokens=32768, memory=0.82)


def _of_2026(row: dict[str, Any]) -> bool:
    """Return whether a run of TensorRT-LLM has the scripts of 2026, with release 1.2 on B200 in place of 1.1."""
    return measured(row) >= "2026-01-10"


def _deepseek_kernels(row: dict[str, Any], users: int) -> ExpertKernels:
    """Return the kernels of experts by dsr1_fp8_b200_trt.sh, dsr1_fp4_b200_trt.sh and those before (..._slurm.sh).

    dsr1_fp8_h200_trt.sh asks for CUTLASS's, which are the default there.
    """
    if row["system"] not in BLACKWELL:
        return "default"
    lengths = row["isl"], row["osl"]
    if row["precision"] == "fp8":
        many = lengths == (1024, 8192) and users >= 256
        return "deepgemm" if many or not _of_2026(row) else "default"
    if lengths == (8192, 1024):
        many = users > 32 if _of_2026(row) else users >= 64
    else:
        many = users >= 256 and _of_2026(row)
    return "cutlass" if many else "default"


def _captures_prompts(row: dict[str, Any], users: int) -> bool:
    """Return whether dsr1_fp8_b200_trt.sh captures steps with prompts, too (piecewise CUDA graphs)."""
    if row["system"] != "b200_sxm" or row["precision"] != "fp8" or not _of_2026(row):
        return False
    least = {(1024, 1024): 64, (1024, 8192): 128, (8192, 1024): 64}[row["isl"], row["osl"]]
    return users >= least and (row["isl"] == 8192 or users < 256)


def _gpt_oss(row: dict[str, Any], users: int, default: Settings) -> Settings:
    on_b200 = row["system"] in BLACKWELL
    kv, sequences = ("fp8", 512) if on_b200 else ("bf16", users)
    if row["backend"] == "trtllm":
        # TRTLLM_ENABLE_PDL=1 (gptoss_fp4_b200_trt.sh, gptoss_fp4_h200_trt.sh)
        default = replace(default, dependent_launches=True)
        return replace(default, sequences=sequences, tokens=20000, kv=kv, memory=0.85)
    kernels: ExpertKernels = "default" if on_b200 else "marlin"
    return replace(default, sequences=sequences, kv=kv, captured=2048, kernels=kernels)


def _kimi(row: dict[str, Any], users: int, default: Settings) -> Settings:
    if row["precision"] == "fp4":
        told = replace(default, sequences=users, kv="fp8")  # the checkpoint asks for it
        if row["system"] == "b200_sxm" and measured(row) >= GRAPHS_OF_KIMI:
            return replace(told, tokens=2 * row["isl"], captured=2048)
        return told
    return replace(default, sequences=users, memory=0.95)


def _glm(row: dict[str, Any], users: int, default: Settings) -> Settings:
    if row["system"] in BLACKWELL:
        return replace(default, sequences=users, tokens=32768, kv="fp8", memory=0.85)
    return replace(default, memory=0.85, requests_per_user=5)


def _reduces_apart(release: str) -> bool:
    """Return whether a release of SGLang reduces apart from the norms of Qwen3.5, whatever its flags say.

    Fused all-reduces have come to its norms with pull request 19889 of March 2026, after 0.5.9. Builds without a
    number are of February.
    """
    found = re.match(r"0\.5\.(\d+)", release)
    return found is None or int(found[1]) < 10


def _keeps_states_in_bf16(row: dict[str, Any]) -> bool:
    """Return whether a script has ``--mamba-ssm-dtype bfloat16``, as those in fp8 (InferenceX, pull request 855)."""
    if row["precision"] != "fp8":
        return False
    return row["system"] != "b200_sxm" or measured(row) >= STATES_IN_BF16


def _qwen(row: dict[str, Any], users: int, default: Settings) -> Settings:
    default = replace(
        default,
        two_stages=_reduces_apart(row["backend_version"]),
        tokenizers=WORKERS_OF_QWEN,
        states="bf16" if _keeps_states_in_bf16(row) else None,
    )
    if row["system"] == "h200_sxm":
        return replace(default, sequences=128, tokens=16384, kv="fp8", memory=0.8)
    if has_script_of_b300(row):
        return replace(default, sequences=users, tokens=16384, kv="fp8", memory=0.8)
    default = replace(default, sequences=128, tokens=32768, memory=0.82)
    if row["precision"] == "bf16":
        return replace(default, kv="bf16")
    # qwen3.5_fp8_b200.sh: SGL_ENABLE_JIT_DEEPGEMM=false and SGLANG_ENABLE_FLASHINFER_GEMM=true, from the first script
    # (InferenceX, pull request 804) until pull request 1027 (end of April 2026)
    return replace(default, kv="fp8", flashinfer=True)


_BY_MODEL = {
    "MiniMaxAI/MiniMax-M2.5": _minimax,
    "Qwen/Qwen3.5-397B-A17B": _qwen,
    "deepseek-ai/DeepSeek-R1": _deepseek,
    "deepseek-ai/DeepSeek-V3": _deepseek,
    "meta-llama/Llama-3.1-70B": _llama,
    "moonshotai/Kimi-K2.5": _kimi,
    "openai/gpt-oss-120b": _gpt_oss,
    "zhipuai/GLM-5": _glm,
}
