"""What one LLM client of a watched run would have done if it were naive, given what reached it and when."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from oracles.llm_client import simulate_llm_client
from oracles.llm_pipeline import simulate_pipeline
from oracles.llm_sequence import OraclePolicy, OracleRequest
from oracles.stepped_client import SteppedClient
from oracles.stepped_pipeline import SteppedPipeline
from oracles.watched_run import Submission, WatchedRun, as_oracle_sees_it

from hermes_flow.program.pools import LLMClientSpec
from hermes_flow.program.units import PS_PER_NS


@dataclass(frozen=True)
class GivenResult:
    """One entry for each task that the client was given, in order; times in ps. ``busy_ps`` is that of all ranks."""

    start_ps: list[int]
    finish_ps: list[int]
    preemptions: list[int]
    cached_tokens: list[int]
    requests: list[OracleRequest]
    busy_ps: int
    emitted_ps: list[list[int]]


def simulate_given(watched: WatchedRun, pool: int, client: int) -> GivenResult:
    """Run the naive client with what the client was asked for, the KV that came, and the KV that was taken away."""
    given = watched.given(pool, client)
    spec = watched.program.pools[pool].client
    assert isinstance(spec, LLMClientSpec)
    requests, policy = as_oracle_sees_it(watched, given)
    number = {entry.task: place for place, entry in enumerate(given)}
    gone = [entry for entry in watched.let_go if (entry.pool, entry.client) == (pool, client)]
    leaving = {number[entry.task] for entry in gone}
    requests = [replace(one, awaited=place in leaving) for place, one in enumerate(requests)]
    brought = [entry for entry in watched.brought if (entry.pool, entry.client) == (pool, client)]
    if not gone and not any(one.asks for one in requests):
        return _alone(spec, policy, requests)
    naive = _client(spec, policy, requests)
    calls: list[tuple[Submission, Callable[[int, int], None]]] = [(entry, naive.submit) for entry in given]
    calls += [(entry, naive.bring) for entry in brought]
    calls += [(entry, naive.let_go) for entry in gone]
    for entry, call in sorted(calls, key=lambda pair: pair[0].at_ns):
        naive.run_until(entry.at_ns * PS_PER_NS)
        call(number[entry.task], entry.at_ns)
    while (at_ps := naive.next_ps()) is not None:
        naive.run_until(at_ps + 1)
    sequences = naive.sequences
    return GivenResult(
        start_ps=[one.start_ps for one in sequences],
        finish_ps=[one.finish_ps for one in sequences],
        preemptions=[one.preemptions for one in sequences],
        cached_tokens=[one.cached_tokens for one in sequences],
        requests=requests,
        busy_ps=naive.busy_ps,
        emitted_ps=[one.emitted_ps for one in sequences],
    )


def _alone(spec: LLMClientSpec, policy: OraclePolicy, requests: list[OracleRequest]) -> GivenResult:
    """Run a client that has to do with nobody's KV."""
    if spec.pipeline_ranks == 1:
        result = simulate_llm_client(spec, requests, policy)
        busy_ps = sum(step.end_ps - step.start_ps for step in result.steps)
    else:
        result = simulate_pipeline(spec, requests, policy)
        busy_ps = result.busy_ps
    columns = (result.start_ps, result.finish_ps, result.preemptions, result.cached_tokens)
    return GivenResult(*columns, requests, busy_ps, result.emitted_ps)


def _client(
    spec: LLMClientSpec, policy: OraclePolicy, requests: list[OracleRequest]
) -> SteppedClient | SteppedPipeline:
    if spec.pipeline_ranks > 1:
        return SteppedPipeline(spec, policy, requests)
    client = SteppedClient(spec, policy, requests)
    client.scheduler.holds = True
    return client
