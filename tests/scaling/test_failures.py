"""Clients that fail: what is refused, what becomes of their tasks, and the availability in closed form."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from compiler.configs import problems_of

import hermes_flow as hf
from hermes_flow.errors import HermesFlowError
from hermes_flow.validation.invariants.check import check_run

LOAD = (
    "pipeline=llm",
    "workload=synthetic",
    "workload.requests=200",
    "workload.rate_per_s=20",
    "cost={kind: affine, fixed_us: 8000, per_token_us: 40, per_context_us: 0}",
)


def failures(pool: str = "llm", **keys: Any) -> str:
    return re.sub(r'"(\w+)":', r"\1:", f"cluster.pools.{pool}.failures={json.dumps(keys)}")


def result(*overrides: str) -> hf.Result:
    return hf.simulate(hf.compile(hf.compose([*LOAD, *overrides])))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"mtbf_s": 100}, "cluster.pools.llm.failures.repair_s: null, but mtbf_s is given"),
        (
            {"on_failure": "lose"},
            "cluster.pools.llm.failures.events: empty, as slowdowns is, and mtbf_s is null",
        ),
        (
            {"events": [{"at_s": 3}]},
            "cluster.pools.llm.failures.events.0.client: expected either client or node",
        ),
    ],
)
def test_incomplete_keys_are_named(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(HermesFlowError, match=re.escape(message)):
        hf.compose([*LOAD, failures(**keys)])


def test_clients_and_nodes_that_do_not_exist_are_named() -> None:
    two = [*LOAD, "cluster.pools.llm.count=2"]
    client = problems_of(hf.compose([*two, failures(events=[{"at_s": 3, "client": 2}])]))
    assert "cluster.pools.llm.failures.events.0.client: there is no client 2; expected 0 to 1" in client[0]
    node = problems_of(hf.compose([*two, failures(events=[{"at_s": 3, "node": 0}])]))
    assert "cluster.pools.llm.failures.events.0.node: no node is known" in node[0]


def test_what_cannot_begin_anew_is_refused_and_can_be_lost() -> None:
    event = [{"at_s": 3, "client": 0, "for_s": 1}]
    config = ["pipeline=chat_guarded_streaming", failures(events=event)]
    assert any("is read while it is written" in problem for problem in problems_of(hf.compose(config)))
    hf.compile(hf.compose(["pipeline=chat_guarded_streaming", failures(events=event, on_failure="lose")]))


def test_tasks_of_a_failed_client_begin_anew_on_another_one(tmp_path: Path) -> None:
    found = result("cluster.pools.llm.count=2", failures(events=[{"at_s": 4, "client": 0, "for_s": 3}]))
    fleet = found.summary["fleet"]["llm"]
    assert found.summary["requests"]["completed"] == 200
    assert fleet["failures"] == 1
    assert fleet["retried_requests"] == int((found.requests["retries"] > 0).sum()) > 0
    struck = found.requests.filter(found.requests["retries"] > 0)
    assert float(struck["e2e_s"].mean()) > float(found.requests["e2e_s"].mean())  # type: ignore[arg-type]
    on_it = found.stages.filter(found.stages["client"] == "llm/0")
    assert not on_it.filter((on_it["finish_s"] > 4) & (on_it["start_s"] < 7)).height
    found.write(tmp_path)
    assert not check_run(tmp_path).violations


def test_tasks_of_a_failed_client_may_fail_with_it() -> None:
    event = {"at_s": 4, "client": 0, "for_s": 3}
    found = result("cluster.pools.llm.count=2", failures(events=[event], on_failure="lose"))
    lost = found.summary["requests"]["failed"]
    assert lost > 0
    assert found.summary["requests"]["completed"] == 200 - lost
    assert found.summary["warnings"] == [f"{lost} requests failed: a client of llm failed with it"]


def test_requests_wait_for_the_repair_where_no_other_client_is_up() -> None:
    found = result(failures(events=[{"at_s": 4, "client": 0, "for_s": 30}]))
    assert found.summary["requests"]["completed"] == 200
    late = found.requests.filter(found.requests["finish_s"] > 4)
    assert float(late["finish_s"].min()) > 34  # type: ignore[arg-type]


def test_requests_fail_where_no_client_comes_back() -> None:
    found = result(failures(events=[{"at_s": 4, "client": 0}]))
    requests = found.summary["requests"]
    assert requests["failed"] > 100
    assert requests["completed"] + requests["failed"] == 200
    assert "no client of pool llm is left" in found.summary["warnings"][0]


def test_a_spot_client_with_enough_notice_loses_nothing_and_is_not_paid_for_while_it_is_gone() -> None:
    event = {"at_s": 8, "client": 0, "for_s": 10}
    short = ["cluster.pools.llm.count=2", "workload.output_tokens=50"]
    found = result(*short, failures(events=[event], notice_s=4, paid=False))
    fleet = found.summary["fleet"]["llm"]
    assert fleet["retried_requests"] == 0
    assert found.summary["requests"]["completed"] == 200
    hours = found.clients.filter(found.clients["pool"] == "llm")["accelerator_hours"].to_list()
    end_s = found.recording.end_ns / 1e9
    gone_s = min(end_s, 18.0) - 8.0
    assert [3600 * each for each in hours] == pytest.approx([end_s - gone_s, end_s])


@pytest.mark.parametrize("side", ["prefill", "decode"])
@pytest.mark.parametrize("transfer", ["full", "layerwise"])
def test_a_lost_side_of_a_disaggregated_layout_repeats_the_prefill(
    side: str, transfer: str, tmp_path: Path
) -> None:
    events = [{"at_s": at, "client": at % 2, "for_s": 2} for at in range(2, 10)]
    two = [f"cluster.pools.{name}.count=2" for name in ("prefill", "decode")]
    layout = ["cluster=disaggregated", f"cluster.kv_transfer={transfer}", *two]
    found = result(*layout, failures(side, events=events))
    assert found.summary["requests"]["completed"] == 200
    assert found.summary["fleet"][side]["retried_requests"] > 0
    found.write(tmp_path)
    assert not check_run(tmp_path).violations


def test_a_lost_prefill_takes_the_decode_back_that_waits_for_a_client() -> None:
    two = ["cluster=disaggregated", "cluster.pools.prefill.count=2"]
    gone = failures("decode", events=[{"at_s": 2, "client": 0, "for_s": 4}])
    lost = failures("prefill", events=[{"at_s": 4, "client": number, "for_s": 1} for number in (0, 1)])
    found = result(*two, gone, lost)
    assert found.summary["requests"]["completed"] == 200
    assert found.summary["fleet"]["prefill"]["retried_requests"] > 20
    late = found.stages.filter((found.stages["kind"] == "decode") & (found.stages["ready_s"] > 4))
    assert late.height > 100


def test_a_node_takes_all_its_clients_with_it() -> None:
    layout = ["cluster=disaggregated", "cluster.pools.prefill.count=8", "cluster.pools.decode.count=8"]
    program = hf.compile(
        hf.compose([*LOAD, *layout, failures("decode", events=[{"at_s": 4, "node": 1, "for_s": 2}])])
    )
    assert program.network is not None
    fleet = next(pool.fleet for pool in program.pools if pool.name == "decode")
    assert fleet is not None
    assert fleet.failing is not None
    nodes = dict(zip(program.network.clients, program.network.nodes, strict=True))
    standing = [place for place in range(8) if nodes[f"decode/{place}"] == 1]
    assert [outage.client for outage in fleet.failing.outages] == standing
    assert standing


def test_availability_is_mtbf_over_mtbf_and_repair() -> None:
    load = ["workload.arrivals={process: constant}", "workload.requests=300", "workload.rate_per_s=0.01"]
    found = result(*load, "cluster.pools.llm.count=12", failures(mtbf_s=400, repair_s=100))
    fleet = found.summary["fleet"]["llm"]
    # 12 clients over 30,000 s fail about 700 times, so that the share is within 2 % of 400 / (400 + 100).
    assert fleet["availability"] == pytest.approx(0.8, rel=0.02)
    assert fleet["failures"] == pytest.approx(12 * 29_900 / 500, rel=0.08)


def test_random_failures_have_a_stream_of_their_own() -> None:
    load = ["cluster.pools.llm.count=3", failures(mtbf_s=5, repair_s=1)]
    states = [found.fleet for found in (result(*load), result(*load, "workload.output_tokens=50"))]
    ups = [frame.filter(frame["state"] == "down")["begin_s"].to_list()[:1] for frame in states]
    assert ups[0] == ups[1]
    assert result(*load).requests.equals(result(*load).requests)


def test_an_autoscaler_replaces_clients_that_are_down() -> None:
    policy = "policy: target, metric: in_flight_per_client, target: 4"
    keys = f"{{{policy}, max: 4, interval_s: 1, startup_s: 1, cooldown_s: 2}}"
    event = {"at_s": 4, "client": 0}
    found = result(f"cluster.pools.llm.autoscale={keys}", failures(events=[event]))
    assert found.summary["requests"]["completed"] == 200
    assert found.fleet.filter(found.fleet["client"] == "llm/0")["state"].to_list()[-1] == "down"


def test_kv_that_is_computed_again_is_freed_again() -> None:
    """There is room for two of the longest prompts: if repeated ones kept theirs, later prompts would have none."""
    small = ("cluster=disaggregated", "cluster.pools.decode.count=2", "cluster.pools.prefill.kv_blocks=1024")
    events = [{"at_s": at / 2, "client": at % 2, "for_s": 0.4} for at in range(4, 24)]
    found = result(*small, failures("decode", events=events, on_failure="retry", retries=20))
    assert found.summary["requests"]["completed"] == 200
    assert found.summary["fleet"]["decode"]["retried_requests"] > 50


def slowed(**keys: Any) -> str:
    return failures(slowdowns=[{"client": 0, "factor": 3, **keys}])


@pytest.mark.parametrize("engine", ["vllm", "sglang", "tensorrt_llm"])
def test_a_slow_client_takes_so_many_times_as_long(engine: str) -> None:
    one = ["workload.requests=1", "workload.output_tokens=40", f"engine={engine}"]
    usual, slow = result(*one), result(*one, slowed(at_s=0))
    factor = float(slow.requests["e2e_s"][0]) / float(usual.requests["e2e_s"][0])
    assert factor == pytest.approx(3, rel=0.02)
    half = float(usual.requests["e2e_s"][0]) / 2
    begin = float(usual.requests["arrival_s"][0]) + half
    later = result(*one, slowed(at_s=begin, for_s=half))
    took = float(later.requests["e2e_s"][0])
    assert 1.25 * 2 * half < took < 1.4 * 2 * half  # a third of a half is done in the slow half


def test_a_router_that_sees_loads_sends_less_to_a_slow_client(tmp_path: Path) -> None:
    found = result("cluster.pools.llm.count=2", "cluster.routing=least_requests", slowed(at_s=2, for_s=5))
    assert found.summary["requests"]["completed"] == 200
    shares = found.stages.filter(found.stages["start_s"].is_between(3, 7))["client"].value_counts()
    counts = dict(shares.iter_rows())
    assert counts["llm/0"] < 0.7 * counts["llm/1"]
    found.write(tmp_path)
    assert not check_run(tmp_path).violations


def test_a_client_that_fails_comes_back_as_slow_as_its_node() -> None:
    keys = {
        "events": [{"at_s": 1, "client": 0, "for_s": 1}],
        "slowdowns": [{"at_s": 0, "client": 0, "factor": 4}],
    }
    found = result("workload.requests=20", "workload.rate_per_s=1", failures(**keys))
    usual = result("workload.requests=20", "workload.rate_per_s=1")
    assert float(found.requests["tpot_s"][-1]) > 3 * float(usual.requests["tpot_s"][-1])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            [failures(slowdowns=[{"at_s": 3, "client": 7, "factor": 2}])],
            "cluster.pools.llm.failures.slowdowns.0.client: there is no client 7; expected 0 to 0",
        ),
        (
            [failures(slowdowns=[{"at_s": at, "client": 0, "factor": 2, "for_s": 3} for at in (1, 2)])],
            "cluster.pools.llm.failures.slowdowns.1.at_s: client 0 is slow by slowdowns.0 until after that time",
        ),
        (
            [slowed(at_s=1), "cluster.pools.llm.batching=static"],
            "cluster.pools.llm.failures.slowdowns: gangs of 'static' have one pace",
        ),
        (
            [
                failures("host", slowdowns=[{"at_s": 3, "client": 0, "factor": 2}]),
                "pipeline=chat",
            ],
            "cluster.pools.host.failures.slowdowns: clients of kind 'sequential' have one pace",
        ),
    ],
)
def test_clients_that_cannot_be_slow_are_named(overrides: list[str], message: str) -> None:
    assert any(message in problem for problem in problems_of(hf.compose([*LOAD, *overrides])))


_PLAIN = ("lookahead=0", "lookahead=1")
FAILING = [
    *(
        ("vllm", "a100_sxm", "llama3_8b", pool)
        for pool in (*_PLAIN, "pipeline_parallel=2", "speculative.head=eagle")
    ),
    *((engine, "a100_sxm", "llama3_8b", pool) for engine in ("sglang", "tensorrt_llm") for pool in _PLAIN),
    *(
        (engine, "h100_sxm", "qwen3_30b_a3b", "data_parallel=2")
        for engine in ("vllm", "sglang", "tensorrt_llm")
    ),
]


@pytest.mark.parametrize(("engine", "hardware", "model", "pool"), FAILING)
def test_nothing_leaves_a_client_after_it_has_failed(
    engine: str, hardware: str, model: str, pool: str, tmp_path: Path
) -> None:
    """A scheduler knows the result of the step in progress, whose tokens never leave."""
    given = [
        *LOAD[:-1],
        f"engine={engine}",
        f"hardware={hardware}",
        f"model={model}",
        f"cluster.pools.llm.{pool}",
        "cluster.pools.llm.count=2",
        "workload.input_tokens=3000",
        failures(mtbf_s=3, repair_s=1, on_failure="lose"),
    ]
    found = hf.simulate(hf.compile(hf.compose(given)))
    down = found.fleet.filter(found.fleet["state"] == "down")
    served = found.stages.filter(found.stages["finish_s"].is_not_null())
    assert down.height > 3
    assert served.filter(served["kind"] == "prefill").height > 10
    for client, begin in down.select("client", "begin_s").iter_rows():
        own = served.filter(served["client"] == client)
        assert not own.filter((own["start_s"] < begin) & (own["finish_s"] > begin + 2e-9)).height
    assert float(found.stages["energy_j"].min()) >= 0  # type: ignore[arg-type]
    found.write(tmp_path)
    assert not check_run(tmp_path).violations


@pytest.mark.parametrize("engine", ["vllm", "sglang", "tensorrt_llm"])
def test_steps_of_requests_that_were_given_up_end_with_their_client(engine: str, tmp_path: Path) -> None:
    given = [
        *("pipeline=llm", "workload=synthetic", "workload.requests=150", "workload.rate_per_s=20"),
        *("workload.input_tokens=2000", "workload.output_tokens=60", f"engine={engine}"),
        *("workload.timeout_s=1", "workload.retry={times: 2, backoff_s: 0.3}", "cluster.pools.llm.count=2"),
        failures(mtbf_s=2, repair_s=1),
    ]
    found = hf.simulate(hf.compile(hf.compose(given)))
    assert found.summary["user_retries"]["times"] > 10
    found.write(tmp_path)
    assert not check_run(tmp_path).violations


def test_the_work_of_a_client_that_lost_all_of_its_tasks_is_shared() -> None:
    given = [
        *("pipeline=llm", "workload=synthetic", "workload.requests=20", "workload.rate_per_s=100"),
        *("cluster.pools.llm.count=2", "cluster.routing=round_robin", "workload.output_tokens=200"),
        failures(events=[{"at_s": 0.6, "client": 0}]),
    ]
    found = hf.simulate(hf.compile(hf.compose(given)))
    assert not found.stages.filter(
        (found.stages["client"] == "llm/0") & (found.stages["pool"] == "llm")
    ).height
    llm = found.clients.filter(found.clients["client"] == "llm/0")
    energy = found.summary["energy"]
    assert llm["steps"].item() > 10
    assert llm["energy_j"].item() > 100
    assert found.requests["energy_j"].sum() + energy["idle_j"] == pytest.approx(energy["total_j"], rel=1e-9)


def test_requests_whose_kv_is_on_the_way_to_a_failed_client_have_not_decoded(tmp_path: Path) -> None:
    found = hf.simulate(
        hf.compile(
            hf.compose(
                [
                    *(
                        "pipeline=llm",
                        "cluster=disaggregated",
                        "cluster.pools.decode.count=2",
                        "hardware=b200_sxm",
                    ),
                    *("workload=synthetic", "workload.requests=200", "workload.rate_per_s=40"),
                    *("workload.input_tokens=3000", "workload.output_tokens=20"),
                    failures("decode", mtbf_s=0.3, repair_s=0.05, on_failure="lose"),
                ]
            )
        )
    )
    decodes = found.stages.filter(found.stages["kind"] == "decode")
    never = decodes.filter(decodes["start_s"].is_null())
    assert never.height
    assert never["finish_s"].is_null().all()
    assert not never["energy_j"].fill_null(0).sum()
    found.write(tmp_path)
    assert not check_run(tmp_path).violations
