"""Routes that loads decide: by hand, at low and high rates, and what such a route cannot be."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from compiler.configs import problems_of
from metrics.test_critical_path import assert_parts_add_up

import hermes_flow as hf
from hermes_flow.compiler.parse import parse
from hermes_flow.config.schema import Config, Pipeline
from hermes_flow.machine.run import run

LARGE, SMALL = {"model": "llama3_70b"}, {"model": "llama3_8b"}
STAGES: dict[str, dict[str, Any]] = {
    "ask_large": {"kind": "prefill", "route": {"size": "large"}} | LARGE,
    "large": {"kind": "decode", "after": ["ask_large"]} | LARGE,
    "ask_small": {"kind": "prefill", "route": {"size": "small"}} | SMALL,
    "small": {"kind": "decode", "after": ["ask_small"]} | SMALL,
    "show": {"kind": "detokenize", "after": ["large", "small"]},
}


@functools.cache
def composed(*overrides: str) -> Config:
    affine = ("cost=affine", "cost.fixed_us=1000", "cost.per_token_us=10", "cost.per_context_us=0")
    return hf.compose(["cluster=two_models", "slo=none", *affine, *overrides])


def by_load(
    *overrides: str,
    route: dict[str, Any] | None = None,
    stages: dict[str, Any] | None = None,
    loops: dict[str, Any] | None = None,
) -> Config:
    outcomes = {"by": "load", "large": 2, "small": "else"} if route is None else route
    pipeline = Pipeline("by_load", stages or STAGES, loops or {}, {"size": outcomes})
    return replace(composed(*overrides), pipeline=pipeline)


def trace(path: Path, arrivals_ms: list[int], tokens: list[int], output: int = 10) -> tuple[str, str]:
    """Requests with these arrivals and prompts."""
    columns = {"arrival_ns": np.array(arrivals_ms) * 1_000_000, "input_tokens": tokens}
    columns["output_tokens"] = [output] * len(tokens)
    pl.DataFrame(columns).write_parquet(path / "trace.parquet")
    return "workload=trace", f"workload.path={path}/trace.parquet"


def models(config: Config) -> list[str]:
    """Which model each request was answered by: "l" or "s"."""
    names = hf.simulate(hf.compile(config)).requests["model"].to_list()
    return ["l" if name == "llama3_70b" else "s" for name in names]


def test_the_first_two_at_a_time_go_to_the_large_model_and_others_to_the_small_one(tmp_path: Path) -> None:
    # Steps: a prompt of 100 alone 2 ms, with a decode 2.01 ms; 1.01 ms of one decode, 1.02 ms of two. The first has
    # tokens at 2, 3.01, 5.02 (with the second's prompt) and seven more at 1.02 each: 12.16 ms; the second at 14.18.
    words = trace(tmp_path, [0, 1, 2, 3, 12, 13, 15, 60], [100] * 8)
    assert models(by_load(*words)) == ["l", "l", "s", "s", "s", "l", "l", "l"]
    one = {"by": "load", "large": 1, "small": "else"}
    # Alone the first ends at 2 + 9 · 1.01 = 11.09 ms, that of 12 ms at 23.09.
    assert models(by_load(*words, route=one)) == ["l", "s", "s", "s", "l", "s", "s", "l"]


def test_a_limit_is_for_each_client_and_zero_is_never(tmp_path: Path) -> None:
    words = trace(tmp_path, [0, 1, 2, 3, 4, 5], [100] * 6)
    assert models(by_load(*words, "cluster.pools.large.count=2")) == ["l"] * 4 + ["s"] * 2
    never = {"by": "load", "large": 0, "small": "else"}
    assert models(by_load(*words, route=never)) == ["s"] * 6


def test_tokens_are_those_of_prompts_and_of_running_answers(tmp_path: Path) -> None:
    words = trace(tmp_path, [0, 0, 0, 500, 501], [60, 60, 60, 500, 10], output=2)
    route = {"by": "load", "measure": "tokens", "large": 100, "small": "else"}
    # 0 and 60 tokens are below 100, 120 are not; the 500 are scheduled after a millisecond.
    assert models(by_load(*words, route=route)) == ["l", "l", "s", "l", "l"]


def test_stale_loads_send_all_to_where_nobody_was(tmp_path: Path) -> None:
    words = trace(tmp_path, [1, 2, 3, 4, 5, 130], [100] * 6, output=200)
    live = models(by_load(*words))
    stale = models(by_load(*words, "cluster.routing_stale_ms=100"))
    assert live == ["l", "l", "s", "s", "s", "s"]
    assert stale == ["l"] * 5 + ["s"]  # at 100 ms, five were there


def test_three_outcomes_are_tried_in_order(tmp_path: Path) -> None:
    stages = {name: STAGES[name] for name in ("ask_large", "large", "ask_small", "small")}
    stages |= {
        "ask_again": {"kind": "prefill", "route": {"size": "any"}} | LARGE,
        "again": {"kind": "decode", "after": ["ask_again"]} | LARGE,
    }
    route = {"by": "load", "large": 1, "small": 1, "any": "else"}
    config = by_load(*trace(tmp_path, [0, 1, 2, 3], [100] * 4), route=route, stages=stages)
    result = hf.simulate(hf.compile(config))
    first = result.stages.filter(result.stages["kind"] == "prefill")["stage"].to_list()
    assert first == ["ask_large", "ask_small", "ask_again", "ask_again"]


def ready(rate: float, requests: int = 300) -> Config:
    words = [
        "pipeline=routed_by_load",
        "cluster=two_models",
        "workload=synthetic",
        f"workload.requests={requests}",
    ]
    return hf.compose([*words, f"workload.rate_per_s={rate}"])


def test_at_a_low_rate_all_go_to_the_large_model_and_at_a_high_one_most_spill_over() -> None:
    assert set(hf.simulate(hf.compile(ready(0.1, 40))).requests["model"]) == {"llama3_70b"}
    result = hf.simulate(hf.compile(ready(8.0)))
    large = (result.requests["model"] == "llama3_70b").to_numpy()
    assert 0.1 < large.mean() < 0.5
    stages = result.stages
    for name, here in (("ask_large", large), ("large", large), ("ask_small", ~large), ("small", ~large)):
        assert stages.filter(stages["stage"] == name)["request"].to_list() == np.flatnonzero(here).tolist()
    assert set(stages.filter(stages["stage"] == "small")["pool"]) == {"small"}
    assert len(stages) == 300 * 4
    ends = stages.group_by("request").agg(pl.col("finish_s").max()).sort("request")
    assert (ends["finish_s"] == result.requests["finish_s"]).all()
    assert result.summary["requests"] == {"submitted": 300, "completed": 300, "failed": 0}
    assert_parts_add_up(result.recording)


def test_runs_are_alike() -> None:
    one, other = (hf.simulate(hf.compile(ready(8.0, 100))) for _ in range(2))
    assert one.requests.equals(other.requests)
    assert one.stages.equals(other.stages)


def test_no_request_goes_to_a_pool_that_is_at_its_limit_and_none_away_from_one_that_is_not() -> None:
    recording = run(hf.compile(ready(8.0)))
    ops = {op.name: record for op, record in zip(recording.program.ops, recording.ops, strict=True)}
    large, small = ops["ask_large+large"], ops["ask_small+small"]
    here = large.client >= 0
    for request in range(300):
        record = large if here[request] else small
        now = int(record.ready_ns[request])
        before = here & (large.ready_ns <= now) & (np.arange(300) < request)
        assert ((before & (large.finish_ns >= now)).sum() < 8) == here[request]


def test_in_a_loop_it_is_decided_once_and_parts_of_a_mix_decide_for_themselves() -> None:
    stages = {name: fields | {"repeat": "turns"} for name, fields in STAGES.items() if name != "show"}
    words = ("workload=synthetic", "workload.requests=40", "workload.rate_per_s=40")
    looped = by_load(*words, stages=stages, loops={"turns": {"times": 3}})
    result = hf.simulate(hf.compile(looped))
    own = result.stages.filter(result.stages["kind"] == "decode")
    by_request = own.group_by("request").agg(pl.col("stage").n_unique(), pl.len())
    assert set(by_request["stage"]) == {1}
    assert set(by_request["len"]) == {3}
    assert own["stage"].n_unique() == 2
    mixed = Pipeline(
        "mix", parts={"a": looped.pipeline, "b": by_load(*words).pipeline}, shares={"a": 0.5, "b": 0.5}
    )
    result = hf.simulate(hf.compile(replace(looped, pipeline=mixed)))
    assert result.summary["requests"]["completed"] == 40
    assert {"a.large", "a.small", "b.large", "b.small"} < set(result.stages["stage"])


def test_guards_and_pauses_of_an_outcome_go_with_it() -> None:
    stages = {name: STAGES[name] for name in ("ask_large", "large", "ask_small", "small")}
    stages["small"] = stages["small"] | {"pause": {"every_tokens": 5}}
    stages["look"] = {"kind": "detokenize", "during": "small"}
    guard = {"kind": "guard", "of": "answer", "every_tokens": 4, "after": ["large"], "pool": "small"}
    config = by_load("workload=synthetic", "workload.requests=40", stages=stages | {"guard": guard})
    pools: dict[str, Any] = dict(config.cluster.pools)
    pools["small"] = replace(pools["small"], serves=("prefill", "decode", "guard"))
    config = replace(config, cluster=replace(config.cluster, pools=pools))
    load: Any = config.workload
    config = replace(config, workload=replace(load, rate_per_s=80.0, output_tokens=12))
    result = hf.simulate(hf.compile(config))
    taken = {
        name: set(result.stages.filter(result.stages["stage"] == name)["request"])
        for name in ("large", "guard", "small", "look")
    }
    assert taken["large"] == taken["guard"]
    assert taken["small"] == taken["look"]
    assert len(taken["large"]) + len(taken["small"]) == 40
    assert result.requests["output_tokens"].to_list() == [12] * 40


def parsing(route: dict[str, Any], stages: dict[str, Any] | None = None) -> list[str]:
    problems: list[str] = []
    parse(Pipeline("test", stages or STAGES, {}, {"size": route}), problems)
    return problems


KEY = "pipeline.routes.size"


@pytest.mark.parametrize(
    ("route", "problem"),
    [
        (
            {"by": "laod", "large": 2, "small": "else"},
            f"{KEY}.by: 'laod' is not valid; expected 'load', or shares or conditions",
        ),
        (
            {"by": "load", "measure": "bytes", "large": 2, "small": "else"},
            f"{KEY}.measure: 'bytes' is not valid; expected one of: requests, tokens",
        ),
        ({"by": "load", "large": 2}, f"{KEY}: expected outcomes with limits, and a last one that is 'else'"),
        (
            {"by": "load", "large": 2, "small": 3},
            f"{KEY}: expected outcomes with limits, and a last one that is 'else'",
        ),
        (
            {"by": "load", "large": -1, "small": "else"},
            f"{KEY}.large: -1 is not valid; expected how many requests a client may have",
        ),
        (
            {"by": "load", "large": "input_tokens > 3", "small": "else"},
            f"{KEY}.large: 'input_tokens > 3' is not valid; expected how many requests a client may have",
        ),
    ],
)
def test_a_route_that_cannot_be_is_named(route: dict[str, Any], problem: str) -> None:
    assert problem in parsing(route)


def test_an_outcome_that_is_none_is_named() -> None:
    stages = STAGES | {"ask_large": STAGES["ask_large"] | {"route": {"size": "measure"}}}
    assert parsing({"by": "load", "measure": "tokens", "large": 2, "small": "else"}, stages) == [
        "pipeline.stages.ask_large.route.size: it has no outcome 'measure'; expected one of: large, small"
    ]


def changed(**stages: dict[str, Any]) -> dict[str, Any]:
    """The stages with some keys changed, or more stages."""
    return {name: STAGES.get(name, {}) | stages.get(name, {}) for name in (STAGES | stages)}


@pytest.mark.parametrize(
    ("stages", "problem"),
    [
        (
            changed(large={"output_scale": 2}),
            "pipeline.stages.small: its answers have other lengths than those of 'large', and 'show' comes after "
            "either; expected the same output_tokens and output_scale, none of them drawn",
        ),
        (
            changed(ask_large={"route": {}}),
            "pipeline.routes.size.large: no prefill is part of it; a route by load compares pools that prefill",
        ),
        (
            changed(more={"kind": "prefill", "after": ["show"], "continues": "large"} | LARGE),
            "pipeline.stages.more.continues: 'large', which loads decide about; expected a decode that every request "
            "takes, or its own route",
        ),
        (
            changed(small={"pause": {"every_tokens": 5}}, look={"kind": "tokenize", "during": "small"}),
            "pipeline.stages.small.pause: loads decide who takes it, and 'show' comes after it",
        ),
    ],
)
def test_what_would_depend_on_the_outcome_is_named(stages: dict[str, Any], problem: str) -> None:
    words = ("workload=synthetic", "workload.requests=2")
    assert problem in problems_of(by_load(*words, stages=stages))


def test_the_load_of_two_pools_is_no_load() -> None:
    stages = changed(ask_large={"model": None}, large={"model": None})
    config = by_load(
        "workload=synthetic", "workload.requests=2", "workload.models={llama3_8b: 1}", stages=stages
    )
    assert (
        "pipeline.stages.ask_large.model: small and large both serve it, and the load of one pool decides; expected "
        "a model or a pool"
    ) in problems_of(config)
