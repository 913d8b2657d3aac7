"""Deployments as people have them become overrides, and what is left out is named by flag."""

from __future__ import annotations

from pathlib import Path

import pytest

import hermes_flow as hf
from hermes_flow.deployments import read_deployment
from hermes_flow.deployments.servers import servers_of
from hermes_flow.errors import ConfigError
from hermes_flow.pools.llm.schema import LLMPool

POOL = "cluster.pools.llm"


def pool_of(overrides: list[str]) -> LLMPool:
    pool = hf.compose(overrides).cluster.pools["llm"]
    assert isinstance(pool, LLMPool)
    return pool


def test_limits_that_vllm_takes_by_the_gpu_are_named() -> None:
    found = read_deployment("vllm", "vllm serve Qwen/Qwen3-8B --max-num-seqs 64")
    (note,) = [note for note in found.notes if "chooses by the GPU" in note]
    assert "max_num_batched_tokens 8,192, or 2,048" in note
    assert "max_num_seqs 1,024" not in note
    given = read_deployment(
        "vllm", "vllm serve Qwen/Qwen3-8B --max-num-seqs 64 --max-num-batched-tokens 4096"
    )
    assert not any("chooses by the GPU" in note for note in given.notes)


@pytest.mark.parametrize(
    ("flag", "reason"),
    [
        ("--tensor-paralel-size", "not known; did you mean --tensor-parallel-size?"),
        ("--max_num_seq", "not known; did you mean --max-num-seqs?"),
        ("--max-num-sesq", "not known; did you mean --max-num-seqs?"),
        ("--max-num-requests", "not known"),
        ("--pipeline-size", "not known"),
    ],
)
def test_a_misspelt_flag_is_named_with_the_flag_that_one_slip_explains(flag: str, reason: str) -> None:
    (given,) = read_deployment("vllm", f"vllm serve Qwen/Qwen3-32B {flag} 2").ignored.values()
    assert given == reason


def test_a_line_of_vllm_sets_the_pool_and_names_what_it_leaves_out() -> None:
    line = (
        "vllm serve Qwen/Qwen3-32B --tensor-parallel-size 2 --max-num-seqs=128 --kv-cache-dtype fp8 --port 8000 "
        "--gpu-memory-utilization 0.85 --no-enable-prefix-caching --enforce-eager --frobnicate 3 --max-model-len 32k"
    )
    found = read_deployment("vllm", line)
    assert found.overrides == {
        "model": "qwen3_32b",
        f"{POOL}.tensor_parallel": 2,
        f"{POOL}.max_num_seqs": 128,
        "model.precision.kv_cache": "fp8",
        f"{POOL}.memory_utilization": 0.85,
        f"{POOL}.prefix_cache": False,
        "model.max_context": 32_000,
    }
    assert found.ignored == {
        "--port": "no effect on what is simulated",
        "--enforce-eager": "not modelled: steps without CUDA graphs",
        "--frobnicate": "not known",
    }
    pool = pool_of(found.texts())
    assert (pool.tensor_parallel, pool.max_num_seqs, pool.prefix_cache) == (2, 128, False)
    assert (pool.model.precision.kv_cache, pool.model.max_context) == ("fp8", 32_000)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            "VLLM_USE_V1=1 docker run --gpus all -p 8000:8000 vllm/vllm-openai:v0.15.1 "
            "--model meta-llama/Llama-3.1-8B-Instruct -tp 2 -dp 4",
            {"model": "llama3_8b", f"{POOL}.tensor_parallel": 2, f"{POOL}.count": 4},
        ),
        (
            "python -m vllm.entrypoints.openai.api_server \\\n  --model Qwen/Qwen3-30B-A3B-FP8 \\\n  -tp=2 -dp 4 -ep",
            {
                "model": "qwen3_30b_a3b",
                "model.precision.weights": "fp8",
                "model.precision.activations": "fp8",
                f"{POOL}.tensor_parallel": 2,
                f"{POOL}.data_parallel": 4,
                f"{POOL}.expert_parallel": True,
            },
        ),
        (
            "vllm serve openai/gpt-oss-120b --max_num_batched_tokens 2048 --no-enable-chunked-prefill",
            {"model": "gpt_oss_120b", f"{POOL}.max_num_batched_tokens": 2048, f"{POOL}.batching": "mixed"},
        ),
    ],
    ids=["docker", "module", "underscores"],
)
def test_lines_of_vllm_may_begin_in_several_ways(line: str, expected: dict[str, object]) -> None:
    found = read_deployment("vllm", line)
    assert found.overrides == expected
    pool_of(found.texts())


def test_a_line_of_sglang_chooses_its_scheduler_and_its_own_names() -> None:
    line = (
        "python3 -m sglang.launch_server --model-path deepseek-ai/DeepSeek-V3 --tp 8 --dp 8 --enable-dp-attention "
        "--ep-size 8 --mem-fraction-static 0.85 --chunked-prefill-size -1 --page-size 64 --max-total-tokens 128000"
    )
    found = read_deployment("sglang", line)
    assert found.overrides == {
        "engine": "sglang",
        "model": "deepseek_v3",
        f"{POOL}.tensor_parallel": 1,
        f"{POOL}.data_parallel": 8,
        f"{POOL}.expert_parallel": True,
        f"{POOL}.memory_utilization": 0.85,
        f"{POOL}.chunked_prefill_size": None,
        f"{POOL}.block_size": 64,
        f"{POOL}.kv_blocks": 2000,
    }
    assert not found.ignored
    assert "tensor_parallel is that of one data-parallel rank of attention" in found.notes
    assert pool_of(found.texts()).chunked_prefill_size is None


def test_the_hierarchical_cache_of_a_line_of_sglang_is_host_memory_of_the_client() -> None:
    line = "python -m sglang.launch_server --model-path meta-llama/Llama-3.1-8B-Instruct --enable-hierarchical-cache "
    sized = read_deployment("sglang", f"{line} --tp 2 --hicache-size 30 --hicache-write-policy write_back")
    offload = pool_of(sized.texts()).offload
    assert offload is not None
    assert offload.host is not None
    assert (offload.tiers, offload.write, offload.host.capacity_gb) == (("host",), "evicted", 60)
    assert not sized.ignored
    assert not sized.notes
    # 3 times 100,000 tokens of 2 · 32 layers · 8 heads · 128 · 2 bytes, in pages of 50 tokens
    times = read_deployment("sglang", f"{line} --max-total-tokens 100000 --page-size 50 --hicache-ratio 3")
    assert times.overrides[f"{POOL}.offload.host.capacity_gb"] == pytest.approx(3e5 * 131_072 / 1e9, rel=1e-5)
    assert times.overrides[f"{POOL}.offload.write"] == "computed"  # SGLang's default
    unknown = read_deployment("sglang", line)
    assert any("2 times the memory for KV" in note for note in unknown.notes)
    assert unknown.overrides[f"{POOL}.offload.tiers"] == "[host]"
    drive = (
        f"{line} --hicache-size 60 --hicache-storage-backend hf3fs --hicache-storage-prefetch-policy timeout"
    )
    found = read_deployment("sglang", drive)
    offload = pool_of(found.texts()).offload
    assert offload is not None
    assert (offload.tiers, offload.prefetch_policy) == (("host", "disk"), "timeout")
    assert "set the capacity" in found.ignored["--hicache-storage-backend"]
    off = read_deployment("sglang", line.replace("--enable-hierarchical-cache", "--hicache-size 30"))
    assert off.ignored == {"--hicache-size": "the hierarchical cache is off"}
    assert not any("offload" in key for key in off.overrides)


@pytest.mark.parametrize(
    ("engine", "line", "expected", "ignored"),
    [
        (
            "vllm",
            "vllm serve Qwen/Qwen3-8B --enable-chunked-prefill=False --no-enable-expert-parallel --no-enable-eplb",
            {"batching": "mixed", "expert_parallel": False},
            {"--no-enable-eplb": "switched off"},
        ),
        (
            "vllm",
            "vllm serve Qwen/Qwen3-8B --enable-lora --max-loras 4 --lora-modules sql=/adapters/sql",
            {"adapters": "{slots: 4, rank: 16}"},
            {"--lora-modules": "not known"},
        ),
        ("vllm", "vllm serve Qwen/Qwen3-8B --no-enable-lora --max-loras 4", {}, {}),
        (
            "vllm",
            "vllm serve Qwen/Qwen3-8B -O3 --speculative-config.method mtp "
            "--speculative-config.num_speculative_tokens 1",
            {"speculative.tokens": 1, "speculative.head": "mtp"},
            {"--optimization-level": "not modelled: which steps have CUDA graphs"},
        ),
        (
            "vllm",
            "docker run --gpus all --entrypoint bash vllm/vllm-openai -c 'HF_HOME=/x vllm serve Qwen/Qwen3-8B -tp 2'",
            {"tensor_parallel": 2},
            {"HF_HOME": "a variable of the environment"},
        ),
        (
            "vllm",
            "vllm serve Qwen/Qwen3-8B --config nowhere.yaml",
            {},
            {"--config": "there is no file nowhere.yaml here; its options are not read"},
        ),
        (
            "sglang",
            "python3 -m sglang.launch_server --model deepseek-ai/DeepSeek-R1 --tp 8 --dp 2",
            {"tensor_parallel": 8, "count": 2},
            {},
        ),
        (
            "sglang",
            "python3 -m sglang.launch_server --model deepseek-ai/DeepSeek-R1 --tp 16 --dp 8 --enable-dp-attention "
            "--chunked-prefill-size 32768 --max-running-requests 1024 --load-balance-method shortest_queue",
            {
                "tensor_parallel": 2,
                "data_parallel": 8,
                "chunked_prefill_size": 4096,
                "max_num_seqs": 128,
                "rank_routing": "shortest_queue",
                "expert_parallel": True,  # without --ep experts are cut over all ranks, and not copied
            },
            {},
        ),
        (
            "trtllm",
            "trtllm-serve deepseek-ai/DeepSeek-R1 --tp_size 8 --ep_size 8 --enable_attention_dp --max_batch_size 64",
            {"tensor_parallel": 1, "data_parallel": 8, "expert_parallel": True, "max_num_seqs": 64},
            {},
        ),
    ],
)
def test_lines_as_people_type_them_mean_what_the_engine_takes_them_for(
    engine: str, line: str, expected: dict[str, object], ignored: dict[str, str]
) -> None:
    found = read_deployment(engine, line)
    pool = {key.removeprefix(f"{POOL}."): found.overrides[key] for key in found.overrides if POOL in key}
    assert pool == expected
    assert {key: found.ignored.get(key) for key in ignored} == ignored
    assert found.overrides["model"] in ("qwen3_8b", "deepseek_v3")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("vllm serve $MODEL -tp $TP", r"\$TP is a variable of a shell; give its value"),
        ("vllm bench serve --model Qwen/Qwen3-8B", "vllm bench runs a benchmark; expected vllm serve"),
    ],
)
def test_lines_that_name_no_server_are_refused(line: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_deployment("vllm", line)


def test_options_of_tensorrt_llm_are_read_from_flags_and_from_their_file(tmp_path: Path) -> None:
    options = tmp_path / "options.yaml"
    options.write_text(
        "kv_cache_config:\n  dtype: fp8\n  enable_block_reuse: false\n  free_gpu_memory_fraction: 0.9\n"
        "scheduler_config: {capacity_scheduler_policy: GUARANTEED_NO_EVICT}\nenable_chunked_prefill: true\n"
    )
    line = f"trtllm-serve openai/gpt-oss-120b --tp_size 4 --ep_size 4 --max_batch_size 256 --config {options}"
    found = read_deployment("trtllm", line)
    assert found.overrides["model"] == "gpt_oss_120b"
    assert found.overrides[f"{POOL}.tensor_parallel"] == 4
    assert found.overrides[f"{POOL}.max_num_seqs"] == 256
    assert found.overrides["model.precision.kv_cache"] == "fp8"
    assert found.overrides["engine"] == "tensorrt_llm"
    assert found.overrides[f"{POOL}.capacity_scheduler_policy"] == "guaranteed_no_evict"
    assert found.overrides[f"{POOL}.context_chunking_policy"] == "first_come_first_served"
    assert found.overrides[f"{POOL}.memory_utilization"] == 0.9  # of what the weights leave, as there
    assert found.overrides[f"{POOL}.prefix_cache"] is False
    assert found.ignored == {"--config": "no effect on what is simulated"}
    assert pool_of(found.texts()).context_chunking_policy == "first_come_first_served"


def test_the_waits_of_tensorrt_llm_are_read_from_its_file(tmp_path: Path) -> None:
    options = tmp_path / "options.yaml"
    options.write_text(
        "enable_attention_dp: true\nattention_dp_config:\n  enable_balance: true\n  timeout_iters: 60\n"
        "  batching_wait_iters: 0\n"
    )
    line = f"trtllm-serve deepseek-ai/DeepSeek-V3 --tp_size 8 --ep_size 8 --extra_llm_api_options {options}"
    found = pool_of(read_deployment("trtllm", line).texts()).attention_dp_config
    assert (found.enable_balance, found.timeout_iters, found.batching_wait_iters) == (True, 60, 0)
    options.write_text("batch_wait_max_tokens_ratio: 0.9\nbatch_wait_timeout_iters: 20\n")
    pool = pool_of(read_deployment("trtllm", line).texts())
    assert (pool.batch_wait_max_tokens_ratio, pool.batch_wait_timeout_iters) == (0.9, 20)


def test_values_of_llm_d_with_both_roles_are_a_disaggregated_cluster(tmp_path: Path) -> None:
    values = tmp_path / "values.yaml"
    values.write_text(
        "modelArtifacts: {uri: hf://Qwen/Qwen3-32B}\n"
        "prefill:\n  replicas: 4\n  parallelism: {tensor: 1}\n  containers:\n"
        "  - {image: ghcr.io/llm-d/llm-d, args: [--max-num-seqs, '64', --block-size, '128']}\n"
        "decode:\n  replicas: 2\n  parallelism: {tensor: 4}\n  containers:\n  - {args: [--max-num-seqs, '256']}\n"
    )
    config = hf.compose(read_deployment("llm-d", str(values)).texts())
    prefill, decode = config.cluster.pools["prefill"], config.cluster.pools["decode"]
    assert isinstance(prefill, LLMPool)
    assert isinstance(decode, LLMPool)
    assert (prefill.count, prefill.tensor_parallel, prefill.max_num_seqs) == (4, 1, 64)
    assert prefill.block_size == 128
    assert (decode.count, decode.tensor_parallel, decode.max_num_seqs) == (2, 4, 256)
    assert prefill.model.name == decode.model.name == "qwen3_32b"


def test_a_graph_of_dynamo_has_its_workers_read(tmp_path: Path) -> None:
    graph = tmp_path / "agg.yaml"
    graph.write_text(
        "spec:\n  services:\n    Frontend: {replicas: 1}\n    VllmDecodeWorker:\n      replicas: 3\n"
        "      extraPodSpec:\n        mainContainer:\n          image: dynamo/vllm-runtime\n"
        "          args: [python3, -m, dynamo.vllm, --model, Qwen/Qwen3-8B, --tensor-parallel-size, '2']\n"
    )
    found = read_deployment("dynamo", str(graph))
    assert found.overrides == {"model": "qwen3_8b", f"{POOL}.tensor_parallel": 2, f"{POOL}.count": 3}


def _graph(**flags: str) -> str:
    """Return a graph of Dynamo with a worker of two replicas for each name, with its value of --max-num-seqs."""
    return "spec:\n  services:\n" + "".join(
        f"    {name}:\n      replicas: 2\n      extraPodSpec:\n        mainContainer:\n"
        f"          args: [python3, -m, dynamo.vllm, --model, Qwen/Qwen3-8B, --max-num-seqs, '{seats}']\n"
        for name, seats in flags.items()
    )


def test_workers_of_dynamo_with_the_same_command_are_added_up(tmp_path: Path) -> None:
    graph = tmp_path / "agg.yaml"
    graph.write_text(_graph(WorkerA="32", WorkerB="32"))
    found = read_deployment("dynamo", str(graph))
    assert found.overrides[f"{POOL}.count"] == 4
    assert found.overrides[f"{POOL}.max_num_seqs"] == 32


def test_two_different_workers_of_dynamo_with_one_role_are_an_error_that_names_both(tmp_path: Path) -> None:
    graph = tmp_path / "agg.yaml"
    graph.write_text(_graph(WorkerA="32", WorkerB="64"))
    with pytest.raises(ConfigError, match="two kinds of decode workers, WorkerA and WorkerB"):
        read_deployment("dynamo", str(graph))


def test_a_leader_worker_set_has_the_server_of_its_leader_read(tmp_path: Path) -> None:
    path = tmp_path / "lws.yaml"
    path.write_text(
        "apiVersion: leaderworkerset.x-k8s.io/v1\nkind: LeaderWorkerSet\nmetadata: {name: vllm}\n"
        "spec:\n  replicas: 3\n  leaderWorkerTemplate:\n    size: 2\n"
        "    leaderTemplate:\n      spec:\n        containers:\n        - name: leader\n"
        "          image: vllm/vllm-openai\n"
        "          command: [vllm, serve, Qwen/Qwen3-8B, --tensor-parallel-size, '2']\n"
        "    workerTemplate:\n      spec:\n        containers:\n        - name: worker\n"
        "          image: vllm/vllm-openai\n          command: [sh, -c, 'ray start --block']\n"
    )
    found = read_deployment("vllm", str(path))
    assert found.overrides == {"model": "qwen3_8b", f"{POOL}.tensor_parallel": 2, f"{POOL}.count": 3}


def test_an_inference_service_of_kserve_has_the_container_of_its_predictor_read(tmp_path: Path) -> None:
    path = tmp_path / "kserve.yaml"
    path.write_text(
        "apiVersion: serving.kserve.io/v1beta1\nkind: InferenceService\nmetadata: {name: qwen}\n"
        "spec:\n  predictor:\n    minReplicas: 2\n    containers:\n    - name: server\n"
        "      image: vllm/vllm-openai\n      args: [Qwen/Qwen3-8B, --max-num-seqs, '64']\n"
    )
    found = read_deployment("vllm", str(path))
    assert found.overrides == {"model": "qwen3_8b", f"{POOL}.max_num_seqs": 64, f"{POOL}.count": 2}


def test_a_model_that_is_not_in_the_catalog_is_said_and_everything_else_is_read() -> None:
    found = read_deployment("vllm", "vllm serve acme/Foo-7B --max-num-seqs 32")
    assert found.overrides == {f"{POOL}.max_num_seqs": 32}
    assert any("acme/Foo-7B is not in the catalog" in note for note in found.notes)


def test_the_limit_of_one_prompt_in_a_step_is_read_from_a_line_of_vllm() -> None:
    found = read_deployment("vllm", "vllm serve Qwen/Qwen3-32B --long-prefill-token-threshold 640")
    assert pool_of(found.texts()).long_prefill_token_threshold == 640
    assert not found.ignored


COMPOSE = """services:
  proxy: {image: nginx}
  llm:
    image: vllm/vllm-openai:latest
    command: --model Qwen/Qwen3-8B --tensor-parallel-size 2
    environment: [HF_TOKEN=x]
    deploy: {replicas: 2}
"""
MANIFESTS = """apiVersion: apps/v1
kind: Deployment
metadata: {name: llm}
spec:
  replicas: 3
  template:
    spec:
      containers:
      - name: server
        image: vllm/vllm-openai
        command: ["/bin/sh", "-c"]
        args: ["exec vllm serve Qwen/Qwen3-8B --tensor-parallel-size 4 --max-num-seqs=64"]
---
apiVersion: v1
kind: Service
metadata: {name: llm}
"""


def test_the_server_of_a_compose_file_is_read_with_its_replicas(tmp_path: Path) -> None:
    path = tmp_path / "compose.yaml"
    path.write_text(COMPOSE)
    found = read_deployment("vllm", str(path))
    assert found.overrides == {"model": "qwen3_8b", f"{POOL}.tensor_parallel": 2, f"{POOL}.count": 2}
    assert found.ignored == {"HF_TOKEN": "a variable of the environment"}


def test_services_that_start_the_same_server_are_its_replicas(tmp_path: Path) -> None:
    service = (
        "  llm{0}:\n    image: vllm/vllm-openai\n"
        "    command: --model Qwen/Qwen3-8B --port 800{0} --max-num-seqs {1}\n"
        "    environment: [CUDA_VISIBLE_DEVICES={0}]\n"
    )
    path = tmp_path / "compose.yaml"
    path.write_text("services:\n" + "".join(service.format(index, 64) for index in range(3)))
    pool = pool_of(read_deployment("vllm", str(path)).texts())
    assert (pool.count, pool.max_num_seqs) == (3, 64)
    path.write_text("services:\n" + service.format(0, 64) + service.format(1, 128))
    with pytest.raises(ConfigError, match=r"has 2 containers of vllm \(llm0, llm1\)"):
        read_deployment("vllm", str(path))


def test_the_server_of_manifests_is_read_with_its_replicas(tmp_path: Path) -> None:
    path = tmp_path / "kubernetes.yaml"
    path.write_text(MANIFESTS)
    pool = pool_of(read_deployment("vllm", str(path)).texts())
    assert (pool.tensor_parallel, pool.max_num_seqs, pool.count) == (4, 64, 3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            MANIFESTS.replace("vllm", "llamacpp"),
            r"task\.path: has no container of vllm \(server\); expected one",
        ),
        (COMPOSE.replace("nginx", "vllm/other"), r"has 2 containers of vllm \(proxy, llm\)"),
        (COMPOSE.replace("replicas: 2", "replicas: two"), r"replicas of llm: 'two' is not valid"),
        (MANIFESTS + "---\na: [1\n", r"file\.yaml:1[89]: is not YAML"),
        ("name: mine\nkind: thing\n", r"task\.path: has no option of vllm; it has name, kind"),
    ],
)
def test_a_file_without_one_server_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "file.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_deployment("vllm", str(tmp_path / "file.yaml"))


@pytest.mark.parametrize(
    ("what", "line", "message"),
    [
        ("vllm", "vllm serve x --max-num-seqs many", r"--max-num-seqs: 'many' is not a whole number"),
        ("vllm", "vllm serve x --kv-cache-dtype fp7", r"--kv-cache-dtype: 'fp7' is not a precision"),
        ("vllm", "vllm serve x --scheduling-policy lifo", r"--scheduling-policy: 'lifo' is unknown"),
        (
            "sglang",
            "sglang --hicache-write-policy lazy",
            r"--hicache-write-policy: 'lazy'; expected write_back",
        ),
        (
            "sglang",
            "sglang --hicache-storage-prefetch-policy x",
            r"prefetch-policy: 'x'; expected best_effort",
        ),
        ("vllm", "vllm serve 'x", r"task\.path: not a command line"),
        ("vllm", "none.yaml", r"task\.path: there is no file none\.yaml"),
        ("llm-d", "vllm serve x", r"task\.path: is no YAML file"),
    ],
)
def test_what_cannot_be_read_is_an_error_that_names_the_flag(what: str, line: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_deployment(what, line)


SERVER = "python3 -m sglang.launch_server --model-path deepseek-ai/DeepSeek-V3 --tp 8"
DENSE = "python3 -m sglang.launch_server --model-path meta-llama/Llama-3.1-8B-Instruct --tp 4"
SERVE = "trtllm-serve deepseek-ai/DeepSeek-R1 --tp_size 8 --ep_size 8"


@pytest.mark.parametrize(
    ("line", "flag", "reason"),
    [
        (f"{SERVER} --scheduler-recv-interval 0", "--scheduler-recv-interval", "no effect"),
        (
            f"{SERVER} --dp 8 --enable-dp-attention --scheduler-recv-interval 10",
            "--scheduler-recv-interval",
            "not modelled with data-parallel ranks",
        ),
        (
            f"{SERVER} --moe-a2a-backend deepep",
            "--moe-a2a-backend",
            "no effect here: no ranks exchange tokens",
        ),
        (
            f"{SERVER} --dp 8 --enable-dp-attention --load-balance-method follow_bootstrap_room",
            "--load-balance-method",
            "the default where prefill and decode have servers of their own, no rule elsewhere",
        ),
        (
            f"{SERVER} --dp 8 --enable-dp-attention --load-balance-method minimum_tokens",
            "--load-balance-method",
            "not modelled: minimum_tokens; the ranks get requests in turns",
        ),
        (
            f"{DENSE} --dp 4 --enable-dp-attention",
            "--enable-dp-attention",
            "not modelled for llama3_8b, whose MLPs all ranks would share",
        ),
        (
            f"{DENSE} --dp 4 --enable-dp-attention --load-balance-method shortest_queue",
            "--load-balance-method",
            "no effect with one rank",
        ),
        (
            "trtllm-serve meta-llama/Llama-3.1-8B-Instruct --tp_size 4 --enable_attention_dp",
            "--enable-attention-dp",
            "not modelled for llama3_8b, whose MLPs all ranks would share",
        ),
        (
            f"{SERVER} --load-balance-method shortest_queue",
            "--load-balance-method",
            "no effect with one rank",
        ),
        (
            f"{SERVER} --dp 2 --load-balance-method shortest_queue",
            "--load-balance-method",
            "set cluster.routing",
        ),
        (
            f"{SERVE} --batch-wait-timeout-iters 20",
            "--batch-wait-timeout-iters",
            "no effect without --batch-wait",
        ),
        (
            f"{SERVE} --enable_attention_dp --batch-wait-timeout-ms 5",
            "--batch-wait-timeout-ms",
            "not modelled with data-parallel ranks",
        ),
        (
            f"{SERVE} --attention-dp-config.timeout-iters 9",
            "--attention-dp-config.timeout-iters",
            "no effect without --enable-attention-dp",
        ),
    ],
)
def test_waits_and_ranks_that_a_pool_would_refuse_are_named_as_ignored(
    line: str, flag: str, reason: str
) -> None:
    found = read_deployment("sglang" if "sglang" in line else "trtllm", line)
    assert reason in found.ignored[flag]
    if "with data-parallel ranks" in reason or "MLPs" in reason:
        hf.compile(hf.compose([*found.texts(), "hardware=b200_sxm", "workload.requests=2"]))


@pytest.mark.parametrize(
    ("what", "line", "kernels", "reason"),
    [
        ("vllm", "VLLM_MXFP4_USE_MARLIN=1 vllm serve openai/gpt-oss-120b", "marlin", None),
        ("vllm", "VLLM_MXFP4_USE_MARLIN=0 vllm serve openai/gpt-oss-120b", "default", "switched off"),
        (
            "vllm",
            "VLLM_MXFP4_USE_MARLIN=1 vllm serve Qwen/Qwen3-30B-A3B",
            "default",
            "no effect on qwen3_30b_a3b, whose weights are in bf16",
        ),
        (
            "sglang",
            "VLLM_MXFP4_USE_MARLIN=1 python -m sglang.launch_server --model-path openai/gpt-oss-120b",
            "default",
            "a variable of the environment",
        ),
    ],
)
def test_the_kernels_of_experts_are_read_from_the_environment_of_vllm(
    what: str, line: str, kernels: str, reason: str | None
) -> None:
    found = read_deployment(what, line)
    experts = pool_of(found.texts()).model.experts
    assert experts is not None
    assert experts.kernels == kernels
    assert found.ignored.get("VLLM_MXFP4_USE_MARLIN") == reason


def test_the_kernels_of_experts_are_read_from_the_environment_of_a_container(tmp_path: Path) -> None:
    path = tmp_path / "compose.yaml"
    words = COMPOSE.replace("Qwen/Qwen3-8B", "openai/gpt-oss-120b")
    for environment in ("[HF_TOKEN=x, VLLM_MXFP4_USE_MARLIN=1]", "{HF_TOKEN: x, VLLM_MXFP4_USE_MARLIN: 1}"):
        path.write_text(words.replace("[HF_TOKEN=x]", environment))
        found = read_deployment("vllm", str(path))
        assert found.overrides["model.experts.kernels"] == "marlin"
        assert found.ignored == {"HF_TOKEN": "a variable of the environment"}


@pytest.mark.parametrize(
    "line",
    [
        "vllm serve Qwen/Qwen3-8B --max-num-seqs 64 --generation-config vllm",
        "vllm serve Qwen/Qwen3-8B --served-model-name vllm --max-num-seqs 64",
        "vllm serve --trust-remote-code --enable-prefix-caching Qwen/Qwen3-8B --max-num-seqs 64",
        "kubectl exec -it vllm -- vllm serve Qwen/Qwen3-8B --max-num-seqs 64",
        "docker run --name vllm --gpus all vllm/vllm-openai:latest --model Qwen/Qwen3-8B --max-num-seqs 64",
        "python -m vllm.entrypoints.openai.api_server --model Qwen/Qwen3-8B --max-num-seqs 64 --uds vllm",
        "conda run -n vllm vllm serve Qwen/Qwen3-8B --max-num-seqs 64",
    ],
)
def test_the_engines_name_in_another_place_is_not_the_program(line: str) -> None:
    found = read_deployment("vllm", line)
    assert found.overrides["model"] == "qwen3_8b"
    assert found.overrides[f"{POOL}.max_num_seqs"] == 64


@pytest.mark.parametrize(
    ("what", "flags", "problem"),
    [
        ("vllm", "--tensor-parallel-size", "--tensor-parallel-size: has no value; expected a whole number"),
        ("vllm", "--gpu-memory-utilization", "--gpu-memory-utilization: has no value; expected a number"),
        ("vllm", "--gpu-memory-utilization nan", "'nan' is not a number"),
        ("vllm", "--max-num-seqs ak", "'ak' is not a whole number"),
        ("vllm", "--max-num-seqs infk", "'infk' is not a whole number"),
        ("vllm", "--kv-offloading-size nan", "'nan' is not a number"),
        ("vllm", "--speculative-config '{\"num_speculative_tokens\": []}'", "'[]' is not a whole number"),
        ("vllm", "--speculative-config", "has no value; expected a JSON object"),
        ("vllm", "--scheduling-policy", "has no value; expected fcfs or priority"),
        ("vllm", "--model", "--model: has no value; expected ORGANISATION/NAME"),
        ("sglang", "--tp 4 --dp 3 --enable-dp-attention", "3 ranks of attention do not divide"),
    ],
)
def test_a_flag_whose_value_cannot_be_is_refused_by_name(what: str, flags: str, problem: str) -> None:
    program = {
        "vllm": "vllm serve Qwen/Qwen3-30B-A3B",
        "sglang": "sglang serve --model-path Qwen/Qwen3-30B-A3B",
    }
    with pytest.raises(ConfigError) as caught:
        read_deployment(what, f"{program[what]} {flags}")
    assert problem in str(caught.value)
    assert "True" not in str(caught.value)


@pytest.mark.parametrize(
    ("what", "line"),
    [
        ("vllm", "vllm serve Qwen/Qwen3-8B"),
        ("sglang", "python -m sglang.launch_server --model-path Qwen/Qwen3-8B"),
        ("trtllm", "trtllm-serve Qwen/Qwen3-8B"),
    ],
)
def test_a_precision_of_16_bits_is_what_is_simulated_and_others_are_named(what: str, line: str) -> None:
    for precision in ("auto", "bfloat16", "float16", "half", "BFloat16"):
        assert not read_deployment(what, f"{line} --dtype {precision}").ignored, precision
    for precision in ("float32", "float"):
        ignored = read_deployment(what, f"{line} --dtype={precision}").ignored
        assert ignored == {"--dtype": "not modelled: other precisions than 16 bits"}


@pytest.mark.parametrize(
    ("what", "line", "simulated", "other"),
    [
        ("vllm", "vllm serve Qwen/Qwen3-8B", "--cpu-offload-gb 0", "--cpu-offload-gb 4"),
        ("vllm", "vllm serve Qwen/Qwen3-8B", "--max-num-partial-prefills 1", "--max-num-partial-prefills 2"),
        (
            "vllm",
            "vllm serve Qwen/Qwen3-8B",
            "--decode-context-parallel-size 1",
            "--decode-context-parallel-size 2",
        ),
        (
            "sglang",
            "python -m sglang.launch_server --model-path Qwen/Qwen3-8B",
            "--disaggregation-mode null",
            "--disaggregation-mode decode",
        ),
    ],
)
def test_a_flag_that_asks_for_what_is_simulated_is_not_called_unmodelled(
    what: str, line: str, simulated: str, other: str
) -> None:
    assert not read_deployment(what, f"{line} {simulated}").ignored
    (reason,) = read_deployment(what, f"{line} {other}").ignored.values()
    assert reason.startswith("not modelled: ")


def test_the_order_of_sglangs_queue_is_read_and_written() -> None:
    line = "python -m sglang.launch_server --model-path Qwen/Qwen3-8B --schedule-policy"
    assert read_deployment("sglang", f"{line} lpm").overrides[f"{POOL}.packing"] == "lpm"
    other = read_deployment("sglang", f"{line} lof")
    assert f"{POOL}.packing" not in other.overrides
    assert other.ignored["--schedule-policy"] == "lof: not modelled: other orders than fcfs and lpm"
    config = hf.compose(["engine=sglang", f"{POOL}.packing=lpm", "model=qwen3_8b"])
    (server,) = servers_of(config)
    assert " --schedule-policy lpm " in " ".join(server.command)


@pytest.mark.parametrize(
    ("model", "backend", "kernels", "reason"),
    [
        ("deepseek-ai/DeepSeek-V3", "DEEPGEMM", "deepgemm", None),
        ("nvidia/DeepSeek-R1-FP4", "CUTLASS", "cutlass", None),
        (
            "deepseek-ai/DeepSeek-V3",
            "CUTLASS",
            "default",
            "CUTLASS: modelled for experts in nvfp4, and those of deepseek_v3 are in fp8",
        ),
        (
            "openai/gpt-oss-120b",
            "TRITON",
            "default",
            "TRITON: the kernels by default, as they were measured on the hardware",
        ),
        ("openai/gpt-oss-120b", "WIDEEP", "default", "not modelled: experts with WIDEEP"),
    ],
)
def test_the_backend_of_experts_of_tensorrt_llm_is_read(
    tmp_path: Path, model: str, backend: str, kernels: str, reason: str | None
) -> None:
    options = tmp_path / "options.yaml"
    options.write_text(f"moe_config:\n  backend: {backend}\n")
    found = read_deployment("trtllm", f"trtllm-serve {model} --extra_llm_api_options {options}")
    experts = pool_of(found.texts()).model.experts
    assert experts is not None
    assert experts.kernels == kernels
    assert found.ignored.get("--moe-config.backend") == reason
