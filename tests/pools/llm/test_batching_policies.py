"""Batching policies of any kind have settings, an object for each client, and queries that change nothing."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import pytest
from oracles.client_runs import run_alone
from oracles.llm_client import OraclePolicy
from oracles.random_systems import RandomSystem, random_system

import hermes_flow as hf
from hermes_flow.errors import CompileError, ConfigError
from hermes_flow.pools.llm.batching import batching_policies, plans_gangs
from hermes_flow.pools.llm.batching.admission import admit_waiting
from hermes_flow.pools.llm.batching.decoding import decode_all
from hermes_flow.pools.llm.client import LLMClient
from hermes_flow.pools.llm.scheduler import Completed, Prefills, Scheduler

BATCHING = "cluster.pools.llm.batching"
SMALL = ["workload=synthetic", "workload.requests=40", "workload.rate_per_s=20", "slo=none"]


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    """Register the policy of this file for one test: other tests walk over all that are registered."""
    batching_policies.register("test_few_at_a_time")(FewAtATime)
    yield
    del batching_policies._classes["test_few_at_a_time"]


@dataclass(frozen=True, slots=True)
class FewAtATime:
    """At most ``seats`` sequences run; ``seen`` has the clients that this object planned for."""

    gang: ClassVar[bool] = False
    whole_prompts: ClassVar[bool] = True
    seats: int = 1
    prompts_first: bool = True
    seen: set[int] = field(default_factory=set, init=False, compare=False)

    def __post_init__(self) -> None:
        if self.seats < 1:
            raise ConfigError("seats", f"{self.seats} is below 1")

    def plan(self, client: Scheduler) -> bool:
        self.seen.add(id(client))
        assert len(self.seen) == 1, "each client has an object of its own"
        free = self.seats - len(client.batch.running)
        if free > 0:
            prefills: Prefills = []
            completed: Completed = []
            admit_waiting(
                client, client.max_num_batched_tokens, prefills, completed, with_decodes=False, seats=free
            )
            if prefills:
                client.commit_step(prefills, 0, completed)
                return True
        return decode_all(client)


def most_running(overrides: Sequence[str]) -> int:
    """Return the largest number of decoding sequences in a step of any client."""
    config = hf.compose([*SMALL, "cluster.pools.llm.count=2", "workload.rate_per_s=200", *overrides])
    result = hf.simulate(hf.compile(config))
    assert result.summary["requests"]["completed"] == 40
    return int(result.steps["decodes"].max())  # type: ignore[arg-type]


@pytest.mark.parametrize("seats", [1, 3])
def test_a_policy_is_given_its_settings(seats: int) -> None:
    assert most_running([f"{BATCHING}={{policy: test_few_at_a_time, seats: {seats}}}"]) == seats


def test_a_name_alone_takes_the_defaults() -> None:
    assert most_running([f"{BATCHING}=test_few_at_a_time"]) == 1


def test_the_program_says_which_settings_differ_from_the_defaults() -> None:
    def text(batching: str) -> str:
        return str(hf.compile(hf.compose([*SMALL, f"{BATCHING}={batching}"])))

    assert "test_few_at_a_time (seats=3) batching, look-ahead 1" in text(
        "{policy: test_few_at_a_time, seats: 3}"
    )
    assert "test_few_at_a_time batching, look-ahead 1" in text("{policy: test_few_at_a_time, seats: 1}")


@pytest.mark.parametrize(
    ("batching", "problem"),
    [
        ("{policy: test_few_at_a_time, seat: 3}", f"{BATCHING}.seat: unknown key; did you mean 'seats'?"),
        ("{policy: test_few_at_a_time, seats: many}", f"{BATCHING}.seats: 'many' is not an integer"),
        ("{policy: test_few_at_a_time, seats: 0}", f"{BATCHING}.seats: 0 is below 1"),
        ("{policy: test_few_at_a_time, seen: 0}", f"{BATCHING}.seen: unknown key"),
        ("{policy: chunked, seats: 3}", f"{BATCHING}.seats: unknown key; it is a key of test_few_at_a_time"),
        ("{policy: chunky}", f"{BATCHING}.policy: unknown batching policy 'chunky'; did you mean 'chunked'?"),
        ("{seats: 3}", f"{BATCHING}.policy: missing; expected one of: chunked, continuous, mixed"),
    ],
)
def test_a_wrong_setting_is_named_with_its_whole_key(batching: str, problem: str) -> None:
    with pytest.raises(CompileError) as caught:
        hf.compile(hf.compose([*SMALL, f"{BATCHING}={batching}"]))
    assert any(found.startswith(problem) for found in caught.value.problems), caught.value.problems


def test_a_mapping_replaces_the_one_before_it_whole() -> None:
    overrides = [
        f"{BATCHING}={{policy: test_few_at_a_time, seats: 3, prompts_first: false}}",
        f"{BATCHING}={{policy: test_few_at_a_time, seats: 2}}",
    ]
    pool = hf.compose([*SMALL, *overrides]).cluster.pools["llm"]
    assert getattr(pool, "batching") == {"policy": "test_few_at_a_time", "seats": 2}  # noqa: B009


def test_gangs_are_a_mark_of_the_policy_and_need_not_be_called_static() -> None:
    static = batching_policies.find("static", "batching")

    @batching_policies.register("test_other_gangs")
    @dataclass(frozen=True, slots=True)
    class OtherGangs(static):  # type: ignore[misc, valid-type]
        at_most: int = 4

    try:
        assert plans_gangs({"policy": "test_other_gangs", "at_most": 2})
        assert not plans_gangs("chunked")
        assert not plans_gangs("no_such_policy")
        with pytest.raises(CompileError) as caught:
            hf.compile(
                hf.compose([*SMALL, f"{BATCHING}=test_other_gangs", "cluster.pools.llm.pipeline_parallel=2"])
            )
        assert "a gang of 'test_other_gangs' is not cut into micro-batches" in str(caught.value)
    finally:
        del batching_policies._classes["test_other_gangs"]


class Asking:
    """A policy that asks everything it can about waiting tasks, in any order, before another policy plans."""

    gang = False
    whole_prompts = True

    def __init__(self, name: str, rng: random.Random) -> None:
        self.policy = batching_policies.parse(name, "batching")
        self.rng = rng

    def plan(self, client: Scheduler) -> bool:
        batch, tasks = client.batch, list(client.waiting)
        for task in self.rng.sample(tasks, len(tasks)):
            batch.find(task)
        batch.blocks_to_continue(3, 17)
        batch.needed_blocks()
        return self.policy.plan(client)


@pytest.mark.parametrize("prefix_cache", [False, True])
@pytest.mark.parametrize("batching", ["chunked", "continuous", "mixed"])
def test_what_is_asked_in_between_changes_nothing(batching: str, prefix_cache: bool) -> None:
    rng = random.Random(f"{batching} {prefix_cache}")
    for _ in range(30):
        policy = OraclePolicy(prefix_cache=prefix_cache)
        system = random_system(rng, batching=batching, lookahead=rng.choice([0, 1]), policy=policy)
        assert ends(system, None) == ends(system, Asking(batching, rng))


def ends(system: RandomSystem, policy: Asking | None) -> tuple[list[int], list[int], dict[int, int]]:
    """Return when first tokens and answers were over, and what was found in the cache."""
    _, tasks = run_alone(LLMClient, system, policy=policy)
    return tasks.first_ps, tasks.finish_ps, tasks.cached
