"""An engine of the user's own that states a part of its overheads names those that it takes from another engine."""

from __future__ import annotations

import json
from dataclasses import MISSING, fields
from pathlib import Path

import pytest

import hermes_flow as hf
from hermes_flow.config.hardware_measurements import EngineOverhead

STATED = "source: measured on our servers, layer_us: 18, small_kernels: {us: 3}"


def warnings(folder: Path, text: str, *words: str) -> list[str]:
    (folder / "engine").mkdir(exist_ok=True)
    (folder / "engine" / "mine.yaml").write_text(text, encoding="utf-8")
    given = ["pipeline=llm", "slo=none", "workload.requests=3", f"hydra.searchpath=[file://{folder}]", *words]
    found = hf.compile(hf.compose(given)).warnings
    return [each for each in found if "on which it is built" in each]


def built_on(base: str, overheads: str) -> str:
    return f"defaults: [{base}, _self_]\nname: mine\noverheads: {overheads}\n"


def test_figures_that_the_file_leaves_out_are_named_with_the_entry_they_come_from(tmp_path: Path) -> None:
    (text,) = warnings(tmp_path, built_on("vllm", f"{{h100_sxm: {{{STATED}}}}}"), "engine=mine")
    assert text.startswith(
        f"engine.overheads.h100_sxm: {tmp_path}/engine/mine.yaml states layer_us, small_kernels,"
    )
    taken = text.partition(" takes ")[2].partition(" from vllm")[0].split(", ")
    assert {"sampler", "ingest_ms", "plan_us", "small_kernels.head_norms", "all_reduce_wait"} <= set(taken)
    stated_or_none = {"source", "layer_us", "small_kernels", "small_kernels.us", "step_us", "kernels"}
    assert not stated_or_none & set(taken)


def test_a_file_that_states_them_all_has_no_warning(tmp_path: Path) -> None:
    given = {"source": "ours", "step_us": 1, "sequence_us": 2, "attention_launch": 0, "ingest_ms": 8}
    none = {each.name: each.default for each in fields(EngineOverhead) if each.default is not MISSING}
    whole = f"{{h100_sxm: {json.dumps(none | given)}}}"
    assert warnings(tmp_path, built_on("vllm", whole), "engine=mine") == []


@pytest.mark.parametrize(
    "text",
    [
        built_on("vllm", "{}").replace("overheads: {}", "max_num_seqs: 64"),  # other defaults alone
        built_on("vllm", f"{{l40s: {{{STATED}}}}}"),  # of a hardware that no pool has
    ],
)
def test_an_engine_whose_figures_are_one_entrys_has_no_warning(text: str, tmp_path: Path) -> None:
    assert warnings(tmp_path, text, "engine=mine") == []


def test_an_engine_of_one_pool_is_named_with_the_key_of_the_pool(tmp_path: Path) -> None:
    text = built_on("sglang", f"{{h100_sxm: {{{STATED}}}}}")
    words = ["cluster=disaggregated", "engine=sglang", "engine@cluster.pools.decode.engine=mine"]
    (found,) = warnings(tmp_path, text, *words)
    assert found.startswith("cluster.pools.decode.engine.overheads.h100_sxm: ")
    assert " from sglang, on which it is built" in found
