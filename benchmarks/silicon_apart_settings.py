"""Engine settings of benchmark runs with prefill and decode apart, from the recipes that InferenceMAX's runs name.

Recipes: github.com/ishandhanani/srt-slurm (later NVIDIA/srt-slurm), recipes/trtllm/{b200-fp8,h200,h100-fp8} and
recipes/{b200-fp4,b200-fp8,h200}, each of which states what follows for both sides. Not every recipe is at hand. One
of the same engine, GPU and lengths stands in, and for B300 that of B200 (GB200 and GB300 have their own:
``benchmarks.silicon_apart_gb200``, ``benchmarks.silicon_apart_gb300``). All of them use srt-slurm's sa-bench: ten
requests for each user, all users at once, prompts and answers of 80 to 100 % of the stated length.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from benchmarks import silicon_apart_gb200, silicon_apart_gb300
from benchmarks.silicon_apart_layouts import Side, day

LONG = 8192
# What vLLM's clients do where prefill and decode are apart: its proxies hand on what the decode client writes, and
# its connectors look once a step whether KV has arrived (docs/strategies.md)
VLLM_PAIR = ("cluster.first_token=decode", "cluster.kv_notice=each_step")
# Seats of a rank that decodes with TensorRT-LLM, by GPU, precision, prompt and answer: {users: seats}. The names of
# the recipes have them (..._batch16_...), and the recipes at hand as max_batch_size. Where users outnumber them,
# requests wait
_SEATS = {
    ("b200_sxm", "fp4", 1024, 1024): {6: 1, 10: 32, 15: 32, 25: 32, 45: 32, 90: 32, 180: 32, 450: 64},
    # Those of 10 to 100 users on five clients say 8, but of 100 users more than 70 decode at a time, by their times
    ("b200_sxm", "fp4", 8192, 1024): {6: 1, 370: 64},
    ("b200_sxm", "fp8", 1024, 1024): {4: 1, 128: 48, 1920: 48},
    ("b200_sxm", "fp8", 8192, 1024): {1: 1, 32: 32, 96: 16, 256: 32, 640: 80},  # 128: all users have one
    ("b300_sxm", "fp4", 1024, 1024): {
        6: 1,
        5: 4,
        10: 4,
        15: 4,
        25: 4,
        60: 64,
        110: 64,
        195: 64,
        395: 64,
        1176: 64,
    },
    ("b300_sxm", "fp4", 8192, 1024): {4: 1, 12: 2, 63: 16, 105: 32, 589: 32, 1093: 128, 2048: 256},
    ("gb200", "fp4", 1024, 1024): {5: 1, 12: 32, 24: 32, 48: 32, 96: 32, 192: 32, 666: 16},
    ("gb200", "fp4", 1024, 8192): {5: 1, 7: 1, 60: 4, 135: 8, 563: 16, 2048: 64},
    ("gb200", "fp4", 8192, 1024): {5: 1, 12: 16, 44: 16, 76: 16, 333: 8, 1229: 32},
    ("gb200", "fp8", 1024, 1024): {3: 1, 27: 8, 256: 8, 1127: 32},
    ("gb200", "fp8", 1024, 8192): {4: 1, 36: 8, 564: 16, 2048: 64},
    ("gb200", "fp8", 8192, 1024): {6: 1, 18: 4, 63: 16, 333: 8, 615: 32, 666: 16, 1229: 64},
    ("gb300", "fp4", 1024, 1024): {5: 1, 12: 32, 48: 32, 96: 32, 192: 32},
    ("gb300", "fp4", 1024, 8192): {7: 1, 60: 4, 245: 32, 1024: 32, 4096: 128},
    ("gb300", "fp4", 8192, 1024): {5: 4, 12: 2, 15: 4, 30: 4, 72: 16, 666: 16, 1229: 64},
    ("gb300", "fp8", 1024, 1024): {4: 1, 24: 4, 84: 16, 1229: 32},
    ("gb300", "fp8", 1024, 8192): {4: 1, 36: 8, 282: 8, 1024: 32, 4096: 128},
    ("gb300", "fp8", 8192, 1024): {4: 1, 24: 4, 36: 8, 512: 16, 666: 32, 1229: 64},
    ("h100_sxm", "fp8", 1024, 1024): {6: 1, 9: 2, 30: 8, 60: 16},
    ("h100_sxm", "fp8", 8192, 1024): {6: 1, 9: 2, 30: 8, 154: 64, 308: 16},
}
# Those with Kimi on GB200 (NVIDIA/srt-slurm, recipes/kimi2.5/trtllm_dynamo/disagg/gb200Nvfp4, STP, those for all
# numbers of users): {(prompt, clients that decode, devices of one): seats}
_SEATS_OF_KIMI = {(1024, 4, 8): 128, (1024, 5, 4): 8, (8192, 4, 4): 32, (8192, 4, 8): 1, (8192, 5, 4): 16}


@dataclass(frozen=True, slots=True)
class SideSettings:
    """What one side is told: tokens of a step and seats of a rank, and the share of memory in the engine's words.

    ``lookahead`` is 1 where the next step is prepared meanwhile, and ``flashinfer`` says that products in fp8 are
    FlashInfer's in place of DeepGEMM's. ``held`` is the most tokens with KV where the recipe says it
    (max-total-tokens), else None: as many as there is memory for. A client that decodes looks for requests every
    ``interval`` steps (scheduler-recv-interval).
    """

    tokens: int
    seats: int
    memory: float
    lookahead: int = 1
    flashinfer: bool = False
    held: int | None = None
    interval: int = 1


_RACKS = {"gb200": silicon_apart_gb200, "gb300": silicon_apart_gb300}


def prefill_settings(row: dict[str, Any], side: Side) -> SideSettings:
    """Return what the recipe tells the clients that prefill."""
    long = row["isl"] >= LONG
    if row["system"] in _RACKS:
        told = _RACKS[row["system"]].prefill_limits(row, side.clients, side.ranks, side.devices)
        trt = row["backend"] == "trtllm"
        return SideSettings(
            told.tokens,
            told.seats,
            told.memory,
            lookahead=int(not trt),
            flashinfer=_flashinfer(row, side),
            held=told.held,
        )
    if row["backend"] == "sglang":
        if row["system"] == "h200_sxm":
            return SideSettings(32768, 16, 0.82)
        if (
            side.ranks == 8 and long and row["precision"] == "fp8"
        ):  # chunked-prefill-size and max-running-requests are of all ranks
            if _is_later(row):
                return SideSettings(8192, 4, 0.55)
            return SideSettings(16384, 2, 0.6, flashinfer=_flashinfer(row, side))
        return SideSettings(32768 // side.ranks, 512 // side.ranks, 0.85, flashinfer=_flashinfer(row, side))
    if row["backend"] == "vllm":
        return SideSettings(8192, 256, 0.9)
    if row["system"] == "h200_sxm" and long:
        return SideSettings(16640, 2, 0.85, 0)
    if (row["system"], row["precision"]) == ("b200_sxm", "fp8"):
        return SideSettings(8320, 1, 0.2, 0) if long else SideSettings(16384, 16, 0.4, 0)
    # disable_overlap_scheduler: true; max_batch_size 1 with prompts of 8,192 tokens, else 8
    return SideSettings(8320, 1 if long else 8, 0.6, 0)


def decode_settings(row: dict[str, Any], side: Side, users: int) -> SideSettings:
    """Return what the recipe tells the clients that decode; a seat for each user where none is known."""
    share = -(-users // (side.clients * side.ranks))
    if row["system"] in _RACKS:
        told = _RACKS[row["system"]].decode_limits(row, side.ranks, share, side.devices)
        seats = told.seats
        if row["backend"] == "trtllm" and "DeepSeek" in row["model_path"]:
            seats = _named(row).get(users, seats)
        if row["backend"] == "trtllm" and "Kimi" in row["model_path"]:
            seats = _SEATS_OF_KIMI.get((row["isl"], side.clients, side.devices), seats)
        return SideSettings(
            told.tokens, seats, told.memory, flashinfer=_flashinfer(row, side), interval=told.interval
        )
    if row["backend"] == "sglang":
        if row["system"] == "h200_sxm":
            return SideSettings(8192, max(share, 128 // side.ranks), 0.82)
        memory = 0.85
        if side.ranks == 8 and row["isl"] >= LONG and row["precision"] == "fp8":
            memory = 0.75 if _is_later(row) else 0.6
        seats = max(share, (1024 if side.ranks > 1 else 512) // side.ranks)
        return SideSettings(8192, seats, memory, flashinfer=_flashinfer(row, side))
    if row["backend"] == "vllm":
        return SideSettings(8192, max(256, share), 0.9)
    return SideSettings(
        8192,
        _named(row).get(users, max(256 if row["system"] == "h200_sxm" else 1, share)),
        0.8 if row["system"] == "b200_sxm" else 0.85,
    )


def _flashinfer(row: dict[str, Any], side: Side) -> bool:
    """Return whether products in fp8 on this side of SGLang are FlashInfer's.

    Its recipes on B200 until February 2026 say SGLANG_ENABLE_JIT_DEEPGEMM=false, with which SGLang's own choice on
    Blackwell is FlashInfer's (fp8_utils.py, _dispatch_auto_backend). Those on GB200 and GB300 ask for it by name
    (fp8-gemm-backend) where attention is cut over the devices; those with ranks keep DeepGEMM's.
    """
    if (row["backend"], row["precision"]) != ("sglang", "fp8"):
        return False
    return not _is_later(row) if row["system"] == "b200_sxm" else row["system"] in _RACKS and side.ranks == 1


def _named(row: dict[str, Any]) -> dict[int, int]:
    """Return the seats by number of users that the names of the row's recipes have."""
    return _SEATS.get((row["system"], row["precision"], row["isl"], row["osl"]), {})


def _is_later(row: dict[str, Any]) -> bool:
    """Return whether a row of SGLang is of March 2026, when the recipe of ranks on B200 had changed."""
    return day(row) >= "2026-03"
