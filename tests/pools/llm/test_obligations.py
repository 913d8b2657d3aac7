"""A batching policy from outside the package that breaks its contract ends the run, and is told what it broke."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import pytest

import hermes_flow as hf
from hermes_flow.config.plugin_faults import plugin_fault
from hermes_flow.errors import HermesFlowError
from hermes_flow.pools.llm.batching import batching_policies
from hermes_flow.pools.llm.batching.admission import admit_waiting
from hermes_flow.pools.llm.batching.decoding import decode_all
from hermes_flow.pools.llm.scheduler import Completed, Prefills, Scheduler
from hermes_flow.program.routing import Choose, RoutedPool
from hermes_flow.routing import routing_policies

BATCHING = "cluster.pools.llm.batching"
SMALL = ["workload=synthetic", "workload.requests=30", "workload.rate_per_s=50", "slo=none"]


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    """Register the policies of this file for one test: other tests walk over all that are registered."""
    batching_policies.register("test_breaking")(Breaking)
    routing_policies.register("test_choosing")(Choosing)
    yield
    del batching_policies._classes["test_breaking"]
    del routing_policies._classes["test_choosing"]


@dataclass(frozen=True, slots=True)
class Breaking:
    """Plans whole prompts, then decodes, and breaks the contract in one way."""

    breach: str
    gang: ClassVar[bool] = False
    whole_prompts: ClassVar[bool] = False

    def plan(self, client: Scheduler) -> bool | None:  # type: ignore[return]
        batch = client.batch
        prefills: Prefills = []
        completed: Completed = []
        match self.breach:
            case "commits nothing" if client.waiting:
                return True
            case "takes a task away" if client.waiting:
                client.waiting.popleft()
                return False
            case "admits where no seat is free" if (
                client.waiting and len(batch.running) == client.max_num_seqs
            ):
                admit_waiting(client, 8192, prefills, completed, seats=1)
                client.commit_step(prefills, 0, completed)
                return True
            case "exceeds the budget" if client.waiting:
                admit_waiting(client, 100_000, prefills, completed, with_decodes=False)
            case _:
                admit_waiting(client, client.max_num_batched_tokens, prefills, completed, with_decodes=False)
        if prefills:
            if self.breach == "forgets a prefill":
                completed.pop()
            if self.breach == "a chunk of nothing":
                prefills.append((0, 0))
            client.commit_step(prefills, 1 if self.breach == "decodes one" else 0, completed)
            if self.breach == "commits twice":
                client.commit_step(prefills, 0, completed)
            if self.breach == "returns False":
                return False
            return None if self.breach == "returns nothing" else True
        if self.breach == "an empty step" and not batch.decodes:
            client.commit_step([], 0, [])
        if self.breach == "decodes without blocks" and batch.decodes:
            client.commit_decodes(1000)
            return True
        if self.breach == "enters what is not computed" and client.waiting:
            client.enter(client.waiting.popleft())
        return decode_all(client)


BREACHES = {
    "commits nothing": "plan() returned True and committed nothing",
    "returns nothing": "plan() returned None; expected True or False",
    "returns False": "plan() returned False and committed a step",
    "commits twice": "a second commit in one plan",
    "takes a task away": "1 tasks were taken from the queue or preempted, and neither admitted nor",
    "admits where no seat is free": "5 sequences run on 4 seats",
    "exceeds the budget": " tokens, of which 350 are allowed",
    "forgets a prefill": "was admitted and is neither in completed nor in batch.prefilling",
    "a chunk of nothing": "a prefill of less than 1 token",
    "decodes one": "decodes is 1; expected 0 or all 0 decoding sequences",
    "an empty step": "a step without prefills and decodes",
    "decodes without blocks": "the next decode takes 1 KV blocks, of which 0 are free",
    "enters what is not computed": "the KV of the task is not computed; it is to be admitted",
}


@pytest.mark.parametrize("breach", BREACHES)
def test_a_breach_is_named_with_the_policy_and_its_line(breach: str) -> None:
    overrides = [
        f"{BATCHING}={{policy: test_breaking, breach: {breach}}}",
        "cluster.pools.llm.max_num_seqs=4",
        "cluster.pools.llm.max_num_batched_tokens=350",
        "cluster.pools.llm.kv_blocks=48",
        "workload.rate_per_s=1000",
        "workload.input_tokens=100",
        "workload.output_tokens=200",
    ]
    with pytest.raises(HermesFlowError) as caught:
        hf.simulate(hf.compile(hf.compose([*SMALL, *overrides])))
    fault = plugin_fault(caught.value)
    assert fault is not None
    assert fault.what == "the batching policy 'test_breaking'"
    assert BREACHES[breach] in fault.said
    assert f"{__file__}:" in fault.place
    assert fault.place.endswith(", in plan")


def test_without_a_breach_the_policy_runs() -> None:
    config = hf.compose([*SMALL, f"{BATCHING}={{policy: test_breaking, breach: none}}"])
    assert hf.simulate(hf.compile(config)).summary["requests"]["completed"] == 30


@dataclass(frozen=True, slots=True)
class Choosing:
    """Chooses one client, whether there is one or not."""

    client: int
    oracle: ClassVar[bool] = False

    def start(self, pool: RoutedPool) -> Choose:
        return lambda task, now_ns: self.client


@pytest.mark.parametrize("client", [-1, 2])
def test_a_router_that_chooses_no_client_is_named(client: int) -> None:
    routing = f"cluster.routing={{policy: test_choosing, client: {client}}}"
    with pytest.raises(hf.PluginError) as caught:
        hf.simulate(hf.compile(hf.compose([*SMALL, "cluster.pools.llm.count=2", routing])))
    assert str(caught.value).startswith(
        f"the routing policy 'test_choosing' failed: it chose client {client} of 2; expected 0 to 1\n  {__file__}:"
    )
