from __future__ import annotations

import datetime
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hermes_flow as hf
import hermes_flow.workload.traces as traces_package
from hermes_flow.config.schema import TraceWorkload
from hermes_flow.program.requests import Requests
from hermes_flow.workload.build import build_requests
from hermes_flow.workload.traces import trace_formats

Rows = list[dict[str, Any]]


def write_csv(path: Path, rows: Rows) -> Path:
    import polars as pl

    cells = [
        {name: json.dumps(cell) if isinstance(cell, list) else cell for name, cell in row.items()}
        for row in rows
    ]
    pl.DataFrame(cells).write_csv(path.with_suffix(".csv"))
    return path.with_suffix(".csv")


def write_csv_gz(path: Path, rows: Rows) -> Path:
    target = path.with_suffix(".csv.gz")
    target.write_bytes(gzip.compress(write_csv(path, rows).read_bytes()))
    return target


def write_jsonl(path: Path, rows: Rows) -> Path:
    path.with_suffix(".jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path.with_suffix(".jsonl")


def write_jsonl_gz(path: Path, rows: Rows) -> Path:
    target = path.with_suffix(".jsonl.gz")
    target.write_bytes(gzip.compress(write_jsonl(path, rows).read_bytes()))
    return target


def write_parquet(path: Path, rows: Rows) -> Path:
    import polars as pl

    pl.DataFrame(rows).write_parquet(path.with_suffix(".parquet"))
    return path.with_suffix(".parquet")


KINDS = [write_csv, write_csv_gz, write_jsonl, write_jsonl_gz, write_parquet]
every_kind = pytest.mark.parametrize("write", KINDS, ids=lambda write: write.__name__[6:])
Write = Callable[[Path, Rows], Path]


def read(path: Path | str, **keys: Any) -> Requests:
    return build_requests(TraceWorkload(kind="trace", name="test", path=str(path), **keys), 0)


def columns(requests: Requests) -> list[list[int]]:
    return [requests.arrival_ns.tolist(), requests.input_tokens.tolist(), requests.output_tokens.tolist()]


def table(text: str) -> str:
    """A CSV written with blanks for the eye."""
    return "\n".join(line.strip() for line in text.strip().splitlines()) + "\n"


NATIVE: Rows = [
    {
        "arrival_us": 7,
        "input_tokens": 100,
        "output_tokens": 1,
        "session": "b",
        "priority": 2,
        "prefix_hashes": [1],
    },
    {
        "arrival_us": 12,
        "input_tokens": 1,
        "output_tokens": 9,
        "session": "a",
        "priority": -1,
        "prefix_hashes": [],
    },
    {
        "arrival_us": 9,
        "input_tokens": 20,
        "output_tokens": 5,
        "session": "b",
        "priority": 0,
        "prefix_hashes": [2, 3],
    },
]


@every_kind
def test_native_is_read_alike_from_every_kind_of_file(write: Write, tmp_path: Path) -> None:
    requests = read(write(tmp_path / "trace", NATIVE))
    assert columns(requests) == [[7_000, 9_000, 12_000], [100, 20, 1], [1, 5, 9]]
    assert requests.session is not None
    assert requests.priority is not None
    assert requests.session.tolist() == [0, 0, 1]
    assert requests.priority.tolist() == [2, 0, -1]
    assert {column.dtype for column in (requests.arrival_ns, requests.session)} == {np.dtype(np.int64)}


@every_kind
def test_mooncake_milliseconds_are_exact_in_every_kind_of_file(write: Write, tmp_path: Path) -> None:
    rows: Rows = [
        {"timestamp": 0, "input_length": 6758, "output_length": 500, "hash_ids": [0, 1]},
        {"timestamp": 3536999, "input_length": 891, "output_length": 1, "hash_ids": [0, 2]},
    ]
    requests = read(write(tmp_path / "trace", rows))
    assert columns(requests) == [[0, 3_536_999_000_000], [6758, 891], [500, 1]]


@every_kind
def test_azure_dates_count_from_the_earliest_in_every_kind_of_file(write: Write, tmp_path: Path) -> None:
    rows: Rows = [
        {"TIMESTAMP": "2023-11-16 23:59:59.9999999", "ContextTokens": 374, "GeneratedTokens": 44},
        {"TIMESTAMP": "2023-11-17 00:00:04.3145790", "ContextTokens": 396, "GeneratedTokens": 109},
        {"TIMESTAMP": "2023-11-16 23:59:59.0000000", "ContextTokens": 5, "GeneratedTokens": 6},
    ]
    requests = read(write(tmp_path / "trace", rows))
    assert columns(requests) == [[0, 999_999_900, 5_314_579_000], [5, 374, 396], [6, 44, 109]]


def test_azure_dates_of_2024_have_offsets_and_sometimes_no_fraction(tmp_path: Path) -> None:
    path = tmp_path / "azure.csv"
    path.write_text(
        table("""
            TIMESTAMP,ContextTokens,GeneratedTokens
            2024-05-10 00:00:00.009930+00:00,2162,5
            2024-05-10 00:00:01+00:00,2399,6
            2024-05-10T02:00:02.5+02:00,76,15
            2024-05-10T00:00:03Z,77,16
            """)
    )
    assert columns(read(path))[0] == [0, 990_070_000, 2_490_070_000, 2_990_070_000]


def test_azure_dates_may_be_parquet_datetimes(tmp_path: Path) -> None:
    start = datetime.datetime(2023, 11, 16, 18, 15, 46, 680590)
    rows: Rows = [
        {"TIMESTAMP": start + datetime.timedelta(microseconds=step), "ContextTokens": 1, "GeneratedTokens": 2}
        for step in (0, 17)
    ]
    assert columns(read(write_parquet(tmp_path / "trace", rows)))[0] == [0, 17_000]


BURSTGPT_2 = """
    Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type
    5,ChatGPT,472,18,490,Conversation log
    45,ChatGPT,1087,230,1317,Conversation log
    118,GPT-4,417,276,693,API log
    """
BURSTGPT_3 = """
    Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type
    19440110.0,1722ac82,43,GPT-4,906,446,1352,Conversation log
    19440161.0,,2,ChatGPT,36,29,65,API log
    19440192.0,a5c6,9,ChatGPT,50,7,57,Conversation log
    19440193.0,1722ac82,9,ChatGPT,51,8,59,Conversation log
    """


def test_burstgpt_has_whole_seconds_from_its_first_day(tmp_path: Path) -> None:
    (tmp_path / "burst.csv").write_text(table(BURSTGPT_2))
    requests = read(tmp_path / "burst.csv")
    assert columns(requests) == [
        [5_000_000_000, 45_000_000_000, 118_000_000_000],
        [472, 1087, 417],
        [18, 230, 276],
    ]
    assert requests.session is None


def test_burstgpt_sessions_are_numbered_and_api_calls_have_none(tmp_path: Path) -> None:
    (tmp_path / "burst.csv").write_text(table(BURSTGPT_3))
    requests = read(tmp_path / "burst.csv")
    assert requests.arrival_ns[0] == 19_440_110_000_000_000
    assert requests.session is not None
    assert requests.session.tolist() == [0, -1, 1, 0]


def test_vidur_seconds_are_rounded_to_the_nearest_nanosecond_and_not_through_floats(tmp_path: Path) -> None:
    (tmp_path / "vidur.csv").write_text(
        table("""
            arrived_at,num_prefill_tokens,num_decode_tokens
            0.0,374,44
            1e-05,1,2
            11.836632999999999,369,74
            9007199254.740993001,7,8
            """)
    )
    requests = read(tmp_path / "vidur.csv")
    assert columns(requests) == [
        [0, 10_000, 11_836_633_000, 9_007_199_254_740_993_001],
        [374, 1, 369, 7],
        [44, 2, 74, 8],
    ]


@pytest.mark.parametrize(
    ("column", "cells", "expected_ns"),
    [
        ("arrival_s", ["0", "0.000000001", "1.5"], [0, 1, 1_500_000_000]),
        ("arrival_us", ["0", "0.001", "1500000"], [0, 1, 1_500_000_000]),
        ("arrival_ns", ["0", "1", "9000000000000000001"], [0, 1, 9_000_000_000_000_000_001]),
    ],
)
def test_native_arrivals_may_be_in_three_units(
    column: str, cells: list[str], expected_ns: list[int], tmp_path: Path
) -> None:
    lines = "".join(f"{cell},1,1\n" for cell in cells)
    (tmp_path / "native.csv").write_text(f"{column},input_tokens,output_tokens\n{lines}")
    assert columns(read(tmp_path / "native.csv"))[0] == expected_ns


def test_native_arrivals_are_not_shifted_to_zero(tmp_path: Path) -> None:
    (tmp_path / "native.csv").write_text("arrival_s,input_tokens,output_tokens\n100,1,1\n101,1,1\n")
    assert columns(read(tmp_path / "native.csv"))[0] == [100_000_000_000, 101_000_000_000]


def test_requests_that_arrive_at_once_keep_their_order(tmp_path: Path) -> None:
    cells = [(5, 1), (3, 2), (5, 3), (3, 4), (1, 5), (3, 6)]
    lines = "".join(f"{arrival},{tokens},1\n" for arrival, tokens in cells)
    (tmp_path / "native.csv").write_text(f"arrival_s,input_tokens,output_tokens\n{lines}")
    assert read(tmp_path / "native.csv").input_tokens.tolist() == [5, 2, 4, 6, 1, 3]


def test_whole_session_numbers_are_kept_and_a_missing_one_is_minus_one(tmp_path: Path) -> None:
    (tmp_path / "native.csv").write_text(
        "arrival_s,input_tokens,output_tokens,session,priority\n0,1,1,70,\n1,1,1,,3\n2,1,1,7,\n"
    )
    requests = read(tmp_path / "native.csv")
    assert requests.session is not None
    assert requests.priority is not None
    assert requests.session.tolist() == [70, -1, 7]
    assert requests.priority.tolist() == [0, 3, 0]


def test_optional_keys_of_json_lines_may_appear_late(tmp_path: Path) -> None:
    rows: Rows = [
        {"arrival_s": 0.5, "input_tokens": 1, "output_tokens": 1},
        {"arrival_s": 1, "input_tokens": 1, "output_tokens": 1, "session": "x"},
    ]
    requests = read(write_jsonl(tmp_path / "trace", rows))
    assert requests.session is not None
    assert requests.session.tolist() == [-1, 0]


def test_other_columns_are_ignored_and_cells_may_have_blanks_and_integral_decimals(tmp_path: Path) -> None:
    (tmp_path / "native.csv").write_text(
        "note,arrival_s,input_tokens,output_tokens,model\nhello, 1.50 , 12.0,3 ,llama\n"
    )
    assert columns(read(tmp_path / "native.csv")) == [[1_500_000_000], [12], [3]]


def test_a_byte_order_mark_and_windows_line_ends_are_no_matter(tmp_path: Path) -> None:
    text = "\ufeffarrival_s,input_tokens,output_tokens\r\n1,2,3\r\n"
    (tmp_path / "native.csv").write_bytes(text.encode())
    assert columns(read(tmp_path / "native.csv")) == [[1_000_000_000], [2], [3]]


@every_kind
def test_limit_takes_the_head_of_the_file_before_sorting(write: Write, tmp_path: Path) -> None:
    rows: Rows = [{"arrival_s": 9 - row, "input_tokens": row + 1, "output_tokens": 1} for row in range(9)]
    path = write(tmp_path / "trace", rows)
    assert read(path, limit=3).input_tokens.tolist() == [3, 2, 1]
    assert len(read(path, limit=1000)) == 9


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("trace.csv", "arrival_s,input_tokens,output_tokens\n1,1,1\n2,1,1\nx,1,1\n3,1,1,1,1\n\n"),
        ("trace.jsonl", '{"arrival_s": 1, "input_tokens": 1, "output_tokens": 1}\n' * 2 + "\nhello\n"),
    ],
)
def test_what_stands_beyond_the_limit_is_not_looked_at(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    assert len(read(tmp_path / name, limit=2)) == 2


def test_a_limit_counts_quoted_cells_over_several_lines_as_one_row(tmp_path: Path) -> None:
    (tmp_path / "trace.csv").write_text(
        'arrival_s,input_tokens,output_tokens,prefix_hashes\n0,17,1,"[1,\n2]"\n1,2,1,"[1]"\n2,3,1,"[1]"\n'
    )
    assert read(tmp_path / "trace.csv", limit=2).input_tokens.tolist() == [17, 2]


def test_rate_scale_divides_the_times(tmp_path: Path) -> None:
    (tmp_path / "native.csv").write_text(
        "arrival_us,input_tokens,output_tokens\n1,1,1\n10,1,1\n2000000,1,1\n"
    )
    assert columns(read(tmp_path / "native.csv", rate_scale=3.0))[0] == [333, 3333, 666_666_667]
    assert columns(read(tmp_path / "native.csv", rate_scale=0.5))[0] == [2_000, 20_000, 4_000_000_000]


def test_a_format_can_be_chosen_by_name_where_several_fit(tmp_path: Path) -> None:
    (tmp_path / "both.csv").write_text(
        "arrival_s,input_tokens,output_tokens,arrived_at,num_prefill_tokens,num_decode_tokens\n1,2,3,4,5,6\n"
    )
    assert columns(read(tmp_path / "both.csv", format="native")) == [[1_000_000_000], [2], [3]]
    assert columns(read(tmp_path / "both.csv", format="vidur")) == [[4_000_000_000], [5], [6]]


def test_home_and_the_working_directory_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "native.csv").write_text("arrival_s,input_tokens,output_tokens\n1,2,3\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert len(read("~/native.csv")) == 1
    monkeypatch.chdir(tmp_path)
    assert len(read("native.csv")) == 1


def test_a_file_name_is_never_a_pattern(tmp_path: Path) -> None:
    one = '{"arrival_s": 1, "input_tokens": 1, "output_tokens": 1}\n'
    (tmp_path / "w[1]*.jsonl").write_text(one)
    (tmp_path / "w1.jsonl").write_text(one * 2)
    assert len(read(tmp_path / "w[1]*.jsonl")) == 1


def test_a_trace_does_not_depend_on_the_seed(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "trace", NATIVE)
    workload = TraceWorkload(kind="trace", name="test", path=str(path))
    assert columns(build_requests(workload, 1)) == columns(build_requests(workload, 2))


def test_every_format_module_registers_the_format_of_its_name() -> None:
    folder = Path(traces_package.__file__).parent
    support = {"__init__", "cells", "files", "format", "stage_lists", "typed_files"}
    assert {module.stem for module in folder.glob("*.py")} - support == set(trace_formats.names)


def test_a_byte_order_mark_before_json_lines_is_no_part_of_them(tmp_path: Path) -> None:
    rows = [(0, 5), (1, 6)]
    lines = "".join(
        f'{{"arrival_s": {at}, "input_tokens": {size}, "output_tokens": 3}}\n' for at, size in rows
    )
    columns = []
    for name, mark in (("plain.jsonl", b""), ("marked.jsonl", b"\xef\xbb\xbf")):
        (tmp_path / name).write_bytes(mark + lines.encode())
        for limit in ("null", "1"):
            config = hf.compose(
                ["workload=trace", f"workload.path={tmp_path / name}", f"workload.limit={limit}"]
            )
            requests = build_requests(config.workload, 0)
            columns.append((requests.input_tokens.tolist(), requests.arrival_ns.tolist()))
    assert columns[:2] == columns[2:] == [([5, 6], [0, 10**9]), ([5], [0])]


def written_as(name: str, path: Path) -> Path:
    import polars as pl

    table = pl.DataFrame({"arrival_s": [0.5, 1.5], "input_tokens": [100, 200], "output_tokens": [10, 20]})
    separators = {"t.csv": ";", "t.tsv": "\t", "bars.csv": "|"}
    if name in separators:
        table.write_csv(path / name, separator=separators[name])
    else:
        table.write_ipc(path / name)
    return path / name


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "bars.csv", "t.arrow", "t.feather"])
def test_other_separators_and_arrow_files_are_read_as_csv_is(name: str, tmp_path: Path) -> None:
    config = hf.compose(["workload=trace", f"workload.path={written_as(name, tmp_path)}"])
    requests = hf.simulate(hf.compile(config)).requests
    assert requests["input_tokens"].to_list() == [100, 200]
    assert requests["output_tokens"].to_list() == [10, 20]
