"""KV that leaves layer by layer while the prefill still runs: how much of it is left to wait for."""

from __future__ import annotations

import gzip
import json
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from cost import catalog
from oracles.watched_run import watch
from pools.llm.deployments import (
    affine,
    check_invariants,
    one_request,
    random_deployment,
    replayed,
    with_cluster,
    with_pool,
    with_workload,
)

import hermes_flow as hf
from hermes_flow.config.schema import Pipeline
from hermes_flow.machine.run import run
from hermes_flow.machine.transfers import Transfers
from hermes_flow.program.prefixes import Prefixes
from hermes_flow.program.units import PS_PER_NS
from hermes_flow.recording.recording import Recording

LLAMA = catalog.model("llama3_8b")


def layerwise(config: hf.Config) -> hf.Config:
    return with_cluster(config, kv_transfer="layerwise")


def with_layers(config: hf.Config, layers: int) -> hf.Config:
    model = replace(LLAMA, layers=layers)
    return with_pool(with_pool(config, "prefill", model=model), "decode", model=model)


def on_link(config: hf.Config, efficiency: float, latency_us: float = 0.0) -> hf.Config:
    """Give the clients, which share a node, a link of 450 GB/s times ``efficiency``."""
    node = replace(config.network.node, efficiency=efficiency, latency_us=latency_us)
    return replace(config, network=replace(config.network, node=node))


@dataclass(frozen=True)
class Lone:
    """The KV of one request on idle links: its prefill, the first step of it, the link, and when all was there."""

    start_ns: float
    first_step_ns: float
    over_ns: int
    delivered_ns: int
    size: int
    bytes_per_ns: float
    latency_ns: int

    def transfer_ns(self, layers: int = 1) -> float:
        """How long one of ``layers`` equal parts takes on the link."""
        return self.size / layers / self.bytes_per_ns

    def expected_ns(self, layers: int) -> int:
        """Closed form: the last layer follows when the prefill is over and the others are gone."""
        early = self.size * (layers - 1) // layers
        first_ns = int(self.start_ns + self.first_step_ns / layers)
        gone_ns = first_ns + round(early / self.bytes_per_ns)
        last_ns = round((self.size - early) / self.bytes_per_ns)
        return max(self.over_ns, gone_ns) + last_ns + self.latency_ns

    def layer_by_layer_ns(self, layers: int) -> float:
        """What an engine does that sends each layer once it is computed, in a prefill of a single step."""
        free_ns = 0.0
        for layer in range(1, layers + 1):
            computed_ns = self.start_ns + self.first_step_ns * layer / layers
            free_ns = max(free_ns, computed_ns) + self.transfer_ns(layers)
        return free_ns + self.latency_ns


def lone(recording: Recording) -> Lone:
    """Read what there is to know of a run of one request, whose links are all those that were used."""
    prefill, decode = recording.ops
    network = recording.program.network
    segments = recording.clients[int(prefill.client[0])].segments
    assert segments is not None
    assert decode.transfer_ns is not None
    assert decode.bytes is not None
    assert network is not None
    levels = {link.level for link in recording.links}
    level = "datacenter" if "datacenter" in levels else levels.pop()
    return Lone(
        start_ns=segments[0, 0] / PS_PER_NS,
        first_step_ns=(segments[0, 1] - segments[0, 0]) / PS_PER_NS,
        over_ns=int(prefill.finish_ns[0]),
        delivered_ns=int(prefill.finish_ns[0] + decode.transfer_ns[0]),
        size=int(decode.bytes[0]),
        bytes_per_ns=min(link.bytes_per_ns for link in recording.links),
        latency_ns=getattr(network, level).latency_ns,
    )


def run_lone(config: hf.Config) -> Lone:
    return lone(run(hf.compile(config)))


# One request, in closed form.


@pytest.mark.parametrize("latency_us", [0, 7])
@pytest.mark.parametrize("layers", [1, 2, 32, 80])
@pytest.mark.parametrize("prompt", [1, 1000, 8000])
@pytest.mark.parametrize("efficiency", [1.0, 0.11, 0.01])
def test_what_is_left_to_wait_for_has_a_closed_form(
    efficiency: float, prompt: int, layers: int, latency_us: float
) -> None:
    config = with_layers(on_link(one_request(affine(), prompt), efficiency, latency_us), layers)
    one = run_lone(layerwise(config))
    assert one.over_ns - one.start_ns == one.first_step_ns == 100_000 + 1000 * prompt
    assert one.size == prompt * layers * 2 * 8 * 128 * 2
    assert one.delivered_ns == one.expected_ns(layers)
    assert one.delivered_ns == pytest.approx(one.layer_by_layer_ns(layers), abs=2)
    full = run_lone(config)
    assert full.delivered_ns == full.over_ns + round(full.transfer_ns()) + full.latency_ns
    assert one.over_ns <= one.delivered_ns <= full.delivered_ns
    assert one.delivered_ns < full.delivered_ns or layers == 1


def test_on_a_fast_link_only_the_last_layer_is_left_to_wait_for() -> None:
    config = layerwise(on_link(one_request(affine(), prompt=1000), 1.0, latency_us=7))
    one = run_lone(config)
    assert one.transfer_ns() < one.first_step_ns / 3
    assert one.delivered_ns - one.over_ns == round(one.transfer_ns(32)) + 7000


def test_on_a_slow_link_all_but_the_first_layers_computing_is_transfer() -> None:
    config = layerwise(on_link(one_request(affine(), prompt=1000), 0.02, latency_us=7))
    one = run_lone(config)
    assert one.transfer_ns() > 10 * one.first_step_ns
    begun_ns = one.start_ns + one.first_step_ns / 32
    assert one.delivered_ns == pytest.approx(begun_ns + one.transfer_ns() + 7000, abs=2)


@pytest.mark.parametrize("efficiency", [1.0, 0.11, 0.01])
def test_the_latency_counts_once(efficiency: float) -> None:
    here, far = (
        run_lone(layerwise(on_link(one_request(affine(), prompt=1000), efficiency, latency_us)))
        for latency_us in (0, 20_000)
    )
    assert far.delivered_ns - here.delivered_ns == 20_000_000


@pytest.mark.parametrize("efficiency", [1.0, 0.11, 0.01])
@pytest.mark.parametrize(("budget", "steps"), [(1000, 1), (999, 2), (300, 4), (64, 16)])
def test_the_kv_of_a_chunked_prompt_sets_out_in_its_first_step(
    efficiency: float, budget: int, steps: int
) -> None:
    config = on_link(one_request(affine(), prompt=1000), efficiency, latency_us=7)
    config = with_pool(config, "prefill", max_num_seqs=8, max_num_batched_tokens=budget)
    one = run_lone(layerwise(config))
    assert one.first_step_ns == 100_000 + 1000 * min(budget, 1000)
    assert one.over_ns - one.start_ns == steps * 100_000 + 1_000_000
    assert one.delivered_ns == one.expected_ns(32)


def test_a_prompt_in_many_chunks_leaves_more_time_to_move() -> None:
    config = layerwise(on_link(one_request(affine(), prompt=1000), 0.11))
    whole = run_lone(config)
    cut = run_lone(with_pool(config, "prefill", max_num_seqs=8, max_num_batched_tokens=64))
    assert whole.delivered_ns - whole.over_ns > 2 * whole.transfer_ns(32)
    assert cut.delivered_ns - cut.over_ns == round(cut.transfer_ns(32))


def test_random_lone_requests_meet_the_closed_form_and_never_wait_longer_than_in_full() -> None:
    rng = random.Random(5)
    sooner = several_steps = 0
    levels: Counter[str] = Counter()
    for _ in range(150):
        config = with_workload(random_deployment(rng, closed=False), requests=1, output_tokens=3)
        in_full, recording = run(hf.compile(config)), run(hf.compile(layerwise(config)))
        one, full = lone(recording), lone(in_full)
        assert one.delivered_ns == one.expected_ns(32)
        assert full.delivered_ns == full.over_ns + round(full.transfer_ns()) + full.latency_ns
        assert one.over_ns == full.over_ns
        assert one.delivered_ns <= full.delivered_ns
        assert recording.finish_ns[0] <= in_full.finish_ns[0]
        sooner += one.delivered_ns < full.delivered_ns
        several_steps += one.over_ns - one.start_ns > one.first_step_ns
        levels.update(link.level for link in recording.links)
    assert sooner > 100
    assert several_steps > 10
    assert min(levels[level] for level in ("node", "rack", "datacenter")) > 20


# Who takes part.


def test_a_model_of_one_layer_moves_as_in_full() -> None:
    rng = random.Random(6)
    for closed in [False, True] * 15:
        config = with_layers(random_deployment(rng, closed), 1)
        for name in ("prefill", "decode"):
            config = with_pool(config, name, routing="round_robin", count=1)
        full, early = run(hf.compile(config)), run(hf.compile(layerwise(config)))
        for ours, theirs in zip(full.ops, early.ops, strict=True):
            for column in ("client", "ready_ns", "start_ns", "finish_ns", "transfer_ns"):
                np.testing.assert_array_equal(getattr(ours, column), getattr(theirs, column), column)
        assert full.links == early.links


def test_requests_of_one_token_choose_no_decode_client_and_move_nothing() -> None:
    config = with_workload(
        affine(), requests=60, input_tokens=50, output_tokens={"distribution": "choice", "values": [1, 2]}
    )
    watched = watch(hf.compile(layerwise(with_pool(config, "decode", count=3, routing="least_requests"))))
    check_invariants(watched)
    several = set(np.flatnonzero(watched.program.requests.output_tokens > 1).tolist())
    assert 0 < len(several) < 60
    assert {entry.task for entry in watched.in_pool(1)} == several
    assert len(watched.choices[1]) == len(several)
    (sent,) = (link for link in watched.recording.links if link.name == "prefill/0 node out")
    assert sent.transfers == 2 * len(several)


def test_a_run_of_one_token_answers_moves_nothing() -> None:
    recording = run(hf.compile(layerwise(with_workload(affine(), requests=10, output_tokens=1))))
    assert recording.links == ()
    assert (recording.ops[1].client == -1).all()


def test_the_decode_client_is_chosen_when_the_first_layer_is_computed(tmp_path: Path) -> None:
    # The short request decodes from 0.2 to 0.6 ms, and is over long before the long one's prefill is.
    config = replayed(tmp_path, [(0, 100, 5), (0, 3000, 5)], "cluster.routing=least_requests")
    config = with_pool(with_pool(config, "prefill", count=2), "decode", count=2)
    assert run(hf.compile(config)).ops[1].client.tolist() == [0, 0]
    assert run(hf.compile(layerwise(config))).ops[1].client.tolist() == [0, 1]


def test_a_prefix_cache_spares_computing_and_not_moving() -> None:
    config = affine("workload.arrivals=constant")
    config = with_workload(config, requests=2, rate_per_s=10.0, input_tokens=64, output_tokens=3)
    program = hf.compile(layerwise(with_pool(on_link(config, 0.01), "prefill", prefix_cache=True)))
    prefixes = Prefixes(np.tile(np.arange(3), 2), np.arange(0, 7, 3), 16)  # 48 of 64 tokens are common
    prefill, decode = run(replace(program, requests=replace(program.requests, prefixes=prefixes))).ops
    assert prefill.cached_tokens is not None
    assert prefill.cached_tokens.tolist() == [0, 48]
    assert decode.bytes is not None
    assert decode.transfer_ns is not None
    assert decode.bytes[0] == decode.bytes[1]
    moved_after_ns = decode.transfer_ns + prefill.finish_ns - prefill.start_ns
    # The link is slow: as much earlier as the first layer is computed, all is there.
    assert moved_after_ns[0] - moved_after_ns[1] == pytest.approx(48_000 / 32, abs=1)


# Under load.


@dataclass(frozen=True)
class FirstLayer:
    """A first layer that a client reported as computed: of which op and request, and when."""

    op: int
    request: int
    at_ns: int


def watch_first_layers(program: hf.Program) -> tuple[Recording, list[FirstLayer]]:
    """Run ``program`` and note every first layer, of KV that moves and of other KV on the same clients."""
    noted: list[FirstLayer] = []
    begun = Transfers.begun

    def noting_begun(self: Transfers, ops: list[int]) -> Callable[[int, int], None]:
        tell = begun(self, ops)

        def noting(task: int, now_ns: int) -> None:
            place, request = divmod(task, len(program.requests))
            noted.append(FirstLayer(ops[place], request, now_ns))
            tell(task, now_ns)

        return noting

    with patch.object(Transfers, "begun", noting_begun):
        recording = run(program)
    return recording, noted


@pytest.mark.parametrize("batching", ["chunked", "continuous", "mixed"])
def test_each_prompt_sets_out_once_when_its_first_step_has_computed_a_layer(batching: str) -> None:
    rng = random.Random(batching)
    for closed in [False, True] * 10:
        config = layerwise(with_pool(random_deployment(rng, closed), "prefill", batching=batching))
        recording, noted = watch_first_layers(hf.compile(config))
        assert sorted(first.request for first in noted) == list(range(len(recording.program.requests)))
        assert {first.op for first in noted} == {0}
        check_first_layers(recording, noted)


def check_first_layers(recording: Recording, noted: list[FirstLayer], layers: int = 32) -> None:
    """A task's first layer is there when its share of the step that the task starts with is over."""
    for first in noted:
        record, pool = recording.ops[first.op], recording.program.ops[first.op].pool
        (client,) = (
            client
            for client in recording.clients
            if (client.pool, client.client) == (pool, record.client[first.request])
        )
        assert client.segments is not None
        (step,) = (
            row
            for row in client.segments.tolist()
            if row[5] and row[0] // PS_PER_NS == record.start_ns[first.request]
        )
        assert first.at_ns == (step[0] + (step[1] - step[0]) // layers) // PS_PER_NS


@pytest.mark.parametrize("lookahead", [0, 1])
def test_what_is_preempted_in_its_prefill_moves_once(lookahead: int) -> None:
    # A pool that prefills for another one and decodes other answers itself, which take the blocks it needs.
    stages: dict[str, Any] = {
        "draft": {"kind": "prefill", "pool": "prefill"},
        "write": {"kind": "decode", "pool": "prefill", "after": ["draft"]},
        "read": {"kind": "prefill", "pool": "prefill"},
        "answer": {"kind": "decode", "pool": "decode", "after": ["read"]},
    }
    config = with_workload(affine(), requests=30, rate_per_s=3000.0, input_tokens=80, output_tokens=40)
    pool = {"serves": ("prefill", "decode"), "block_size": 4, "kv_blocks": 40, "lookahead": lookahead}
    config = with_pool(config, "prefill", **pool, max_num_seqs=4, max_num_batched_tokens=12)
    config = replace(config, pipeline=Pipeline("side by side", stages))
    with pytest.raises(hf.CompileError, match="'prefill' also decodes"):
        hf.compile(layerwise(config))
    for link in (1.0, 0.001):
        program = hf.compile(on_link(config, link))
        read, answer = ([op.name for op in program.ops].index(name) for name in ("read", "answer"))
        recording = run(program)
        assert (recording.status == 0).all()
        preemptions = recording.ops[read].preemptions
        assert preemptions is not None
        assert (preemptions > 0).sum() > 0
        record = recording.ops[answer]
        assert record.transfer_ns is not None
        assert record.bytes is not None
        assert (record.start_ns >= recording.ops[read].finish_ns + record.transfer_ns).all()
        for link_record in recording.links:
            assert link_record.bytes == record.bytes.sum()
            assert link_record.transfers == 30


@pytest.mark.parametrize("closed", [False, True])
def test_nothing_is_lost_and_every_byte_arrives(closed: bool) -> None:
    rng = random.Random(f"layerwise {closed}")
    exposed = 0
    for _ in range(40):
        watched = watch(hf.compile(layerwise(random_deployment(rng, closed))))
        check_invariants(watched)
        decode, moved = watched.recording.ops[1], (watched.recording.ops[1].client >= 0).sum()
        assert decode.transfer_ns is not None
        received = [link for link in watched.recording.links if link.name.endswith(" in")]
        # What has no blocks before its prefill is over moves at once.
        assert moved <= sum(link.transfers for link in received) <= 2 * moved
        exposed += bool(decode.transfer_ns.any())
    assert exposed > 20


def test_equal_runs_write_equal_files_with_a_trace_among_them(tmp_path: Path) -> None:
    program = hf.compile(layerwise(random_deployment(random.Random(3), closed=False, groups=2)))
    assert len(program.requests) > 1
    first, second = (hf.simulate(program).write(tmp_path / name, trace=True) for name in "ab")
    assert [path.name for path in first] == [path.name for path in second]
    for ours, theirs in zip(first, second, strict=True):
        assert ours.name == "summary.json" or ours.read_bytes() == theirs.read_bytes()
    (trace,) = (path for path in first if path.name == "trace.json.gz")
    events = json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]
    spans = [event for event in events if event.get("cat") == "request" and event["name"] == "decode"]
    recording = hf.simulate(program).recording
    decode = recording.ops[1]
    began = {event["id"]: event["ts"] for event in spans if event["ph"] == "b"}
    takes = np.flatnonzero(decode.client >= 0)
    assert began == {str(request): decode.start_ns[request] / 1000 for request in takes}
