"""A norm over all heads of a layer: one all-reduce more, of the sums of squares of queries and keys."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from cost.catalog import hardware, model, roofline
from hugging_face_texts import QWEN3_8B, written

from hermes_flow.config.hugging_face import entry_of

MINIMAX = model("minimax_m2_5")
PER_HEAD = dataclasses.replace(MINIMAX, norm_over_all_heads=False)


def more_us(devices: int, tokens: int) -> float:
    """What a step of MiniMax M2.5 on H200 takes longer by it in each layer."""
    with_it, without = (
        roofline(each, hardware("h200_sxm"), devices, max_tokens=256, max_sequences=64)
        for each in (MINIMAX, PER_HEAD)
    )
    return (with_it.tokens_ps[tokens] - without.tokens_ps[tokens]) / 62 / 1e6


def test_each_layer_has_one_more_all_reduce_of_eight_bytes_a_token() -> None:
    # One shot among four H200: 4.5 µs, and three times the message at half of 450 GB/s
    assert more_us(4, 100) == pytest.approx(4.5 + 3 * 800 / (0.5 * 450e9) * 1e6, rel=1e-4)
    assert more_us(8, 1) == pytest.approx(4.7 + 7 * 8 / (0.6 * 450e9) * 1e6, rel=1e-4)


def test_one_device_has_none() -> None:
    assert more_us(1, 100) == 0


def test_other_models_normalise_head_by_head() -> None:
    assert not model("qwen3_8b").norm_over_all_heads


def test_a_published_config_says_so(tmp_path: Path) -> None:
    for keys, expected in (
        ({"use_qk_norm": True, "qk_norm_type": "per_layer"}, True),
        ({"use_qk_norm": False, "qk_norm_type": "per_layer"}, False),
        ({"use_qk_norm": True}, False),
    ):
        entry = entry_of(written(tmp_path, QWEN3_8B, **keys))
        assert entry["norm_over_all_heads"] is expected


# source: config.json of allenai/OLMo-2-1124-7B
OLMO2 = {
    "model_type": "olmo2",
    "architectures": ["Olmo2ForCausalLM"],
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "vocab_size": 100352,
    "max_position_embeddings": 4096,
}


def test_models_whose_engines_gather_heads_for_their_norms_say_that_this_is_left_out(tmp_path: Path) -> None:
    for kind, said in (("olmo2", True), ("llama", False)):
        path = tmp_path / kind / "config.json"
        path.parent.mkdir()
        path.write_text(json.dumps({**OLMO2, "model_type": kind}), encoding="utf-8")
        notes = entry_of(path).get("notes") or []
        assert any("tensor-parallel devices gather them" in note for note in notes) is said
        assert not entry_of(path)["norm_over_all_heads"]
