"""The plan finds what a brute-force grid of whole simulations finds."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

import hermes_flow as hf
from hermes_flow.config.schema import Hardware
from hermes_flow.errors import ConfigError
from hermes_flow.planning.bounds import need_of, need_of_pair
from hermes_flow.planning.designs import Clients, Family, design_config, families
from hermes_flow.planning.plan_table import overrides_of
from hermes_flow.planning.verdict import judge
from hermes_flow.report.plan_text import plan_text
from hermes_flow.tasks.plan import PlanTask

SLO = "slo={name: service, ttft_ms: {p99: 1500.0}, tpot_ms: {p90: 30.0}}"
QUESTION = ["pipeline=llm", "workload.requests=250", "workload.rate_per_s=30", SLO]


def machine(name: str) -> Hardware:
    return hf.compose([f"hardware={name}"]).hardware


@pytest.fixture(scope="module")
def config() -> hf.Config:
    return hf.compose(QUESTION)


@pytest.fixture(scope="module")
def found(config: hf.Config) -> hf.Plan:
    machines = [machine("h100_sxm"), machine("l40s"), machine("mi300x")]
    return hf.plan(config, machines, tensor_parallel=(1, 2), headrooms=1)


def good(config: hf.Config, family: Family, clients: Clients) -> bool:
    try:
        program = hf.compile(design_config(config, family, clients))
    except hf.CompileError:  # prefill and decode apart need a network that the L40S has not
        return False
    verdict = judge(program, early=False)
    return verdict.met and bool(verdict.sustained)


def brute_force(config: hf.Config, family: Family, most: int) -> float:
    """The price of the cheapest size of a family that meets the SLO, by trying them all."""
    if family.layout == "replicas":
        sizes = [Clients(count) for count in range(1, most + 1)]
    else:
        sizes = [Clients(p, d) for p in range(1, most) for d in range(1, most - p + 1)]
    prices = [family.price_of(size) for size in sizes if good(config, family, size)]
    return min((math.inf if price is None else price for price in prices), default=math.inf)


def test_the_best_design_costs_no_more_than_that_of_a_grid(config: hf.Config, found: hf.Plan) -> None:
    prices = config.prices.usd_per_hour
    machines = [replace(machine(name), usd_per_hour=prices[name]) for name in ("h100_sxm", "l40s")]
    grid = families(
        config,
        machines,
        layouts=("replicas", "disaggregated"),
        tensor_parallel=(1, 2),
        pipeline_parallel=(1,),
        batching=(),
        max_num_batched_tokens=(),
    )
    cheapest = min(brute_force(config, family, 5) for family in grid)
    assert found.best is not None
    assert found.best.usd_per_hour is not None
    assert found.best.usd_per_hour <= 1.02 * cheapest


def test_every_ranked_design_meets_the_slo_and_one_client_less_does_not(
    config: hf.Config, found: hf.Plan
) -> None:
    for design in found.ranked:
        clients = design.sized.clients
        assert clients is not None
        assert good(config, design.family, clients)
        if design.family.layout == "replicas" and clients.prefill > 1:
            assert not good(config, design.family, Clients(clients.prefill - 1))


def test_designs_are_ranked_by_price_and_those_without_one_come_last(found: hf.Plan) -> None:
    prices = [design.usd_per_hour for design in found.ranked]
    priced = [price for price in prices if price is not None]
    assert prices[: len(priced)] == sorted(priced)
    assert {design.family.hardware.name for design in found.ranked[len(priced) :]} == {"mi300x"}
    frame = found.designs
    assert frame["rank"].drop_nulls().to_list() == list(range(1, len(found.ranked) + 1))
    assert set(frame.filter(frame["hardware"] == "mi300x")["ranked_by"].drop_nulls()) == {"accelerators"}


def test_the_overrides_of_a_design_run_that_design(found: hf.Plan) -> None:
    for design in found.ranked[:4]:
        config = hf.compose([*QUESTION, *overrides_of(design).split(" ")])
        summary = hf.simulate(hf.compile(config)).summary
        assert design.summary is not None
        assert summary["ttft_s"] == design.summary["ttft_s"]
        assert summary["cost"]["usd_per_hour"] == pytest.approx(design.summary["cost"]["usd_per_hour"])


def test_prefill_and_decode_may_be_on_unlike_hardware(config: hf.Config) -> None:
    prices = config.prices.usd_per_hour
    first, second = (replace(machine(name), usd_per_hour=prices[name]) for name in ("h100_sxm", "h200_sxm"))
    found = hf.plan(
        config,
        [first],
        decode_hardware=[first, second],
        layouts=("disaggregated",),
        tensor_parallel=(1,),
        headrooms=0,
        error_bars=0,
    )
    assert {design.family.hardware_name for design in found.ranked} == {"h100_sxm", "h100_sxm + h200_sxm"}
    for design in found.ranked:
        price = design.usd_per_hour
        assert price == pytest.approx(brute_force(config, design.family, 4))
        clients = design.sized.clients
        assert clients is not None
        assert (
            price
            == clients.prefill * prices["h100_sxm"]
            + clients.decode * prices[(design.family.decode_hardware or first).name]
        )
        own = hf.simulate(hf.compile(hf.compose([*QUESTION, *overrides_of(design).split(" ")]))).summary
        assert design.summary is not None
        assert own["tpot_s"] == design.summary["tpot_s"]
    mixed = next(row for row in found.designs.iter_rows(named=True) if row["decode_hardware"] is not None)
    assert (mixed["hardware"], mixed["decode_hardware"]) == ("h100_sxm", "h200_sxm")


def test_a_pair_needs_the_prefills_of_the_one_and_the_decodes_of_the_other(config: hf.Config) -> None:
    family = Family(machine("a100_sxm"), "disaggregated", 1, 1, "chunked", 8192, machine("h200_sxm"))
    program = hf.compile(design_config(config, family, Clients(1, 1)))
    first, second, pair = need_of(program, "prefill"), need_of(program, "decode"), need_of_pair(program)
    assert (pair.prefill, pair.decode) == (first.prefill, second.decode)
    assert second.decode < first.decode


def test_decode_hardware_needs_a_layout_that_decodes_apart() -> None:
    with pytest.raises(ConfigError, match="decode_hardware"):
        PlanTask(decode_hardware=("l40s",), layouts=("replicas",))


def test_what_an_empty_client_misses_is_ruled_out_without_a_simulation(config: hf.Config) -> None:
    tight = replace(config, slo=replace(config.slo, tpot_ms={"p90": 8.0}))
    found = hf.plan(tight, [machine("l40s")], tensor_parallel=(1,), layouts=("replicas",))
    (design,) = found.ruled_out
    assert found.best is None
    assert design.sized.simulations == 0
    assert design.sized.problem is not None
    assert "one decode alone takes" in design.sized.problem


def test_a_model_that_does_not_fit_is_ruled_out() -> None:
    config = hf.compose([*QUESTION, "model=llama3_70b"])
    found = hf.plan(config, [machine("l40s")], tensor_parallel=(1,), layouts=("replicas",))
    assert found.best is None
    assert "weights of llama3_70b" in (found.ruled_out[0].sized.problem or "")


def test_the_headroom_is_how_much_more_load_the_best_design_carries(
    config: hf.Config, found: hf.Plan
) -> None:
    best = found.best
    assert best is not None
    assert best.headroom is not None
    assert best.headroom >= 0
    said = plan_text(replace(found, ranked=(replace(best, headroom=0.3),)), config)
    assert "and its load can grow by 30 %." in " ".join(said.split())
    clients = best.sized.clients
    assert clients is not None
    more = replace(config, workload=replace(config.workload, rate_per_s=30 * (1 + best.headroom)))
    assert (
        good(more, best.family, clients)
        or judge(hf.compile(design_config(more, best.family, clients)), early=False).met
    )


@pytest.mark.parametrize("headroom", [0.0, -0.04])
def test_a_plan_without_spare_capacity_says_that_no_larger_load_was_found(
    headroom: float, config: hf.Config, found: hf.Plan
) -> None:
    """The search takes steps of 5 %, so 0 is no share by which a load can grow."""
    assert found.best is not None
    best = replace(found.best, headroom=headroom)
    lines = plan_text(replace(found, ranked=(best,)), config).splitlines()
    said = " ".join(" ".join(lines).split())
    assert f"It meets SLO {config.slo.name}, but no larger load that was tried does." in said
    assert "can grow" not in said
    (row,) = (line for line in lines if line.split()[:1] == ["1"])
    assert row.split()[-1] == "none"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["slo=none"], "slo: has no bounds"),
        (["cluster=disaggregated"], "cluster: a plan sizes the one LLM pool that prefills and decodes"),
    ],
)
def test_what_cannot_be_planned_is_an_error(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        hf.plan(hf.compose([*QUESTION[:-1], *overrides]))
    assert message in str(caught.value)


def test_a_plan_refuses_a_pool_with_an_autoscaler() -> None:
    scaled = hf.compose([*QUESTION, "cluster.pools.llm.autoscale={policy: schedule, at: {0: 1}, max: 2}"])
    with pytest.raises(ConfigError, match=r"^cluster\.pools\.llm\.autoscale: .*expected null"):
        hf.plan(scaled)


def test_a_client_of_ranks_has_the_devices_and_the_price_of_all_of_them() -> None:
    ranks = ["model=mixtral_8x7b", "hardware=h200_sxm", "hardware.usd_per_hour=5", "engine=sglang"]
    config = hf.compose([*ranks, "workload.requests=5", "cluster.pools.llm.data_parallel=2"])
    pool = config.cluster.pools["llm"]
    (family,) = families(
        *(config, [pool.hardware]),  # type: ignore[attr-defined]
        layouts=["replicas"],
        tensor_parallel=[2],
        pipeline_parallel=[1],
        batching=[],
        max_num_batched_tokens=[],
    )
    assert (family.devices, family.parallelism) == (4, "TP2 × DP2")
    run = hf.simulate(hf.compile(design_config(config, family, Clients(2))))
    assert family.price_of(Clients(2)) == run.summary["cost"]["usd_per_hour"] == 40.0


def test_limits_by_gpu_are_those_of_the_hardware_of_each_design() -> None:
    config = hf.compose(["engine.server_limits=by_gpu", "workload.requests=5"])  # on an H100
    small = hf.compose(["hardware=l40s"]).hardware
    assert small is not None
    chunked, whole = families(
        *(config, [small]),
        layouts=["replicas"],
        tensor_parallel=[1],
        pipeline_parallel=[1],
        batching=["chunked", "mixed"],
        max_num_batched_tokens=[],
    )
    pool = design_config(config, chunked, Clients(1)).cluster.pools["llm"]
    assert (pool.max_num_seqs, pool.max_num_batched_tokens) == (256, 2048)  # type: ignore[attr-defined]
    assert whole.max_num_batched_tokens == 131_072  # the longest context
