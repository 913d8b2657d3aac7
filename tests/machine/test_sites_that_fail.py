"""Sites whose clients scale and fail: by hand, against closed forms, and against clusters of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import hermes_flow as hf
from hermes_flow.program.fleet import SiteFailing
from hermes_flow.program.units import NEVER, NS_PER_S

AFFINE = "cost={kind: affine, fixed_us: 2000, per_token_us: 10, per_context_us: 0}"
TARGET = (
    "{policy: target, metric: in_flight_per_client, target: 3, min: 1, max: 4, interval_s: 2, startup_s: 3}"
)


def simulated(*overrides: str) -> hf.Result:
    return hf.simulate(hf.compile(hf.compose(["pipeline=llm", AFFINE, *overrides])))


def trace(path: Path, rows: list[tuple[Any, ...]], columns: str) -> list[str]:
    path.write_text("\n".join([columns, *(",".join(map(str, row)) for row in rows)]) + "\n")
    return ["workload=trace", f"workload.path={path}"]


def test_a_request_of_a_failed_site_is_sent_anew_as_soon_as_its_user_knows(tmp_path: Path) -> None:
    failures = "failures: {events: [{at_s: 0.5, for_s: 2}]}"
    us = f"{{last_mile_ms: 5, latency_ms: {{eu: 40}}, gb_s: {{eu: 0.001}}, usd_per_gb: {{eu: 10}}, {failures}}}"
    load = trace(
        tmp_path / "t.csv",
        [(0.0, 1000, 1001, "us"), (0.6, 1000, 11, "us"), (2.6, 1000, 11, "us")],
        "arrival_s,input_tokens,output_tokens,site",
    )
    result = simulated(*load, f"cluster.sites={{us: {us}, eu: {{}}}}")
    lost, avoids, comes_home = result.requests.to_dicts()
    # Lost at 0.5 s; its user knows 5 ms later. 5 + 40 ms and 4 kB at 1 MB/s to the other site; 45 ms back.
    served_s = (
        0.012 + 1000 * 0.00201 + 0.010 + 10 * 0.00001
    )  # with the second prompt and its answer in its steps
    assert lost["finish_s"] == pytest.approx(0.505 + 0.049 + served_s + 0.045, abs=1e-6)
    assert (lost["site"], lost["site_changes"], lost["retries"], lost["status"]) == ("eu", 1, 1, "completed")
    assert lost["wasted_tokens"] == 1000 + 1 + (500 - 5 - 12) // 2.01
    assert (avoids["site"], avoids["site_changes"]) == ("eu", 0)
    assert (comes_home["site"], comes_home["site_changes"]) == ("us", 0)  # back since 2.5 s
    shares = result.summary["critical_path"]["mean"]["shares"]
    assert shares["earlier_tries"] == pytest.approx(0.505 / sum(result.requests["e2e_s"]), rel=1e-6)
    assert result.summary["sites"]["us"]["site_changes"] == 1
    assert lost["transfer_usd"] == pytest.approx(4000 * 10e-9)


def test_random_failures_of_a_site_make_it_available_as_the_closed_form_says() -> None:
    from hermes_flow.machine.outages import SiteOutages

    outages = SiteOutages(SiteFailing("us", (), 900.0 * NS_PER_S, 100.0 * NS_PER_S), seed=3)
    down_ns, until_ns = 0, 0
    for _ in range(4000):
        at_ns = outages.at_ns
        assert at_ns > until_ns
        found = outages.due(at_ns)
        assert found is not None
        until_ns = found
        down_ns += until_ns - at_ns
    # Of 4,000 failures the share of time that the site is up has a standard deviation of 0.2 %.
    assert 1 - down_ns / until_ns == pytest.approx(900 / (900 + 100), abs=0.008)


def test_a_site_that_never_comes_back_leaves_its_users_to_the_others() -> None:
    sites = "{us: {users: 1, latency_ms: {eu: 10}, failures: {events: [{at_s: 1}]}}, eu: {users: 0}}"
    result = simulated(
        "workload=synthetic", "workload.requests=60", "workload.rate_per_s=20", f"cluster.sites={sites}"
    )
    assert set(result.requests["status"]) == {"completed"}
    late = result.requests.filter(result.requests["arrival_s"] > 1)
    assert set(late["site"]) == {"eu"}
    us, eu = result.clients.filter(result.clients["pool"] == "llm").to_dicts()
    assert (us["site"], eu["site"]) == ("us", "eu")
    assert us["up_s"] == 1.0
    outage = SiteFailing("us", ((NS_PER_S, None),))
    from hermes_flow.machine.outages import SiteOutages

    assert SiteOutages(outage, 0).due(NS_PER_S) == NEVER


def test_requests_fail_with_their_site_where_that_is_asked_for() -> None:
    sites = "{us: {users: 1, latency_ms: {eu: 9}, failures: {events: [{at_s: 1}], on_failure: lose}}, eu: {}}"
    result = simulated(
        "workload=synthetic", "workload.requests=60", "workload.rate_per_s=20", f"cluster.sites={sites}"
    )
    rows = result.requests.to_dicts()
    failed = [row for row in rows if row["status"] != "completed"]
    assert failed
    assert all(row["site"] == "us" and row["arrival_s"] < 1 for row in failed)
    assert any(row["site"] == "eu" for row in rows)


def test_every_site_scales_as_a_cluster_of_its_own(tmp_path: Path) -> None:
    scaled = f"cluster.pools.llm.autoscale={TARGET}"
    sites = "cluster.sites={us: {users: 0.7, latency_ms: {eu: 45}}, eu: {users: 0.3}}"
    load = ("workload=synthetic", "workload.requests=150", "workload.rate_per_s=24")
    result = simulated(*load, scaled, sites, "cluster.pools.llm.site={us: 2, eu: 1}")
    rows = result.requests.to_dicts()
    sizes = set()
    for site, count, first in (("us", 2, 0), ("eu", 1, 4)):
        own = [row for row in rows if row["site"] == site]
        lines = [(round(row["arrival_s"] * 1e9), row["input_tokens"], row["output_tokens"]) for row in own]
        alone = simulated(
            *trace(tmp_path / f"{site}.csv", lines, "arrival_ns,input_tokens,output_tokens"),
            scaled,
            f"cluster.pools.llm.count={count}",
        )
        for row, other in zip(own, alone.requests.to_dicts(), strict=True):
            assert row["e2e_s"] == pytest.approx(other["e2e_s"], abs=3e-9)
        for number in range(4):
            states = [
                frame.filter(frame["client"] == f"llm/{client}").select("state", "begin_s").rows()
                for frame, client in ((result.fleet, first + number), (alone.fleet, number))
            ]
            least = min(map(len, states))  # decisions end with the last request of all sites
            assert states[0][:least] == states[1][:least]
        sizes.add(alone.summary["fleet"]["llm"]["clients"]["most"])
    assert max(sizes) > 2, sizes


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["cluster.pools.llm.autoscale={policy: foresight, requests_per_s: 2, max: 3, startup_s: 5}"],
            "cluster.pools.llm.autoscale.policy: it knows arrivals, but a request chooses among cluster.sites",
        ),
        (
            [f"cluster.pools.llm.autoscale={TARGET}", "cluster.pools.llm.site={us: 9}"],
            "cluster.pools.llm.site: 9 is above cluster.pools.llm.autoscale.max (4)",
        ),
        (
            ["cluster.sites={us: {users: 1, failures: {events: []}}}"],
            "cluster.sites.us.failures.events: empty, and mtbf_s is null",
        ),
        (
            ["cluster.sites={us: {users: 1, failures: {mtbf_s: 60}}}"],
            "cluster.sites.us.failures.repair_s: null, but mtbf_s is given",
        ),
        (
            ["cluster.sites={us: {users: 1, failures: {events: [{at: 5}]}}}"],
            "cluster.sites.us.failures.events.0.at: unknown key",
        ),
        (
            ["cluster.sites={us: {users: 1, failures: {events: [{at_s: 5}], on_failure: migrate}}}"],
            "cluster.sites.us.failures.on_failure",
        ),
    ],
)
def test_what_sites_that_fail_cannot_do_is_refused_by_name(overrides: list[str], message: str) -> None:
    sites = "cluster.sites={us: {users: 0.5, latency_ms: {eu: 9}}, eu: {users: 0.5}}"
    with pytest.raises(hf.HermesFlowError) as caught:
        hf.compile(hf.compose(["pipeline=llm", "workload.requests=5", sites, *overrides]))
    assert message in str(caught.value)


def test_the_joules_of_a_lost_try_count_as_wasted(tmp_path: Path) -> None:
    load = trace(tmp_path / "t.csv", [(0.0, 2000, 800)], "arrival_s,input_tokens,output_tokens")
    base = ["pipeline=llm", *load, "cluster.pools.llm.count=2"]
    calm = hf.simulate(hf.compile(hf.compose(base))).summary["energy"]
    failures = "cluster.pools.llm.failures={events: [{at_s: 3, client: 0}]}"
    struck = hf.simulate(hf.compile(hf.compose([*base, failures]))).summary
    work_j = [one["total_j"] - one["idle_j"] for one in (calm, struck["energy"])]
    lost_j = work_j[1] - work_j[0]  # what was drawn for the try before the last one
    assert lost_j > 100
    assert struck["wasted"]["energy_j"] == pytest.approx(
        lost_j, rel=0.03
    )  # its mean token has a shorter context


def test_what_was_given_up_in_the_last_step_of_a_client_ends_with_it(tmp_path: Path) -> None:
    load = trace(tmp_path / "t.csv", [(0.0, 50, 50)], "arrival_s,input_tokens,output_tokens")
    slow = "cost={kind: affine, fixed_us: 1000000, per_token_us: 0, per_context_us: 0}"
    failures = "cluster.pools.llm.failures={events: [{at_s: 3.5, client: 0, for_s: 1}]}"
    # Steps end at every second. The user gives up at 2.7 s; the step that ends at 4 s is planned, and lost at 3.5 s.
    given_up = ["workload.timeout_s=2.7", failures]
    result = hf.simulate(hf.compile(hf.compose(["pipeline=llm", slow, *load, *given_up])))
    result.write(tmp_path / "run")
    assert result.requests["status"].to_list() == ["timed_out"]
    assert max(row["finish_s"] or 0.0 for row in result.stages.to_dicts()) <= 3.5
    from hermes_flow.validation.invariants.check import check_run

    assert not check_run(tmp_path / "run").violations
