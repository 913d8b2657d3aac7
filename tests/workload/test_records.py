"""Benchmark logs, agentic workloads and conversations are read as requests, as they were sent."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

import hermes_flow as hf
from hermes_flow.config.schema import TraceWorkload
from hermes_flow.errors import HermesFlowError
from hermes_flow.program.prefixes import Prefixes
from hermes_flow.program.requests import Requests
from hermes_flow.validation.description import find_descriptions
from hermes_flow.validation.measured import Measured, read_measured
from hermes_flow.validation.replay import texts_counted_by
from hermes_flow.workload.build import build_requests
from hermes_flow.workload.records import record_formats

CASES = Path(__file__).parent / "cases"
S = 10**9


def read(path: Path | str, **keys: Any) -> Requests:
    return build_requests(TraceWorkload(kind="trace", name="test", path=str(path), **keys), 0)


def problem(path: Path | str, **keys: Any) -> str:
    with pytest.raises(HermesFlowError) as caught:
        read(path, **keys)
    return str(caught.value).replace(f"{Path(path).parent}/", "")


def write(folder: Path, name: str, *records: Any) -> Path:
    (folder / name).write_text("\n".join(json.dumps(record) for record in records))
    return folder / name


def columns(requests: Requests) -> list[list[int]]:
    return [requests.arrival_ns.tolist(), requests.input_tokens.tolist(), requests.output_tokens.tolist()]


def latencies(measured: Measured) -> dict[str, list[float]]:
    return {name: pytest.approx(values.tolist()) for name, values in measured.sample.latencies.items()}


def test_a_log_of_vllm_has_20_requests_at_their_start_times_with_ttft_and_gaps() -> None:
    requests = read(CASES / "vllm_bench.json")
    assert len(requests) == 20
    assert requests.arrival_ns.tolist() == [number * S // 4 for number in range(20)]
    assert (requests.input_tokens.sum(), requests.output_tokens.sum()) == (16_925, 2_240)
    measured = read_measured(CASES / "vllm_bench.json").sample.latencies
    assert measured["ttft"][:2].tolist() == pytest.approx([0.04588, 0.05672])
    assert measured["e2e"][0] == pytest.approx(0.04588 + 186 * 0.0078)
    assert measured["tpot"].tolist() == pytest.approx([0.0078] * 20)


BENCH = {
    "request_throughput": 1.0,
    "duration": 2.0,
    "input_lens": [10, 20, 30],
    "output_lens": [3, 1, 2],
    "ttfts": [0.1, 0.2, 0.3],
    "itls": [[0.01, 0.02], [], [0.05]],
}


@pytest.mark.parametrize(
    ("keys", "process"),
    [
        ({"request_rate": "inf", "max_concurrency": 2}, ("users", 2)),
        ({"request_rate": math.inf, "max_concurrency": 2}, ("users", 2)),
        ({"request_rate": "inf", "max_concurrency": None}, ("users", 3)),
        ({"request_rate": 4.0, "burstiness": 1.0}, ("rate", 4.0)),
        ({"request_rate": 4.0, "burstiness": 0.25}, ("rate", 4.0)),
    ],
)
def test_the_load_of_a_log_without_start_times_is_the_one_it_names(
    keys: dict[str, Any], process: tuple[str, float], tmp_path: Path
) -> None:
    path = write(tmp_path, "log.json", BENCH | keys)
    requests = read(path)
    kind, value = process
    assert requests.concurrency == (value if kind == "users" else None)
    if kind == "rate":
        same = {"process": "gamma", "cv": 2.0} if keys["burstiness"] == 0.25 else "poisson"
        drawn = read(path, arrivals=same, rate_per_s=value)
        assert requests.arrival_ns.tolist() == drawn.arrival_ns.tolist()
        assert requests.arrival_ns.max() > 0
    measured = read_measured(path)
    assert latencies(measured)["e2e"] == [0.13, 0.2, 0.35]
    assert measured.sample.rates == {"requests_per_s": 1.5, "output_tokens_per_s": 3.0}


def test_a_trace_that_sglang_replayed_is_no_burst(tmp_path: Path) -> None:
    path = write(tmp_path, "log.jsonl", BENCH | {"backend": "sglang", "request_rate": "trace"})
    assert "no arrival times" in problem(path)
    requests = read(path, arrivals="poisson", rate_per_s=2.0)
    assert "the benchmark sent its requests by 'trace'" in requests.notes[0]


def test_failed_requests_of_a_log_are_left_out_by_number(tmp_path: Path) -> None:
    path = write(tmp_path, "log.json", BENCH | {"errors": ["", "timeout", ""], "request_rate": 1.0})
    requests = read(path)
    assert requests.input_tokens.tolist() == [10, 30]
    assert requests.notes == ("workload.path: 1 of 3 requests failed in the benchmark and are left out",)


def test_a_limit_on_requests_in_flight_beside_a_rate_is_a_warning(tmp_path: Path) -> None:
    path = write(
        tmp_path, "log.json", BENCH | {"request_rate": 4.0, "max_concurrency": 2, "start_times": [5, 6, 8]}
    )
    requests = read(path)
    assert requests.arrival_ns.tolist() == [0, S, 3 * S]
    assert "had at most 2 in flight; the limit is not replayed" in requests.notes[0]


def test_a_log_without_single_requests_says_how_to_get_them(tmp_path: Path) -> None:
    path = write(tmp_path, "log.json", {"request_throughput": 3.0, "mean_ttft_ms": 40.0})
    assert problem(path).endswith("run the benchmark with --save-result --save-detailed")
    path = write(
        tmp_path, "log.jsonl", {"request_throughput": 3.0, "mean_ttft_ms": 40.0, "backend": "sglang"}
    )
    assert problem(path).endswith("run the benchmark with --output-details")


def test_lists_of_unequal_lengths_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "log.json", BENCH | {"ttfts": [0.1, 0.2]})
    assert problem(path) == "log.json: output_lens has 3 entries and ttfts 2; expected as many"


def test_each_line_of_sglang_is_a_run_that_can_be_chosen(tmp_path: Path) -> None:
    one = {key: value for key, value in BENCH.items() if key != "request_throughput"}
    first = one | {"backend": "sglang", "request_rate": math.inf, "max_concurrency": 1}
    path = write(tmp_path, "log.jsonl", first, first | {"max_concurrency": 3})
    assert problem(
        path
    ) == f"log.jsonl: holds 2 runs; choose one of {tmp_path}/log.jsonl@1 to log.jsonl@2".replace(
        f"{tmp_path}/", ""
    )
    assert read(f"{path}@1").concurrency == 1
    assert read(f"{path}@2").concurrency == 3
    assert problem(f"{path}@3") == "log.jsonl@3: holds 2 runs"
    assert [run.name for run in find_descriptions([str(path)])] == ["log.jsonl@1", "log.jsonl@2"]


def guidellm(strategy: dict[str, Any], *, old: bool) -> dict[str, Any]:
    requests = [
        {
            "prompt_tokens": 100,
            "output_tokens": 11,
            "start_time": 50.0,
            "end_time": 52.0,
            "first_token_time": 50.5,
        },
        {
            "prompt_tokens": 200,
            "output_tokens": 21,
            "start_time": 49.0,
            "end_time": 53.0,
            "first_token_time": 50.0,
        },
    ]
    if not old:
        requests = [
            {
                "prompt_tokens": request["prompt_tokens"],
                "output_tokens": request["output_tokens"],
                "info": {
                    "timings": {
                        "request_start": request["start_time"],
                        "first_token_iteration": request["first_token_time"],
                        "request_end": request["end_time"],
                    }
                },
            }
            for request in requests
        ]
    groups = {"successful": requests, "incomplete": [{}], "errored": []}
    return {"args" if old else "config": {"strategy": strategy}, "requests": groups}


@pytest.mark.parametrize("old", [True, False])
def test_the_benchmarks_of_a_report_of_guidellm_are_runs_sent_by_their_strategy(
    old: bool, tmp_path: Path
) -> None:
    strategies = [
        {"type_": "poisson", "rate": 2.0},
        {"type_": "concurrent", "streams": 2},
        {"type_": "synchronous"},
    ]
    path = write(tmp_path, "report.json", {"benchmarks": [guidellm(each, old=old) for each in strategies]})
    requests = read(f"{path}@1")
    assert columns(requests) == [[0, S], [200, 100], [21, 11]]
    assert requests.notes == (
        "workload.path: 1 of 3 requests did not complete in the benchmark and are left out",
    )
    assert [read(f"{path}@{number}").concurrency for number in (1, 2, 3)] == [None, 2, 1]
    measured = read_measured(Path(f"{path}@1"))
    assert latencies(measured) == {"ttft": [1.0, 0.5], "tpot": [0.15, 0.15], "e2e": [4.0, 2.0]}


def test_reports_of_guidellm_0_4_and_samples_of_requests_are_read_for_what_they_are(tmp_path: Path) -> None:
    report = guidellm({"type_": "concurrent", "streams": 2}, old=False)
    report["scheduler"] = report.pop("config")
    for request in report["requests"]["successful"]:
        timings = request.pop("info")["timings"]
        timings["first_iteration"] = timings.pop("first_token_iteration")
        request["scheduler_info"] = {"request_timings": timings}
    path = write(tmp_path, "report.json", {"benchmarks": [report]})
    assert read(path).concurrency == 2
    assert latencies(read_measured(path))["ttft"] == [1.0, 0.5]
    report["metrics"] = {"request_totals": {"successful": 50}}
    path = write(tmp_path, "report.json", {"benchmarks": [report]})
    assert "workload.path: the report keeps 2 of 50 completed requests" in read(path).notes
    report["scheduler"]["strategy"]["type_"] = "constant"
    path = write(tmp_path, "report.json", {"benchmarks": [report]})
    assert "keeps 2 of 50 completed requests, so that its load is not known" in problem(path)


def test_conversations_of_guidellm_are_sessions(tmp_path: Path) -> None:
    report = guidellm({"type_": "poisson", "rate": 2.0}, old=False)
    for request, name in zip(report["requests"]["successful"], ("a", "b"), strict=True):
        request["info"]["conversation_id"] = name
    alone = read(write(tmp_path, "alone.json", {"benchmarks": [report]}))
    assert alone.session is None  # every conversation has one request
    report["requests"]["successful"][1]["info"]["conversation_id"] = "a"
    together = read(write(tmp_path, "together.json", {"benchmarks": [report]}))
    assert together.session is not None
    assert together.session.tolist() == [0, 0]


def aiperf(start_ns: int, **more: Any) -> dict[str, Any]:
    return {
        "metadata": {
            "request_start_ns": start_ns,
            "request_end_ns": start_ns + S,
            "benchmark_phase": "profiling",
        },
        "metrics": {
            "input_sequence_length": {"value": 550, "unit": "tokens"},
            "output_sequence_length": {"value": 9, "unit": "tokens"},
            "time_to_first_token": {"value": 250, "unit": "ms"},
            "request_latency": {"value": 0.65, "unit": "sec"},
        },
        "error": None,
    } | more


def test_records_of_aiperf_carry_their_units_and_their_load_stands_beside_them(tmp_path: Path) -> None:
    begin = 1_759_813_207_532_900_363
    warm_up = aiperf(begin - S, metadata={"request_start_ns": begin - S, "benchmark_phase": "warmup"})
    failed = aiperf(begin + 5 * S, error={"code": 499})
    path = write(tmp_path, "profile_export.jsonl", warm_up, aiperf(begin + S), aiperf(begin), failed)
    requests = read(path)
    assert columns(requests) == [[0, S], [550, 550], [9, 9]]
    assert requests.notes == ("workload.path: 1 of 3 requests failed in the benchmark and are left out",)
    assert latencies(read_measured(path)) == {"ttft": [0.25] * 2, "tpot": [0.05] * 2, "e2e": [0.65] * 2}
    write(tmp_path, "profile_export_aiperf.json", {"input_config": {"loadgen": {"concurrency": 7}}})
    assert read(path).concurrency == 7


def test_the_first_records_of_aiperf_are_read_too(tmp_path: Path) -> None:
    """The keys are those of examples/artifacts/run1 of its repository, and of the summary of release 0.10."""
    begin = 1_759_522_419_159_192_408
    records = [
        {
            "metadata": {"timestamp_ns": begin + start, "credit_phase": "profiling", "turn_index": 0},
            "metrics": {
                "input_sequence_length": {"value": 550, "unit": "tokens"},
                "ttft": {"value": 1680.5, "unit": "ms"},
                "request_latency": {"value": 7936.5, "unit": "ms"},
                "output_token_count": {"value": 61, "unit": "tokens"},
                "reasoning_token_count": {"value": 132, "unit": "tokens"},
                "output_sequence_length": {"value": 193, "unit": "tokens"},
            },
            "error": None,
        }
        for start in (0, S)
    ]
    cancelled = {"metadata": {"timestamp_ns": begin, "credit_phase": "profiling"}, "metrics": {}} | {
        "error": {"code": 499}
    }
    path = write(tmp_path, "profile_export.jsonl", cancelled, *records)
    assert columns(read(path)) == [[0, S], [550] * 2, [193] * 2]
    found = latencies(read_measured(path))
    assert (found["ttft"], found["e2e"]) == ([1.6805] * 2, [7.9365] * 2)
    warm_up = {"name": "warmup", "type": "concurrency", "concurrency": 2, "exclude_from_results": True}
    for sent, users in (
        ({"type": "concurrency", "concurrency": 16}, 16),
        ({"type": "poisson", "rate": 2, "concurrency": 64}, None),
        ({"type": "fixed_schedule"}, None),
    ):
        phases = [warm_up, {"name": "profiling"} | sent]
        write(tmp_path, "profile_export_aiperf.json", {"input_config": {"phases": phases}})
        assert read(path).concurrency == users


def test_a_log_that_looks_like_a_closed_loop_is_named(tmp_path: Path) -> None:
    path = write(
        tmp_path, "profile_export.jsonl", *[aiperf(number // 2 * 650_000_000) for number in range(12)]
    )
    (note,) = read(path).notes
    assert "workload.arrivals={process: closed_loop, concurrency: 2} replays them so" in note


@pytest.mark.parametrize("new", [True, False])
def test_the_log_of_inference_perf_has_the_times_of_tokens(new: bool, tmp_path: Path) -> None:
    info: dict[str, Any] = {"input_tokens": 50, "output_tokens": 3, "output_token_times": [10.5, 10.6, 10.7]}
    if new:
        answer = {"output_tokens": 3, "output_token_times": info["output_token_times"]}
        info = {"request_metrics": {"text": {"input_tokens": 50}}, "response_metrics": answer}
    log = [{"start_time": 10.0, "end_time": 10.7, "info": info, "error": None}]
    path = write(tmp_path, "per_request_lifecycle_metrics.json", log)
    assert columns(read(path)) == [[0], [50], [3]]
    assert latencies(read_measured(path)) == {"ttft": [0.5], "tpot": [0.1], "e2e": [0.7]}
    (tmp_path / "config.yaml").write_text(
        "load: {type: concurrent, stages: [{concurrency_level: 5}]}\ndata: {}\n"
    )
    assert read(path).concurrency == 5
    assert [found.name for found in find_descriptions([str(tmp_path)])] == [path.name]


def test_the_records_of_genai_perf_need_the_usage_of_the_server(tmp_path: Path) -> None:
    usage = '{"usage": {"prompt_tokens": 40, "completion_tokens": 3}}'
    text = 'data: {"choices": [{"delta": {"content": "a"}}]}\n\n'
    responses = [{"response": text}, {"response": f"{text}data: {usage}\n\n"}]
    request = {"timestamp": 5 * S, "response_timestamps": [6 * S, 8 * S], "response_outputs": responses}
    experiment = {"experiment": {"mode": "concurrency", "value": 4}, "requests": [request]}
    path = write(tmp_path, "profile_export.json", {"experiments": [experiment]})
    requests = read(path)
    assert (requests.concurrency, requests.input_tokens.tolist(), requests.output_tokens.tolist()) == (
        4,
        [40],
        [3],
    )
    assert latencies(read_measured(path)) == {"ttft": [1.0], "tpot": [1.0], "e2e": [3.0]}
    request["response_outputs"] = responses[:1]  # and two times
    path = write(tmp_path, "profile_export.json", {"experiments": [experiment]})
    assert "is not as the format genai_perf has it" in problem(path)


def test_responses_without_text_are_no_tokens_of_genai_perf(tmp_path: Path) -> None:
    """The stream of genai-perf's own tests: a role first, three texts, an empty end, and [DONE]."""

    def chunk(delta: dict[str, Any]) -> dict[str, str]:
        return {"response": "data: " + json.dumps({"choices": [{"index": 0, "delta": delta}]}) + "\n\n"}

    texts = [chunk({"content": text}) for text in ("dogs", "are", "cool")]
    outputs = [chunk({"role": "assistant"}), *texts, chunk({}), {"response": "data: [DONE]\n\n"}]
    asked = {"messages": [{"role": "user", "content": [{"type": "text", "text": "Tell me."}]}]}
    request = {
        "timestamp": S,
        "request_inputs": {"payload": json.dumps(asked)},
        "response_timestamps": [time * S for time in (3, 5, 8, 12, 13, 14)],
        "response_outputs": outputs,
    }
    experiment = {"experiment": {"mode": "request_rate", "value": 2.0}, "requests": [request]}
    path = write(tmp_path, "profile_export.json", {"experiments": [experiment]})
    assert "set workload.tokenizer, or workload.characters_per_token=4" in problem(path)
    requests = read(path, characters_per_token=4.0)
    assert columns(requests) == [[0], [2], [3]]
    counted = read_measured(path, texts_counted_by(["pipeline=llm", "workload.characters_per_token=4"]))
    assert latencies(counted) == {"ttft": [4.0], "tpot": [3.5], "e2e": [11.0]}
    assert "an approximation of 4 characters per token" in requests.notes[0]
    plain = [{"text_output": text} for text in ("dogs", "are", "")]
    request |= {"response_timestamps": [2 * S, 4 * S, 9 * S], "response_outputs": plain}
    usage = {"response": 'data: {"choices": [], "usage": {"prompt_tokens": 4, "completion_tokens": 2}}'}
    request["response_outputs"] = [*plain[:2], usage]
    path = write(tmp_path, "profile_export.json", {"experiments": [experiment]})
    assert latencies(read_measured(path)) == {"ttft": [1.0], "tpot": [2.0], "e2e": [3.0]}


@pytest.mark.parametrize(
    ("name", "document", "message"),
    [
        ("profile_export_genai_perf.json", {"time_to_first_token": {"unit": "ms", "avg": 3.0}}, "GenAI-Perf"),
        ("profile_export_aiperf.json", {"aiperf_version": "0.10.0", "request_latency": {"avg": 1}}, "AIPerf"),
        ("stage_0_lifecycle_metrics.json", {"load_summary": {}, "successes": {"count": 3}}, "inference-perf"),
    ],
)
def test_a_summary_says_which_file_beside_it_has_the_requests(
    name: str, document: dict[str, Any], message: str, tmp_path: Path
) -> None:
    found = problem(write(tmp_path, name, document))
    assert found.startswith(f"{name}: is a summary of {message}")
    assert "profile_export.json" in found or "per_request_lifecycle_metrics.json" in found


def test_a_flat_workload_of_llmservingsim_is_replayed_as_it_is() -> None:
    requests = read(CASES / "llmservingsim.jsonl")
    assert requests.arrival_ns[:3].tolist() == [0, S // 4, S // 2]
    assert (requests.input_tokens[0], requests.output_tokens[0]) == (399, 234)
    assert requests.prefixes is None
    assert "input_tok_ids of 20 requests are not as many as their input_toks" in requests.notes[0]


def test_token_ids_of_llmservingsim_become_blocks_that_are_found_again(tmp_path: Path) -> None:
    def line(at: int, ids: list[int]) -> dict[str, Any]:
        return {"input_toks": len(ids), "output_toks": 2, "arrival_time_ns": at, "input_tok_ids": ids}

    path = write(tmp_path, "w.jsonl", line(0, list(range(40))), line(9, [*range(16), *range(50, 90)]))
    prefixes = read(path).prefixes
    assert isinstance(prefixes, Prefixes)
    assert prefixes.block_tokens == 16
    assert prefixes.offsets.tolist() == [0, 2, 5]
    assert prefixes.ids.tolist() == [0, 1, 0, 2, 3]


def test_keys_of_llmservingsim_that_are_not_read_are_named(tmp_path: Path) -> None:
    line = {"input_toks": 9, "output_toks": 2, "arrival_time_ns": 0, "failover_mode": "cold"}
    (note,) = read(write(tmp_path, "w.jsonl", line, line | {"reuse_prefix_toks": 8})).notes
    assert note == "workload.path: failover_mode, reuse_prefix_toks of the requests is not used"


def test_a_call_of_an_agent_follows_the_call_before_it_and_its_tool() -> None:
    overrides = ["pipeline=llm", "workload=trace", f"workload.path={CASES}/llmservingsim_agentic.jsonl"]
    table = hf.simulate(hf.compile(hf.compose(overrides))).requests
    assert table["input_tokens"].to_list() == [1400, 1580]
    assert table["session"].to_list() == [0, 0]
    assert table["arrival_s"][0] == 0.004
    assert table["arrival_s"][1] == pytest.approx(table["finish_s"][0] + 0.12, abs=1e-9)


def test_the_results_of_llmservingsim_are_measured_requests(tmp_path: Path) -> None:
    head = "instance id,request id,model,input,output,arrival,end_time,latency,queuing_delay,TTFT,TPOT,ITL\n"
    row = '0,0,m,1472,3,4000000,304000000,300000000,0,100000000,100000000,"[100000000, 100000000]"\n'
    (tmp_path / "run.csv").write_text(head + row)
    assert columns(read(tmp_path / "run.csv")) == [[4_000_000], [1472], [3]]
    assert latencies(read_measured(tmp_path / "run.csv")) == {"ttft": [0.1], "tpot": [0.1], "e2e": [0.3]}


def test_conversations_need_a_tokenizer_or_a_stated_approximation() -> None:
    path = CASES / "sharegpt.json"
    assert problem(path).startswith("workload.tokenizer: null, and ")
    assert "workload.characters_per_token=4 as an approximation" in problem(path)
    requests = read(path, characters_per_token=4.0, arrivals="constant", rate_per_s=1.0)
    assert requests.input_tokens.tolist() == [7] * 3  # 25 characters
    assert requests.output_tokens.tolist() == [9] * 3  # 33 characters
    assert "an approximation of 4 characters per token" in requests.notes[0]
    assert "set workload.arrivals" in problem(path, characters_per_token=4.0)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("x.json", "{", "x.json:1: is not JSON: "),
        ("x.json", "[" * 100_000, "x.json: is nested too deeply"),
        (
            "x.json",
            "{}",
            "x.json: is a JSON document of no known format; expected one of: aiperf, genai_perf",
        ),
        (
            "x.json",
            '{"benchmarks": [{"requests": {"successful": []}}]}',
            "x.json: has no requests that completed",
        ),
        ("x.json", '{"benchmarks": [{"requests": 5}]}', "x.json: is not as the format guidellm has it: "),
        (
            "x.json",
            '{"experiments": [{"requests": [1]}]}',
            "x.json: is not as the format genai_perf has it: ",
        ),
        ("x.jsonl", '{"input_toks": 5, "output_toks": 1}', "x.jsonl:1: arrival_time_ns is missing"),
        (
            "x.jsonl",
            '{"input_toks": 0, "output_toks": 1, "arrival_time_ns": 0}',
            "x.jsonl:1: input_toks is 0",
        ),
        (
            "x.jsonl",
            '{"arrival_time_ns": 0, "sub_requests": []}',
            "x.jsonl:1: sub_requests is no list of requests",
        ),
    ],
)
def test_broken_records_are_refused_by_file_and_line(
    name: str, text: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(text)
    assert problem(tmp_path / name).startswith(message)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"ttfts": [math.nan, 0.2]},
            "is not as the format vllm_bench has it: a number is nan; expected a finite",
        ),
        (
            {"itls": [[0.1], [math.inf]]},
            "is not as the format vllm_bench has it: a number is inf; expected a finite",
        ),
        (
            {"itls": [[-1], [0.1]]},
            "is not as the format vllm_bench has it: an entry of itls is -1; expected seconds",
        ),
        (
            {"request_rate": -1},
            "is not as the format vllm_bench has it: the request rate is -1; expected a number",
        ),
        ({"request_rate": 2, "burstiness": 0}, "is not as the format vllm_bench has it: the burstiness is 0"),
        ({"max_concurrency": -2}, "is not as the format vllm_bench has it: the number of users is -2"),
        ({"input_lens": [3, 10**30]}, "request 2 has 1e+30 tokens; expected at most 1e+12"),
        ({"duration": 0.1}, "a request took 0.3 s by ttfts and itls, and the whole run 0.1 s by duration"),
        ({"ttfts": [0.1, 1e12]}, "request 2 has a time of more than 292 years"),
        ({"ttfts": [0.1, -1]}, "request 2 has its first token -1 s, and its end -0.9 s after its arrival"),
    ],
)
def test_measured_times_that_cannot_be_are_refused(
    change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    lists = {"input_lens": [3, 4], "output_lens": [2, 2], "ttfts": [0.1, 0.2], "itls": [[0.1], [0.1]]}
    sent = {"request_rate": "inf", "mean_ttft_ms": math.nan}  # figures that tools write, and nobody reads
    assert len(read(write(tmp_path, "sound.json", lists | sent))) == 2
    assert problem(write(tmp_path, "x.json", lists | change)).startswith(f"x.json: {message}")


def test_a_format_of_records_can_be_named() -> None:
    assert len(read(CASES / "vllm_bench.json", format="vllm_bench")) == 20
    assert problem(CASES / "vllm_bench.json", format="guidellm").startswith(
        "vllm_bench.json: is not of the format"
    )
    assert problem(CASES / "vllm_bench.json", format="vllm_bensh") == (
        "vllm_bench.json: unknown kind of file; expected .csv, .tsv or .jsonl, also with .gz, .parquet or .arrow"
    )


def test_every_format_of_records_has_a_row_on_the_page() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "workloads.md").read_text()
    for name in record_formats.names:
        assert f"\n| `{name}` |" in page, name
