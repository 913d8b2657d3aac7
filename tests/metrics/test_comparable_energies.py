"""A run without a known energy enters no ranking by energy, and no run looks better for what is not counted."""

from __future__ import annotations

import functools

import polars as pl
import pytest

import hermes_flow as hf
from benchmarks.studies.winners import best_policies
from hermes_flow.metrics.comparable_costs import without_unlike_energies
from hermes_flow.report.compare_text import compare_text
from hermes_flow.report.pages.run_figures import key_figures
from hermes_flow.report.pages.sweep import sweep_page

ENERGY = "energy.j_per_output_token"
CUSTOM = ["hardware.name=mine", "hardware.power_w=null", "hardware.bandwidth_gb_s=4000"]
SETTINGS = {
    "h100": [],
    "slow": ["hardware.bandwidth_gb_s=2000"],
    "tpu": ["hardware=tpu_v6e"],
    "custom": CUSTOM,
    "affine": ["cost=affine", "cost.fixed_us=5000"],
    "unmetered_host": ["cluster.pools.host.hardware.power_w=null"],
}


@functools.cache
def run(name: str) -> hf.Result:
    load = ["workload=synthetic", "workload.requests=10", "pipeline=chat"]
    return hf.simulate(hf.compile(hf.compose([*load, *SETTINGS[name]])))


def test_hardware_without_a_power_figure_has_no_rank_by_energy() -> None:
    found = hf.compare({name: run(name) for name in SETTINGS})
    ranked = found.ranked(ENERGY)
    assert ranked["run"].to_list()[:2] == ["h100", "slow"]
    assert ranked["rank"].to_list() == [1, 2, None, None, None, None]
    front = found.pareto([ENERGY, "e2e_s.p50"])
    off = front.filter(pl.col("on_front").is_null())["run"].to_list()
    assert off == ["tpu", "custom", "affine", "unmetered_host"]


def test_a_run_with_a_host_that_does_not_count_is_not_the_cheaper_one() -> None:
    found = hf.compare({name: run(name) for name in ("h100", "slow", "unmetered_host")})
    joules = found.figures.filter(pl.col("figure") == ENERGY)
    assert joules["unmetered_host"].item() < joules["h100"].item()  # so it would come first
    assert joules["change unmetered_host"].item() is None
    assert joules["change slow"].item() > 0
    assert found.ranked(ENERGY)["rank"].to_list() == [1, 2, None]


def test_a_comparison_names_what_it_does_not_rank_by_energy() -> None:
    found = hf.compare({name: run(name) for name in ("h100", "slow", "tpu", "unmetered_host")})
    text = " ".join(compare_text(found, rank=ENERGY).split())
    assert "Not compared by energy, as the power of accelerators there is not known: tpu." in text
    assert "Energies of unmetered_host are not compared" in text
    assert "Not compared by energy" not in compare_text(found, rank="e2e_s.p50")


def sweep() -> pl.DataFrame:
    """Two GPUs, a TPU, and a job with a store that does not count."""
    return pl.DataFrame(
        {
            "job": [0, 1, 2, 3],
            "hardware": ["h100_sxm", "a100_sxm", "tpu_v6e", "l40s"],
            "status": ["completed"] * 4,
            "error": pl.Series([None] * 4, dtype=pl.String),
            "e2e_s.p50": [1.0, 2.0, 1.5, 3.0],
            "e2e_s.p90": [1.1, 2.2, 1.6, 3.3],
            "energy.total_j": [30.0, 40.0, None, 11.0],
            "energy.unmetered": [None, None, "llm", "store"],
            ENERGY: [3.125, 4.125, None, 1.125],
        }
    )


def test_the_page_of_a_sweep_shows_no_energy_that_would_not_compare() -> None:
    frame, rows = without_unlike_energies(sweep())
    assert rows == [3]
    assert frame[ENERGY].to_list() == [3.125, 4.125, None, None]
    assert frame["e2e_s.p50"].to_list() == [1.0, 2.0, 1.5, 3.0]
    page = sweep_page(sweep(), "machines")
    assert "Job 2 cannot be compared by energy" in page
    assert "No energy is shown for job 3" in page
    assert "1.125" not in page
    assert "3.125" in page


def test_a_sweep_in_which_all_energies_are_known_says_nothing_of_them() -> None:
    page = sweep_page(sweep().head(2), "machines")
    assert "compared by energy" not in page
    assert "No energy" not in page


def test_a_plan_has_no_joules_for_hardware_without_a_power_figure() -> None:
    load = ["workload=synthetic", "workload.requests=20", "workload.rate_per_s=1", "slo=chat"]
    gpu, tpu = (
        hf.compose([*load, f"hardware={name}"]).cluster.pools["llm"].hardware
        for name in ("h100_sxm", "tpu_v6e")
    )
    assert gpu is not None
    assert tpu is not None
    found = hf.plan(
        hf.compose(load),
        [gpu, tpu],
        layouts=("replicas",),
        tensor_parallel=(1,),
        headrooms=0,
        error_bars=0,
        most_clients=4,
    ).designs
    assert found["rank"].to_list() == [1, 2]
    joules = dict(found.select("hardware", "j_per_output_token").rows())
    assert joules["h100_sxm"] > 0
    assert joules["tpu_v6e"] is None


def test_what_an_endpoint_draws_is_not_known() -> None:
    config = hf.compose(["workload=synthetic", "workload.requests=5", "pool@cluster.pools.llm=endpoint"])
    energy = hf.simulate(hf.compile(config)).summary["energy"]
    assert energy["total_j"] is None
    assert energy["j_per_output_token"] is None
    assert energy["unmetered"] == ["llm"]


def test_a_study_ranks_no_policy_by_an_energy_that_is_not_known() -> None:
    rows = [
        {
            "cluster": f"paper_{name}",
            "ttft_s.mean": 1.0,
            "throughput.steady.output_tokens_per_s": 10.0,
            ENERGY: joules,
        }
        for name, joules in (("chunked", None), ("continuous", 2.0))
    ]
    assert best_policies(rows, "throughput/energy") == {"C"}
    assert best_policies(rows, "throughput") == {"C", "K"}
    assert best_policies(rows[:1], "throughput/energy") == set()


@pytest.mark.parametrize("name", ["h100", "unmetered_host"])
def test_known_energies_of_one_kind_compare_with_each_other(name: str) -> None:
    found = hf.compare({"one": run(name), "other": run(name)})
    assert found.energies_compare == {"one": True, "other": True}
    assert found.ranked(ENERGY)["rank"].to_list() == [1, 2]


def test_the_page_of_a_run_names_what_its_energy_does_not_count() -> None:
    tiles = {name: note for name, _, note in key_figures(run("unmetered_host").summary)}
    assert tiles["energy"].endswith("J per output token; host not counted")
