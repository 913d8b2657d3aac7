"""Pools, clusters and pipelines compose: what each brings, and who wins where several choose."""

from __future__ import annotations

from pathlib import Path

import pytest

import hermes_flow as hf
from hermes_flow.config.pools import PoolConfig
from hermes_flow.errors import HermesFlowError
from hermes_flow.pools.batched.schema import BatchedPool
from hermes_flow.pools.llm.schema import LLMPool

FIRST_VERSION = Path(__file__).parent / "first_version"
SHORT = ("workload=synthetic", "workload.requests=40", "workload.rate_per_s=2", "slo=chat")


def pools(*overrides: str, config_dir: Path | None = None) -> dict[str, PoolConfig]:
    return hf.compose(overrides, config_dir=config_dir).cluster.pools


def llm(*overrides: str, pool: str = "llm", config_dir: Path | None = None) -> LLMPool:
    found = pools(*overrides, config_dir=config_dir)[pool]
    assert isinstance(found, LLMPool)
    return found


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return folder


def test_a_pipeline_brings_the_pools_of_its_services_and_the_slo_it_prefers() -> None:
    assert set(pools("pipeline=chat")) == {"host", "llm"}
    config = hf.compose(["pipeline=rag"])
    assert set(config.cluster.pools) == {"embed", "retrieval", "host", "llm"}
    assert config.slo.name == "rag"


@pytest.mark.parametrize("experiment", [[], ["experiment=strategy_chunked"]])
def test_a_choice_on_the_command_line_beats_what_a_pipeline_prefers(experiment: list[str]) -> None:
    assert hf.compose(["pipeline=rag", "slo=none", *experiment]).slo.name == "none"
    assert hf.compose(["pipeline=rag", "workload=azure_code", *experiment]).workload.name == "azure_code"


def test_a_pool_of_a_pipeline_is_swapped_resized_and_moved_from_the_command_line() -> None:
    embed = pools("pipeline=rag", "pool@cluster.pools.embed=embed_cpu", "cluster.pools.embed.count=3")[
        "embed"
    ]
    assert (embed.hardware.name, embed.count) == ("sapphire_rapids", 3)
    changed = "hardware@cluster.pools.embed.hardware=l40s", "model@cluster.pools.embed.model=e5_mistral_7b"
    embed = pools("pipeline=rag", *changed)["embed"]
    assert isinstance(embed, BatchedPool)
    assert embed.model is not None
    assert (embed.hardware.name, embed.model.name) == ("l40s", "e5_mistral_7b")


def test_an_llm_pool_takes_the_model_and_the_hardware_chosen_for_all() -> None:
    pool = llm(
        "hardware=l40s", "model=mistral_7b", "hardware.bandwidth_gb_s=900", "model.precision.weights=fp8"
    )
    assert (pool.hardware.name, pool.hardware.bandwidth_gb_s) == ("l40s", 900)
    assert (pool.model.name, pool.model.precision.weights) == ("mistral_7b", "fp8")


@pytest.mark.parametrize("plus", ["", "+"])
def test_one_llm_pool_may_have_a_hardware_of_its_own(plus: str) -> None:
    choice = f"{plus}hardware@cluster.pools.decode.hardware=a100_sxm"
    found = pools("cluster=disaggregated", choice)
    assert found["prefill"].hardware == hf.compose([]).hardware
    # All of it: nothing of the hardware chosen for all remains, as fp8 products that an A100 does not have would.
    assert found["decode"].hardware == hf.compose(["hardware=a100_sxm"]).hardware


@pytest.mark.parametrize(("cluster", "pool"), [("replicas", "llm"), ("disaggregated", "decode")])
def test_single_figures_of_one_pool_are_changed_where_it_is(cluster: str, pool: str) -> None:
    change = f"cluster.pools.{pool}.hardware.bandwidth_gb_s=900"
    config = hf.compose([f"cluster={cluster}", "hardware=h200_sxm", change])
    hardware = config.cluster.pools[pool].hardware
    assert (hardware.name, hardware.bandwidth_gb_s, hardware.memory_gb) == ("h200_sxm", 900, 141)
    assert config.hardware.bandwidth_gb_s == 4800
    own = [f"hardware@cluster.pools.{pool}.hardware=l40s", change]
    hardware = pools(f"cluster={cluster}", *own)[pool].hardware
    assert (hardware.name, hardware.bandwidth_gb_s, hardware.memory_gb) == ("l40s", 900, 48)


def test_what_a_pool_leaves_open_is_the_default_of_its_engine(tmp_path: Path) -> None:
    pool = llm("cluster.pools.llm.block_size=32")
    assert (pool.engine.name, pool.max_num_seqs, pool.block_size) == ("vllm", 256, 32)
    assert "max_num_seqs" in pool.from_engine
    assert "block_size" not in pool.from_engine
    write(tmp_path, "engine/mine", "defaults: [vllm, _self_]\nname: mine\nmax_num_seqs: 64\nlookahead: 0\n")
    found = pools("cluster=disaggregated", "engine@cluster.pools.decode.engine=mine", config_dir=tmp_path)
    seen = {
        name: (pool.engine.name, pool.max_num_seqs, pool.lookahead)
        for name, pool in found.items()
        if isinstance(pool, LLMPool)
    }
    assert seen == {"prefill": ("vllm", 256, 1), "decode": ("mine", 64, 0)}
    assert llm("engine=mine", "cluster.pools.llm.max_num_seqs=16", config_dir=tmp_path).max_num_seqs == 16
    assert llm("engine.max_num_seqs=48").max_num_seqs == 48


def test_the_program_says_which_values_are_defaults_of_the_engine() -> None:
    config = hf.compose(["cluster.pools.llm.lookahead=0", *SHORT])
    notes = next(pool.notes for pool in hf.compile(config).pools if pool.name == "llm")
    defaults = next(note for note in notes if note.startswith("defaults of engine vllm: "))
    assert "max_num_batched_tokens=8192" in defaults
    assert "lookahead" not in defaults


def test_what_records_how_a_pool_was_filled_is_no_key() -> None:
    with pytest.raises(HermesFlowError, match=r"cluster\.pools\.llm\.from_engine: unknown key"):
        hf.compose(["+cluster.pools.llm.from_engine=[batching]"])


def test_a_figure_that_does_not_exist_is_named_wherever_it_is_changed() -> None:
    for pool in ("llm", "host"):
        with pytest.raises(
            HermesFlowError, match=rf"cluster\.pools\.{pool}\.hardware\.bandwith_gb_s: unknown key"
        ):
            hf.compose([f"cluster.pools.{pool}.hardware.bandwith_gb_s=900"])


def test_a_pool_that_a_cluster_brings_takes_the_place_of_that_of_the_pipeline() -> None:
    embed = pools("pipeline=rag", "cluster=rag_colocated")["embed"]
    assert isinstance(embed, BatchedPool)
    assert (embed.hardware.name, embed.host, embed.cores) == ("grace_cpu", "retrieval", 24)
    store = pools("pipeline=kv_reuse", "cluster=kv_local")["store"]
    assert set(store.tiers) == {"dram", "nvme"}
    assert set(pools("pipeline=kv_reuse")["store"].tiers) == {"dram", "platform", "rack"}


def test_two_parts_of_a_mix_that_need_the_same_pool_bring_it_once() -> None:
    parts = "+pipeline@pipeline.parts.a=chat_guarded", "+pipeline@pipeline.parts.b=chat_guarded_streaming"
    assert set(pools("pipeline=mixed", *parts)) == {"guard", "host", "llm"}


def test_a_pool_of_a_pipeline_gives_way_to_one_of_another_name_that_serves_the_same(tmp_path: Path) -> None:
    text = (
        "defaults: [replicas, /pool@pools.vectors: retrieval, _self_]\nname: mine\n"
        "pools: {vectors: {if_needed: false, count: 2}}\n"
    )
    write(tmp_path, "cluster/mine", text)
    config = hf.compose(["cluster=mine", "pipeline=rag", *SHORT], config_dir=tmp_path)
    program = hf.compile(config)
    assert [pool.name for pool in program.pools] == ["host", "llm", "vectors", "embed"]
    assert "pool retrieval is left out: other pools of the cluster serve all its stages" in program.warnings


def test_a_layouts_own_pools_fill_the_nodes_before_those_of_a_pipeline() -> None:
    program = hf.compile(hf.compose(["cluster=rack", "pipeline=cascade", *SHORT]))
    assert [pool.name for pool in program.pools] == ["prefill", "decode", "host", "large"]


V1_RUNS = {
    "rag": "rag",
    "hybrid": "rag_kv_reuse",
    "two_models": "cascade",
    "guarded": "chat_guarded",
    "replicas": "chat",
}


@pytest.mark.parametrize("cluster", V1_RUNS)
def test_a_cluster_file_of_the_first_version_gives_the_answers_of_the_entry_it_was_copied_from(
    cluster: str,
) -> None:
    words = [f"pipeline={V1_RUNS[cluster]}", *SHORT]
    old = hf.compose([f"cluster=v1_{cluster}", *words], config_dir=FIRST_VERSION)
    new = hf.compose([f"cluster={cluster}", *words])
    before, now = (hf.simulate(hf.compile(config)) for config in (old, new))
    assert list(before.summary["pools"]) == list(now.summary["pools"])
    assert before.requests.equals(now.requests)
    assert before.stages.equals(now.stages)


def test_a_cluster_file_of_the_first_version_may_build_on_built_in_ones(tmp_path: Path) -> None:
    text = (
        "defaults: [replicas, /hardware@pools.llm.hardware: l40s, "
        "override /hardware@pools.host.hardware: grace_cpu, _self_]\nname: mine\npools: {llm: {count: 4}}\n"
    )
    write(tmp_path, "cluster/mine", text)
    found = pools("cluster=mine", config_dir=tmp_path)
    assert {name: (pool.hardware.name, pool.count) for name, pool in found.items()} == {
        "host": ("grace_cpu", 1),
        "llm": ("l40s", 4),
    }
    assert llm("cluster=mine", "hardware@cluster.pools.llm.hardware=a100_sxm", config_dir=tmp_path).count == 4
    embedder = (
        "defaults: [rag, override /hardware@pools.embed.hardware: l40s, _self_]\nname: mine\n"
        "pools: {embed: {count: 2}}\n"
    )
    write(tmp_path, "cluster/mine_rag", embedder)
    embed = pools("cluster=mine_rag", "pipeline=rag", config_dir=tmp_path)["embed"]
    assert (embed.hardware.name, embed.count) == ("l40s", 2)
