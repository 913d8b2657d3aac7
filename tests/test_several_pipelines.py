"""Several pipelines at once: each request takes one part, as if its pipeline ran by itself on what it shares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from compiler.configs import config, problems_of
from trace_files import write_trace

import hermes_flow as hf
from hermes_flow.config.schema import Cluster, Config, Pipeline
from hermes_flow.stages.graph import StageOptions

MIXED = (
    "pipeline=mixed",
    "workload=synthetic",
    "workload.requests=300",
    "workload.rate_per_s=20",
    "slo=none",
)
LATENCIES = ["arrival_s", "ttft_s", "tpot_s", "e2e_s", "output_tokens", "preemptions", "cached_tokens"]
LOOPED: dict[str, dict[str, Any]] = {
    "tokenize": {"kind": "tokenize"},
    "think": {"kind": "prefill", "after": ["tokenize"], "repeat": "turns"},
    "act": {"kind": "decode", "after": ["think"], "repeat": "turns", "output_scale": 0.5},
    "again": {"kind": "prefill", "after": ["act"], "continues": "act", "route": {"more": "yes"}},
    "last": {"kind": "decode", "after": ["again"], "pause": {"every_tokens": 100}},
    "show": {"kind": "detokenize", "during": "last"},
    "sum": {"kind": "prefill", "after": ["last"], "reads": ["last"], "share": 0.5},
    "up": {"kind": "decode", "after": ["sum"]},
}
LOOPS = {"turns": {"times": {"distribution": "uniform", "min": 1, "max": 4}}}
ROUTES = {"more": {"yes": 0.4, "no": 0.6}}


def on_pools(pipeline: Pipeline, suffix: str) -> Pipeline:
    """The pipeline with every stage on the pool of its kind that ends in ``suffix``."""
    stages = {
        name: fields | {"pool": ("llm" if fields["kind"] in ("prefill", "decode") else "host") + suffix}
        for name, fields in pipeline.stages.items()
    }
    return replace(pipeline, stages=stages)


def mixed_of(parts: Mapping[str, Pipeline], shares: Mapping[str, float]) -> Pipeline:
    return Pipeline("mixed", parts=dict(parts), shares=dict(shares))


def parts_of(program: hf.Program) -> list[str]:
    requests = program.requests
    assert requests.pipeline is not None
    return [requests.pipelines[index] for index in requests.pipeline.tolist()]


def replay(program: hf.Program, keep: Any, path: Path, **columns: Any) -> Config:
    """The chosen requests of a program as a native trace."""
    import polars as pl

    requests = program.requests
    table = {"arrival_ns": requests.arrival_ns, "input_tokens": requests.input_tokens}
    table["output_tokens"] = requests.output_tokens
    pl.DataFrame({name: np.array(column)[keep] for name, column in (table | columns).items()}).write_parquet(
        path
    )
    return hf.compose(["workload=trace", f"workload.path={path}", "slo=none"])


def two_of_each(base: Config) -> Cluster:
    """Each part's pools: llm_a and host_a, llm_b and host_b."""
    llm: Any = base.cluster.pools["llm"]
    host: Any = base.cluster.pools["host"]
    slow = replace(llm, count=2, hardware=replace(llm.hardware, bandwidth_gb_s=1000.0))
    pools = {"llm_a": slow, "host_a": host, "llm_b": llm, "host_b": replace(host, cores=1)}
    return replace(base.cluster, pools=pools)


def test_every_request_takes_the_stages_of_its_part_and_no_others() -> None:
    program = hf.compile(config(*MIXED))
    result = hf.simulate(program)
    chosen = parts_of(program)
    assert result.requests["pipeline"].to_list() == chosen
    assert set(result.requests["status"]) == {"completed"}
    own = {
        "chat": ["chat.tokenize", "chat.prefill", "chat.decode", "chat.detokenize"],
        "llm": ["llm.prefill", "llm.decode"],
    }
    taken: dict[int, list[str]] = {}
    for request, stage in result.stages.select("request", "stage").rows():
        taken.setdefault(request, []).append(stage)
    assert taken == {request: own[part] for request, part in enumerate(chosen)}
    assert list(result.summary["stages"]) == own["chat"] + own["llm"]


def test_parts_are_taken_by_their_shares_and_change_no_other_draw() -> None:
    drawn = hf.compile(config(*MIXED, "workload.requests=20000")).requests
    assert drawn.pipelines == ("chat", "llm")
    assert np.bincount(drawn.pipeline) / 20_000 == pytest.approx([0.6, 0.4], abs=0.012)
    plain = hf.compile(config(*MIXED[1:], "pipeline=llm", "workload.requests=20000")).requests
    assert plain.input_tokens.tolist() == drawn.input_tokens.tolist()
    turned = hf.compile(config(*MIXED, "pipeline.shares={chat: 0, llm: 1}")).requests
    assert turned.pipeline.tolist() == [1] * 300


@pytest.mark.parametrize(
    "looped", [False, True], ids=["chat and llm", "with loops, routes and conversations"]
)
def test_parts_on_pools_of_their_own_have_the_latencies_of_runs_alone(looped: bool, tmp_path: Path) -> None:
    base = config(*MIXED)
    parts = dict(base.pipeline.parts)
    if looped:
        # Loops and routes of one outcome: what is drawn depends on how many requests a run has.
        parts["chat"] = Pipeline("x", LOOPED | {"sum": LOOPED["sum"] | {"share": 1.0}},
            {"turns": {"times": 3}}, {"more": {"yes": "input_tokens > 300", "no": "else"}})  # fmt: skip
    parts = {"chat": on_pools(parts["chat"], "_a"), "llm": on_pools(parts["llm"], "_b")}
    cluster = two_of_each(base)
    program = hf.compile(replace(base, cluster=cluster, pipeline=mixed_of(parts, base.pipeline.shares)))
    together = hf.simulate(program)
    chosen = np.array(parts_of(program))
    for name, suffix in (("chat", "_a"), ("llm", "_b")):
        alone = replay(program, chosen == name, tmp_path / "alone.parquet")
        pools = {pool: cluster.pools[pool] for pool in cluster.pools if pool.endswith(suffix)}
        alone = replace(alone, pipeline=parts[name], cluster=replace(cluster, pools=pools))
        separate = hf.simulate(hf.compile(alone))
        ours = together.requests.filter(together.requests["pipeline"] == name)
        assert len(ours) == (chosen == name).sum() > 100
        assert ours.select(LATENCIES).rows() == separate.requests.select(LATENCIES).rows()
        figures = together.summary["pipelines"][name]
        for metric in ("requests", "ttft_s", "tpot_s", "e2e_s"):
            assert figures[metric] == separate.summary[metric]


@pytest.mark.parametrize("workload", ["synthetic", "sessions"])
def test_a_part_that_takes_all_requests_draws_what_it_draws_by_itself(workload: str) -> None:
    base = config(f"workload={workload}", "slo=none", "cluster.pools.llm.prefix_cache=true")
    plain = replace(base, pipeline=Pipeline("plain", LOOPED, LOOPS, ROUTES))
    parts = {"other": Pipeline("o", {"prefill": {"kind": "prefill"}}), "all": plain.pipeline}
    mixed = replace(base, pipeline=mixed_of(parts, {"other": 0.0, "all": 1.0}))
    alone, together = hf.simulate(hf.compile(plain)), hf.simulate(hf.compile(mixed))
    columns = [name for name in alone.requests.columns if name != "pipeline"]
    assert together.requests.select(columns).equals(alone.requests.select(columns))
    assert together.stages["stage"].to_list() == [f"all.{stage}" for stage in alone.stages["stage"]]
    columns = [name for name in alone.stages.columns if name != "stage"]
    assert together.stages.select(columns).equals(alone.stages.select(columns))
    assert together.summary["pipelines"]["other"]["requests"]["submitted"] == 0
    assert together.summary["pipelines"]["other"]["e2e_s"]["mean"] is None


def test_every_option_that_names_something_of_the_pipeline_names_it_in_its_part() -> None:
    no_names = {"pool", "model", "share", "when", "branches", "vote", "pause", "bytes_out", "measured"}
    options = set(StageOptions.__slots__) - no_names
    named = {option for stage in LOOPED.values() for option in stage} & options
    assert named == options  # a new one goes into LOOPED, whose runs are compared above


def test_a_session_takes_one_pipeline() -> None:
    program = hf.compile(config("pipeline=mixed", "workload=sessions", "slo=none"))
    frame = hf.simulate(program).requests
    pairs = set(frame.select("session", "pipeline").rows())
    assert len(pairs) == frame["session"].n_unique() == 200
    assert 0.5 < sum(name == "chat" for _, name in pairs) / 200 < 0.7
    again = hf.compile(config("pipeline=mixed", "workload=sessions", "slo=none"))
    assert parts_of(again) == parts_of(program)


def test_a_trace_says_which_part_each_request_takes(tmp_path: Path) -> None:
    rows = [(3, 10, 5, "llm"), (1, 20, 5, "chat"), (2, 30, 5, "llm")]
    trace = write_trace(tmp_path / "trace.csv", rows, "pipeline")
    result = hf.simulate(hf.compile(hf.compose(["pipeline=mixed", *trace])))
    assert result.requests.select("input_tokens", "pipeline").rows() == [
        (20, "chat"),
        (30, "llm"),
        (10, "llm"),
    ]
    plain = hf.simulate(hf.compile(hf.compose(["pipeline=chat", *trace])))  # nothing to choose from
    assert set(plain.requests["pipeline"]) == {"chat"}
    assert "pipelines" not in plain.summary


def test_the_summary_has_the_figures_of_each_pipeline() -> None:
    result = hf.simulate(hf.compile(config(*MIXED[:-1], "slo=chat")))
    frame, found = result.requests, result.summary["pipelines"]
    assert list(found) == ["chat", "llm"]
    for name, figures in found.items():
        own = frame.filter(frame["pipeline"] == name)
        assert set(figures) == {"requests", "ttft_s", "tpot_s", "e2e_s", "throughput", "slo"}
        assert figures["requests"] == {"submitted": len(own), "completed": len(own), "failed": 0}
        assert figures["ttft_s"]["mean"] == pytest.approx(own["ttft_s"].mean())
        assert figures["e2e_s"]["p99"] == pytest.approx(np.percentile(own["e2e_s"].to_numpy(), 99))
        assert figures["slo"]["attainment"] == pytest.approx(own["slo_met"].mean())
    rates = [figures["throughput"]["requests_per_s"] for figures in found.values()]
    assert sum(rates) == pytest.approx(result.summary["throughput"]["requests_per_s"])


def test_parts_are_chosen_and_added_on_the_command_line() -> None:
    more = [
        "pipeline@pipeline.parts.llm=chat",
        "+pipeline@pipeline.parts.third=llm",
        "pipeline.shares={chat: 0.2, llm: 0.3, third: 0.5}",
        "+pipeline.parts.third.stages.prefill.extra_tokens=500",
    ]
    program = hf.compile(config(*MIXED, *more))
    assert program.requests.pipelines == ("chat", "llm", "third")
    assert {stage for op in program.ops for stage in op.stages} >= {"llm.detokenize", "third.decode"}
    by_name = {op.stages[0]: op for op in program.ops}
    extra = by_name["third.prefill"].llm.prompt - program.requests.input_tokens
    assert set(extra.tolist()) == {500}


def test_a_part_of_a_single_stage_needs_nothing_before_or_after_it() -> None:
    base = config(*MIXED)
    parts = dict(base.pipeline.parts) | {"count": Pipeline("count", {"tokenize": {"kind": "tokenize"}})}
    shares = {"chat": 0.3, "llm": 0.3, "count": 0.4}
    result = hf.simulate(hf.compile(replace(base, pipeline=mixed_of(parts, shares))))
    own = result.requests.filter(result.requests["pipeline"] == "count")
    assert own["ttft_s"].null_count() == len(own) > 90
    assert own["e2e_s"].null_count() == 0


PREFILL: dict[str, Any] = {"kind": "prefill"}
DECODE: dict[str, Any] = {"kind": "decode", "after": ["prefill"]}
CHAT = Pipeline("chat", {"prefill": PREFILL, "decode": DECODE})
ENDLESS = Pipeline(
    "endless",
    {"prefill": PREFILL | {"repeat": "t"}, "decode": DECODE | {"repeat": "t"}},
    {"t": {"times": 1000}},
)
MISTAKEN = Pipeline(
    "mistaken", {"prefill": PREFILL | {"after": ["decod"], "repeat": "x"}, "decode": DECODE | {"share": 2}}
)
APART = Pipeline("apart", CHAT.stages | {"tokenize": {"kind": "tokenize"}})
WRONG: dict[str, tuple[Pipeline, list[str]]] = {
    "an unknown part": (
        mixed_of({"chat": CHAT, "llm": CHAT}, {"chat": 0.5, "lm": 0.5}),
        [
            "pipeline.shares.lm: no part is called 'lm'; did you mean 'llm'?",
            "pipeline.shares: no share for part 'llm'; 0 if no request is to take it",
        ],
    ),
    "shares below 1": (
        mixed_of({"chat": CHAT, "llm": CHAT}, {"chat": 0.5, "llm": 0.4}),
        ["pipeline.shares: the shares 0.5, 0.4 do not add up to 1"],
    ),
    "a negative share": (
        mixed_of({"chat": CHAT, "llm": CHAT}, {"chat": 1.5, "llm": -0.5}),
        [
            "pipeline.shares.chat: 1.5 is out of range; expected a number from 0 to 1",
            "pipeline.shares.llm: -0.5 is out of range; expected a number from 0 to 1",
        ],
    ),
    "no shares": (
        mixed_of({"chat": CHAT, "llm": CHAT}, {}),
        [
            "pipeline.shares: empty; expected a share for each of chat, llm, or a trace with a column 'pipeline'",
        ],
    ),
    "stages and parts": (
        replace(mixed_of({"chat": CHAT}, {"chat": 1}), stages=CHAT.stages),
        ["pipeline.stages: a pipeline has stages of its own or parts, not both"],
    ),
    "parts within parts": (
        mixed_of({"chat": replace(mixed_of({"a": CHAT}, {"a": 1}), stages=CHAT.stages)}, {"chat": 1}),
        [
            "pipeline.parts.chat.parts: a part has stages, and no parts of its own",
            "pipeline.parts.chat.shares: a part has stages, and no shares of its own",
        ],
    ),
    "shares alone": (
        replace(CHAT, shares={"chat": 1.0}),
        ["pipeline.shares: the pipeline has no parts; give them, or leave the shares out"],
    ),
    "an empty part": (
        mixed_of({"chat": CHAT, "llm": Pipeline("none")}, {"chat": 0.5, "llm": 0.5}),
        ["pipeline.parts.llm.stages: empty; a pipeline needs at least one stage"],
    ),
    "a mistake in a part": (
        mixed_of({"a": MISTAKEN}, {"a": 1}),
        [
            "pipeline.parts.a.stages.decode.share: 2 is out of range; expected a number from 0 to 1",
            "pipeline.parts.a.stages.prefill.after: no stage is called 'decod'; did you mean 'decode'?",
            "pipeline.parts.a.stages.prefill.repeat: no loop is called 'x'",
        ],
    ),
    "an orphan in a part": (
        mixed_of({"a": CHAT, "b": APART}, {"a": 1, "b": 0}),
        ["pipeline.parts.b.stages.tokenize: nothing comes before or after it; connect it with 'after'"],
    ),
    "a loop without end": (
        mixed_of({"a": ENDLESS}, {"a": 1}),
        [
            "pipeline.parts.a.loops.t.times: gives 1,000 iterations; expected at most 256 "
            "(a distribution takes 'max')"
        ],
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_mistakes_have_their_full_keys(name: str) -> None:
    pipeline, problems = WRONG[name]
    assert problems_of(replace(config("workload.requests=5"), pipeline=pipeline)) == problems


def test_a_pipeline_in_a_trace_that_is_no_part_is_refused(tmp_path: Path) -> None:
    rows = [(0, 1, 1, "chats"), (1, 1, 1, "llm"), (2, 1, 1, "chats")]
    traced = hf.compose(["pipeline=mixed", *write_trace(tmp_path / "trace.csv", rows, "pipeline")])
    assert problems_of(traced) == [
        "workload.path: 2 requests of the trace name pipeline 'chats', which is no part of the pipeline; "
        "did you mean 'chat'?"
    ]
