"""Clusters that hold several models: each request runs on the pool of the model that it asks for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from compiler.configs import config, problems_of
from trace_files import write_trace

import hermes_flow as hf
from hermes_flow.config.schema import Config

SHARES = {"llama3_8b": 0.7, "llama3_70b": 0.3}
POOL_OF = {"llama3_8b": "small", "llama3_70b": "large"}
TWO = ("cluster=two_models", "workload=synthetic", "workload.requests=300", "slo=none")
ASKED = "workload.models={llama3_8b: 0.7, llama3_70b: 0.3}"
LATENCIES = ["ttft_s", "tpot_s", "e2e_s", "output_tokens", "preemptions"]


def only_pools(base: Config, *names: str) -> Config:
    pools = {name: pool for name, pool in base.cluster.pools.items() if name in names}
    return replace(base, cluster=replace(base.cluster, pools=pools))


def as_trace(program: hf.Program, keep: Any, path: Path, **columns: Any) -> list[str]:
    """Write the chosen requests of a program as a native trace; return the overrides that replay it."""
    import polars as pl

    requests = program.requests
    table = {"arrival_ns": requests.arrival_ns, "input_tokens": requests.input_tokens}
    table["output_tokens"] = requests.output_tokens
    pl.DataFrame({name: column[keep] for name, column in (table | columns).items()}).write_parquet(path)
    return ["workload=trace", f"workload.path={path}"]


def rows_of(result: hf.Result, model: str) -> list[Any]:
    return result.requests.filter(result.requests["model"] == model).select(LATENCIES).rows()


def names_of(requests: Any) -> list[str]:
    return [requests.models[index] for index in requests.model.tolist()]


def test_every_request_runs_on_the_pool_of_its_model() -> None:
    program = hf.compile(config(*TWO, ASKED))
    result = hf.simulate(program)
    asked = names_of(program.requests)
    assert result.requests["model"].to_list() == asked
    assert set(result.requests["status"]) == {"completed"}
    for stage in ("prefill", "decode"):
        rows = result.stages.filter(result.stages["stage"] == stage)
        assert rows["request"].to_list() == list(range(300))
        assert rows["pool"].to_list() == [POOL_OF[model] for model in asked]
    assert list(result.summary["stages"]) == ["tokenize", "prefill", "decode", "detokenize"]


def test_models_are_asked_for_by_their_shares_and_change_no_other_draw() -> None:
    many = ("cluster=two_models", "pipeline=llm", "workload=synthetic", "workload.requests=20000")
    drawn = hf.compile(config(*many, ASKED)).requests
    assert drawn.models == tuple(SHARES)
    assert np.bincount(drawn.model) / 20_000 == pytest.approx([0.7, 0.3], abs=0.01)
    plain = hf.compile(config("pipeline=llm", "workload=synthetic", "workload.requests=20000")).requests
    assert plain.model is None
    assert plain.arrival_ns.tolist() == drawn.arrival_ns.tolist()
    assert plain.input_tokens.tolist() == drawn.input_tokens.tolist()
    more = hf.compile(config(*many[:-1], "workload.requests=20100", ASKED)).requests
    assert more.model[:20_000].tolist() == drawn.model.tolist()


@pytest.mark.parametrize("clients", [1, 3])
def test_each_model_has_the_latencies_of_a_run_of_its_requests_alone(clients: int, tmp_path: Path) -> None:
    counts = [f"cluster.pools.{pool}.count={clients}" for pool in ("small", "large")]
    load = ("pipeline=llm", "workload.rate_per_s=20", *counts)
    program = hf.compile(config(*TWO, ASKED, *load))
    together = hf.simulate(program)
    for model, pool in POOL_OF.items():
        keep = np.array(names_of(program.requests)) == model
        alone = hf.compose(
            [
                *TWO[:1],
                "slo=none",
                "pipeline=llm",
                *counts,
                *as_trace(program, keep, tmp_path / "one.parquet"),
            ]
        )
        separate = hf.simulate(hf.compile(only_pools(alone, pool)))
        assert len(separate.requests) == keep.sum() > 50
        assert rows_of(together, model) == rows_of(separate, model)


def test_pairs_of_prefill_and_decode_pools_serve_a_model_each(tmp_path: Path) -> None:
    base = config("cluster=disaggregated", "pipeline=llm", *TWO[1:], "workload.rate_per_s=10", ASKED)
    pools = {}
    for letter, model, devices in (("a", "llama3_8b", 1), ("b", "llama3_70b", 4)):
        held = hf.compose([f"model={model}"]).model
        for stage in ("prefill", "decode"):
            pool: Any = base.cluster.pools[stage]
            pools[f"{stage}_{letter}"] = replace(pool, model=held, tensor_parallel=devices)
    pairs = replace(base, cluster=replace(base.cluster, pools=pools))
    program = hf.compile(pairs)
    together = hf.simulate(program)
    asked = names_of(program.requests)
    letter_of = {"llama3_8b": "a", "llama3_70b": "b"}
    for stage in ("prefill", "decode"):
        rows = together.stages.filter(together.stages["stage"] == stage)
        served = zip(rows["request"], rows["pool"], strict=True)
        assert all(pool == f"{stage}_{letter_of[asked[request]]}" for request, pool in served)
    moved = together.stages.filter(together.stages["stage"] == "decode")
    assert moved["bytes"].min() > 0
    for model in SHARES:
        names = np.array(asked)
        trace = as_trace(program, names == model, tmp_path / "one.parquet", model=names)
        alone = hf.compose(["pipeline=llm", "slo=none", *trace])
        separate = hf.simulate(hf.compile(replace(alone, cluster=pairs.cluster)))
        assert rows_of(together, model) == rows_of(separate, model)


def test_a_session_keeps_its_model_and_finds_its_prompts_there() -> None:
    cached = [f"cluster.pools.{pool}.prefix_cache=true" for pool in ("small", "large")]
    program = hf.compile(config("cluster=two_models", "workload=sessions", "slo=none", ASKED, *cached))
    result = hf.simulate(program)
    frame = result.requests
    by_session: dict[int, set[str]] = {}
    for session, model in zip(frame["session"], frame["model"], strict=True):
        by_session.setdefault(session, set()).add(model)
    assert len(by_session) == 200
    assert all(len(models) == 1 for models in by_session.values())
    assert 0.2 < sum(models == {"llama3_70b"} for models in by_session.values()) / 200 < 0.4
    later = frame.filter(frame["session"].is_duplicated())
    assert all(later.filter(later["model"] == model)["cached_tokens"].sum() > 0 for model in SHARES)


def test_a_trace_says_which_model_each_request_asks_for(tmp_path: Path) -> None:
    rows = [(3, 10, 5, "llama3_70b"), (1, 20, 5, "llama3_8b"), (2, 30, 5, " llama3_70b ")]
    trace = write_trace(tmp_path / "trace.csv", rows, "model")
    program = hf.compile(hf.compose(["cluster=two_models", *trace]))
    result = hf.simulate(program)
    assert result.requests.select("input_tokens", "model").rows() == [
        (20, "llama3_8b"),
        (30, "llama3_70b"),
        (10, "llama3_70b"),
    ]


def test_a_stage_with_a_pool_or_model_of_its_own_does_not_follow_the_request() -> None:
    named = "+pipeline.stages.prefill.model=llama3_70b", "+pipeline.stages.decode.pool=large"
    result = hf.simulate(hf.compile(config(*TWO, ASKED, "workload.requests=20", *named)))
    assert set(result.requests["model"]) == {"llama3_70b"}


def test_models_that_decide_nothing_are_a_warning() -> None:
    program = hf.compile(config("workload.requests=5", ASKED))
    assert program.warnings == (
        "requests ask for models (llama3_8b, llama3_70b), but no stage can choose between models: this has no effect",
    )


def test_without_models_asked_for_the_stages_name_their_choice() -> None:
    expected = (
        "small and large both serve {!r}; name one, or let requests ask for a model (workload.models, or a column "
        "'model' in the trace)"
    )
    assert problems_of(config(*TWO)) == [
        f"pipeline.stages.{stage}.pool: {expected.format(stage)}" for stage in ("prefill", "decode")
    ]


def test_a_model_that_no_pool_holds_has_its_key_and_the_nearest_name(tmp_path: Path) -> None:
    unknown = config(*TWO, "workload.models={llama3_8b: 0.5, llama3_70B: 0.5}")
    for problem, stage in zip(problems_of(unknown), ("prefill", "decode"), strict=True):
        count, _, rest = problem.removeprefix("workload.models: ").partition(" ")
        assert 100 < int(count) < 200
        assert rest == (
            f"requests ask for model 'llama3_70B', which no pool that serves stage {stage!r} holds; "
            "did you mean 'llama3_70b'?"
        )
    rows = [(0, 1, 1, "ChatGPT"), (1, 1, 1, "llama3_8b")]
    traced = hf.compose(["cluster=two_models", *write_trace(tmp_path / "trace.csv", rows, "model")])
    assert problems_of(traced)[0].startswith(
        "workload.path: 1 requests ask for model 'ChatGPT', which no pool"
    )


@pytest.mark.parametrize("workload", ["synthetic", "sessions"])
@pytest.mark.parametrize(
    ("models", "problem"),
    [
        ("{llama3_8b: 0.7, llama3_70b: 0.2}", "workload.models: the shares 0.7, 0.2 do not add up to 1"),
        (
            "{llama3_8b: 1.5, llama3_70b: -0.5}",
            "2 problems found:\n"
            "  - workload.models.llama3_8b: 1.5 is out of range; expected a number from 0 to 1\n"
            "  - workload.models.llama3_70b: -0.5 is out of range; expected a number from 0 to 1",
        ),
        ("{llama3_8b: inf}", "workload.models.llama3_8b: inf is out of range; expected a number from 0 to 1"),
        ("{llama3_8b: half}", "workload.models.llama3_8b: 'half' is not a number"),
    ],
)
def test_shares_that_are_none_are_refused(workload: str, models: str, problem: str) -> None:
    with pytest.raises(hf.ConfigError) as caught:
        hf.compile(hf.compose(["cluster=two_models", f"workload={workload}", f"workload.models={models}"]))
    assert str(caught.value) == problem


def test_a_mapping_of_models_on_the_command_line_replaces_the_one_before() -> None:
    both = hf.compose([ASKED, "workload.models={llama3_8b: 1}"])
    assert both.workload.models == {"llama3_8b": 1.0}  # type: ignore[union-attr]


@pytest.mark.parametrize("column", ["model", "pipeline"])
def test_a_cell_without_a_name_is_refused_where_others_have_one(column: str, tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    replay = hf.compose(write_trace(path, [(0, 1, 1, "x"), (1, 1, 1, ""), (2, 1, 1, "x")], column))
    with pytest.raises(hf.HermesFlowError) as caught:
        hf.compile(replay)
    assert str(caught.value) == f"{path}:3: {column} is missing; expected the name of a {column}"
    write_trace(path, [(0, 1, 1, ""), (1, 1, 1, " ")], column)
    requests = hf.compile(replay).requests  # a column without any name is none
    assert (requests.model, requests.pipeline) == (None, None)


def test_in_json_lines_every_row_or_none_has_a_model(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    row = '{"arrival_s": 0, "input_tokens": 1, "output_tokens": 1%s}\n'
    path.write_text(row % "" + row % ', "model": "llama3_8b"')
    replay = hf.compose(["workload=trace", f"workload.path={path}"])
    with pytest.raises(hf.HermesFlowError, match=":1: model is missing; expected the name of a model"):
        hf.compile(replay)
    path.write_text(row % "" * 2)
    assert hf.compile(replay).requests.model is None


def test_names_of_digits_are_names_and_of_categories_too(tmp_path: Path) -> None:
    import polars as pl

    path = tmp_path / "trace.parquet"
    rows = {"arrival_s": [0, 1, 2], "input_tokens": [1] * 3, "output_tokens": [1] * 3}
    pl.DataFrame(rows | {"model": [7, 3, 7]}).write_parquet(path)
    replay = hf.compose(["workload=trace", f"workload.path={path}"])
    requests = hf.compile(replay).requests
    assert (requests.models, requests.model.tolist()) == (("7", "3"), [0, 1, 0])
    names = pl.Series("model", ["b", "a", "b"], dtype=pl.Categorical)
    pl.DataFrame(rows).with_columns(names).write_parquet(path)
    requests = hf.compile(replay).requests
    assert (requests.models, requests.model.tolist()) == (("b", "a"), [0, 1, 0])
