"""Traces as people bring them: what is certain is read, and what could mean several things is an error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import hermes_flow as hf
from hermes_flow.config.schema import TraceWorkload
from hermes_flow.errors import HermesFlowError
from hermes_flow.program.prefixes import Prefixes
from hermes_flow.program.requests import Requests
from hermes_flow.workload.build import build_requests

CASES = Path(__file__).parent / "cases"
MS, S = 10**6, 10**9


def read(path: Path, **keys: Any) -> Requests:
    return build_requests(TraceWorkload(kind="trace", name="test", path=str(path), **keys), 0)


def problem(path: Path, **keys: Any) -> str:
    with pytest.raises(HermesFlowError) as caught:
        read(path, **keys)
    return str(caught.value).replace(f"{path.parent}/", "")


def write(folder: Path, text: str, name: str = "t.jsonl") -> Path:
    (folder / name).write_text(text)
    return folder / name


def run(*overrides: str) -> hf.Result:
    return hf.simulate(hf.compile(hf.compose(["pipeline=llm", "workload=trace", *overrides])))


def test_a_qwen_bailian_trace_has_seconds_blocks_of_16_tokens_and_chats_as_sessions() -> None:
    requests = read(CASES / "qwen_bailian_blksz_16.jsonl")
    assert len(requests) == 60
    assert requests.arrival_ns[-1] == 54_852_000_000
    assert isinstance(requests.prefixes, Prefixes)
    assert requests.prefixes.block_tokens == 16
    assert requests.session is not None
    assert requests.session[:4].tolist() == [0, 1, 0, 1]  # chat 2 goes on from chat 0, chat 3 from chat 1
    assert requests.notes == ()


def test_a_prefix_cache_finds_the_blocks_of_a_qwen_bailian_trace() -> None:
    result = run(
        f"workload.path={CASES}/qwen_bailian_blksz_16.jsonl",
        "cluster.pools.llm.prefix_cache=true",
        "hardware=h200_sxm",
    )
    assert result.requests["input_tokens"].sum() == 45_522
    assert result.requests["cached_tokens"].sum() == 23_520


def test_more_ids_than_blocks_are_an_error_with_line_and_both_numbers() -> None:
    path = CASES / "mooncake_more_ids_than_tokens.jsonl"
    assert problem(path) == (
        "mooncake_more_ids_than_tokens.jsonl:1: hash_ids has 8 ids for 1,000 input tokens, which are at most 2 "
        "blocks of 512 tokens; every row would fit workload.prefix_block_tokens=128; set it"
    )
    prefixes = read(path, prefix_block_tokens=128).prefixes
    assert prefixes is not None
    assert prefixes.block_tokens == 128


def test_fewer_ids_than_blocks_are_an_error_where_another_size_fits_every_row(tmp_path: Path) -> None:
    rows = '{"timestamp": 0, "input_length": 4096, "output_length": 1, "hash_ids": [0, 1]}\n'
    rows += '{"timestamp": 900, "input_length": 6000, "output_length": 1, "hash_ids": [0, 1, 2]}\n'
    path = write(tmp_path, rows)
    assert problem(path) == (
        "t.jsonl:1: hash_ids has 2 ids for 4,096 input tokens: either they name only the beginning of the prompt, in "
        "blocks of 512 tokens (workload.prefix_block_tokens=512), or all of it; every row would fit "
        "workload.prefix_block_tokens=2048; set it"
    )
    assert len(read(path, prefix_block_tokens=512)) == 2


def test_a_turn_with_a_delay_arrives_that_long_after_the_answer_before_it() -> None:
    result = run(f"workload.path={CASES}/dynamo_mooncake_sessions.jsonl", "cluster.pools.llm.block_size=16")
    table = result.requests.sort("session", "request")
    assert table["session"].to_list() == [0, 0, 1, 1]
    arrival, finish = table["arrival_s"].to_numpy(), table["finish_s"].to_numpy()
    assert arrival[0] == 0
    assert arrival[1] == pytest.approx(finish[0] + 2.0, abs=1e-9)
    assert arrival[2] == 0.5
    assert arrival[3] == pytest.approx(finish[2] + 0.1, abs=1e-9)


def test_an_answer_is_not_found_again_where_a_trace_names_only_prompts() -> None:
    cached = run(
        f"workload.path={CASES}/dynamo_mooncake_sessions.jsonl",
        "cluster.pools.llm.block_size=16",
        "cluster.pools.llm.prefix_cache=true",
    ).requests.sort("session", "request")["cached_tokens"]
    # The blocks 0 and 1 are 1,024 tokens; the prompt before has 1,000, of which 62 blocks of 16 are full.
    assert cached.to_list() == [0, 992, 0, 592]


def test_sessions_with_timestamps_are_in_the_table_and_arrive_as_recorded() -> None:
    requests = read(CASES / "dynamo_mooncake_session_ids.jsonl")
    assert requests.arrival_ns.tolist() == [0, 3 * S]
    assert requests.previous is None
    assert requests.session is not None
    assert requests.session.tolist() == [0, 0]


def test_rows_without_arrivals_say_what_they_need() -> None:
    assert problem(CASES / "mooncake_no_timestamp.jsonl") == (
        "mooncake_no_timestamp.jsonl:1: no arrival times (the file has input_length, output_length, hash_ids); map "
        "them with workload.columns={arrival_s: NAME}, or set workload.arrivals, as in workload.arrivals={process: "
        "closed_loop, concurrency: 8} or workload.arrivals=poisson workload.rate_per_s=2"
    )


def test_rows_without_arrivals_are_replayed_by_a_number_of_users() -> None:
    path = f"workload.path={CASES}/mooncake_no_timestamp.jsonl"
    result = run(
        path, "workload.arrivals={process: closed_loop, concurrency: 2}", "cluster.pools.llm.block_size=16"
    )
    table = result.requests
    assert table["input_tokens"].to_list() == [512, 1024, 1536, 2048, 2560]
    arrivals, finishes = table["arrival_s"].to_list(), sorted(table["finish_s"].to_list())
    assert arrivals[:2] == [0, 0]
    assert arrivals[2:] == finishes[:3]  # each replaces one that has finished


def test_lengths_of_a_file_can_arrive_by_a_process(tmp_path: Path) -> None:
    path = write(tmp_path, "arrival_s,input_tokens,output_tokens\n" + "5,3,4\n" * 300, "t.csv")
    requests = read(path, arrivals="constant", rate_per_s=4.0, rate_scale=2.0)
    assert np.array_equal(requests.arrival_ns, (np.arange(300) + 1) * 125 * MS)
    assert set(requests.input_tokens.tolist()) == {3}
    few = read(
        path,
        arrivals={
            "process": "stages",
            "stages": [{"rate_per_s": 10, "duration_s": 1, "process": "constant"}],
        },
    )
    assert len(few) == 10


@pytest.mark.parametrize("columns", [{"arrival_s": "arrival_time"}, {"arrival": "arrival_time"}])
def test_the_names_of_an_openai_usage_log_are_mapped(columns: dict[str, str]) -> None:
    more = {"input_tokens": "prompt_tokens", "output_tokens": "completion_tokens"}
    requests = read(CASES / "openai_usage_names.csv", columns=columns | more)
    assert (requests.input_tokens.tolist(), requests.output_tokens.tolist()) == ([100], [10])


@pytest.mark.parametrize(
    ("name", "cells", "unit", "expected"),
    [
        ("ts_ms", ["1500", "2750"], None, [1500 * MS, 2750 * MS]),
        ("arrival_unix_ms", ["1728432000000", "1728432000250"], None, [0, 250 * MS]),
        ("when", ["1728432000", "1728432001"], None, [0, 1 * S]),
        ("when", ["2", "7"], "us", [2000, 7000]),
        ("when", ["2024-10-09 00:00:00.5", "2024-10-09 00:00:01"], None, [0, S // 2]),
    ],
)
def test_the_unit_of_mapped_arrivals_comes_from_name_key_or_date(
    name: str, cells: list[str], unit: str | None, expected: list[int], tmp_path: Path
) -> None:
    path = write(tmp_path, f"{name},p,c\n" + "".join(f"{cell},1,1\n" for cell in cells), "t.csv")
    columns = {"arrival": name, "input_tokens": "p", "output_tokens": "c"}
    assert read(path, columns=columns, time_unit=unit).arrival_ns.tolist() == expected


def test_mapped_arrivals_without_a_unit_name_both_readings(tmp_path: Path) -> None:
    path = write(tmp_path, "ts,p,c\n0,1,1\n400,1,1\n", "t.csv")
    columns = {"arrival": "ts", "input_tokens": "p", "output_tokens": "c"}
    assert problem(path, columns=columns) == (
        "t.csv:1: ts may be in seconds (a request every 400 s) or milliseconds (2.5 requests per second); set "
        "workload.time_unit=s or workload.time_unit=ms"
    )


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"arival": "ts"}, "workload.columns.arival: unknown column; did you mean 'arrival'?"),
        (
            {"input_tokens": "prom"},
            "workload.columns.input_tokens: t.csv has no column 'prom'; did you mean 'prompt'?",
        ),
        (
            {"arrival_s": "ts_ms"},
            "workload.columns.arrival_s: ts_ms: its name says ms, and arrival_s is in s",
        ),
        (
            {"arrival_s": "ts_ms", "arrival": "ts_ms"},
            "workload.columns.arrival_s: ts_ms: its name says ms, and arrival_s is in s",
        ),
    ],
)
def test_a_wrong_mapping_is_refused_by_its_key(columns: dict[str, str], message: str, tmp_path: Path) -> None:
    path = write(tmp_path, "ts_ms,prompt,c\n0,1,1\n", "t.csv")
    assert problem(path, columns=columns) == message


def test_a_replay_of_guidellm_in_seconds_is_not_read_in_milliseconds(tmp_path: Path) -> None:
    rows = "".join(
        f'{{"timestamp": {at}, "input_length": 9, "output_length": 2}}\n' for at in (0.0, 0.5, 1.25)
    )
    requests = read(write(tmp_path, rows))
    assert requests.arrival_ns.tolist() == [0, S // 2, 1_250 * MS]
    assert "workload.time_unit=ms" in requests.notes[0]
    assert read(tmp_path / "t.jsonl", format="guidellm_replay").notes == ()
    assert read(tmp_path / "t.jsonl", time_unit="ms").arrival_ns.tolist() == [0, MS // 2, 1_250_000]


def test_whole_times_that_are_as_good_in_seconds_as_in_milliseconds_are_an_error(tmp_path: Path) -> None:
    rows = "".join(f'{{"timestamp": {at}, "input_length": 9, "output_length": 2}}\n' for at in (0, 3, 5, 9))
    assert problem(write(tmp_path, rows)) == (
        "t.jsonl:1: timestamp may be in milliseconds (333 requests per second) or seconds (a request every 3 s); set "
        "workload.time_unit=ms or workload.time_unit=s"
    )


def test_documented_seconds_that_are_milliseconds_are_an_error(tmp_path: Path) -> None:
    rows = "arrived_at,num_prefill_tokens,num_decode_tokens\n" + "".join(
        f"{at},5,5\n" for at in range(0, 4000, 500)
    )
    assert "set workload.time_unit=s or workload.time_unit=ms" in problem(write(tmp_path, rows, "t.csv"))


def test_images_are_named_where_they_are_not_counted_and_counted_where_asked() -> None:
    requests = read(CASES / "azure_mm.csv")
    assert requests.input_tokens.tolist() == [1500, 350]
    assert requests.images is not None
    assert requests.images.tolist() == [1, 0]
    path = f"workload.path={CASES / 'azure_mm.csv'}"
    program = hf.compile(hf.compose(["pipeline=llm", "workload=trace", path]))
    assert program.warnings[0] == (
        "workload.path: its images (1 in all) add nothing to the prompts; workload.tokens_per_image=N adds N tokens "
        "for each, and pipeline=multimodal encodes them, too"
    )
    counted = read(CASES / "azure_mm.csv", tokens_per_image=576)
    assert counted.input_tokens.tolist() == [2076, 350]
    assert counted.notes == ()


@pytest.mark.parametrize("name", ["session_id", "Session ID", "numImages", "hash_ids", "Model", "slo_class"])
def test_a_column_that_carries_something_and_is_not_used_is_a_warning_by_name(
    name: str, tmp_path: Path
) -> None:
    path = write(tmp_path, f"arrival_s,input_tokens,output_tokens,{name},note\n0,1,1,1,x\n", "t.csv")
    result = run(f"workload.path={path}")
    assert [text for text in result.summary["warnings"] if repr(name) in text]
    assert not [text for text in result.summary["warnings"] if "note" in text]


def test_ids_of_a_fork_of_vidur_are_joined_and_their_block_size_is_found(tmp_path: Path) -> None:
    head = "arrived_at,num_prefill_tokens,num_decode_tokens,session_id,block_hash_ids\n"
    path = write(tmp_path, head + "0,100,5,7,1|2|3|4|5|6|7\n2.5,40,5,7,1|2|3\n", "t.csv")
    requests = read(path)
    assert isinstance(requests.prefixes, Prefixes)
    assert requests.prefixes.block_tokens == 16
    assert requests.prefixes.ids.tolist() == [1, 2, 3, 4, 5, 6, 7, 1, 2, 3]
    assert requests.session is not None
    assert requests.session.tolist() == [7, 7]
    path = write(tmp_path, head + "0,10,5,7,1\n", "t.csv")  # one block of any size
    assert "workload.prefix_block_tokens=16 or workload.prefix_block_tokens=32" in problem(path)


def test_a_splitwise_trace_has_prompt_and_token_sizes(tmp_path: Path) -> None:
    head = "request_id,request_type,application_id,arrival_timestamp,batch_size,prompt_size,token_size\n"
    requests = read(write(tmp_path, head + "0,2,0,0.25,1,374,44\n", "t.csv"))
    assert (requests.arrival_ns[0], requests.input_tokens[0], requests.output_tokens[0]) == (S // 4, 374, 44)
    head = "request_id,arrival_timestamp,batch_size,prompt_size,token_size\n"
    assert len(read(write(tmp_path, head + "0,0.5,1,374,44\n", "b.csv"))) == 1
    assert "batch_size is 8; expected 1, a row per request" in problem(
        write(tmp_path, head + "0,0.5,8,374,44\n", "b.csv")
    )


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            '{"session_id": "a", "delay": 5, "input_length": 1, "output_length": 1}',
            "the first row of its session",
        ),
        ('{"timestamp": 1, "delay": 5, "input_length": 1, "output_length": 1}', "has a delay but no session"),
        ('{"session_id": "a", "input_length": 1, "output_length": 1}', "no arrival and is the first row"),
    ],
)
def test_turns_that_follow_nothing_are_refused(rows: str, message: str, tmp_path: Path) -> None:
    first = '{"timestamp": 0, "input_length": 1, "output_length": 1, "session_id": "z"}\n'
    assert message in problem(write(tmp_path, first + rows + "\n"))
    assert problem(tmp_path / "t.jsonl").startswith("t.jsonl:2: ")


def test_turns_that_wait_for_answers_do_not_go_with_a_closed_loop() -> None:
    arrivals = {"process": "closed_loop", "concurrency": 2}
    assert problem(CASES / "dynamo_mooncake_sessions.jsonl", arrivals=arrivals).startswith(
        "workload.arrivals: a closed loop; the file has turns that wait"
    )


DAYS = [f"2024-05-{day:02}T{hour:02}:00:00.25Z" for day in (10, 11, 12) for hour in range(24)]


def azure(folder: Path) -> Path:
    lines = [f"{at},{number + 1},5" for number, at in enumerate(DAYS)]
    return write(folder, "\n".join(["TIMESTAMP,ContextTokens,GeneratedTokens", *lines]) + "\n", "azure.csv")


@pytest.mark.parametrize(
    ("start", "duration", "tokens", "first_ns"),
    [
        ("2024-05-11 00:00:00", 3600.0 * 3, [25, 26, 27], S // 4),
        ("2024-05-12", None, list(range(49, 73)), S // 4),
        ("2024-05-11 22:00", 3600.0, [47], S // 4),
        (3600.0 * 70, None, [71, 72], 0),
        (None, 7200.0, [1, 2], 0),
    ],
)
def test_a_window_is_read_by_date_or_by_seconds(
    start: float | str | None, duration: float | None, tokens: list[int], first_ns: int, tmp_path: Path
) -> None:
    requests = read(azure(tmp_path), start=start, duration=duration)
    assert requests.input_tokens.tolist() == tokens
    assert requests.arrival_ns[0] == first_ns


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_a_window_is_the_same_in_every_kind_of_file_and_errors_name_its_rows(
    kind: str, tmp_path: Path
) -> None:
    frame = pl.DataFrame(
        {
            "arrival_s": [float(at) for at in range(50)],
            "input_tokens": [5] * 40 + [0] + [5] * 9,
            "output_tokens": [1] * 50,
        }
    )
    path = tmp_path / f"t.{kind}"
    {"csv": frame.write_csv, "jsonl": frame.write_ndjson, "parquet": frame.write_parquet}[kind](path)
    assert read(path, start=10.0, duration=2.5).arrival_ns.tolist() == [0, S, 2 * S]
    assert read(path, start=10.0, limit=2).arrival_ns.tolist() == [0, S]
    place = {"csv": "t.csv:42: ", "jsonl": "t.jsonl:41: ", "parquet": "t.parquet: row 41 (counted from 1): "}[
        kind
    ]
    assert problem(path, start=38.0).startswith(f"{place}input_tokens is 0")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"start": 900.0},
            "no request arrives from 900.000 s to the end; the file has arrivals from 0.000 s to 255,600.000 s",
        ),
        ({"start": "soon"}, "workload.start: 'soon' is neither a number of seconds nor a date"),
        ({"start": -1.0}, "workload.start: -1 is"),
        ({"duration": 0.0}, "workload.duration: 0 is"),
        (
            {"start": 1.0, "arrivals": "poisson", "rate_per_s": 1.0},
            "workload.start: the arrivals of workload.arrivals",
        ),
    ],
)
def test_a_wrong_window_is_refused(keys: dict[str, Any], message: str, tmp_path: Path) -> None:
    keys = {"start": 900_000.0} if keys == {"start": 900.0} else keys
    assert message.replace("900.000 s to the", "900,000.000 s to the") in problem(azure(tmp_path), **keys)


def test_a_date_is_no_start_of_a_clock_of_seconds(tmp_path: Path) -> None:
    path = write(tmp_path, "arrival_s,input_tokens,output_tokens\n0,1,1\n", "t.csv")
    assert "and the times of the file are not" in problem(path, start="2024-05-12")


def test_native_hashes_may_name_the_beginning_of_prompts_and_that_is_said(tmp_path: Path) -> None:
    """Rows of 64 tokens with two ids: 32 tokens of a beginning in blocks of 16, or all in blocks of 32."""
    row = '{"arrival_s": %d, "input_tokens": 64, "output_tokens": 3, "prefix_hashes": [1, 2]}\n'
    path = tmp_path / "t.jsonl"
    path.write_text("".join(row % number for number in range(4)))
    program = hf.compile(hf.compose(["pipeline=llm", "workload=trace", f"workload.path={path}"]))
    assert program.requests.prefixes is not None
    assert program.requests.prefixes.block_tokens == 16
    (warning,) = program.warnings
    assert warning.startswith(
        "prefix_hashes has 2 ids for 64 input tokens: either they name only the beginning"
    )
    assert warning.endswith("set it; the first reading is taken")


def test_a_column_that_only_later_lines_have_is_named_where_it_is_not_used(tmp_path: Path) -> None:
    first = '{"timestamp": 0, "input_length": 9, "output_length": 5, "note": {"model": "inside"}}\n'
    second = '{"timestamp": 9000, "input_length": 9, "output_length": 5, "priority": 3}\n'
    path = write(tmp_path, first + second)
    (note,) = read(path).notes
    assert note.startswith("workload.path: the column 'priority' (priorities) is not used")
    assert read(path, limit=1).notes == ()
