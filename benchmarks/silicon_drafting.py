"""Benchmark runs of benchmarks/silicon.py that drafted tokens (MTP), which the collection does not say.

InferenceMAX runs DeepSeek-R1 and Qwen3.5 with and without drafting, in configurations of their own
(.github/configs/nvidia-master.yaml, keys that end with -mtp). How many drafted tokens were accepted is not recorded,
so these rows are not compared. Their times per token are half as long in the same layout, and they have these signs.
Of TensorRT-LLM: the image 1.2.0rc6.post3, which only they use, and the day of the older image on which only they were
run. Of SGLang on B200: the layout or the file. Of SGLang 0.5.9 on B300: the layout, which the configuration without
drafting has since 0.5.10 only; with it 8 users get tokens faster than 4 users do with 0.5.10. The file of the latest
rows has runs without drafting only.
"""

from __future__ import annotations

from typing import Any

UNDRAFTED = "db-dump/"  # how the source of a row begins that drafted nothing
_DEEPSEEK = ("deepseek-ai/DeepSeek-R1", "deepseek-ai/DeepSeek-V3")


def may_draft(row: dict[str, Any]) -> bool:
    """Return whether a row is of a configuration that drafts tokens, unless the file of the latest rows has it."""
    path, source, fp8 = row["model_path"], str(row["silicon_data_source"]), row["precision"] == "fp8"
    if source.startswith(UNDRAFTED):
        return False
    if row["backend"] == "trtllm" and path in _DEEPSEEK:
        return row["backend_version"] == "1.2.0rc6.post3" or "measured=2026-01-14" in source
    if row["backend"] != "sglang" or row["system"] not in ("b200_sxm", "b300_sxm") or not fp8:
        return False
    if path in _DEEPSEEK:
        on_b200 = row["system"] == "b200_sxm"
        return on_b200 and row["backend_version"] == "0.5.9" and row["tp_size"] == 8
    return path == "Qwen/Qwen3.5-397B-A17B" and (row["tp_size"], row["moe_ep_size"]) == (4, 1)
