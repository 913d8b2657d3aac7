"""How the ranks of a benchmark run lie on its devices, as far as the row of the collection tells it.

A row states the devices that attention is cut over, those that hold a replica of it each, and the same of experts. In
InferenceMAX's rows of its later files these figures are products. A run on one node of 8 GPUs with experts that are
spread over the 8 (``tp: 8, ep: 8`` in its configuration) stands there as attention cut over 64 devices. Runs of vLLM
with spread experts have as many replicas of attention there as devices, but their scripts start one replica, and runs
of the same setting in an earlier file, which says so, have the same times (2 % apart or less). Rows of Kimi K2.5 in
nvfp4 state spread experts, which their configuration asks for, but their script does not read that figure and asks
vLLM for none (kimik2.5_fp4_b200.sh of March 2026 and kimik2.5_fp4_b300.sh). The rows of 2 November
2025 have neither spread experts nor replicas of attention, because the scripts of TensorRT-LLM still chose both
themselves, by model, devices, lengths and users (``_of_its_script``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

# Sources whose rows of SGLang and TensorRT-LLM have products: the devices are those that an expert is cut over there
PRODUCTS = ("source_file=2026-04-06", "db-dump/")
LONG_PROMPT = 8192
CUT_BY_SCRIPT = ("moonshotai/Kimi-K2.5", "fp4")  # whose script of vLLM never spreads experts
INFERENCEMAX = ("source_file=2026-", "db-dump/")  # how the sources of its rows begin
CHOSEN_BY_SCRIPT = "measured=2025-11-02"
_USERS = re.compile(r"silicon_concurrency=(\d+)")


@dataclass(frozen=True, slots=True)
class Layout:
    """Devices that attention is cut over, replicas of it, and over how many of them whole experts are ``spread``.

    ``spread`` is 1 where all experts are cut over all devices.
    """

    tensor: int
    data: int
    spread: int

    @property
    def devices(self) -> int:
        """The number of devices of the run."""
        return self.tensor * self.data

    @property
    def spread_alone(self) -> bool:
        """Whether experts are either cut or spread, and not both."""
        return self.spread in (1, self.devices)


def layout(row: dict[str, Any]) -> Layout:
    """Return how a row's run lies on its devices."""
    tensor, data = row["tp_size"], max(1, row["attention_dp_size"] or 1)
    spread, source = row["moe_ep_size"] or 1, str(row["silicon_data_source"])
    if not source.startswith(INFERENCEMAX):
        return Layout(tensor, data, spread)
    if row["backend"] == "trtllm" and CHOSEN_BY_SCRIPT in source:
        return _of_its_script(row, row["moe_tp_size"])
    if row["backend"] == "vllm":
        if (row["model_path"], row["precision"]) == CUT_BY_SCRIPT:
            return Layout(tensor, 1, 1)
        if data > 1 and tensor == data:
            return Layout(tensor, 1, tensor)
    elif source.startswith(PRODUCTS):
        devices = row["moe_tp_size"]
        if data > 1:  # two runs cut experts over the ranks of attention, which are spread here
            return Layout(1, devices, devices if spread == 1 else spread)
        return Layout(devices, 1, spread)
    return Layout(tensor, data, spread)


def _of_its_script(row: dict[str, Any], devices: int) -> Layout:
    """Return what the first scripts of TensorRT-LLM chose: dsr1_fp8_h200_trt_slurm.sh, dsr1_fp8_b200_trt_slurm.sh,
    dsr1_fp4_b200_trt_slurm.sh, gptoss_fp4_h200_trt_slurm.sh and gptoss_fp4_b200_trt_slurm.sh of October 2025.
    """
    load, long = users(row) or 0, row["isl"] == LONG_PROMPT
    on_b200, of_deepseek = row["system"] == "b200_sxm", "DeepSeek" in row["model_path"]
    if of_deepseek and row["precision"] == "fp8":
        chat = (row["isl"], row["osl"]) == (1024, 1024)
        spread, most = True, (32 if (chat if on_b200 else long) else 64)
        ranks = load > most
    elif of_deepseek:
        most = 32 if long or devices == 4 else (8 if row["osl"] == 1024 else 16)
        ranks = load > 32 if long else load >= 256
        spread = ranks or load > most
    else:
        ranks = on_b200 and load >= 256
        spread = ranks or not on_b200 or (devices > 2 and not long and load >= 16)
    if ranks:
        return Layout(1, devices, devices)
    return Layout(devices, 1, devices if spread else 1)


def users(row: dict[str, Any]) -> int | None:
    """Return how many users a row says that it had at once."""
    stated = _USERS.search(str(row["silicon_data_source"]))
    return None if stated is None else int(stated[1])
