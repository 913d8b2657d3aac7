"""A configuration becomes the files of a deployment, and its exported line is read as the same configuration."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
import yaml  # type: ignore[import-untyped]

import hermes_flow as hf
from hermes_flow.deployments import read_deployment
from hermes_flow.deployments.manifests import compose_text, kubernetes_text, shell_text
from hermes_flow.deployments.servers import servers_of
from hermes_flow.errors import ConfigError
from hermes_flow.pools.llm.schema import LLMPool
from hermes_flow.tasks import verbs

POOL = "cluster.pools.llm"
CASES = {
    "plain": ("vllm", ["model=qwen3_32b", f"{POOL}.tensor_parallel=2"]),
    "limits": (
        "vllm",
        [
            "model=llama3_70b",
            f"{POOL}.tensor_parallel=4",
            f"{POOL}.pipeline_parallel=2",
            f"{POOL}.max_num_seqs=64",
            f"{POOL}.max_num_batched_tokens=2048",
            f"{POOL}.block_size=32",
            f"{POOL}.memory_utilization=0.8",
            f"{POOL}.kv_blocks=5000",
            f"{POOL}.prefix_cache=false",
            f"{POOL}.scheduling_policy=priority",
            f"{POOL}.batching=mixed",
            f"{POOL}.lookahead=0",
            "model.precision.kv_cache=fp8",
            "model.precision.weights=fp8",
            "model.precision.activations=fp8",
            "model.max_context=8192",
        ],
    ),
    "limit of a prompt": ("vllm", ["model=qwen3_32b", f"{POOL}.long_prefill_token_threshold=512"]),
    "adapters": (
        "vllm",
        ["model=qwen3_32b", f"{POOL}.tensor_parallel=2", f"{POOL}.adapters={{slots: 3, rank: 32}}"],
    ),
    "KV in host memory": (
        "vllm",
        [
            "model=qwen3_32b",
            f"{POOL}.tensor_parallel=2",
            f"{POOL}.offload.tiers=[host]",
            f"{POOL}.offload.host.capacity_gb=200",
            f"{POOL}.offload.write=computed",
            f"{POOL}.offload.prefetch=false",
        ],
    ),
    "experts": (
        "vllm",
        ["model=deepseek_v3", f"{POOL}.data_parallel=8", f"{POOL}.expert_parallel=true"],
    ),
    **{
        f"redundant experts of {engine}": (
            engine,
            [
                *(f"engine={engine}", "model=deepseek_v3", f"{POOL}.data_parallel=8"),
                *(f"{POOL}.expert_parallel=true", f"{POOL}.redundant_experts=32"),
            ],
        )
        for engine in ("vllm", "sglang")
    },
    "experts to which tokens are sent": (
        "vllm",
        [
            *("model=deepseek_v3", f"{POOL}.data_parallel=8", f"{POOL}.expert_parallel=true"),
            f"{POOL}.all2all_backend=alltoall",
        ],
    ),
    "sglang": (
        "sglang",
        [
            "engine=sglang",
            "model=qwen3_30b_a3b",
            f"{POOL}.tensor_parallel=2",
            f"{POOL}.chunked_prefill_size=4096",
            f"{POOL}.schedule_conservativeness=0.8",
            f"{POOL}.mixed_chunk=true",
            f"{POOL}.scheduler_recv_interval=30",
            f"{POOL}.block_size=64",
            f"{POOL}.kv_blocks=3000",
            f"{POOL}.prefix_cache=false",
            f"{POOL}.lookahead=0",
        ],
    ),
    "sglang with attention apart": (
        "sglang",
        [
            "engine=sglang",
            "model=deepseek_v3",
            f"{POOL}.data_parallel=8",
            f"{POOL}.expert_parallel=true",
            f"{POOL}.chunked_prefill_size=null",
        ],
    ),
    "sglang with attention apart and chunks": (
        "sglang",
        [
            "engine=sglang",
            "model=deepseek_v3",
            f"{POOL}.data_parallel=8",
            f"{POOL}.chunked_prefill_size=2048",
            f"{POOL}.rank_routing=shortest_queue",
            f"{POOL}.expert_parallel=true",
            f"{POOL}.all2all_backend=allgather_reducescatter",
        ],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_the_exported_line_is_read_as_the_same_pool(name: str) -> None:
    engine, overrides = CASES[name]
    config = hf.compose(overrides)
    text = shell_text(servers_of(config))
    line = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    found = read_deployment(engine, line)
    assert set(found.ignored) <= {"--enable-dp-attention", "--enable-eplb"}
    pool, again = config.cluster.pools["llm"], hf.compose(found.texts()).cluster.pools["llm"]
    assert isinstance(pool, LLMPool)
    assert isinstance(again, LLMPool)
    assert again == pool


@pytest.mark.parametrize(
    "overrides",
    [
        ["model=qwen3_32b", f"{POOL}.tensor_parallel=2"],
        [
            *("model=qwen3_30b_a3b", f"{POOL}.tensor_parallel=4", f"{POOL}.expert_parallel=true"),
            *(f"{POOL}.max_num_seqs=64", f"{POOL}.max_num_batched_tokens=4096", f"{POOL}.block_size=64"),
            *(f"{POOL}.memory_utilization=0.8", f"{POOL}.kv_blocks=900", f"{POOL}.prefix_cache=false"),
            *(f"{POOL}.lookahead=0", f"{POOL}.capacity_scheduler_policy=max_utilization"),
            *(f"{POOL}.context_chunking_policy=equal_progress", "model.precision.kv_cache=fp8"),
            *(f"{POOL}.batch_wait_timeout_iters=20", f"{POOL}.batch_wait_max_tokens_ratio=0.9"),
            f"{POOL}.batch_wait_timeout_ms=1.5",
            "model.max_context=16384",
        ],
        ["model=deepseek_v3", f"{POOL}.data_parallel=8", f"{POOL}.expert_parallel=true"],
    ],
    ids=["plain", "all", "attention apart"],
)
def test_a_line_of_trtllm_serve_and_its_options_are_read_as_the_same_pool(
    overrides: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = hf.compose(["engine=tensorrt_llm", *overrides])
    head, options, line = re.split(r"<<'YAML'\n|^YAML\n", shell_text(servers_of(config)), flags=re.MULTILINE)
    assert head.endswith("cat > trtllm-llm.yaml ")
    (tmp_path / "trtllm-llm.yaml").write_text(options, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    found = read_deployment("trtllm", line)
    assert set(found.ignored) <= {"--extra-llm-api-options"}
    pool, again = config.cluster.pools["llm"], hf.compose(found.texts()).cluster.pools["llm"]
    assert again == pool


def test_containers_of_trtllm_serve_find_their_options() -> None:
    servers = servers_of(hf.compose(["engine=tensorrt_llm", "model=qwen3_8b", f"{POOL}.prefix_cache=false"]))
    found = yaml.safe_load(compose_text(servers))
    (service,) = found["services"].values()
    place = service["command"][service["command"].index("--extra_llm_api_options") + 1]
    assert service["configs"] == [{"source": "trtllm-llm", "target": place}]
    settings = yaml.safe_load(found["configs"]["trtllm-llm"]["content"])
    assert settings["kv_cache_config"] == {"enable_block_reuse": False}
    options, deployment, _ = yaml.safe_load_all(kubernetes_text(servers))
    assert options["kind"] == "ConfigMap"
    (name,) = options["data"]
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert f"/etc/hermes-flow/{name}" in container["args"]
    assert yaml.safe_load(options["data"][name]) == settings


def test_compose_has_a_service_for_every_server_on_a_port_of_its_own() -> None:
    config = hf.compose(["model=qwen3_8b", f"{POOL}.count=2", f"{POOL}.tensor_parallel=2"])
    found = yaml.safe_load(compose_text(servers_of(config)))
    assert list(found["services"]) == ["vllm-llm-0", "vllm-llm-1"]
    first = found["services"]["vllm-llm-0"]
    assert [service["ports"] for service in found["services"].values()] == [["8000:8000"], ["8001:8000"]]
    assert first["deploy"]["resources"]["reservations"]["devices"] == [
        {"driver": "nvidia", "count": 2, "capabilities": ["gpu"]}
    ]
    line = shlex.join(first["entrypoint"] + first["command"])
    assert read_deployment("vllm", line).overrides["model"] == "qwen3_8b"


def test_kubernetes_has_a_deployment_and_a_service_whose_labels_agree() -> None:
    config = hf.compose(["model=qwen3_8b", "hardware=mi300x", "engine=sglang", f"{POOL}.count=3"])
    text = kubernetes_text(servers_of(config), image="example/sglang:1")
    deployment, service = yaml.safe_load_all(text)
    assert (deployment["apiVersion"], deployment["kind"]) == ("apps/v1", "Deployment")
    assert (service["apiVersion"], service["kind"]) == ("v1", "Service")
    template = deployment["spec"]["template"]
    labels = template["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"] == labels == service["spec"]["selector"]
    assert deployment["spec"]["replicas"] == 3
    (container,) = template["spec"]["containers"]
    assert container["resources"] == {"limits": {"amd.com/gpu": "1"}}
    assert container["image"] == "example/sglang:1"
    assert container["command"] == ["python3", "-m", "sglang.launch_server"]
    assert all(isinstance(word, str) for word in container["args"])
    assert service["spec"]["ports"][0]["targetPort"] == container["ports"][0]["containerPort"]
    mounts = {mount["name"] for mount in container["volumeMounts"]}
    assert mounts == {volume["name"] for volume in template["spec"]["volumes"]}


def test_prefill_and_decode_are_servers_that_move_kv_and_the_proxy_is_said_to_lack() -> None:
    servers = servers_of(hf.compose(["cluster=disaggregated", "model=qwen3_8b"]))
    assert [server.pool for server in servers] == ["prefill", "decode"]
    assert all("--kv-transfer-config" in server.arguments for server in servers)
    assert all(any("a proxy" in what for what in server.left_out) for server in servers)


def test_sglang_is_told_which_side_a_server_is() -> None:
    words = ["cluster=disaggregated", "engine=sglang", "cluster.pools.decode.num_reserved_decode_tokens=256"]
    text = shell_text(servers_of(hf.compose(words)))
    prefill, decode = text.split("# Pool decode")
    assert "--disaggregation-mode prefill" in prefill
    assert "--disaggregation-mode decode" in decode
    assert "--num-reserved-decode-tokens 256" in decode
    assert text.count("a router that sends each request to a prefill server and to a decode server") == 2


def test_settings_without_a_flag_are_named_in_the_files() -> None:
    overrides = [
        f"{POOL}.batching=continuous",
        f"{POOL}.packing=shortest_prompt",
        "model.precision.weights=int4",
        f"{POOL}.offload.tiers=[host,disk]",
        f"{POOL}.tool_gap.policy=keep",
    ]
    text = shell_text(servers_of(hf.compose(overrides)))
    tiers = ("offload.tiers=[disk]", "offload.write=evicted", "offload.prefetch=true", "tool_gap.policy=keep")
    for what in ("batching=continuous", "packing=shortest_prompt", "model.precision.weights=int4", *tiers):
        assert f"# Not said by flags: {what}" in text


def test_host_memory_behind_sglang_has_flags_of_its_own() -> None:
    tiers = (
        f"{POOL}.offload.tiers=[host]",
        f"{POOL}.offload.host.capacity_gb=64",
        f"{POOL}.offload.write=computed",
    )
    words = ["engine=sglang", f"{POOL}.tensor_parallel=2", *tiers]
    text = shell_text(servers_of(hf.compose(words)))
    assert "--enable-hierarchical-cache" in text
    assert "--hicache-size 32" in text  # of one of two devices
    assert "--hicache-write-policy write_through" in text
    assert set(tiers) <= set(again(text))
    drive = (f"{POOL}.offload.tiers=[host,disk]", f"{POOL}.offload.prefetch_policy=timeout", *tiers[1:])
    drive = (*drive, f"{POOL}.offload.prefetch_tokens=512")
    text = shell_text(servers_of(hf.compose([*words[:2], *drive])))
    assert "# Not said by flags: offload.disk (the size of the drive)" in text
    assert set(drive) <= set(again(text))


def again(text: str) -> list[str]:
    """Return the overrides of the line of SGLang in a script."""
    line = "python3 -m sglang" + text.partition("-m sglang")[2]
    return read_deployment("sglang", line.replace("\\\n", " ")).texts()


def test_the_verb_writes_a_design_of_a_plan(tmp_path: Path) -> None:
    plan = tmp_path / "plan"
    (plan / ".hydra").mkdir(parents=True)
    (plan / ".hydra" / "overrides.yaml").write_text("- task=plan\n- model=qwen3_8b\n")
    designs = ["hardware=h100_sxm", f"hardware=l40s {POOL}.count=5 {POOL}.tensor_parallel=2"]
    pl.DataFrame({"overrides": designs}).write_parquet(plan / "plan.parquet")
    verb = verbs.parse({"kind": "export", "plan": str(plan), "design": 2}, "task")
    text = verb.run(hf.compose([]), tmp_path)
    assert "# Pool llm: 5 × this, each on 2 × l40s." in text
    deployment, _ = yaml.safe_load_all((tmp_path / "kubernetes.yaml").read_text())
    assert deployment["spec"]["replicas"] == 5
    assert (tmp_path / "serve.sh").read_text().startswith("#!/bin/sh")
    assert (tmp_path / "docker-compose.yaml").is_file()
    missing = verbs.parse({"kind": "export", "plan": str(plan), "design": 3}, "task")
    with pytest.raises(ConfigError, match=r"task\.design: 3 is not from 1 to 2"):
        missing.run(hf.compose([]), tmp_path)


def test_what_cannot_be_exported_is_an_error_with_its_key() -> None:
    with pytest.raises(ConfigError, match=r"pools\.llm: a client has 16 devices, a node 8"):
        servers_of(hf.compose([f"{POOL}.tensor_parallel=8", f"{POOL}.pipeline_parallel=2"]))
    config = hf.compose([])
    pool = config.cluster.pools["llm"]
    assert isinstance(pool, LLMPool)
    own = replace(pool, model=replace(pool.model, name="mine"))
    cluster = replace(config.cluster, pools={**config.cluster.pools, "llm": own})
    with pytest.raises(ConfigError, match=r"task\.model_id: null; the repository of mine is not known"):
        servers_of(replace(config, cluster=cluster))


def test_an_export_names_experts_that_the_server_has_no_copies_of_and_a_connector_that_it_needs() -> None:
    copies = hf.compose(["model=mixtral_8x7b", f"{POOL}.data_parallel=2"])
    assert "the server cuts the experts over all ranks" in shell_text(servers_of(copies))
    held = hf.compose(["pipeline=kv_reuse", f"{POOL}.retrieved_kv=held"])
    assert "name your KV connector by --kv-transfer-config" in shell_text(servers_of(held))


def test_marlin_is_asked_for_by_the_environment() -> None:
    words = ["model=gpt_oss_120b", "model.experts.kernels=marlin", f"{POOL}.tensor_parallel=2"]
    text = shell_text(servers_of(hf.compose(words)))
    assert "# Not said by flags: model.experts.kernels=marlin: set VLLM_MXFP4_USE_MARLIN=1" in text
