from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hermes_flow.config.compose import compose
from hermes_flow.config.schema import Config, SyntheticWorkload
from hermes_flow.errors import ConfigError

BURST = ["workload=azure_code"]  # its arrivals are a mapping: {process: burst, on_s: 23, off_s: 53}
GAMMA = {"process": "gamma", "cv": 2}


def arrivals(config: Config) -> Any:
    assert isinstance(config.workload, SyntheticWorkload)
    return config.workload.arrivals


def tool(config: Config) -> Any:
    return config.pipeline.stages["tool"]


def write(folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def experiment(folder: Path, text: str, *overrides: str) -> Config:
    """Compose with a file of the group ``experiment`` that holds ``text``."""
    write(folder, "experiment/mine.yaml", f"# @package _global_\n{text}")
    return compose(["experiment=mine", *overrides], folder)


# Variants


@pytest.mark.parametrize(
    ("overrides", "key", "expected"),
    [
        ([*BURST, "workload.arrivals={process: gamma, cv: 2}"], "workload.arrivals", GAMMA),
        (
            ["workload.input_tokens={distribution: fixed, value: 5}"],
            "workload.input_tokens",
            {"distribution": "fixed", "value": 5},
        ),
        (
            ["workload=sessions", "workload.turns={distribution: fixed, value: 5}"],
            "workload.turns",
            {"distribution": "fixed", "value": 5},
        ),
        (
            [
                "cluster.routing={policy: heavy_light, threshold_tokens: 9}",
                "cluster.routing={policy: random}",
            ],
            "cluster.routing",
            {"policy": "random"},
        ),
        (
            [
                "cluster.pools.llm.routing={policy: heavy_light, threshold_tokens: 9}",
                "cluster.pools.llm.routing={policy: random}",
            ],
            "cluster.pools.llm.routing",
            {"policy": "random"},
        ),
        (
            [
                "cluster.pools.llm.packing={order: priority, age_s: 2}",
                "cluster.pools.llm.packing={order: fcfs}",
            ],
            "cluster.pools.llm.packing",
            {"order": "fcfs"},
        ),
        (
            ["pipeline=agent", "pipeline.stages.tool.latency_ms={distribution: fixed, value: 5}"],
            "pipeline.stages.tool.latency_ms",
            {"distribution": "fixed", "value": 5},
        ),
        (
            ["pipeline=agent", "pipeline.loops.turns.times={distribution: fixed, value: 2}"],
            "pipeline.loops.turns.times",
            {"distribution": "fixed", "value": 2},
        ),
        (["pipeline=agent", "pipeline.loops.turns={times: 2}"], "pipeline.loops.turns", {"times": 2}),
        (["pipeline=cascade", "pipeline.routes.answer={fine: 1}"], "pipeline.routes.answer", {"fine": 1.0}),
        (
            ["pipeline=rag_iterative", "pipeline.stages.decode.pause={times: 3}"],
            "pipeline.stages.decode.pause",
            {"times": 3},
        ),
        (["pipeline=mixed", "pipeline.shares={llm: 1}"], "pipeline.shares", {"llm": 1.0}),
        (
            ["workload.models={llama3_8b: 0.5, llama3_70b: 0.5}", "workload.models={llama3_8b: 1}"],
            "workload.models",
            {"llama3_8b": 1.0},
        ),
        (["slo.ttft_ms={p99: 2000}"], "slo.ttft_ms", {"p99": 2000.0}),
    ],
)
def test_a_variant_or_a_table_given_as_a_mapping_replaces_the_one_before(
    overrides: list[str], key: str, expected: object
) -> None:
    found: Any = compose(overrides)
    for name in key.split("."):
        found = found[name] if isinstance(found, dict) else getattr(found, name)
    assert found == expected


def test_overrides_after_such_a_mapping_change_and_add_keys_without_a_plus() -> None:
    given = [*BURST, "workload.arrivals={process: gamma, cv: 2}"]
    assert arrivals(compose([*given, "workload.arrivals.cv=3"])) == {"process": "gamma", "cv": 3}
    assert arrivals(compose([*given, "workload.arrivals.peak=4"])) == {**GAMMA, "peak": 4}
    assert arrivals(compose([*given, "+workload.arrivals.peak=4"])) == {**GAMMA, "peak": 4}


def test_overrides_before_such_a_mapping_are_replaced_with_the_rest() -> None:
    given = [*BURST, "workload.arrivals.on_s=9", "workload.arrivals={process: gamma, cv: 2}"]
    assert arrivals(compose(given)) == GAMMA


def test_a_variant_within_a_mapping_of_other_keys_is_replaced_too() -> None:
    first = "cluster.pools.llm.routing={policy: heavy_light, threshold_tokens: 9}"
    pool = compose([first, "cluster.pools.llm={count: 2, routing: {policy: random}}"]).cluster.pools["llm"]
    assert (pool.count, pool.routing) == (2, {"policy": "random"})


def test_keys_that_change_together_leave_the_rest_of_a_pool_and_of_a_stage() -> None:
    config = compose(["cluster.pools.llm={count: 2, tensor_parallel: 4}"])
    pool: Any = config.cluster.pools["llm"]
    assert (pool.count, pool.tensor_parallel, pool.max_num_seqs) == (2, 4, 256)
    assert tool(compose(["pipeline=agent", "pipeline.stages.tool={result_tokens: 5}"]))["repeat"] == "turns"


def test_a_stage_of_another_kind_replaces_the_one_of_its_name() -> None:
    config = compose(["pipeline=agent", "pipeline.stages.tool={kind: pad, after: [act]}"])
    assert tool(config) == {"kind": "pad", "after": ["act"]}


# Groups


def test_a_group_given_as_a_mapping_has_its_keys_and_no_others() -> None:
    slo = compose(["slo={name: ours, ttft_ms: {p99: 2000}, tpot_ms: {p90: 50}}"]).slo
    assert (slo.name, slo.ttft_ms, slo.tpot_ms, slo.e2e_ms) == ("ours", {"p99": 2000.0}, {"p90": 50.0}, {})
    assert compose(["cost={kind: affine, fixed_us: 5}"]).cost == {"kind": "affine", "fixed_us": 5}
    network = compose(
        ["network={devices_per_node: 4, nodes_per_rack: 1, node: {}, rack: {}, datacenter: {gb_s: 9}}"]
    ).network
    assert (network.devices_per_node, network.rack.latency_us, network.datacenter.gb_s) == (4, 0.0, 9.0)


def test_a_group_given_without_a_name_is_called_custom() -> None:
    assert compose(["slo={ttft_ms: {p99: 2000}}"]).slo.name == "custom"


def test_bounds_given_later_are_added_to_the_mapping() -> None:
    slo = compose(["slo={ttft_ms: {p99: 2000}}", "slo.ttft_ms.p90=900", "slo.e2e_ms.p50=9000"]).slo
    assert (slo.ttft_ms, slo.tpot_ms, slo.e2e_ms) == ({"p99": 2000.0, "p90": 900.0}, {}, {"p50": 9000.0})
    assert compose(["slo=none", "slo.ttft_ms.p99=2000"]).slo.ttft_ms == {"p99": 2000.0}


def test_a_workload_given_as_a_mapping_follows_the_seed_as_all_others_do() -> None:
    given = (
        "{kind: synthetic, requests: 4, rate_per_s: 1, arrivals: poisson, input_tokens: 3, output_tokens: 4}"
    )
    assert compose([f"workload={given}", "seed=7"]).workload.seed == 7


def test_the_hardware_of_a_pool_given_as_a_mapping_is_that_hardware() -> None:
    mine = "{name: mine, kind: gpu, memory_gb: 80, bandwidth_gb_s: 900}"
    config = compose([f"cluster.pools.llm.hardware={mine}"])
    assert config.cluster.pools["llm"].hardware.power_w is None
    assert (config.cluster.pools["llm"].hardware.name, config.hardware.name) == ("mine", "h100_sxm")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("workload={requests: 4}", "workload.kind: missing; expected one of: sessions, synthetic, trace"),
        ("slo={ttft: {p99: 1}}", "slo.ttft: unknown key; it is called slo.ttft_ms here"),
        ("hardware={memory_gb: 80}", "hardware.kind: missing; expected one of gpu, asic, cpu"),
        ("cluster.pools.llm={bogus: 4}", "cluster.pools.llm.bogus: unknown key"),
        (
            "pipeline.stages.prefil={extra_tokens: 4}",
            "pipeline.stages.prefil: unknown key; did you mean 'prefill'?",
        ),
    ],
)
def test_mappings_that_lack_a_key_or_have_a_wrong_one_are_refused(override: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compose([override])
    assert str(caught.value).startswith(message)


# Files


def test_an_experiment_file_replaces_variants_and_tables(tmp_path: Path) -> None:
    text = """
    defaults: [override /workload: azure_code]
    workload: {requests: 5, arrivals: {process: gamma, cv: 2}}
    slo: {name: ours, ttft_ms: {p99: 2000}}
    """
    config = experiment(tmp_path, text)
    assert (arrivals(config), config.workload.name) == (GAMMA, "azure_code")
    assert (config.slo.name, config.slo.ttft_ms) == ("ours", {"p99": 2000.0})


def test_overrides_replace_what_an_experiment_file_gives(tmp_path: Path) -> None:
    text = "workload: {arrivals: {process: burst, on_s: 1, off_s: 2}}\nslo: {ttft_ms: {p95: 7}}"
    config = experiment(
        tmp_path, text, "workload.arrivals={process: gamma, cv: 2}", "slo={ttft_ms: {p50: 1}}"
    )
    assert (arrivals(config), config.slo.ttft_ms) == (GAMMA, {"p50": 1.0})


def test_overrides_add_keys_to_what_an_experiment_file_gives_in_part(tmp_path: Path) -> None:
    text = "cluster: {pools: {llm: {failures: {mtbf_s: 60, repair_s: 5}}}}"
    llm = "cluster.pools.llm.failures"
    added = experiment(tmp_path, text, f"{llm}.retries=3", f"{llm}={{events: [{{at_s: 1, client: 0}}]}}")
    failures = added.cluster.pools["llm"].failures  # type: ignore[attr-defined]
    assert (failures.mtbf_s, failures.retries, len(failures.events)) == (60, 3, 1)
    with pytest.raises(ConfigError, match=r"failures.retrys: unknown key; did you mean 'retries'"):
        experiment(tmp_path, text, f"{llm}.retrys=3")


def test_an_experiment_file_replaces_what_a_stage_and_a_pool_hold(tmp_path: Path) -> None:
    text = """
    defaults: [override /pipeline: agent, override /cluster: agent]
    pipeline:
      loops: {turns: {times: {distribution: fixed, value: 2}}}
      stages: {tool: {latency_ms: {distribution: fixed, value: 5}}}
    cluster:
      routing: {policy: weighted, weights: {least_kv: 1}}
      pools: {llm: {count: 3}}
    """
    config = experiment(tmp_path, text)
    assert config.pipeline.loops == {"turns": {"times": {"distribution": "fixed", "value": 2}}}
    assert tool(config)["latency_ms"] == {"distribution": "fixed", "value": 5}
    assert tool(config)["repeat"] == "turns"
    assert config.cluster.pools["llm"].count == 3
    assert config.cluster.routing == {"policy": "weighted", "weights": {"least_kv": 1}}


def test_a_users_entry_replaces_the_variants_of_the_entry_it_builds_on(tmp_path: Path) -> None:
    mine = "defaults: [azure_code, _self_]\nname: mine\narrivals: {process: gamma, cv: 2}\n"
    write(tmp_path, "workload/mine.yaml", mine)
    config = compose(["workload=mine"], tmp_path)
    assert (arrivals(config), config.workload.name, config.workload.rate_scale) == (GAMMA, "mine", 1.0)


def test_a_users_cluster_may_change_the_routing_of_another_by_settings(tmp_path: Path) -> None:
    first = "defaults: [replicas, _self_]\nname: first\nrouting: {policy: heavy_light, threshold_tokens: 9}\n"
    write(tmp_path, "cluster/first.yaml", first)
    write(
        tmp_path,
        "cluster/second.yaml",
        "defaults: [first, _self_]\nrouting: {policy: weighted, weights: {nearest: 1}}\n",
    )
    weighted = {"policy": "weighted", "weights": {"nearest": 1}}
    assert compose(["cluster=second"], tmp_path).cluster.routing == weighted
    assert compose(["cluster=first", "cluster.routing={policy: random}"], tmp_path).cluster.routing == {
        "policy": "random"
    }


# The bounds of an experiment


def test_the_slo_of_an_experiment_has_the_bounds_that_it_gives_and_no_other(tmp_path: Path) -> None:
    slo = experiment(tmp_path, "slo: {ttft_ms: {p99: 2000}}\n").slo
    assert (slo.name, slo.ttft_ms, slo.tpot_ms, slo.e2e_ms) == ("custom", {"p99": 2000.0}, {}, {})


def test_the_bounds_of_an_experiment_are_added_to_those_of_an_entry_that_it_chooses(tmp_path: Path) -> None:
    slo = experiment(tmp_path, "defaults: [override /slo: rag]\nslo: {ttft_ms: {p99: 2000}}\n").slo
    assert (slo.ttft_ms, slo.tpot_ms) == ({"p99": 2000.0}, compose(["slo=rag"]).slo.tpot_ms)


def test_an_override_adds_a_bound_to_those_of_an_experiment(tmp_path: Path) -> None:
    slo = experiment(tmp_path, "slo: {name: ours, ttft_ms: {p99: 2000}}\n", "slo.tpot_ms={p90: 3}").slo
    assert (slo.name, slo.ttft_ms, slo.tpot_ms) == ("ours", {"p99": 2000.0}, {"p90": 3.0})


def test_an_slo_chosen_on_the_command_line_beats_that_of_an_experiment(tmp_path: Path) -> None:
    chosen = experiment(tmp_path, "slo: {ttft_ms: {p99: 2000}}\n", "slo=rag").slo
    assert chosen == compose(["slo=rag"]).slo
