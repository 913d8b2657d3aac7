"""A trace may list sizes and times of single stages; what it lists is what runs, and contradictions are refused."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

import hermes_flow as hf
from hermes_flow.config.schema import TraceWorkload
from hermes_flow.errors import CompileError, ConfigError, TraceError

HOST = (
    "+cluster.pools.side={kind: sequential, serves: [embed, vector_search, rerank, guard], cores: 1}",
    "+hardware@cluster.pools.side.hardware=sapphire_rapids",
)


def written(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def row(*stages: dict[str, Any], **columns: Any) -> dict[str, Any]:
    return {"arrival_s": 0.0, "input_tokens": 100, "output_tokens": 20, "stages": list(stages), **columns}


def listed(stage: str, instance: int | None = None, **sizes: Any) -> dict[str, Any]:
    return {"stage": stage, **({} if instance is None else {"instance": instance}), **sizes}


def replayed(path: str, *overrides: str) -> hf.Result:
    trace = ("workload=trace", f"workload.path={path}", "slo=none")
    return hf.simulate(hf.compile(hf.compose([*overrides, *trace])))


def compiled(path: str, pipeline: str) -> hf.Program:
    """Compile a trace for a pipeline that is composed once."""
    config = composed(pipeline)
    assert isinstance(config.workload, TraceWorkload)
    return hf.compile(replace(config, workload=replace(config.workload, path=path)))


@cache
def composed(pipeline: str) -> hf.Config:
    return hf.compose([f"pipeline={pipeline}", "workload=trace", "workload.path=none", "slo=none"])


def sizes(result: hf.Result) -> pl.DataFrame:
    return result.stages.select("request", "stage", "kind", "tokens")


@pytest.mark.parametrize("pipeline", ["tree_search", "routed"])
def test_a_run_whose_stages_are_listed_comes_again_whatever_the_seed(pipeline: str, tmp_path: Path) -> None:
    load = (f"pipeline={pipeline}", "workload=synthetic", "workload.requests=3", "slo=none")
    program = hf.compile(hf.compose([*load, "seed=3"]))
    run = hf.simulate(program)
    rows = run.stages.with_columns(instance=pl.int_range(pl.len()).over("request", "stage"))
    lists: dict[int, list[dict[str, Any]]] = {}
    for stage in rows.iter_rows(named=True):
        entry = {"stage": stage["stage"], "instance": stage["instance"]}
        if stage["kind"] == "prefill":
            entry["input_tokens"] = stage["tokens"]
        elif stage["kind"] == "decode":
            entry["output_tokens"] = stage["tokens"]
        elif stage["kind"] == "tool":
            entry["duration_us"] = stage["service_s"] * 1e6
        lists.setdefault(stage["request"], []).append(entry)
    requests = program.requests
    trace = [
        {
            "arrival_ns": int(requests.arrival_ns[number]),
            "input_tokens": int(requests.input_tokens[number]),
            "output_tokens": int(requests.output_tokens[number]),
            "stages": entries,
        }
        for number, entries in sorted(lists.items())
    ]
    again = replayed(written(tmp_path / "trace.jsonl", trace), f"pipeline={pipeline}", "seed=8")
    assert_frame_equal(sizes(again), sizes(run))
    assert_frame_equal(again.requests, run.requests, check_exact=False, abs_tol=2e-9)


def test_jsonl_parquet_and_csv_say_the_same(tmp_path: Path) -> None:
    rows = [
        row(listed("decode", 0, output_tokens=20), listed("prefill", input_tokens=130)),
        row(arrival_s=1.5),
        row(listed("tokenize", duration_us=77.5), arrival_s=2.0),
    ]
    plain = replayed(written(tmp_path / "a.jsonl", rows), "pipeline=chat")
    frame = pl.DataFrame(rows, infer_schema_length=None)
    assert frame.schema["stages"].is_nested()
    frame.write_parquet(tmp_path / "a.parquet")
    text = frame.with_columns(pl.Series("stages", [json.dumps(one["stages"]) for one in rows]))
    text.write_csv(tmp_path / "a.csv")
    for name in ("a.parquet", "a.csv"):
        other = replayed(str(tmp_path / name), "pipeline=chat")
        assert_frame_equal(other.stages, plain.stages)
    found = plain.stages.filter(pl.col("stage") == "prefill")["tokens"].to_list()
    assert found == [130, 100, 100]
    assert plain.stages.filter(pl.col("stage") == "tokenize")["service_s"].to_list()[2] == 77.5e-6


def test_an_agents_turns_results_and_tool_times_are_those_listed(tmp_path: Path) -> None:
    trace = [
        row(
            listed("think", 0, input_tokens=200),
            listed("act", 0, output_tokens=30),
            listed("tool", 0, output_tokens=50, duration_us=123_456.5),
            listed("act", 1, output_tokens=10),
            listed("tool", 1, output_tokens=5, duration_us=1000),
            listed("decode", output_tokens=7),
        )
    ]
    result = replayed(written(tmp_path / "trace.jsonl", trace), "pipeline=agent")
    by_stage = {name: result.stages.filter(pl.col("stage") == name) for name in ("think", "act", "tool")}
    assert by_stage["think"]["tokens"].to_list() == [200, 200 + 30 + 50]
    assert by_stage["act"]["tokens"].to_list() == [30, 10]
    assert by_stage["tool"]["service_s"].to_list() == pytest.approx([0.1234565, 0.001], abs=1e-12)
    last = result.stages.filter(pl.col("stage") == "prefill")["tokens"].to_list()
    assert last == [280 + 10 + 5]


def test_who_escalates_is_listed(tmp_path: Path) -> None:
    rows = [
        row(listed("decode", output_tokens=9), listed("answer", output_tokens=31), arrival_s=number)
        if number in (1, 4)
        else row(listed("decode", output_tokens=9), arrival_s=number)
        for number in range(6)
    ]
    result = replayed(written(tmp_path / "trace.jsonl", rows), "pipeline=cascade")
    answered = result.stages.filter(pl.col("stage") == "answer")
    assert answered["request"].to_list() == [1, 4]
    assert answered["tokens"].to_list() == [31, 31]


def test_requests_without_a_list_are_drawn_as_the_pipeline_says(tmp_path: Path) -> None:
    rows = [row(arrival_s=number, stages=None) for number in range(60)]
    rows[0]["stages"] = [listed("answer", output_tokens=5)]
    result = replayed(written(tmp_path / "trace.jsonl", rows), "pipeline=cascade")
    escalated = result.stages.filter(pl.col("stage") == "answer")["request"].n_unique()
    assert 8 <= escalated <= 30  # 30 % of 60 are 18


def test_a_host_serves_any_stage_whose_time_is_measured(tmp_path: Path) -> None:
    table = tmp_path / "measured.csv"
    table.write_text(
        "stage,tokens,time_us\nguard,10,100\nguard,10,300\nguard,10,200\nguard,30,400\n", "utf-8"
    )
    rows = [
        row(
            listed("embed", duration_us=900),
            listed("search", duration_us=400),
            listed("rerank", output_tokens=300),
        ),
        row(listed("prefill", input_tokens=444), arrival_s=1.0),
    ]
    pools = [f"+pipeline.stages.{name}.pool=side" for name in ("embed", "search", "rerank")]
    result = replayed(
        *(written(tmp_path / "trace.jsonl", rows), "pipeline=rag", *HOST, *pools),
        "+pipeline.stages.embed.measured={fixed_us: 100, per_token_us: 2}",
        "+pipeline.stages.search.measured={fixed_us: 50}",
        "+pipeline.stages.rerank.measured={fixed_us: 7}",
        "+pipeline.stages.guard={kind: guard, of: answer, after: [decode], pool: side}",
        f"+pipeline.stages.guard.measured={{path: {table}, where: {{stage: guard}}}}",
    )
    took = {
        name: result.stages.filter(pl.col("stage") == name)["service_s"].to_list()
        for name in ("embed", "search", "rerank", "guard")
    }
    assert took["embed"] == pytest.approx([900e-6, 300e-6], abs=1e-12)
    assert took["search"] == pytest.approx([400e-6, 50e-6], abs=1e-12)
    assert took["rerank"] == pytest.approx([7e-6, 7e-6], abs=1e-12)
    assert took["guard"] == pytest.approx([300e-6, 300e-6], abs=1e-12)  # 20 tokens, between 10 and 30
    prompts = result.stages.filter(pl.col("stage") == "prefill")["tokens"].to_list()
    assert prompts == [400, 444]


def test_a_batched_pool_takes_measured_times_of_single_tasks(tmp_path: Path) -> None:
    rows = [row(listed("embed", duration_us=5000)), row(listed("embed", duration_us=3000))]
    path = written(tmp_path / "trace.jsonl", rows)
    result = replayed(path, "pipeline=rag", "cluster.pools.embed.max_batch=1")
    embedded = result.stages.filter(pl.col("stage") == "embed")
    assert embedded["service_s"].to_list() == pytest.approx([0.005, 0.003], abs=1e-12)
    with pytest.raises(
        CompileError, match=r"cluster\.pools\.embed\.max_batch: 32, but stage 'embed' has measured"
    ):
        replayed(path, "pipeline=rag")


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ("[1]", r"t\.jsonl:2: stages\[0\] is 1; expected a mapping"),
        ('"a"', r"t\.jsonl:2: stages is 'a'; expected a list of stages such as"),
        (
            '[{"stage": "decode", "tokens": 3}]',
            r"t\.jsonl:2: stages\[0\] has the unknown key 'tokens'; expected stage",
        ),
        ('[{"output_tokens": 3}]', r"t\.jsonl:2: stages\[0\]\.stage is None; expected the name of a stage"),
        ('[{"stage": "decode", "instance": -1}]', r"stages\[0\]\.instance is -1; expected a whole number"),
        ('[{"stage": "decode", "output_tokens": 2.5}]', r"output_tokens is 2\.5; expected a whole number"),
        ('[{"stage": "tokenize", "duration_us": -3}]', r"duration_us is -3; expected a time in microseconds"),
        (
            '[{"stage": "tokenize", "duration_us": 1e17}]',
            r"duration_us is 1\d+; expected a time in microseconds, 0 or more and less than 9,223,372,036,854,775$",
        ),
        (
            '[{"stage": "decode", "output_tokens": 1e20}]',
            r"output_tokens is 10+; expected a whole number, 0 or more and less than 9,223,372,036,854,775,807$",
        ),
        (
            '[{"stage": "decode"}, {"stage": "decode", "output_tokens": 20}]',
            r"stages\[1\] lists instance 0 of stage 'decode' a second time",
        ),
        (
            '[{"stage": "decod"}]',
            r"t\.jsonl:2: stages: the pipeline has no stage 'decod'; did you mean 'decode'",
        ),
        ('[{"stage": "decode", "instance": 1}]', r"instance 1 of 'decode'; expected 0, as it runs once"),
        (
            '[{"stage": "decode", "duration_us": 5}]',
            r"'decode' \(decode\) has no duration_us: the steps of an LLM",
        ),
        (
            '[{"stage": "prefill", "output_tokens": 5}]',
            r"'prefill' \(prefill\) has no output_tokens: they are those of",
        ),
        (
            '[{"stage": "tokenize", "output_tokens": 5}]',
            r"'tokenize' \(tokenize\) has no output_tokens: it adds nothing",
        ),
        ('[{"stage": "decode", "output_tokens": 0}]', r"output_tokens of 'decode' is 0; expected at least 1"),
        (
            '[{"stage": "decode", "output_tokens": 21}]',
            r"t\.jsonl:2: stages: 'decode' has output_tokens 21; expected the output_tokens of the request, 20",
        ),
        (
            '[{"stage": "prefill", "input_tokens": 99}]',
            r"'prefill' has input_tokens 99; expected at least 100",
        ),
        (
            '[{"stage": "prefill", "input_tokens": 120}, {"stage": "decode", "input_tokens": 121}]',
            r"'decode' has input_tokens 121; expected those of its prefill, 120",
        ),
    ],
)
def test_what_cannot_be_is_refused_with_its_line(stages: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    first = json.dumps(row()) + "\n"
    bad = json.dumps(row())
    path.write_text(first + bad.replace('"stages": []', f'"stages": {stages}') + "\n", encoding="utf-8")
    with pytest.raises((TraceError, CompileError), match=message):
        compiled(str(path), "chat")


@pytest.mark.parametrize(
    ("pipeline", "stages", "message"),
    [
        (
            "agent",
            [
                listed("think", input_tokens=200),
                listed("act", output_tokens=30),
                listed("think", 1, input_tokens=229),
            ],
            r"'think\.2' has input_tokens 229; expected at least 230",
        ),
        (
            "agent",
            [
                listed("think", input_tokens=200),
                listed("act", output_tokens=30),
                listed("tool", output_tokens=10),
                listed("think", 1, input_tokens=250),
            ],
            r"'think\.2' has input_tokens 250; expected the sum of its listed parts, 240",
        ),
        (
            "tree_search",
            [listed("expand", input_tokens=150), listed("expand", 1, input_tokens=151)],
            r"'expand/2' has input_tokens 151; expected the prompt that its branches share, of 150",
        ),
        ("agent", [listed("act", 256)], r"instance 256 of 'act'; expected at most 255"),
        ("reasoning_multi", [listed("decode", 8)], r"instance 8 of 'decode'; expected at most 7"),
        ("kv_reuse", [listed("recall")], r"'recall' \(kv_retrieval\) cannot be listed: its context is drawn"),
        (
            "routed",
            [listed("small", output_tokens=3), listed("large", output_tokens=3)],
            r"lists stages of two outcomes of the route",
        ),
        (
            "chat_guarded",
            [listed("guard_input", duration_us=5)],
            r"guard_input.* cannot take .*kind sequential",
        ),
        (
            "rag",
            [listed("search", input_tokens=5)],
            r"'search' \(vector_search\) has no input_tokens: it handles",
        ),
    ],
)
def test_lists_that_contradict_the_pipeline_are_refused(
    pipeline: str, stages: list[dict[str, Any]], message: str, tmp_path: Path
) -> None:
    path = written(tmp_path / "trace.jsonl", [row(*stages)])
    with pytest.raises((TraceError, CompileError), match=message):
        compiled(path, pipeline)


def test_a_listed_stage_that_a_condition_excludes_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "trace.jsonl", [row(listed("filter", duration_us=3))])
    with pytest.raises(
        (TraceError, CompileError), match=r"'filter' is listed, but the request does not take it"
    ):
        replayed(path, "pipeline=chat_guarded", "+pipeline.stages.filter.when='input_tokens > 500'")


@pytest.mark.parametrize(
    ("measured", "message"),
    [
        ("{fixed_us: 0}", r"pipeline\.stages\.tokenize\.measured: gives no time"),
        ("{fixed: 3}", r"pipeline\.stages\.tokenize\.measured\.fixed: unknown key"),
        ("{path: TABLE}", r"measured\.path: .*needs the columns tokens and time_us; it has tokens, ms"),
        ("{path: TABLE, where: {a: 1}}", r"measured\.where\.a: no such column; it has tokens, ms"),
        ("{path: SHORT}", r"measured\.path: a task has 100 tokens, and .* has sizes from 1 to 50"),
    ],
)
def test_measured_times_that_say_nothing_are_refused(measured: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text("tokens,ms\n1,2\n", encoding="utf-8")
    (tmp_path / "short.csv").write_text("tokens,time_ms\n1,2\n50,3\n", encoding="utf-8")
    given = measured.replace("TABLE", str(tmp_path / "table.csv")).replace(
        "SHORT", str(tmp_path / "short.csv")
    )
    path = written(tmp_path / "trace.jsonl", [row(stages=[])])
    with pytest.raises((CompileError, ConfigError), match=message):
        replayed(path, "pipeline=chat", f"+pipeline.stages.tokenize.measured={given}")


def test_a_join_holds_the_answers_of_all_branches_and_finds_the_first(tmp_path: Path) -> None:
    branches = [listed("decode", number, output_tokens=20 + number) for number in range(3)]
    path = written(tmp_path / "trace.jsonl", [row(*branches)])
    result = replayed(
        *(path, "pipeline=llm", "+pipeline.stages.decode.branches=3"),
        "+pipeline.stages.join={kind: prefill, after: [decode], continues: decode, reads: [decode]}",
        "+pipeline.stages.answer={kind: decode, after: [join], output_tokens: 9}",
    )
    assert result.stages.filter(pl.col("stage") == "join")["tokens"].to_list() == [100 + 20 + 21 + 22]
    blocks = (100 + 20 - 1) // 16  # of prompt and first answer, whose last token is never computed
    found = 2 * (100 // 16) + blocks  # two branches find the prompt, the join what is before it
    assert result.requests["cached_tokens"].to_list() == [16 * found]
