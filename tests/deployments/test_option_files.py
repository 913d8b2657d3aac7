"""Options in files and in parts: short names, null, switches that are off, and JSON that is given twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from hermes_flow.deployments import read_deployment
from hermes_flow.deployments.imported import DIALECTS
from hermes_flow.errors import ConfigError

POOL = "cluster.pools.llm"


@pytest.mark.parametrize("as_flag", [False, True])
def test_short_names_in_a_file_of_options_are_read_as_on_a_command_line(
    tmp_path: Path, as_flag: bool
) -> None:
    path = tmp_path / "sglang.yaml"
    path.write_text("model-path: Qwen/Qwen3-32B\ntp: 4\ndp-size: 2\n")
    found = read_deployment(
        "sglang", f"python -m sglang.launch_server --config {path}" if as_flag else str(path)
    )
    assert found.overrides[f"{POOL}.tensor_parallel"] == 4
    assert found.overrides[f"{POOL}.count"] == 2
    later = read_deployment("sglang", f"sglang serve --config {path} --tp-size 8")
    assert later.overrides[f"{POOL}.tensor_parallel"] == 8


@pytest.mark.parametrize(("given", "on"), [("false", True), ("true", False)])
def test_a_switch_with_no_before_it_is_on_when_it_is_false(tmp_path: Path, given: str, on: bool) -> None:
    path = tmp_path / "vllm.yaml"
    path.write_text(f"model: Qwen/Qwen3-32B\nno-enable-prefix-caching: {given}\nenforce-eager: false\n")
    found = read_deployment("vllm", str(path))
    assert found.overrides[f"{POOL}.prefix_cache"] is on
    assert found.ignored["--enforce-eager"] == "switched off"


def test_null_is_the_default_of_the_engine_or_named_where_it_is_not(tmp_path: Path) -> None:
    path = tmp_path / "options.yaml"
    path.write_text("cuda_graph_config: null\nmax_batch_size: null\nkv_cache_config: {dtype: fp8}\n")
    found = read_deployment("trtllm", f"trtllm-serve Qwen/Qwen3-32B --config {path}")
    assert found.ignored["--cuda-graph-config"] == "null: not modelled: steps without CUDA graphs"
    assert found.ignored["--max-batch-size"] == "null: the engine's default"
    assert found.overrides["model.precision.kv_cache"] == "fp8"
    assert f"{POOL}.max_num_seqs" not in found.overrides


def test_parts_of_a_json_option_are_added_to_the_option_itself() -> None:
    line = 'vllm serve deepseek-ai/DeepSeek-V3.2 -sc \'{"method": "mtp"}\' -sc.num_speculative_tokens 3'
    found = read_deployment("vllm", line).overrides
    assert found[f"{POOL}.speculative.head"] == "mtp"
    assert found[f"{POOL}.speculative.tokens"] == 3
    with pytest.raises(ConfigError, match="--speculative-config: is not JSON"):
        read_deployment("vllm", "vllm serve X/Y -sc '{method}' -sc.num_speculative_tokens 3")


@pytest.mark.parametrize(
    ("what", "flags", "name", "reason"),
    [
        ("vllm", "-cc.cudagraph_mode FULL", "--compilation-config.cudagraph-mode", "which steps have CUDA"),
        ("vllm", "--hf-overrides {}", "--hf-overrides", "not modelled: changes of the model"),
        ("sglang", "--nnodes 2", "--nnodes", "not modelled: which devices share a node"),
        ("vllm", "-dpl 4", "--data-parallel-size-local", "not modelled: which devices share a node"),
        ("vllm", "--quantization bitsandbytes", "--quantization", "quantized as they are loaded"),
        ("vllm", "--quantization awq", "--quantization", "the checkpoint decides"),
        (
            "vllm",
            "--allowed-media-domains x.org",
            "--allowed-media-domains",
            "no effect on what is simulated",
        ),
        (
            "trtllm",
            "--stream_interval 10",
            "--stream-interval",
            "not modelled: tokens that are sent together",
        ),
    ],
)
def test_flags_are_named_with_what_they_would_change(what: str, flags: str, name: str, reason: str) -> None:
    program = {"vllm": "vllm serve", "sglang": "sglang serve --model-path", "trtllm": "trtllm-serve"}[what]
    assert reason in read_deployment(what, f"{program} Qwen/Qwen3-32B {flags}").ignored[name]


@pytest.mark.parametrize("what", sorted(DIALECTS))
def test_no_flag_has_an_effect_and_none(what: str) -> None:
    dialect = DIALECTS[what]
    assert not dialect.without_effect & (dialect.read.keys() | dialect.unmodelled.keys())


def test_a_worker_of_dynamo_without_an_image_is_of_the_engine_that_its_command_starts(tmp_path: Path) -> None:
    path = tmp_path / "graph.yaml"
    path.write_text(
        """
spec:
  services:
    decode:
      replicas: 1
      extraPodSpec:
        mainContainer: &main
          command: [python3, -m, dynamo.sglang]
          args: [--model-path, Qwen/Qwen3-32B, --page-size, "16", --tp, "2"]
    prefill: {replicas: 3, subComponentType: prefill, extraPodSpec: {mainContainer: *main}}
"""
    )
    found = read_deployment("dynamo", str(path)).overrides
    assert found["engine"] == "sglang"
    for pool, count in (("decode", 1), ("prefill", 3)):
        assert found[f"model@cluster.pools.{pool}.model"] == "qwen3_32b"
        assert found[f"cluster.pools.{pool}.tensor_parallel"] == 2
        assert found[f"cluster.pools.{pool}.block_size"] == 16
        assert found[f"cluster.pools.{pool}.count"] == count
