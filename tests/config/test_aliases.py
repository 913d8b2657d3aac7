"""Keys and names of other tools are recognised in messages, and a suggestion is never another thing."""

from __future__ import annotations

import pytest

import hermes_flow as hf
from hermes_flow.errors import ConfigError, nearest


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("request_rate=4", "request_rate: unknown key; it is called workload.rate_per_s here"),
        ("workload.request_rate=4", "it is called workload.rate_per_s here"),
        ("model.num_attention_heads=32", "it is called model.heads here"),
        ("tensor_parallel=4", "it is called cluster.pools.llm.tensor_parallel here"),
        ("cluster.pools.llm.tensor_parallel_size=4", "it is called cluster.pools.llm.tensor_parallel here"),
        ("max_model_len=4096", "it is called model.max_context here"),
        ("kv_cache_dtype=fp8", "it is called model.precision.kv_cache here"),
        (
            "cluster.pools.llm.kv_cache_dtype=fp8",
            "it is called cluster.pools.llm.model.precision.kv_cache here",
        ),
        ("hardware.engine.routing_skew=0.3", "it is called model.experts.routing_skew here"),
        ("gpu=h100", "it is called hardware here"),
        ("num_prompts=10", "it is called workload.requests here"),
        ("hardware=H100", "there is no 'H100'; did you mean 'h100_sxm'?"),
        ("hardware='NVIDIA H100 80GB HBM3'", "did you mean 'h100_sxm'?"),
        ("model=Qwen/Qwen3-32B", "there is no 'Qwen/Qwen3-32B'; it is called qwen3_32b here"),
        ("model=meta-llama/Llama-3.3-70B-Instruct", "it is called llama3_70b here"),
        ("model=acme/Foo-7B", r"give the path of its config\.json"),
        ("model.precision.weights=fp4", "did you mean 'mxfp4' or 'nvfp4'?"),
    ],
)
def test_a_name_of_another_tool_is_answered_with_ours(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("?", r"\?")):
        hf.compose([override])


@pytest.mark.parametrize("override", ["hardware=gh200", "hardware=l40", "model=llama3_80b", "hardware=h800"])
def test_a_thing_that_is_not_there_is_not_answered_with_another(override: str) -> None:
    with pytest.raises(ConfigError) as error:
        hf.compose([override])
    assert "did you mean" not in str(error.value)


def test_the_first_entry_of_an_empty_mapping_is_added_with_a_plus() -> None:
    with pytest.raises(
        ConfigError, match=r"model\.mixers\.m: unknown key; model\.mixers is empty, and \+model"
    ):
        hf.compose(["model.mixers.m={kind: linear, layers: 2}"])
    assert hf.compose(["+model.mixers.m={kind: linear, layers: 2}"]).model.mixers["m"].layers == 2


def test_a_pool_of_another_name_keeps_it_in_the_answer() -> None:
    with pytest.raises(ConfigError, match=r"it is called cluster\.pools\.decode\.max_num_seqs here"):
        hf.compose(["cluster=disaggregated", "cluster.pools.decode.max_running_requests=8"])


def test_spellings_are_near_where_numbers_and_the_letters_beside_them_agree() -> None:
    names = ["b200_sxm", "fp8", "gb300", "h100_sxm", "llama3_8b", "mi300x", "mxfp4", "nvfp4", "qwen3_32b"]
    assert nearest("lama3_8b", names) == ["llama3_8b"]
    assert nearest("qwn3_32b", names) == ["qwen3_32b"]
    assert nearest("B200", names) == ["b200_sxm"]
    for other in ("gb200", "fp16", "qwen3_33b", "mi300", "llama3_70b"):
        assert nearest(other, names) == []
