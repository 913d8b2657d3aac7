"""How prefill and decode clients of a benchmark run lie on their devices, by its row or InferenceMAX's configuration.

Rows of the latest file state clients, ranks and experts of both sides. Rows of the two files before it have neither
the number of clients nor what is cut and what is copied. InferenceMAX's configuration of the day has both, for every
number of users (github.com/SemiAnalysisAI/InferenceX, .github/configs/nvidia-master.yaml, commits 48f302c and
0004cf5, and the recipes of srt-slurm that it names). Such a row is taken where one configuration without drafting has
its engine, GPU, precision, lengths and users. Where one that drafts has them too, the day must have two times per
token, and the longer one is that without drafting (1.27 to 2 times as long). Rows of TensorRT-LLM on GB200 and B300
state the devices of a client that decodes, which tell configurations of the same users apart. Where several remain,
the row is not taken. Rows of Kimi K2.5 with vLLM on GB200 state ranks of attention as devices that it is cut over:
their recipes (NVIDIA/srt-slurm, recipes/vllm/kimi-k2.5) prefill with four ranks, and decode with 16 where as many
devices do. Rows of SGLang on GB200 of December 2025 state ranks for clients of four devices that cut their experts.
The recipes of these clients (srt-slurm, recipes/gb200-fp4 and gb200-fp8) cut the attention (enable-dp-attention:
false) and have a scheduler-recv-interval, with which SGLang of that day ended where there were ranks
(scheduler_recv_skipper.py). Rows of February 2026 with the same clients state no ranks.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from benchmarks.silicon_layouts import users


@dataclass(frozen=True, slots=True)
class Side:
    """The number of clients, devices that attention is cut over, ranks of it, and whether experts are spread."""

    clients: int
    tensor: int
    ranks: int
    spread: bool

    @property
    def devices(self) -> int:
        """Devices of one client."""
        return self.tensor * self.ranks


@dataclass(frozen=True, slots=True)
class Apart:
    """The layout of a run with prefill and decode apart."""

    prefill: Side
    decode: Side


def _tensor(clients: int, devices: int, spread: bool = True) -> Side:
    return Side(clients, devices, 1, spread)


def _ranks(clients: int, devices: int) -> Side:
    return Side(clients, 1, devices, True)


_SGLANG, _TRT = ("sglang", "b200_sxm"), ("trtllm", "b200_sxm")
_H200, _H100 = ("trtllm", "h200_sxm"), ("trtllm", "h100_sxm")
_GB300, _GB200, _B300 = ("trtllm", "gb300"), ("trtllm", "gb200"), ("trtllm", "b300_sxm")
_SGLANG_GB200 = ("sglang", "gb200")
_CHAT, _LONG, _THOUGHT = (1024, 1024), (8192, 1024), (1024, 8192)
# (engine, GPU), precision, (prompt, answer), users without drafting, users that are also drafted for, layout
_PUBLISHED = (
    (_SGLANG, "fp8", _CHAT, (256,), (16, 32, 64, 128), Apart(_tensor(1, 8), _tensor(3, 8))),
    (_SGLANG, "fp4", _CHAT, (), (16, 128), Apart(_ranks(1, 4), _tensor(5, 8))),
    (_SGLANG, "fp4", _CHAT, (), (32, 64, 256), Apart(_ranks(1, 4), _tensor(6, 8))),
    (_TRT, "fp4", _CHAT, (), (6, 10, 15, 25, 45, 90, 180), Apart(_ranks(1, 4), _tensor(5, 8))),
    (_TRT, "fp4", _CHAT, (450,), (), Apart(_ranks(1, 4), _tensor(6, 8))),
    (_TRT, "fp4", _LONG, (25, 50, 100), (6, 10, 15), Apart(_ranks(1, 4), _tensor(5, 8))),
    (_TRT, "fp4", _LONG, (370,), (), Apart(_ranks(2, 4), _tensor(5, 8))),
    (_TRT, "fp8", _CHAT, (4, 128), (32,), Apart(_ranks(1, 8), _tensor(3, 8, spread=False))),
    (_GB300, "fp4", _CHAT, (96, 192), (5, 12, 48), Apart(_ranks(1, 2), _tensor(4, 8))),
    (_GB300, "fp4", _THOUGHT, (60,), (), Apart(_ranks(1, 2), _tensor(15, 4))),
    (_GB300, "fp4", _THOUGHT, (245,), (7,), Apart(_ranks(1, 2), _tensor(7, 8))),
    (_GB300, "fp4", _THOUGHT, (1024,), (), Apart(_ranks(1, 2), _ranks(1, 32))),
    (_GB300, "fp4", _LONG, (72,), (), Apart(_ranks(1, 2), _tensor(3, 8))),
    (_GB300, "fp4", _LONG, (), (12,), Apart(_ranks(1, 2), _tensor(4, 8))),
    (_GB300, "fp4", _LONG, (15, 30), (), Apart(_ranks(1, 2), _tensor(5, 4))),
    (_GB300, "fp4", _LONG, (), (666,), Apart(_ranks(7, 2), _ranks(1, 32))),
    (_GB300, "fp4", _LONG, (1229,), (), Apart(_ranks(9, 2), _ranks(1, 16))),
    (_GB300, "fp8", _CHAT, (4, 84), (24,), Apart(_ranks(1, 4), _tensor(4, 8))),
    (_GB300, "fp8", _CHAT, (1229,), (), Apart(_ranks(2, 4), _ranks(1, 32))),
    (_GB300, "fp8", _THOUGHT, (36,), (4,), Apart(_ranks(1, 4), _tensor(4, 8))),
    (_GB300, "fp8", _THOUGHT, (282, 1024), (), Apart(_ranks(1, 4), _ranks(1, 32))),
    (_GB300, "fp8", _LONG, (4, 36), (24,), Apart(_ranks(1, 4), _tensor(4, 8))),
    (_GB300, "fp8", _LONG, (512,), (), Apart(_ranks(6, 4), _ranks(1, 32))),
    (_GB300, "fp8", _LONG, (), (666,), Apart(_ranks(4, 4), _ranks(1, 16))),
    (_GB300, "fp8", _LONG, (), (1229,), Apart(_ranks(7, 4), _ranks(1, 16))),
    (_B300, "fp4", _CHAT, (6,), (), Apart(_ranks(1, 2), _tensor(4, 8))),
    (_B300, "fp4", _CHAT, (5, 10, 15, 25), (), Apart(_ranks(1, 2), _tensor(5, 4))),
    (_B300, "fp4", _CHAT, (110, 195, 395), (60,), Apart(_ranks(1, 2), _tensor(5, 8))),
    (_B300, "fp4", _CHAT, (1176,), (), Apart(_ranks(1, 2), _ranks(2, 8))),
    (_B300, "fp4", _LONG, (4, 63), (), Apart(_ranks(1, 2), _tensor(3, 8))),
    (_B300, "fp4", _LONG, (12,), (), Apart(_ranks(1, 2), _tensor(4, 4))),
    (_B300, "fp4", _LONG, (105,), (), Apart(_ranks(1, 2), _tensor(3, 4))),
    (_B300, "fp4", _LONG, (589,), (), Apart(_ranks(5, 2), _ranks(2, 8))),
    (_B300, "fp4", _LONG, (1093,), (), Apart(_ranks(6, 2), _ranks(1, 8))),
    (_B300, "fp4", _LONG, (2048,), (), Apart(_ranks(8, 2), _ranks(1, 8))),
    (_GB200, "fp4", _CHAT, (5, 96, 192), (12, 24, 48), Apart(_ranks(1, 4), _tensor(4, 8))),
    (_GB200, "fp4", _CHAT, (666,), (), Apart(_ranks(1, 4), _ranks(1, 32))),
    (_GB200, "fp4", _THOUGHT, (5,), (7,), Apart(_ranks(1, 4), _tensor(7, 8))),
    (_GB200, "fp4", _THOUGHT, (60, 135), (), Apart(_ranks(1, 4), _tensor(15, 4))),
    (_GB200, "fp4", _THOUGHT, (563, 2048), (), Apart(_ranks(1, 4), _ranks(1, 32))),
    (_GB200, "fp4", _LONG, (5, 44, 76), (12,), Apart(_ranks(1, 4), _tensor(4, 8))),
    (_GB200, "fp4", _LONG, (333,), (), Apart(_ranks(2, 4), _ranks(1, 32))),
    (_GB200, "fp4", _LONG, (1229,), (), Apart(_ranks(7, 4), _ranks(1, 32))),
    (_GB200, "fp8", _CHAT, (3, 27), (), Apart(_ranks(1, 8), _tensor(3, 8))),
    (_GB200, "fp8", _CHAT, (256, 1127), (), Apart(_ranks(1, 8), _ranks(1, 32))),
    (_GB200, "fp8", _THOUGHT, (36,), (4,), Apart(_ranks(1, 8), _tensor(4, 8))),
    (_GB200, "fp8", _THOUGHT, (2048,), (564,), Apart(_ranks(1, 8), _ranks(1, 32))),
    (_GB200, "fp8", _LONG, (18, 63), (6,), Apart(_ranks(1, 8), _tensor(3, 8))),
    (_GB200, "fp8", _LONG, (), (333,), Apart(_ranks(2, 8), _ranks(1, 32))),
    (_GB200, "fp8", _LONG, (615,), (), Apart(_ranks(3, 8), _ranks(1, 16))),
    (_GB200, "fp8", _LONG, (666,), (), Apart(_ranks(4, 8), _ranks(1, 32))),
    (_GB200, "fp8", _LONG, (1229,), (), Apart(_ranks(5, 8), _ranks(1, 16))),
    (_SGLANG_GB200, "fp4", _CHAT, (4, 8, 32, 64), (), Apart(_tensor(1, 4, False), _tensor(2, 4, False))),
    (_SGLANG_GB200, "fp4", _CHAT, (512, 1024, 2048), (), Apart(_ranks(4, 4), _ranks(1, 48))),
    (_SGLANG_GB200, "fp4", _LONG, (4, 8, 32, 64), (), Apart(_tensor(1, 4, False), _tensor(4, 4, False))),
    (
        _SGLANG_GB200,
        "fp8",
        _CHAT,
        (2, 4, 8, 16, 64, 128),
        (),
        Apart(_tensor(1, 4, False), _tensor(4, 4, False)),
    ),
    (_SGLANG_GB200, "fp8", _CHAT, (1024, 2048), (), Apart(_ranks(3, 8), _ranks(1, 48))),
    (_SGLANG_GB200, "fp8", _LONG, (4, 8, 16, 32), (), Apart(_tensor(1, 4, False), _tensor(1, 4, False))),
    (_SGLANG_GB200, "fp8", _LONG, (512, 1024, 2048), (), Apart(_ranks(5, 8), _ranks(1, 32))),
    (_H200, "fp8", _CHAT, (1152,), (), Apart(_ranks(1, 8), _ranks(9, 8))),
    (_H200, "fp8", _CHAT, (1536,), (), Apart(_ranks(1, 8), _ranks(6, 8))),
    (_H100, "fp8", _LONG, (308,), (), Apart(_ranks(2, 16), _ranks(1, 16))),
    (_H200, "fp8", _LONG, (160,), (), Apart(_tensor(2, 8), _tensor(5, 8))),
    (_H200, "fp8", _LONG, (192,), (), Apart(_tensor(2, 8), _ranks(3, 8))),
)
_ONE = _tensor(1, 1, False)  # device that prefills
# gpt-oss-120b, which nobody drafts for: (prompt, answer), users, layout
_PUBLISHED_GPT_OSS = (
    (_CHAT, (1, 2, 4, 16, 32, 64, 128), Apart(_ONE, _tensor(1, 4, False))),
    (_CHAT, (16,), Apart(_ONE, _tensor(4, 2, False))),
    (_CHAT, (256, 1024, 1536), Apart(_ONE, _ranks(1, 4))),
    (_CHAT, (256, 512, 1024, 2048), Apart(_ONE, _ranks(1, 2))),
    (_CHAT, (512, 1024, 2048), Apart(_ONE, _ranks(2, 2))),
    (_LONG, (1,), Apart(_ONE, _tensor(1, 8, False))),
    (_LONG, (2, 4, 8, 16, 32, 64), Apart(_ONE, _tensor(1, 4, False))),
    (_LONG, (128, 512), Apart(_tensor(2, 1, False), _tensor(1, 4, False))),
    (_LONG, (256, 384), Apart(_tensor(2, 1, False), _tensor(1, 2, False))),
    (_LONG, (128, 512), Apart(_tensor(2, 1, False), _ranks(1, 2))),
)
# The image or day of the configurations of a GPU that had others before
_ONLY_OF = {_GB200: "0.8.1.post2", _SGLANG_GB200: "measured=2025-12-21"}
# Days on which SGLang on B200 in fp8 ran configurations without drafting alone
_UNDRAFTED_DAYS = ("2026-02-07",)
_LEAST_GAIN = 1.2  # of drafting, in time per token
_DEEPSEEK = ("deepseek-ai/DeepSeek-R1", "deepseek-ai/DeepSeek-V3")


def stated(row: dict[str, Any]) -> Apart | None:
    """Return the layout that the row states; None where it does not."""
    sides = []
    for pool in ("prefill", "decode"):
        clients, tensor = row[f"{pool}_num_workers"], row[f"{pool}_tp_size"]
        if not clients or not tensor:
            return None
        ranks = max(1, row[f"{pool}_attention_dp_size"] or 1)
        spread = ranks > 1 or (row[f"{pool}_moe_ep_size"] or 1) > 1
        if _is_cut(row, pool, tensor * ranks):
            tensor, ranks, spread = tensor * ranks, 1, False
        sides.append(Side(clients, tensor, ranks, spread))
    prefill, decode = sides
    if (row["backend"], row["system"]) == ("vllm", "gb200"):
        prefill = _ranks(prefill.clients, prefill.devices)
        decode = _ranks(decode.clients, 16) if decode.devices == 16 else decode
    if (row["backend"], row["system"]) == _H200 and row["isl"] == 1024 and prefill.ranks == 1:
        prefill = _ranks(prefill.clients, prefill.devices)  # its recipes say enable_attention_dp: true
    return Apart(prefill, decode)


def _is_cut(row: dict[str, Any], pool: str, devices: int) -> bool:
    """Return whether a side with stated ranks has its attention cut in truth (see the module's text)."""
    few = (row["backend"], row["system"]) == _SGLANG_GB200 and devices == 4
    return few and row[f"{pool}_moe_ep_size"] == 1


def published(row: dict[str, Any]) -> Apart | None:
    """Return the layout of InferenceMAX's configuration without drafting for a row that states none, or None."""
    found = _configuration(row)
    return None if found is None else found[1]


def may_draft(row: dict[str, Any], others: Iterable[dict[str, Any]]) -> bool:
    """Return whether a row with a published layout may be of the configuration that drafts.

    ``others`` are all rows with prefill and decode apart.
    """
    found = _configuration(row)
    assert found is not None
    if found[0] or (_kind(row)[:2] == (_SGLANG, "fp8") and day(row) in _UNDRAFTED_DAYS):
        return False
    times = sorted({round(each["silicon_tpot_ms"], 3) for each in others if _kind(each) == _kind(row)})
    return not (
        len(times) == 2 and times[1] > _LEAST_GAIN * times[0] and round(row["silicon_tpot_ms"], 3) == times[1]
    )


def _configuration(row: dict[str, Any]) -> tuple[bool, Apart] | None:
    """Return whether nobody drafts with the lengths and users of a row, and the layout."""
    if row["model_path"] == "openai/gpt-oss-120b":
        layouts = [
            layout
            for lengths, load, layout in _PUBLISHED_GPT_OSS
            if _kind(row)[2] == lengths and users(row) in load
        ]
        found = [(True, layout) for layout in layouts if _has_its_devices(row, layout)]
        return found[0] if len(found) == 1 and (row["backend"], row["system"]) == _GB200 else None
    if row["model_path"] not in _DEEPSEEK:
        return None
    for place, precision, lengths, alone, both, layout in _PUBLISHED:
        if _kind(row)[:3] == (place, precision, lengths) and users(row) in (*alone, *both):
            if _ONLY_OF.get(place, "") not in str(row["silicon_data_source"]) or not _has_its_devices(
                row, layout
            ):
                continue
            return users(row) in alone, layout
    return None


def _has_its_devices(row: dict[str, Any], layout: Apart) -> bool:
    """Return whether a row that states the devices of a client that decodes states those of the layout."""
    if (row["backend"], row["system"]) not in (_GB200, _B300):
        return True
    return bool(row["decode_tp_size"] == layout.decode.devices)


def _kind(row: dict[str, Any]) -> tuple[Any, ...]:
    place = row["backend"], row["system"]
    return place, row["precision"], (row["isl"], row["osl"]), users(row), day(row)


def day(row: dict[str, Any]) -> str:
    """Return the day of a row's measurement; empty where it is not known."""
    _, _, rest = str(row["silicon_data_source"]).partition("measured=")
    return rest[:10]
