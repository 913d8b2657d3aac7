from __future__ import annotations

import datetime
import gzip
import os
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hermes_flow.config.schema import TraceWorkload
from hermes_flow.errors import ConfigError, HermesFlowError, TraceError
from hermes_flow.workload.build import build_requests
from hermes_flow.workload.traces.files import open_trace

NATIVE = "arrival_s,input_tokens,output_tokens\n"
AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
BURST = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
MOONCAKE = '{"timestamp": 0, "input_length": 10, "output_length": 5, "hash_ids": [0, 1]}\n'


def problem(path: Path, **keys: Any) -> str:
    """The message of the error that reading ``path`` gives, without its folder."""
    workload = TraceWorkload(kind="trace", name="test", path=str(path), **keys)
    with pytest.raises(HermesFlowError) as caught:
        build_requests(workload, 0)
    return str(caught.value).replace(f"{path.parent}/", "")


TOKENS = "expected a whole number of tokens, at least 1"
KINDS = "expected .csv, .tsv or .jsonl, also with .gz, .parquet or .arrow"
SECONDS = "expected a time in seconds, 0 or more"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("t.csv", NATIVE + "1,5,6\n-1,7,8\n", f"t.csv:3: arrival_s is -1; {SECONDS}"),
        ("t.csv", NATIVE + "soon,5,6\n", f"t.csv:2: arrival_s is 'soon'; {SECONDS}"),
        ("t.csv", NATIVE + "nan,5,6\n", f"t.csv:2: arrival_s is nan; {SECONDS}"),
        (
            "t.csv",
            NATIVE + "1e12,5,6\n",
            f"t.csv:2: arrival_s is 1e12; {SECONDS} and at most 9,223,372,035",
        ),
        (
            "t.csv",
            NATIVE.replace("_s", "_ms") + "1e14,5,6\n",
            "t.csv:2: arrival_ms is 1e14; expected a time in milliseconds, 0 or more and at most "
            "9,223,372,036,853",
        ),
        ("t.csv", NATIVE + ",5,6\n", f"t.csv:2: arrival_s is missing; {SECONDS}"),
        ("t.csv", NATIVE + '" ",5,6\n', f"t.csv:2: arrival_s is missing; {SECONDS}"),
        ("t.csv", NATIVE + "1,many,6\n", f"t.csv:2: input_tokens is 'many'; {TOKENS}"),
        ("t.csv", NATIVE + "1,7.5,6\n", f"t.csv:2: input_tokens is 7.5; {TOKENS}"),
        ("t.csv", NATIVE + "1,-7,6\n", f"t.csv:2: input_tokens is -7; {TOKENS}"),
        ("t.csv", NATIVE + "1,0,6\n", f"t.csv:2: input_tokens is 0; {TOKENS}"),
        (
            "t.csv",
            NATIVE + f"1,{2**63 - 1},6\n",
            f"t.csv:2: input_tokens is {2**63 - 1}; {TOKENS} and at most {10**12:,}",
        ),
        ("t.csv", NATIVE + "1,1,1\n1,7,0\n", f"t.csv:3: output_tokens is 0; {TOKENS}"),
        ("t.csv", NATIVE + "1,1,1\n1,7\n", f"t.csv:3: output_tokens is missing; {TOKENS}"),
        ("t.csv", NATIVE + "1,1,1\n1,7,8,9\n", "t.csv:3: 4 fields; the header has 3"),
        ("t.csv", NATIVE[:-1] + ",note\n1,1,1,a,b\n", "t.csv:2: 5 fields; the header has 4"),
        (
            "t.csv",
            NATIVE + "1,1,1\n\n2,2,2\n",
            f"t.csv:3: the line is empty: arrival_s is missing; {SECONDS}",
        ),
        ("t.csv", "\n" + NATIVE + "1,1,1\n2,2,x\n", f"t.csv:4: output_tokens is 'x'; {TOKENS}"),
        ("t.csv", NATIVE + '1,1,1\n2,2,"2\n3,3,3\n', "t.csv:3: is not CSV: unexpected end of data"),
        ("t.csv", NATIVE, "t.csv: has no requests"),
        ("t.csv", "", "t.csv: is empty"),
        ("t.csv", "\n\n", "t.csv: is empty"),
        ("t.csv", "a,b,a\n1,2,3\n", "t.csv:1: has the column a twice"),
        (
            "t.csv",
            NATIVE[:-1] + ",priority\n1,1,1,high\n",
            "t.csv:2: priority is 'high'; expected a whole number",
        ),
        (
            "t.csv",
            NATIVE[:-1] + ",session\n1,1,1,-5\n",
            "t.csv:2: session is -5; expected a name, or a whole number of 0 or more",
        ),
        (
            "t.csv",
            NATIVE[:-1] + ',prefix_hashes\n1,17,1,"[1,\n2]"\n2,2,2,"[1, x]"\n',
            "t.csv:4: prefix_hashes is '[1, x]'; expected a list of block ids such as [0, 1, 2] or 0|1|2",
        ),
        (
            "t.csv",
            AZURE + "2023-11-16 18:15:46.6805900,1,1\n2024-02-30 00:00:00,1,1\n",
            "t.csv:3: TIMESTAMP is '2024-02-30 00:00:00'; expected a date and time such as "
            "2023-11-16 18:15:46.6805900",
        ),
        (
            "t.csv",
            BURST + "5,ChatGPT,472,18,490,API log\n7,ChatGPT,472,0,490,API log\n",
            f"t.csv:3: Response tokens is 0; {TOKENS} (in BurstGPT a failed request: use a "
            "BurstGPT_without_fails file, or take these lines out first, see docs/workloads.md)",
        ),
        ("t.csv", BURST + "5,ChatGPT,472,-3,0,API log\n", f"t.csv:2: Response tokens is -3; {TOKENS}"),
        (
            "t.jsonl",
            MOONCAKE + "\n" + '{"timestamp": -1, "input_length": 1, "output_length": 1}\n',
            "t.jsonl:3: timestamp is -1; expected a time in milliseconds, 0 or more",
        ),
        (
            "t.jsonl",
            MOONCAKE + '{"timestamp": 1, "input_length": 1}\n',
            f"t.jsonl:2: output_length is missing; {TOKENS}",
        ),
        (
            "t.jsonl",
            MOONCAKE + '{"timestamp": 1, "input_length": true, "output_length": 1}\n',
            f"t.jsonl:2: input_length is 'true'; {TOKENS}",
        ),
        (
            "t.jsonl",
            MOONCAKE + '{"timestamp": 1, "input_length": 1, "output_length": 1, "hash_ids": [1.5]}\n',
            "t.jsonl:2: hash_ids is '[1.5]'; expected a list of block ids such as [0, 1, 2] or 0|1|2",
        ),
        (
            "t.jsonl",
            MOONCAKE + '{"timestamp": 1, "input_length": 1 "output_length": 1}\n',
            "t.jsonl:2: is not JSON: Expecting ',' delimiter at column 36",
        ),
        ("t.jsonl", MOONCAKE + '{"timestamp": NaN}\n', "t.jsonl:2: is not JSON: NaN is not a number of JSON"),
        ("t.jsonl", "[1]\n", "t.jsonl:1: is not a JSON object: [1]"),
        ("t.jsonl", "\n\n", "t.jsonl: is empty"),
        ("t.csv.zst", "x", f"t.csv.zst: is compressed; unpack it with zstd -d; {KINDS}"),
        ("t.tar.xz", "x", f"t.tar.xz: is compressed; unpack it with xz -d; {KINDS}"),
        ("t.csv", NATIVE.replace(",", ";") + "1;2;3\n0,5;2;3\n", f"t.csv:3: arrival_s is '0,5'; {SECONDS}"),
        ("t.csv", NATIVE.replace(",", ";") + "1;2;3;4\n", "t.csv:2: 4 fields; the header has 3"),
        (
            "t.txt",
            "x",
            f"t.txt: unknown kind of file; {KINDS}",
        ),
    ],
)
def test_a_bad_file_is_refused_by_line(name: str, text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    assert problem(tmp_path / name) == message


def test_compressed_files_are_refused_by_line_too(tmp_path: Path) -> None:
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress((NATIVE + "1,1,1\n1,1,0\n").encode()))
    assert problem(tmp_path / "t.csv.gz") == f"t.csv.gz:3: output_tokens is 0; {TOKENS}"


@pytest.mark.parametrize("name", ["t.csv.gz", "t.jsonl.gz"])
def test_a_file_that_is_not_gzip_says_so(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"not compressed")
    assert problem(tmp_path / name).startswith(f"{name}: is not a whole gzip file: Not a gzipped file")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.csv.gz", NATIVE + "".join(f"{row},{row % 977 + 1},{row % 661 + 1}\n" for row in range(20_000))),
        (
            "t.jsonl.gz",
            "".join(
                f'{{"timestamp": {row}, "input_length": {row % 977 + 1}, "output_length": 1}}\n'
                for row in range(20_000)
            ),
        ),
    ],
)
def test_half_a_gzip_file_is_not_taken_for_a_short_trace(name: str, text: str, tmp_path: Path) -> None:
    whole = gzip.compress(text.encode())
    (tmp_path / name).write_bytes(whole[: len(whole) // 2])
    assert problem(tmp_path / name).startswith(f"{name}: is not a whole gzip file: Compressed file ended")


@pytest.mark.parametrize(("name", "first"), [("t.csv", NATIVE.encode()), ("t.jsonl", MOONCAKE.encode())])
def test_what_is_not_utf8_is_refused_by_line(name: str, first: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(first + b"\xff\n")
    assert problem(tmp_path / name) == f"{name}:2: is not UTF-8 text: invalid start byte"


def test_parquet_names_the_row_since_it_has_no_lines(tmp_path: Path) -> None:
    columns: dict[str, list[Any]] = {
        "arrival_s": [0.5, None],
        "input_tokens": [1, 2],
        "output_tokens": [1, 0],
    }
    path = tmp_path / "t.parquet"
    pl.DataFrame(columns).write_parquet(path)
    assert problem(path) == f"t.parquet: row 2 (counted from 1): arrival_s is missing; {SECONDS}"
    pl.DataFrame({**columns, "arrival_s": [0.5, 1.0]}).write_parquet(path)
    assert problem(path) == f"t.parquet: row 2 (counted from 1): output_tokens is 0; {TOKENS}"
    pl.DataFrame({**columns, "arrival_s": [0.5, 1.0]}).head(0).write_parquet(path)
    assert problem(path) == "t.parquet: has no requests"
    path.write_bytes(b"hello")
    assert problem(path).startswith("t.parquet: is not a Parquet file: ")


def test_columns_that_fit_no_format_are_listed_with_those_expected(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("time,in,out\n1,2,3\n")
    message = problem(tmp_path / "t.csv")
    assert message.startswith(
        "t.csv:1: the columns time, in, out fit no format; map them with workload.columns={arrival_s: NAME, "
        "input_tokens: NAME, output_tokens: NAME}, or expected azure: TIMESTAMP, "
    )
    assert (
        "native: arrival_s or arrival_ms or arrival_us or arrival_ns, input_tokens, output_tokens" in message
    )
    assert "vidur: arrived_at, num_prefill_tokens, num_decode_tokens" in message


def test_columns_that_fit_two_formats_need_a_choice(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(NATIVE[:-1] + ",timestamp,input_length,output_length\n1,2,3,4,5,6\n")
    assert problem(tmp_path / "t.csv").endswith(
        "fit several formats; choose one with workload.format=mooncake|native"
    )


def test_a_chosen_format_names_the_columns_that_are_not_there(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("TIMESTAMP,input_tokens\n1,2\n")
    path = tmp_path / "t.csv"
    has = "the file has TIMESTAMP, input_tokens"
    assert problem(path, format="azure") == f"t.csv:1: no column ContextTokens, GeneratedTokens; {has}"
    assert problem(path, format="native") == (
        f"t.csv:1: no column arrival_s or arrival_ms or arrival_us or arrival_ns, output_tokens; {has}"
    )


def test_two_arrival_columns_leave_it_open_which_is_meant(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("arrival_s,arrival_us,input_tokens,output_tokens\n1,1000000,2,3\n")
    assert problem(tmp_path / "t.csv") == "t.csv:1: has arrival_s and arrival_us; expected one of them"


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"format": "azur"}, "workload.format: unknown trace format 'azur'; did you mean 'azure'?"),
        ({"format": "autom"}, "workload.format: unknown trace format 'autom'; did you mean 'auto'?"),
        ({"limit": 0}, "workload.limit: 0 is out of range; expected an integer from 1 to 2,147,483,648"),
        (
            {"rate_scale": 0.0},
            "workload.rate_scale: 0 is out of range; expected a number from 1e-6 to 1,000,000",
        ),
        ({"rate_scale": 1e-6}, "workload.rate_scale: 1e-06 spreads the arrivals over more than 292 years"),
    ],
)
def test_a_bad_key_is_refused_by_its_full_name(keys: dict[str, Any], message: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(NATIVE + "60000,1,1\n")
    workload = TraceWorkload(kind="trace", name="test", path=str(tmp_path / "t.csv"), **keys)
    with pytest.raises(ConfigError) as caught:
        build_requests(workload, 0)
    assert str(caught.value) == message


def test_a_missing_file_names_the_nearest_one(tmp_path: Path) -> None:
    (tmp_path / "azure_conversation.csv").write_text(AZURE)
    missing = tmp_path / "azure_conversations.csv"
    workload = TraceWorkload(kind="trace", name="test", path=str(missing))
    with pytest.raises(TraceError) as caught:
        build_requests(workload, 0)
    assert str(caught.value) == (
        f"{missing}: no such file in {tmp_path}; did you mean 'azure_conversation.csv'?"
    )


def test_a_relative_path_that_is_missing_says_where_it_was_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    workload = TraceWorkload(kind="trace", name="test", path="traces/mine.csv")
    with pytest.raises(TraceError) as caught:
        build_requests(workload, 0)
    assert str(caught.value) == f"traces/mine.csv: no such file, and no folder {tmp_path / 'traces'}"


def test_a_folder_is_no_trace(tmp_path: Path) -> None:
    (tmp_path / "traces").mkdir()
    assert problem(tmp_path / "traces").startswith("traces: is a folder; expected a file, .csv")


FAULTS = ["x,1,1", "1,x,1", "1,1,x", "-1,1,1", "1,0,1", "1,1,0", "1,1", "1,1,1,1", "nan,1,1", ",,", ""]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    fault=st.sampled_from(FAULTS),
    before=st.integers(0, 300),
    after=st.integers(1, 300),
    compress=st.booleans(),
)
def test_the_line_of_a_fault_is_found_wherever_it_stands(
    fault: str, before: int, after: int, compress: bool, tmp_path: Path
) -> None:
    text = NATIVE + "1.5,7,9\n" * before + fault + "\n" + "2.5,7,9\n" * after
    path = tmp_path / ("t.csv.gz" if compress else "t.csv")
    path.write_bytes(gzip.compress(text.encode()) if compress else text.encode())
    assert problem(path).startswith(f"{path.name}:{before + 2}: ")


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ([datetime.time(1), datetime.time(2)], f"arrival_s is '01:00:00'; {SECONDS}"),
        ([{"a": 1}, {"a": 2}], f"arrival_s is \"{{'a': 1}}\"; {SECONDS}"),
        (
            [datetime.timedelta(seconds=-1), datetime.timedelta(0)],
            f"arrival_s is '-1 day, 23:59:59'; {SECONDS}",
        ),
    ],
)
@pytest.mark.parametrize("keys", [{}, {"start": 0.0}])
def test_cells_of_odd_types_are_refused_by_row(
    cells: list[Any], message: str, keys: dict[str, Any], tmp_path: Path
) -> None:
    table = pl.DataFrame({"arrival_s": cells, "input_tokens": [1, 2], "output_tokens": [1, 2]})
    table.write_parquet(tmp_path / "t.parquet")
    found = problem(tmp_path / "t.parquet", **keys)
    assert found in (
        f"t.parquet: row 1 (counted from 1): {message}",
        "t.parquet: no row has a valid arrival_s",
    )


def test_spans_of_time_need_no_unit(tmp_path: Path) -> None:
    spans = [datetime.timedelta(seconds=1.5), datetime.timedelta(seconds=2)]
    table = pl.DataFrame({"when": spans, "input_tokens": [1, 2], "output_tokens": [1, 2]})
    table.write_parquet(tmp_path / "t.parquet")
    workload = TraceWorkload(
        kind="trace", name="test", path=str(tmp_path / "t.parquet"), columns={"arrival": "when"}
    )
    assert build_requests(workload, 0).arrival_ns.tolist() == [1_500_000_000, 2_000_000_000]


def test_names_that_no_file_can_have_and_deep_lines_are_refused(tmp_path: Path) -> None:
    assert "cannot be read: File name too long" in problem(tmp_path / ("x" * 300 + ".csv"))
    deep = (
        '{"timestamp": 1, "input_length": 1, "output_length": 1, "hash_ids": '
        + "[" * 9999
        + "]" * 9999
        + "}\n"
    )
    (tmp_path / "t.jsonl").write_text(MOONCAKE + deep)
    assert problem(tmp_path / "t.jsonl") == "t.jsonl:2: is nested too deeply"


def test_a_pipe_and_a_path_that_no_file_has_are_refused_before_reading(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.csv"
    os.mkfifo(pipe)
    with pytest.raises(TraceError, match=r"pipe\.csv: is a device or a pipe; expected a file"):
        open_trace(str(pipe))
    with pytest.raises(TraceError, match=r"^a{79}…: cannot be read: File name too long"):
        open_trace("a" * 5000 + ".csv")
