"""What is done for a request whose user gives up, or whose client fails, while a planned step goes on is known."""

from __future__ import annotations

import pytest

import hermes_flow as hf

ONE = ("pipeline=llm", "workload=synthetic", "workload.requests=1", "workload.input_tokens=1000")
GANG = (
    *("pipeline=llm", "cluster.pools.llm.batching=static", "workload=synthetic", "workload.requests=3"),
    *("workload.arrivals=constant", "workload.rate_per_s=1000000", "workload.input_tokens=1000"),
    "workload.output_tokens={distribution: uniform, min: 5, max: 60}",
)


def result(*overrides: str) -> hf.Result:
    return hf.simulate(hf.compile(hf.compose([*overrides])))


@pytest.mark.parametrize(
    "layout",
    [
        (),
        ("cluster.pools.llm.lookahead=0",),
        ("engine=sglang",),
        ("engine=tensorrt_llm",),
        ("cluster.pools.llm.batching=static",),
        ("cluster.pools.llm.pipeline_parallel=2",),
        ("cluster=disaggregated",),
        ("model=qwen3_30b_a3b", "cluster.pools.llm.data_parallel=2"),
    ],
)
def test_who_gives_up_in_the_last_step_has_wasted_the_whole_answer(layout: tuple[str, ...]) -> None:
    overrides = [*ONE, "workload.output_tokens=20", *layout]
    done = result(*overrides).requests.row(0, named=True)
    given_up = result(*overrides, f"workload.timeout_s={done['e2e_s'] - 0.5 * done['tpot_s']:.9f}")
    row = given_up.requests.row(0, named=True)
    assert row["status"] == "timed_out"
    assert row["wasted_tokens"] == 1020
    assert given_up.summary["wasted"]["tokens"] == 1020
    assert given_up.stages["energy_j"].sum() == pytest.approx(row["energy_j"])


@pytest.mark.parametrize(
    ("timeout_s", "look_ahead", "answer"), [(2.005, 1, 202), (2.005, 0, 201), (0.018, 1, 3), (0.018, 0, 2)]
)
@pytest.mark.parametrize("policy", ["fcfs", "priority"])
def test_the_tokens_of_all_steps_that_ran_for_one_who_gave_up_are_wasted(
    policy: str, timeout_s: float, look_ahead: int, answer: int
) -> None:
    """Each step takes 10 ms, and with look-ahead that after the step in progress is planned already."""
    pool = "cluster.pools.llm"
    overrides = [*ONE, "workload.output_tokens=500", "cost=affine", "cost.fixed_us=10000"]
    overrides += ["cost.per_token_us=0", "cost.per_context_us=0", f"workload.timeout_s={timeout_s}"]
    run = result(*overrides, f"{pool}.scheduling_policy={policy}", f"{pool}.lookahead={look_ahead}")
    assert run.clients.filter(run.clients["pool"] == "llm")["steps"].sum() == answer
    assert run.requests["wasted_tokens"].to_list() == [1000 + answer]
    failing = f"{pool}.failures={{events: [{{at_s: {run.requests['arrival_s'][0] + timeout_s + 0.001}, client: 0}}]}}"
    failed = result(
        *overrides, f"{pool}.scheduling_policy={policy}", f"{pool}.lookahead={look_ahead}", failing
    )
    assert failed.requests["wasted_tokens"].to_list() == [1000 + int(timeout_s * 100)]


def test_who_gives_up_while_a_prompt_is_computed_apart_has_wasted_it() -> None:
    overrides = [*ONE, "workload.output_tokens=20", "cluster=disaggregated"]
    ttft_s = result(*overrides).requests["ttft_s"][0]
    given_up = result(*overrides, f"workload.timeout_s={0.5 * ttft_s:.9f}")
    assert given_up.requests["wasted_tokens"][0] == 1001  # and the first token


def test_a_gang_whose_users_all_give_up_goes_on_to_its_end() -> None:
    run = result(*GANG, "workload.timeout_s=0.01")
    whole = result(*GANG)
    sizes = whole.requests.select("input_tokens", "output_tokens").row(0)
    assert run.requests["wasted_tokens"].to_list() == [sum(sizes), 0, 0]
    begun = run.stages.filter(run.stages["start_s"].is_not_null())
    assert begun.select("request", "stage").rows() == [(0, "prefill"), (0, "decode")]
    assert run.stages["energy_j"].sum() == pytest.approx(run.requests["energy_j"][0])


@pytest.mark.parametrize("on_failure", ["retry", "lose"])
@pytest.mark.parametrize("steps", [-0.5, 0.5, 2.5, 4.5])
def test_a_client_that_fails_has_given_a_gang_the_tokens_of_whole_steps(
    steps: float, on_failure: str
) -> None:
    first, end, tokens = result(*GANG).requests.select("first_token_s", "finish_s", "output_tokens").row(0)
    at_s = first + steps * (end - first) / (tokens - 1)
    failed = result(
        *GANG, f"cluster.pools.llm.failures={{events:[{{at_s:{at_s:.9f},client:0}}],on_failure:{on_failure}}}"
    )
    assert failed.requests["wasted_tokens"][0] == 1000 + max(0, int(steps + 1))


def test_a_member_of_a_gang_is_given_no_more_than_its_answer() -> None:
    whole = result(*GANG).requests
    first, end = whole["first_token_s"][1], whole["finish_s"][1]
    lengths = whole["output_tokens"].to_list()[1:]
    assert lengths[0] < lengths[1]  # both are in the second gang
    at_s = end - 0.5 * (end - first) / (lengths[1] - 1)
    failed = result(*GANG, f"cluster.pools.llm.failures={{events:[{{at_s:{at_s:.9f},client:0,for_s:1}}]}}")
    assert failed.requests["wasted_tokens"].to_list()[1:] == [1000 + lengths[0], 1000 + lengths[1] - 1]


@pytest.mark.parametrize(
    "engine",
    [
        ("cluster.pools.llm.kv_blocks=80",),
        ("cluster.pools.llm.kv_blocks=80", "cluster.pools.llm.preemption=swap"),
        ("cluster.pools.llm.kv_blocks=80", "cluster.pools.llm.scheduling_policy=priority"),
        (
            *("engine=tensorrt_llm", "cluster.pools.llm.kv_blocks=60"),
            "cluster.pools.llm.capacity_scheduler_policy=max_utilization",
        ),
    ],
)
def test_who_gives_up_while_preempted_has_wasted_the_prompt_and_the_tokens_so_far(
    engine: tuple[str, ...],
) -> None:
    overrides = [
        *("pipeline=llm", "workload=synthetic", "workload.requests=4", "workload.arrivals=constant"),
        *("workload.rate_per_s=10000", "workload.input_tokens=300", "workload.output_tokens=300", *engine),
    ]
    early = result(*overrides, "workload.timeout_s=1.3").requests.row(3, named=True)
    late = result(*overrides, "workload.timeout_s=1.6").requests.row(3, named=True)
    assert (early["status"], early["preemptions"]) == ("timed_out", 1)
    assert 310 < early["wasted_tokens"] < 600
    assert early["wasted_tokens"] == late["wasted_tokens"]  # it waits meanwhile
