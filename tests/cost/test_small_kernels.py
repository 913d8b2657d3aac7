"""Small kernels of decode steps: layers that have more of them than a plain one take so much longer."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from cost.catalog import deployment, hardware, model, roofline
from hugging_face_texts import DEEPSEEK_V3, GLM_4_5, LLAMA_405B, QWEN2_57B_A14B, QWEN3_8B, written

import hermes_flow as hf
from hermes_flow.config.hugging_face import entry_of
from hermes_flow.config.schema import Hardware, Model, SmallKernels
from hermes_flow.config.shape import pipeline_ranks, whole
from hermes_flow.cost.small_kernels import kernels_of, small_kernels_us
from hermes_flow.pools.llm.schema import LLMPool

ONE_OF_EACH = SmallKernels(
    us=2.0, head_norms=1, latent_norms=1, output_gate=1, delta_rule=1, shared_experts=1
)
QWEN = "qwen3_5_397b_a17b"


def on(counts: SmallKernels | None) -> Hardware:
    gpu = hardware("h100_sxm")
    assert gpu.engine is not None
    return dataclasses.replace(gpu, engine=dataclasses.replace(gpu.engine, small_kernels=counts))


def more_us(served: Model, counts: SmallKernels, tokens: int = 4) -> float:
    """What a decode step takes longer with these counts."""
    with_them, without = (roofline(served, on(each), 8) for each in (counts, None))
    return (with_them.tokens_ps[tokens] - without.tokens_ps[tokens]) / 1e6


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # 15 of 60 layers attend, with norms of heads and an output gate; 45 have the delta rule
        (QWEN, {"head_norms": 15, "output_gate": 15, "delta_rule": 45, "shared_experts": 60}),
        ("qwen3_8b", {"head_norms": 36}),
        ("deepseek_v3", {"latent_norms": 61, "shared_experts": 58}),  # the first three layers are dense
        ("llama4_scout", {"head_norms": 48, "shared_experts": 48}),
        ("gemma_4_26b_a4b", {"head_norms": 30}),  # in layers with a window as in the others
        ("minimax_m2_5", {"head_norms": 62}),
        ("llama3_70b", {}),
        ("mixtral_8x7b", {}),
        ("nemotron_h_56b", {}),
    ],
)
def test_each_feature_of_a_model_adds_its_kernels(name: str, expected: dict[str, int]) -> None:
    served = model(name)
    found = {key: count for key, count in kernels_of(ONE_OF_EACH, served, whole(served)).items() if count}
    assert found == expected


def test_a_step_takes_the_time_of_these_kernels_longer() -> None:
    assert more_us(model(QWEN), ONE_OF_EACH) == pytest.approx(2.0 * (15 + 15 + 45 + 60))
    assert more_us(model("llama3_70b"), ONE_OF_EACH) == 0.0


def test_a_gate_of_shared_experts_counts_apart() -> None:
    gated = SmallKernels(us=3.0, shared_gate=2)
    assert more_us(model(QWEN), gated) == pytest.approx(3.0 * 2 * 60)
    assert more_us(model("deepseek_v3"), gated) == 0.0


def test_ranks_of_a_pipeline_share_the_kernels() -> None:
    served = model(QWEN)
    parts = [small_kernels_us(ONE_OF_EACH, served, rank) for rank in pipeline_ranks(served, 4)]
    assert sum(parts) == pytest.approx(small_kernels_us(ONE_OF_EACH, served, whole(served)))


def test_an_engine_without_counts_adds_nothing() -> None:
    assert small_kernels_us(None, model(QWEN), whole(model(QWEN))) == 0.0


# source: SGLang's public model code (2026), counted: conf/engine/sglang.yaml
@pytest.mark.parametrize(
    ("engine", "kernels"),
    [("vllm", 15 + 15 + 45 + 60), ("sglang", 15 + 60), ("tensorrt_llm", 15 + 45 + 60)],
)
def test_engines_have_counts_of_their_own(engine: str, kernels: int) -> None:
    config = hf.compose([f"model={QWEN}", f"engine={engine}", "cluster.pools.llm.tensor_parallel=8"])
    pool = config.cluster.pools["llm"]
    assert isinstance(pool, LLMPool)
    assert pool.hardware.engine is not None
    counts = pool.hardware.engine.small_kernels
    assert counts is not None
    assert counts.us == pytest.approx(pool.hardware.engine.layer_us / 6, rel=0.01)
    assert small_kernels_us(counts, pool.model, whole(pool.model)) == pytest.approx(3.9 * kernels)


def test_a_compiled_program_says_how_many_there_are() -> None:
    tables = roofline(model(QWEN), hardware("h200_sxm"), 8)
    assert any(
        "3.9 µs for each further small kernel (15 of head norms, 15 of output gate, 45 of delta rule, 60 of "
        "shared experts)" in line
        for line in tables.provenance
    )
    plain = roofline(model("llama3_8b"), hardware("h200_sxm"))
    assert not any("small kernel" in line for line in plain.provenance)


@pytest.mark.parametrize(
    ("text", "keys", "normed"),
    [
        (QWEN3_8B, {}, True),
        (LLAMA_405B, {}, False),
        (GLM_4_5, {"use_qk_norm": True}, True),
        (GLM_4_5, {"use_qk_norm": False}, False),
        (DEEPSEEK_V3, {}, False),
    ],
)
def test_an_import_reads_whether_heads_are_normalised(
    text: dict[str, Any], keys: dict[str, Any], normed: bool, tmp_path: Path
) -> None:
    assert entry_of(written(tmp_path, text, **keys))["head_norms"] is normed


def test_an_import_reads_whether_shared_experts_have_a_gate(tmp_path: Path) -> None:
    for text, gated in ((QWEN2_57B_A14B, True), (DEEPSEEK_V3, False)):
        path = tmp_path / text["model_type"] / "config.json"
        path.parent.mkdir()
        path.write_text(json.dumps(text), encoding="utf-8")
        assert entry_of(path)["experts"]["shared_gate"] is gated


def test_a_draft_has_its_own() -> None:
    assert small_kernels_us(ONE_OF_EACH, model("qwen3_8b"), whole(model("qwen3_8b"))) == 2.0 * 36
    alone = deployment(model("qwen3_8b"), on(ONE_OF_EACH))
    assert alone.part == "last"
