"""The explanation of a missed SLO: causes that add up, and the resource that helps when it is relieved."""

from __future__ import annotations

import numpy as np
import pytest

import hermes_flow as hf
from benchmarks.reliefs import attempt
from hermes_flow.metrics.why.cause_times import cause_times
from hermes_flow.metrics.why.clients import Clients
from hermes_flow.metrics.why.windows import window_of

AFFINE = [
    "pipeline=llm",
    "cost=affine",
    "cost.fixed_us=10000",
    "cost.per_token_us=0",
    "cost.per_context_us=0",
]
WORKLOAD = ["workload=synthetic", "workload.arrivals=constant", "workload.input_tokens=160"]
HELD = ["cluster.pools.llm.retrieved_kv=held", "cluster.pools.llm.kv_blocks=600"]


def run(*overrides: str) -> hf.Result:
    return hf.simulate(hf.compile(hf.compose(overrides)))


def ttft(limit_ms: float) -> str:
    return f"slo={{name: own, ttft_ms: {{p50: {limit_ms}}}}}"


@pytest.mark.parametrize(
    "overrides",
    [
        ["workload.rate_per_s=30", "workload.requests=200"],
        ["pipeline=rag", "workload.requests=60", "workload.rate_per_s=4"],
        ["cluster=disaggregated", "hardware=l40s", "workload.requests=120", "workload.rate_per_s=8"],
        ["pipeline=agent", "workload.requests=60"],
        ["cluster.pools.llm.kv_blocks=600", "workload.requests=150", "workload.rate_per_s=12"],
        ["pipeline=reasoning_multi", "workload.requests=40"],
        ["engine=sglang", "cluster.pools.llm.scheduler_recv_interval=50", "workload.requests=60"],
        ["engine=tensorrt_llm", "cluster.pools.llm.batch_wait_timeout_ms=30", "workload.requests=60"],
        ["pipeline=kv_reuse", *HELD, "workload.requests=40"],
    ],
    ids=[
        *("overload", "rag", "disaggregated", "agent", "little memory", "branches"),
        *("seldom received", "waits between steps", "blocks before contexts"),
    ],
)
def test_the_causes_of_every_request_add_up_to_its_time(overrides: list[str]) -> None:
    result = run(*overrides, "slo=none")
    clients = Clients(result.recording)
    for metric in ("ttft", "tpot", "e2e"):
        window = window_of(result.recording, result.latencies, metric, 0.0)
        assert window is not None
        times = cause_times(result.recording, window, clients)
        assert all((values >= -1e-9).all() for values in times.values())
        expected = (window.end_ns - window.begin_ns) * 1e-9
        np.testing.assert_allclose(sum(times.values()), expected, rtol=1e-6, atol=1e-6)


def test_a_wait_for_seats_is_named_and_more_seats_are_what_helps() -> None:
    one_seat = ["cluster.pools.llm.max_num_seqs=1", "workload.output_tokens=20", "workload.requests=60"]
    result = run(*AFFINE, *WORKLOAD, *one_seat, "workload.rate_per_s=10", ttft(50))
    why = result.summary["why"]  # an answer takes 0.2 s, so half of the requests per second can be served
    assert why["bound"] == "ttft_p50_s"
    assert why["causes"]["prefill.llm.seats"] > 0.9
    assert result.why.saturation["llm"].seats == pytest.approx(1.0, abs=0.02)
    assert result.why.saturation["llm"].work == pytest.approx(2.0, rel=0.1)
    assert why["resource"]["name"] in ("seats", "clients")


def test_a_wait_for_kv_memory_is_named_and_twice_the_memory_is_what_helps() -> None:
    # Three clients; each holds two requests of 12 blocks, and one more client adds less than twice the memory.
    small = ["cluster.pools.llm.count=3", "cluster.pools.llm.kv_blocks=25", "workload.requests=150"]
    result = run(*AFFINE, *WORKLOAD, *small, "workload.output_tokens=20", "workload.rate_per_s=45", ttft(50))
    why = result.summary["why"]
    assert why["causes"]["prefill.llm.kv_memory"] > 0.8
    assert why["resource"] == {"pool": "llm", "name": "kv_memory", "gain": why["resource"]["gain"]}
    assert "twice the KV memory" in why["text"].replace("Twice", "twice")


def test_a_wait_behind_preempted_sequences_is_one_for_kv_memory() -> None:
    # 64 blocks hold 6 prompts of 10 blocks, and 3 requests at their end; those put aside hold none.
    little = ["cluster.pools.llm.kv_blocks=64", "workload.output_tokens=160", "workload.requests=80"]
    result = run(*AFFINE, *WORKLOAD, *little, "workload.rate_per_s=20", ttft(50))
    assert result.requests["preemptions"].sum() > 40
    assert result.summary["why"]["causes"]["prefill.llm.kv_memory"] > 0.95
    assert 0.9 < (result.why.saturation["llm"].kv_memory or 0) <= 1


def test_a_token_budget_is_not_named_where_steps_take_whole_prompts() -> None:
    llm = "cluster.pools.llm"
    few = [f"{llm}.max_num_batched_tokens=512", f"{llm}.max_num_seqs=64", f"{llm}.batching=continuous"]
    load = [
        "pipeline=llm",
        "workload.requests=200",
        "workload.rate_per_s=25",
        "slo={name: s, ttft_ms: {p90: 200.0}}",
    ]
    why = hf.simulate(hf.compile(hf.compose([*load, *few]))).summary["why"]
    assert why["bound"] == "ttft_p90_s"
    assert why["resource"]["name"] in ("clients", "seats")


def test_a_wait_that_a_scheduler_is_told_of_is_named_with_its_key() -> None:
    # Steps take 10 ms and answers 2 s, so that a prompt waits for about half of 50 steps: 0.25 s beside its step.
    seldom = ["engine=sglang", "cluster.pools.llm.scheduler_recv_interval=50", "workload.requests=60"]
    result = run(*AFFINE, *WORKLOAD, *seldom, "workload.output_tokens=200", "workload.rate_per_s=7", ttft(50))
    why = result.summary["why"]
    assert why["causes"]["prefill.llm.held_back"] > 0.85
    assert why["resource"]["name"] == "no_wait"
    assert "No such waiting on pool llm (scheduler_recv_interval) would help most" in why["text"]


def test_time_between_steps_that_wait_for_requests_is_no_work() -> None:
    # Steps of 10 ms that begin every 40 ms: three quarters of the time of an answer pass between them.
    waits = ["engine=tensorrt_llm", "cluster.pools.llm.batch_wait_timeout_ms=40", "workload.requests=40"]
    bound = "slo={name: own, tpot_ms: {p50: 20}}"
    result = run(*AFFINE, *WORKLOAD, *waits, "workload.output_tokens=40", "workload.rate_per_s=4", bound)
    why = result.summary["why"]
    assert why["causes"]["decode.llm.held_back"] == pytest.approx(0.75, abs=0.01)
    assert "(batch_wait_timeout_ms) would help most" in why["text"]


def test_a_retrieval_that_waits_for_blocks_of_its_prompt_asks_for_no_further_store() -> None:
    result = run("pipeline=kv_reuse", *HELD, "workload.requests=60")
    why = result.summary["why"]
    assert why["causes"]["recall.llm.kv_memory"] > 0.9
    assert why["resource"]["pool"] == "llm"
    assert "of that is queueing for blocks on pool llm." in result.summary["limits"]["text"]


def test_the_budget_of_a_step_has_the_name_of_its_engine() -> None:
    little = ["engine=sglang", "cluster.pools.llm.chunked_prefill_size=160", "workload.output_tokens=2"]
    result = run(*AFFINE, *WORKLOAD, *little, "workload.rate_per_s=150", "workload.requests=60", ttft(20))
    assert result.summary["why"]["resource"]["name"] == "larger_budget"
    assert "twice the token budget on pool llm (chunked_prefill_size)" in result.why.text.replace(
        "Twice", "twice"
    )


def test_a_host_with_few_cores_is_named_as_a_queue() -> None:
    slow = ["pipeline=chat", "cluster.pools.host.cores=1", "+pipeline.stages.tokenize.fixed_us=150000"]
    why = run(
        *AFFINE[1:], *WORKLOAD, *slow, "workload.requests=80", "workload.rate_per_s=10", ttft(300)
    ).summary["why"]
    assert why["causes"]["tokenize.host.queue"] > 0.7
    assert why["resource"]["pool"] == "host"
    assert why["resource"]["name"] == "clients"


def test_slow_links_between_prefill_and_decode_are_named() -> None:
    slow = ["pipeline=llm", "cluster=disaggregated", "hardware.scale_up_gb_s=0.5", "workload.requests=60"]
    why = run(*slow, "workload.rate_per_s=1", "slo={name: own, e2e_ms: {p50: 500}}").summary["why"]
    assert any(name.endswith(".transfer") for name in why["causes"])
    tpot = run(*slow, "workload.rate_per_s=1", "slo={name: own, tpot_ms: {p50: 1}}").summary["why"]
    assert tpot["resource"]["name"] == "network"


def test_the_time_that_others_add_to_decode_steps_is_told_apart() -> None:
    # A step takes 10 ms and 1 ms per token. By hand: 5 prompts a second take 16 ms each, or 8 % of the time. The
    # other 92 % are decode steps of 10 + b ms, where b = 5/s · 39 tokens · TPOT. So TPOT is 13.8 ms and b 2.69, and
    # alone a token would take 11 ms.
    cost = [
        "pipeline=llm",
        "cost=affine",
        "cost.fixed_us=10000",
        "cost.per_token_us=1000",
        "cost.per_context_us=0",
    ]
    load = [
        "workload=synthetic",
        "workload.arrivals=constant",
        "workload.requests=40",
        "workload.rate_per_s=5",
    ]
    lengths = ["workload.input_tokens=16", "workload.output_tokens=40"]
    result = run(*cost, *load, *lengths, "slo={name: own, tpot_ms: {p50: 1}}")
    causes = result.summary["why"]["causes"]
    assert causes["decode.llm.service"] == pytest.approx(11 / 13.8, abs=0.03)
    assert causes["decode.llm.batch"] == pytest.approx(1.69 / 13.8, abs=0.03)
    assert causes["decode.llm.prefills"] == pytest.approx(0.08, abs=0.03)


def test_a_met_slo_has_headroom_near_the_capacity_that_is_measured() -> None:
    overrides = ["workload.requests=400", "slo=chat"]
    headroom = run(*overrides).summary["why"]["headroom"]
    found = hf.capacity(hf.compose(overrides), seeds=1, tolerance=0.05)
    assert found.value is not None
    assert 10 * headroom["load_factor"] == pytest.approx(found.value, rel=0.35)


def test_without_bounds_there_is_saturation_but_nothing_to_explain() -> None:
    summary = run("slo=none", "workload.requests=30").summary
    assert summary["why"]["text"] == ""
    assert summary["why"]["bound"] is None
    assert 0 < summary["pools"]["llm"]["saturation"]["work"] < 1
    closed = run("workload=closed_loop", "workload.requests=60").summary["why"]
    assert closed["headroom"] is None


@pytest.mark.parametrize("seed", [0, 5, 11, 20])
def test_the_named_resource_helps_more_than_any_other(seed: int) -> None:
    tried = attempt(seed)
    assert tried is not None
    assert tried.right, (tried.named, tried.improvements)
