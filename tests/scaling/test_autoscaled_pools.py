"""Autoscaled pools through the configuration: what is refused, what each policy reads, and what a run costs."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from compiler.configs import problems_of

import hermes_flow as hf
from hermes_flow.errors import HermesFlowError
from hermes_flow.validation.invariants.check import check_run

POOL = "cluster.pools.llm"
AFFINE = "cost={kind: affine, fixed_us: 8000, per_token_us: 40, per_context_us: 0}"
LOAD = ("pipeline=llm", "workload=synthetic", "workload.requests=300", AFFINE)


def autoscale(**keys: Any) -> str:
    given = {"policy": "target", "metric": "in_flight_per_client", "target": 4, "max": 4, **keys}
    return setting("llm", given)


def setting(pool: str, keys: dict[str, Any]) -> str:
    """Return the setting of a pool as the command line takes it, where keys have no quotes."""
    return re.sub(r'"(\w+)":', r"\1:", f"cluster.pools.{pool}.autoscale={json.dumps(keys)}")


def arriving(*stages: tuple[int, int]) -> str:
    """Return the setting of a load of stages, each with a rate and a duration in seconds."""
    listed = ", ".join(f"{{rate_per_s: {rate}, duration_s: {seconds}}}" for rate, seconds in stages)
    return f"workload.arrivals={{process: stages, stages: [{listed}]}}"


@cache
def result(*overrides: str) -> hf.Result:
    return hf.simulate(hf.compile(hf.compose([*LOAD, *overrides])))


def scaled(*overrides: str, **keys: Any) -> hf.Result:
    return result(
        "workload.rate_per_s=20",
        autoscale(**{"interval_s": 1, "startup_s": 2, "cooldown_s": 5, **keys}),
        *overrides,
    )


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"metric": "queue"}, "cluster.pools.llm.autoscale.metric: 'queue' is not valid"),
        ({"maximum": 3}, "cluster.pools.llm.autoscale.maximum: unknown key"),
        ({"max": 0}, "cluster.pools.llm.autoscale.max: 0 is out of range"),
        ({"min": 5}, "cluster.pools.llm.autoscale.min: 5 is above max (4)"),
        ({"interval_s": 0}, "cluster.pools.llm.autoscale.interval_s: 0 is out of range"),
        ({"startup_s": 3, "boot_s": 2}, "cluster.pools.llm.autoscale.boot_s: has no effect"),
        ({"policy": "targt"}, "cluster.pools.llm.autoscale.policy: unknown scaling policy 'targt'"),
        ({"metric": "kv_use"}, "cluster.pools.llm.autoscale.target: 4 is above 1"),
        ({"window_s": 3}, "cluster.pools.llm.autoscale.window_s: unknown key; it is a key of foresight, slo"),
    ],
)
def test_wrong_keys_are_named(keys: dict[str, Any], message: str) -> None:
    assert any(message in problem for problem in problems_of(hf.compose([*LOAD, autoscale(**keys)])))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            [autoscale(), f"{POOL}.count=5"],
            "cluster.pools.llm.count: 5 is above cluster.pools.llm.autoscale.max (4)",
        ),
        (
            [autoscale(), "workload.rate_for=client"],
            "workload.rate_for: 'client', but the clients of pool 'llm' come and go",
        ),
        (
            [f"{POOL}.autoscale={{policy: slo, max: 2}}", "slo=none"],
            "autoscale.policy: the SLO 'none' has no bounds",
        ),
        (
            [f"{POOL}.autoscale={{policy: foresight, requests_per_s: 2, max: 2}}", "workload=closed_loop"],
            "autoscale.policy: it knows arrivals",
        ),
    ],
)
def test_what_cannot_be_combined_is_refused(overrides: list[str], message: str) -> None:
    problems = problems_of(hf.compose([*LOAD, *overrides]))
    assert any(message in problem for problem in problems), problems


def test_groups_and_stores_beside_clients_are_refused() -> None:
    key = "cluster.pools.decode.autoscale={policy: target, metric: in_flight_per_client, target: 4, max: 2}"
    grouped = hf.compose(
        ["pipeline=llm", "cluster=disaggregated", "cluster.groups=2", "cluster.pools.prefill.count=2", key]
    )
    assert any("cluster.groups is 2" in problem for problem in problems_of(grouped))
    with pytest.raises(HermesFlowError, match="stores of pool 'store' stand beside its clients"):
        hf.compile(hf.compose(["pipeline=kv_reuse", "cluster=kv_local", autoscale(max=1)]))


def test_every_request_is_served_once_and_only_by_clients_that_are_up(tmp_path: Path) -> None:
    found = scaled()
    assert found.summary["requests"]["completed"] == 300
    up: dict[str, list[tuple[float, float]]] = {}
    for pool, client, state, begin, end in found.fleet.iter_rows():
        assert pool == "llm"
        if state in ("up", "draining"):
            up.setdefault(client, []).append((begin, end))
    for client, start, finish in found.stages.select("client", "start_s", "finish_s").iter_rows():
        assert any(begin <= start and finish <= end for begin, end in up[client])
    found.write(tmp_path)
    assert not check_run(tmp_path).violations
    later = found.fleet.with_columns(end_s=pl.col("end_s") - 1.0)
    for broken in (later, found.fleet.filter(pl.col("state") != "starting"), found.fleet.head(1)):
        broken.write_parquet(tmp_path / "fleet.parquet")
        assert {own.invariant.name for own in check_run(tmp_path).violations} == {"fleets"}


def test_hours_and_prices_are_those_of_the_time_that_clients_ran() -> None:
    found = scaled()
    fleet = found.summary["fleet"]["llm"]
    rows = found.fleet.filter(found.fleet["state"] != "off")
    hours = float((rows["end_s"] - rows["begin_s"]).sum()) / 3600
    assert fleet["accelerator_hours"] == pytest.approx(hours)
    clients = found.clients.filter(found.clients["pool"] == "llm")
    assert float(clients["accelerator_hours"].sum()) == pytest.approx(hours)
    assert found.summary["fleet"]["llm"]["usd"] == pytest.approx(float(clients["cost_usd"].sum()))
    price = found.program.pools[-1].usd_per_hour
    assert price is not None
    assert float(clients["cost_usd"].sum()) == pytest.approx(price * hours)
    end_h = found.recording.end_ns / 3.6e12
    assert found.summary["cost"]["usd_per_hour"] == pytest.approx(price * hours / end_h)
    assert found.summary["cost"]["accelerators"] == pytest.approx(hours / end_h)


def test_a_client_that_is_off_draws_nothing() -> None:
    kept, off = (
        hf.simulate(hf.compile(hf.compose([*LOAD[:3], autoscale(min=least, interval_s=1, startup_s=1)])))
        for least in (4, 1)
    )
    idle = [found.summary["energy"]["idle_j"] for found in (kept, off)]
    assert idle[1] < 0.7 * idle[0]
    unused = off.clients.filter(off.clients["up_s"] == 0)
    assert unused["energy_j"].sum() == 0.0


def test_a_fleet_without_room_to_change_runs_as_a_fixed_pool() -> None:
    fixed = result("workload.rate_per_s=20", f"{POOL}.count=3")
    elastic = scaled(min=3, max=3)
    assert elastic.requests.equals(fixed.requests)
    assert elastic.stages.equals(fixed.stages)


def test_the_start_up_follows_from_the_weights_and_the_path_they_come_by() -> None:
    def note(**keys: Any) -> str:
        program = hf.compile(
            hf.compose([*LOAD, "model=llama3_8b", "hardware=h100_sxm", autoscale(startup_s=None, **keys)])
        )
        return program.pools[-1].notes[-1]

    # 16.06 GB of weights in bf16 over 64 GB/s of PCIe, or over 2 GB/s of a disk and 30 s to boot.
    assert note().startswith(
        "a client takes 0.3 s to start: 16.1 GB of weights a device from host memory at 64 GB/s"
    )
    assert note(boot_s=30, load_gb_s=2).startswith(
        "a client takes 38.0 s to start: 30 s to boot, and 16.1 GB of weights"
    )


@pytest.mark.parametrize(
    "metric", ["queued_per_client", "waiting_tokens_per_client", "arrivals_per_s_per_client", "kv_use"]
)
def test_every_metric_starts_clients_under_load(metric: str) -> None:
    target = {
        "queued_per_client": 1,
        "waiting_tokens_per_client": 500,
        "arrivals_per_s_per_client": 6,
        "kv_use": 0.3,
    }
    found = scaled(f"{POOL}.max_num_seqs=4", f"{POOL}.kv_blocks=400", metric=metric, target=target[metric])
    assert found.summary["fleet"]["llm"]["clients"]["most"] > 1
    assert found.summary["requests"]["completed"] + found.summary["requests"]["failed"] == 300


def test_the_schedule_follows_the_time_of_day() -> None:
    at = {"9": 1, "10": 3}
    found = result(
        "workload.rate_per_s=3",
        setting(
            "llm",
            {
                "policy": "schedule",
                "at": at,
                "begins": "09:59",
                "max": 4,
                "interval_s": 5,
                "startup_s": 10,
                "cooldown_s": 0,
            },
        ),
    )
    starts = found.fleet.filter(found.fleet["state"] == "up")
    assert starts["begin_s"].to_list() == [0.0, 70.0, 70.0]


def test_an_oracle_has_clients_up_when_the_load_comes() -> None:
    stages = arriving((2, 20), (30, 6))
    keys = {
        "policy": "foresight",
        "requests_per_s": 10,
        "max": 4,
        "interval_s": 1,
        "startup_s": 5,
        "cooldown_s": 0,
    }
    found = result(stages, setting("llm", keys))
    up = found.fleet.filter((found.fleet["state"] == "up") & (found.fleet["begin_s"] > 0))
    assert float(up["begin_s"].min()) <= 20.0 + 1.0  # type: ignore[arg-type]


def test_a_missed_slo_starts_clients() -> None:
    slo = "slo={name: tight, ttft_ms: {p50: 30}}"
    keys = {"policy": "slo", "attainment": 0.9, "window_s": 3, "max": 4, "interval_s": 1, "startup_s": 1}
    found = result("workload.rate_per_s=30", slo, setting("llm", keys))
    assert found.summary["fleet"]["llm"]["clients"]["most"] == 4


def test_a_pool_may_stop_all_its_clients_and_start_one_for_the_next_task() -> None:
    stages = arriving((5, 4), (0, 40), (5, 4))
    found = result(stages, autoscale(min=0, interval_s=1, startup_s=3, cooldown_s=2))
    assert found.summary["fleet"]["llm"]["clients"]["least"] == 0
    assert found.summary["requests"]["failed"] == 0
    assert float(found.requests["ttft_s"].max()) > 3.0  # type: ignore[arg-type]


def test_both_sides_of_a_disaggregated_layout_scale() -> None:
    keys = {
        "policy": "target",
        "metric": "in_flight_per_client",
        "target": 3,
        "max": 4,
        "interval_s": 1,
        "startup_s": 1,
        "cooldown_s": 2,
    }
    both = [setting(name, keys) for name in ("prefill", "decode")]
    for transfer in ("full", "layerwise"):
        found = hf.simulate(
            hf.compile(
                hf.compose(
                    [
                        *LOAD,
                        "cluster=disaggregated",
                        f"cluster.kv_transfer={transfer}",
                        "workload.rate_per_s=25",
                        *both,
                    ]
                )
            )
        )
        assert found.summary["requests"]["completed"] == 300
        assert {name for name, fleet in found.summary["fleet"].items() if fleet["starts"]} == {
            "prefill",
            "decode",
        }


@pytest.mark.parametrize(
    "routing",
    [
        "round_robin",
        "random",
        "power_of_two",
        "least_tokens",
        "least_kv",
        "least_expected_work",
        "session_affinity",
        "prefix_affinity",
        "{policy: heavy_light, threshold_tokens: 400}",
        "{policy: weighted, weights: {prefix_affinity: 1, least_requests: 1}}",
    ],
)
def test_every_routing_policy_chooses_among_clients_that_are_up(routing: str) -> None:
    keys = autoscale(interval_s=1, startup_s=1, cooldown_s=2, max=5)
    load = [
        "workload=sessions",
        "workload.sessions=40",
        "workload.rate_per_s=15",
        "cluster.routing_stale_ms=100",
    ]
    found = hf.simulate(hf.compile(hf.compose([AFFINE, *load, f"{POOL}.routing={routing}", keys])))
    assert found.summary["requests"]["failed"] == 0
    assert found.summary["fleet"]["llm"]["starts"] > 0
    assert found.summary["fleet"]["llm"]["stops"] > 0


def test_a_request_that_is_given_up_is_in_no_hand_any_more() -> None:
    keys = autoscale(interval_s=1, startup_s=2, cooldown_s=5, max=2)
    program = hf.compile(hf.compose([*LOAD, "workload.rate_per_s=20", f"{POOL}.max_num_seqs=4", keys]))
    timeout_ns = np.full(300, 2_000_000_000, dtype=np.int64)
    found = hf.simulate(replace(program, requests=replace(program.requests, timeout_ns=timeout_ns)))
    requests = found.summary["requests"]
    assert 0 < requests["failed"] < 300
    assert requests["completed"] + requests["failed"] == 300
    assert found.summary["fleet"]["llm"]["clients"] == {**found.summary["fleet"]["llm"]["clients"], "most": 2}
    for states in (client.states for client in found.recording.clients if client.states):
        assert states[-1][1] != "draining"


def test_a_fleet_goes_on_while_tasks_wait_for_another_one() -> None:
    keys = {
        "policy": "target",
        "metric": "in_flight_per_client",
        "target": 4,
        "min": 0,
        "max": 2,
        "cooldown_s": 0,
    }
    sides = [setting("prefill", {**keys, "startup_s": 30}), setting("decode", {**keys, "startup_s": 1})]
    stages = arriving((5, 3), (0, 100), (5, 3))
    found = hf.simulate(hf.compile(hf.compose([*LOAD, "cluster=disaggregated", stages, *sides])))
    assert found.summary["requests"]["completed"] == found.summary["requests"]["submitted"]
    assert found.summary["fleet"]["decode"]["starts"] >= 1
