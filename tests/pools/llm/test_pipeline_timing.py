"""What pipeline parallelism costs and gains, worked on paper: latency, bubbles, throughput, chunks, convoys."""

from __future__ import annotations

from collections import Counter

import pytest
from oracles.client_runs import recorded_gaps, run_alone
from oracles.llm_client import OracleRequest
from oracles.random_systems import RandomSystem, build_affine_cost
from oracles.small_clients import small_client

from hermes_flow.pools.llm.pipelined_client import PipelinedClient
from hermes_flow.pools.llm.tasks import LLMTasks

US = 1_000_000  # in ps


def pipeline(
    requests: list[OracleRequest],
    stages: int,
    upstream_us: float,
    last_us: float,
    **changes: object,
) -> RandomSystem:
    """Return a client whose steps take the same time whatever is in them; a hop takes none."""
    upstream, last = (
        build_affine_cost(us, 0, 0, max_tokens=64, max_seqs=64) for us in (upstream_us, last_us)
    )
    own = {
        "devices": stages,
        "kv_blocks": 10_000,
        "block_size": 16,
        "max_num_seqs": 64,
        "max_num_batched_tokens": 64,
    }
    spec = small_client(
        last, **{**own, "lookahead": 1, "pipeline_ranks": stages, "upstream": upstream, **changes}
    )
    return RandomSystem(spec, requests)


def run(system: RandomSystem) -> tuple[PipelinedClient, LLMTasks]:
    return run_alone(PipelinedClient, system)


def at_us(us: int, prompt: int = 1, output: int = 1) -> OracleRequest:
    return OracleRequest(us * 1000, prompt, output)


@pytest.mark.parametrize("stages", [2, 3, 4])
def test_a_lone_sequence_passes_all_stages_for_each_token(stages: int) -> None:
    system = pipeline(
        [at_us(0, prompt=10, output=6)], stages, 30, 50, hop_ps=2 * US, hop_ps_per_token=0.5 * US
    )
    client, tasks = run(system)
    prefill = (stages - 1) * (30 + 2 + 0.5 * 10) + 50
    token = (stages - 1) * (30 + 2 + 0.5) + 50
    assert list(tasks.first_ps) == [prefill * US]
    assert recorded_gaps(client, 0) == Counter({int(token * US): 5})
    assert list(tasks.finish_ps) == [(prefill + 5 * token) * US]
    assert client.busy_ps == 6 * ((stages - 1) * 30 + 50) * US // stages  # links between stages are no stages


@pytest.mark.parametrize(("stages", "sequences"), [(2, 1), (3, 1), (3, 2), (4, 3), (4, 4)])
def test_fewer_sequences_than_stages_leave_a_bubble(stages: int, sequences: int) -> None:
    tokens = 200
    client, tasks = run(pipeline([at_us(10 * k, output=tokens) for k in range(sequences)], stages, 10, 10))
    assert [len(rows) for rows in client.lanes()] == [tokens] * sequences + [0] * (stages - sequences)
    length = tokens * stages * 10 + (sequences - 1) * 10
    assert max(tasks.finish_ps) == length * US
    assert client.busy_ps == sequences * tokens * 10 * US  # of each stage: k of p slots, but for the ends
    assert client.busy_ps / max(tasks.finish_ps) == pytest.approx(sequences / stages, rel=0.01)


@pytest.mark.parametrize(("upstream_us", "last_us"), [(30, 50), (50, 30), (40, 40)])
@pytest.mark.parametrize("stages", [2, 3, 4])
def test_full_micro_batches_come_out_one_for_each_time_of_the_slowest_stage(
    stages: int, upstream_us: int, last_us: int
) -> None:
    slowest, each, tokens = max(upstream_us, last_us), 5, 100
    groups = [at_us(slowest * group, output=tokens) for group in range(stages) for _ in range(each)]
    client, tasks = run(pipeline(groups, stages, upstream_us, last_us))
    lanes = client.lanes()
    assert all((rows[1:, 3] == each).all() for rows in lanes)  # decodes
    exits = sorted(end for rows in lanes for end in rows[:, 1].tolist())
    passage = (stages - 1) * upstream_us + last_us
    assert exits == [(passage + slowest * step) * US for step in range(stages * tokens)]
    throughput = len(groups) * tokens / (max(tasks.finish_ps) / US)
    assert throughput == pytest.approx(each / slowest, rel=0.02)


@pytest.mark.parametrize(("upstream_us", "last_us"), [(30, 50), (50, 30)])
@pytest.mark.parametrize("stages", [2, 4])
def test_the_chunks_of_a_long_prompt_follow_each_other(stages: int, upstream_us: int, last_us: int) -> None:
    chunks = 9
    client, tasks = run(pipeline([at_us(0, prompt=chunks * 64)], stages, upstream_us, last_us))
    passage = (stages - 1) * upstream_us + last_us
    assert list(tasks.first_ps) == [(passage + (chunks - 1) * max(upstream_us, last_us)) * US]
    assert sum(rows[:, 5].sum() for rows in client.lanes()) == chunks * 64
    assert all(len(rows) for rows in client.lanes())


def test_what_comes_at_once_makes_one_micro_batch_and_stays_together() -> None:
    client, _ = run(pipeline([at_us(0, output=50) for _ in range(8)], 4, 10, 10))
    first, *others = client.lanes()
    assert (first[1:, 3] == 8).all()
    assert not any(len(rows) for rows in others)  # a convoy: one stage works at a time
    assert client.busy_ps == 50 * 10 * US
    assert first[-1, 1] == 4 * client.busy_ps


def test_a_token_budget_cuts_what_comes_at_once_into_micro_batches() -> None:
    requests = [at_us(0, prompt=32, output=10) for _ in range(8)]
    client, _ = run(pipeline(requests, 4, 10, 10))
    assert [rows[-1, 3] for rows in client.lanes()] == [2, 2, 2, 2]


def test_seats_are_counted_over_all_micro_batches() -> None:
    requests = [at_us(at, output=5) for at in (0, 0, 10, 20)]
    _, tasks = run(pipeline(requests, 3, 10, 10, max_num_seqs=2))
    first_two_end = 5 * 30
    assert list(tasks.start_ps) == [0, 0, first_two_end * US, first_two_end * US]


def test_an_arrival_joins_an_idle_micro_batch_at_once_and_else_the_next_that_comes_out() -> None:
    requests = [at_us(0, output=9), at_us(4, output=9), at_us(5, output=9)]
    _, tasks = run(pipeline(requests, 2, 10, 10))
    # The second is planned as it comes, and enters when stage 1 is free; both are in flight when the third comes:
    # it is planned with the first micro-batch at its exit, when stage 1 has just become free.
    assert list(tasks.start_ps) == [0, 10 * US, 20 * US]


def test_look_ahead_changes_nothing() -> None:
    requests = [at_us(3 * k, prompt=7 * k + 1, output=k + 1) for k in range(20)]
    spans = []
    for lookahead in (0, 1):
        _, tasks = run(pipeline(requests, 3, 10, 15, lookahead=lookahead))
        spans.append((tasks.start_ps, tasks.first_ps, tasks.finish_ps))
    assert spans[0] == spans[1]
