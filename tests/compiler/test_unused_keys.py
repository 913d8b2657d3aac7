from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import pytest
from tries import THOROUGH

import hermes_flow as hf
from hermes_flow.compiler.compile import compile as compiled
from hermes_flow.compiler.what_runs import what_runs
from hermes_flow.config.folders import config_folder
from hermes_flow.config.schema import SessionsWorkload, SyntheticWorkload, TraceWorkload
from hermes_flow.cost.model import Deployment
from hermes_flow.cost.roofline import Roofline
from hermes_flow.program.requests import Requests
from hermes_flow.program.step_cost import StepCost
from hermes_flow.workload.build import build_requests

AFFINE = ["pipeline=llm", "cost=affine", "cost.fixed_us=9", "cost.per_token_us=1", "cost.per_context_us=0"]
TWO_MODELS = ["cluster=two_models", "workload.models={llama3_8b: 0.5, llama3_70b: 0.5}"]


def unused(*overrides: str, config_dir: Path | None = None) -> list[str]:
    """Return the keys that the compiler reports to have no effect."""
    program = hf.compile(hf.compose(overrides, config_dir))
    return [text.split(":")[0] for text in program.warnings if "has no effect" in text]


@pytest.mark.parametrize(
    ("overrides", "keys"),
    [
        (["workload=closed_loop", "workload.rate_per_s=4"], ["workload.rate_per_s"]),
        (["workload=closed_loop", "workload.rate_scale=4"], ["workload.rate_scale"]),
        (["cluster.pools.llm.speculative.tokens=5"], ["cluster.pools.llm.speculative.tokens"]),
        (
            ["cluster.pools.llm.kv_blocks=2000", "cluster.pools.llm.memory_utilization=0.8"],
            ["cluster.pools.llm.memory_utilization"],
        ),
        (["network.rack.latency_us=5", "workload.rate_per_s=3"], ["network.rack.latency_us"]),
        ([*TWO_MODELS, "model=llama2_7b"], ["model"]),
        # nobody chooses by loads
        (["cluster.routing_stale_ms=5", "cluster.routing=least_requests"], ["cluster.routing_stale_ms"]),
        (["cluster.routing_stale_ms=5", "cluster.pools.llm.count=2"], ["cluster.routing_stale_ms"]),
        (
            ["cluster.routing_stale_ms=5", "cluster.pools.llm.count=2", "cluster.routing=random"],
            ["cluster.routing_stale_ms"],
        ),
        # a single store shares nothing, and there are no links without host_link
        (
            ["pipeline=kv_reuse", "cluster.pools.store.host_link_shared_by=2"],
            ["cluster.pools.store.host_link_shared_by"],
        ),
        (
            ["pipeline=kv_reuse", "cluster.pools.store.tiers.dram.shared_by=4"],
            ["cluster.pools.store.tiers.dram.shared_by"],
        ),
        # prefill and decode stand in one node
        (["cluster=disaggregated", "pipeline=llm", "network.rack.latency_us=5"], ["network.rack.latency_us"]),
        (["cluster=disaggregated", "pipeline=llm", "network.rack.gb_s=5"], ["network.rack.gb_s"]),
        (
            ["cluster=disaggregated", "network.devices_per_node=1", "network.node.latency_us=5"],
            ["network.node.latency_us"],
        ),
        # figures of the datasheet enter no other cost model, nor its error bars
        (
            [*AFFINE, "hardware.bandwidth_gb_s=5000", "hardware.peak_tflops_bf16=300"],
            ["hardware.bandwidth_gb_s", "hardware.peak_tflops_bf16"],
        ),
        # the host serves no stage
        (["pipeline=llm", "cluster.pools.host.cores=1"], ["cluster.pools.host.cores"]),
        # the cost of an endpoint is known with both prices
        (
            ["pool@cluster.pools.llm=endpoint", "cluster.pools.llm.usd_per_million_input_tokens=1"],
            ["cluster.pools.llm.usd_per_million_input_tokens"],
        ),
        # texts as well as numbers
        (
            ["cost=affine", "cost.fixed_us=9", "cost.per_token_us=1", "hardware.efficiency.source=mine"],
            ["hardware.efficiency.source"],
        ),
        (
            ["cluster.pools.llm={prefix_cache: true, speculative: {tokens: 4}, count: 2}"],
            ["cluster.pools.llm.speculative.tokens"],
        ),
        (
            [
                "workload={kind: synthetic, name: x, requests: 9, rate_per_s: 3, input_tokens: 10, "
                "output_tokens: 5, arrivals: {process: closed_loop, concurrency: 3}}"
            ],
            ["workload.rate_per_s"],
        ),
    ],
)
def test_a_key_that_changes_nothing_is_reported(overrides: list[str], keys: list[str]) -> None:
    assert unused(*overrides) == keys


@pytest.mark.parametrize(
    "overrides",
    [
        ["cluster.pools.llm.count=2", "cluster.routing=least_requests"],
        ["cluster.pools.llm.count=2", "cluster.routing=session_affinity"],
        ["pipeline=routed_by_load"],
        ["cluster.pools.llm.routing=power_of_two", "cluster.pools.llm.count=3"],
    ],
)
def test_the_age_of_loads_has_an_effect_where_somebody_reads_them(overrides: list[str]) -> None:
    assert unused("cluster.routing_stale_ms=5", *overrides) == []


@pytest.mark.parametrize(
    "overrides",
    [
        ["cluster=disaggregated", "network.node.latency_us=5"],
        ["cluster=disaggregated", "network.devices_per_node=1", "network.rack.gb_s=5"],
        [
            "cluster=disaggregated",
            "network.devices_per_node=1",
            "network.nodes_per_rack=1",
            "network.datacenter.gb_s=5",
        ],
        ["pipeline=rag", "network.rack.latency_us=5"],
        ["pipeline=kv_reuse", "network.rack.efficiency=0.5"],
        ["pipeline=llm", "cluster.pools.host.hardware.usd_per_hour=5"],
        ["pipeline=llm", "cluster.pools.host.count=2", "cluster.pools.host.hardware.usd_per_hour=5"],
    ],
)
def test_figures_of_links_and_pools_that_matter_are_not_reported(overrides: list[str]) -> None:
    assert unused("workload=synthetic", "workload.requests=20", *overrides) == []


def test_the_report_has_the_key_and_the_value_and_reaches_the_summary() -> None:
    program = hf.compile(hf.compose(["workload=closed_loop", "workload.requests=3", "workload.rate_per_s=4"]))
    expected = "workload.rate_per_s: 4 has no effect; the compiled program is the same for any other value"
    assert program.warnings == (expected,)
    assert expected in " ".join(str(program).split())
    assert hf.simulate(program).summary["warnings"] == [expected]


def test_keys_in_an_experiment_of_the_user_count_as_given(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    text = "defaults: [override /workload: closed_loop]\nworkload: {rate_per_s: 4, requests: 9}\n"
    (tmp_path / "experiment" / "mine.yaml").write_text(f"# @package _global_\n{text}")
    assert unused("experiment=mine", config_dir=tmp_path) == ["workload.rate_per_s"]


def test_keys_in_an_entry_of_the_user_count_as_given_and_are_named_with_their_line(tmp_path: Path) -> None:
    (tmp_path / "workload").mkdir()
    text = "defaults: [closed_loop]\nrequests: 9\nprefix_share: 0\nrate_per_s: 4\n"
    (tmp_path / "workload" / "w1.yaml").write_text(text)
    program = hf.compile(hf.compose(["workload=w1"], tmp_path))
    (warning,) = [text for text in program.warnings if "no effect" in text]
    assert warning.startswith("workload.rate_per_s: 4 has no effect; ")
    assert warning.endswith("w1.yaml:4)")
    assert unused("workload=w1", "workload.arrivals=poisson", config_dir=tmp_path) == []


@pytest.mark.parametrize(
    "entry", ["workload/closed_loop", "cluster/disaggregated", "pipeline/chat_guarded", "slo/rag"]
)
def test_a_copy_of_a_built_in_entry_has_no_key_that_is_named(entry: str, tmp_path: Path) -> None:
    group, _, name = entry.partition("/")
    (tmp_path / group).mkdir()
    text = (config_folder() / f"{entry}.yaml").read_text()
    (tmp_path / group / "mine.yaml").write_text(text.replace(f"name: {name}", "name: mine"))
    assert unused(f"{group}=mine", config_dir=tmp_path) == []


def test_a_figure_that_no_pool_takes_is_an_error_with_the_keys_of_the_pools() -> None:
    with pytest.raises(hf.CompileError) as caught:
        hf.compile(hf.compose([*TWO_MODELS, "model.layers=3"]))
    assert caught.value.problems == (
        "model.layers: no pool takes the model chosen for the whole configuration; expected "
        "cluster.pools.small.model.layers or cluster.pools.large.model.layers",
    )


@pytest.mark.parametrize("cluster", ["replicas", "disaggregated", "rack", "hybrid", "guarded"])
def test_figures_of_the_chosen_hardware_reach_every_pool_that_took_it(cluster: str) -> None:
    config = hf.compose([f"cluster={cluster}", "hardware.bandwidth_gb_s=300", "hardware.usd_per_hour=7"])
    took = [pool.hardware for pool in config.cluster.pools.values() if pool.hardware.name == "h100_sxm"]
    assert took
    assert all((hardware.bandwidth_gb_s, hardware.usd_per_hour) == (300.0, 7.0) for hardware in took)
    assert unused(f"cluster={cluster}", "hardware.bandwidth_gb_s=300", "hardware.usd_per_hour=7") == []


def test_a_cluster_of_the_first_version_takes_the_figures_by_its_interpolation(tmp_path: Path) -> None:
    (tmp_path / "cluster").mkdir()
    text = "defaults: [replicas, _self_]\nname: mine\npools: {llm: {hardware: '${hardware}', model: '${model}'}}\n"
    (tmp_path / "cluster" / "mine.yaml").write_text(text)
    given = ["cluster=mine", "hardware.bandwidth_gb_s=300", "model.precision.weights=fp8"]
    assert unused(*given, config_dir=tmp_path) == []


def test_a_value_that_does_not_bind_is_no_key_without_effect() -> None:
    """A bound far above all lengths changes nothing, and yet the program depends on it."""
    assert (
        unused("workload=synthetic", "workload.input_tokens.max=1000000", "model.max_context=9999999") == []
    )
    assert unused("workload.requests=2000", "cluster.pools.llm.max_num_seqs=256", "seed=0") == []


def test_a_text_that_the_program_repeats_is_no_key_without_effect() -> None:
    assert unused("hardware.efficiency.source=mine", "model.name=mine", "hardware.name=mine") == []


@pytest.mark.parametrize("devices", [2, 8])
def test_a_count_that_devices_share_shows_what_it_does_where_each_has_several(devices: int) -> None:
    """With 1 KV head each device has a copy of it, as with 2, 4 or 8 of them on 8 devices."""
    assert unused("model.kv_heads=1", f"cluster.pools.llm.tensor_parallel={devices}") == []


def test_a_changed_copy_of_a_configuration_is_not_checked() -> None:
    config = hf.compose(["workload=closed_loop", "workload.rate_per_s=4"])
    assert compiled(replace(config, seed=3)).warnings == ()


def test_what_a_key_does_not_reach_is_made_once_for_all_keys(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Keys that reach neither the requests nor the tables of step times add no reading and no table."""
    trace = tmp_path / "trace.csv"
    trace.write_text("arrival_us,input_tokens,output_tokens\n0,100,20\n5000,300,40\n", encoding="utf-8")
    read: list[object] = []
    lowered: list[object] = []

    def reads(workload: SyntheticWorkload | SessionsWorkload | TraceWorkload, seed: int) -> Requests:
        read.append(workload)
        return build_requests(workload, seed)

    def lowers(cost: Roofline, deployment: Deployment) -> StepCost:
        lowered.append(deployment)
        return lower(cost, deployment)

    lower = Roofline.lower
    monkeypatch.setattr("hermes_flow.compiler.compile.build_requests", reads)
    monkeypatch.setattr(Roofline, "lower", lowers)

    def made(*keys: str) -> tuple[int, int]:
        read.clear()
        lowered.clear()
        assert unused("workload=trace", f"workload.path={trace}", "slo.ttft_ms.p99=700", *keys) == []
        return len(read), len(lowered)

    reads_before, tables_before = made()
    assert made("slo.e2e_ms.p99=9000", "cluster.routing=least_requests") == (reads_before, tables_before)
    assert made("cluster.pools.llm.max_num_seqs=100") == (reads_before, tables_before + 1)
    assert made("workload.rate_scale=2") == (reads_before + 1, tables_before)


COMMON = [
    "workload=synthetic",
    "workload.requests=40",
    "workload.rate_per_s=3",
    "workload.input_tokens.mean=700",
    "workload.output_tokens.max=900",
    "hardware.bandwidth_gb_s=3000",
    "hardware.usd_per_hour=3",
    "model.precision.weights=fp8",
    "slo.ttft_ms.p99=900",
    "cluster.routing=least_requests",
]
BRANCHES = ("reasoning_multi", "tree_search")  # need a prefix cache, which these layouts have off
PIPELINES = sorted(
    path.stem for path in (config_folder() / "pipeline").glob("*.yaml") if path.stem not in BRANCHES
)
LAYOUTS = ("replicas", "disaggregated", "hybrid")
PAIRS = [  # each pipeline on one layout, on every layout in a thorough run
    (pipeline, layout)
    for number, pipeline in enumerate(PIPELINES)
    for place, layout in enumerate(LAYOUTS)
    if THOROUGH or place == number % len(LAYOUTS)
]


@pytest.mark.parametrize(("pipeline", "cluster"), PAIRS)
def test_keys_that_matter_are_not_reported_on_any_pipeline_and_layout(pipeline: str, cluster: str) -> None:
    """The matrix of all pipelines on three layouts: what is reported is true, and what matters is not reported.

    ``network.node.efficiency`` matters exactly where something moves between machines of one node.
    """
    network = "network.node.efficiency=0.5"
    chosen = [f"pipeline={pipeline}", f"cluster={cluster}", *COMMON]
    reported = unused(*chosen, network)
    assert set(reported) <= {"network.node.efficiency"}
    without, other = (
        what_runs(hf.compile(replace(hf.compose([*chosen, *given])))) for given in ([], [network])
    )
    assert (reported == []) == (pickle.dumps(without) != pickle.dumps(other))


def test_figures_of_a_level_that_the_cluster_does_not_span_are_named() -> None:
    given = [
        "cluster=disaggregated",
        "workload=synthetic",
        "workload.requests=3",
        "network.datacenter.latency_us=50",
    ]
    warnings = hf.compile(hf.compose(given)).warnings
    assert [text for text in warnings if text.startswith("network.datacenter.latency_us: 50 has no effect")]
    spanned = hf.compile(
        hf.compose(
            [*given, "network.nodes_per_rack=1", "network.devices_per_node=1", "network.datacenter.gb_s=10"]
        )
    )
    assert not [text for text in spanned.warnings if "latency_us" in text]


def test_figures_of_another_number_of_devices_are_named() -> None:
    ranks = (
        "model=mixtral_8x7b",
        "cluster.pools.llm.data_parallel=4",
        "cluster.pools.llm.expert_parallel=true",
    )
    given = [*COMMON, *ranks, "pipeline=llm", "hardware=h200_sxm"]
    slow = "{alpha_us: 50, fraction: 0.4}"
    assert unused(*given, f"hardware.efficiency.gather={{2: {slow}}}") == [
        "hardware.efficiency.gather.2.alpha_us",
        "hardware.efficiency.gather.2.fraction",
    ]
    assert unused(*given, f"hardware.efficiency.gather={{4: {slow}}}") == []
