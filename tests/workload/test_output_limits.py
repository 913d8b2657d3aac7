"""Limits of answers in a trace: what contradicts itself is an error with file and line."""

from __future__ import annotations

from pathlib import Path

import pytest

import hermes_flow as hf
from hermes_flow.errors import TraceError

HEADER = "arrival_s,input_tokens,output_tokens,output_limit,ignore_eos"


def requests_of(path: Path, *rows: str) -> hf.Program:
    path.write_text("\n".join([HEADER, *rows]) + "\n")
    return hf.compile(hf.compose(["pipeline=llm", "workload=trace", f"workload.path={path}", "slo=none"]))


def test_limits_and_ends_that_are_ignored_are_read(tmp_path: Path) -> None:
    requests = requests_of(tmp_path / "good.csv", "0,10,5,9,false", "1,10,5,5,true", "2,10,7,,").requests
    assert requests.output_limit is not None
    assert requests.ignore_eos is not None
    assert requests.output_limit.tolist() == [9, 5, 7]
    assert requests.ignore_eos.tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ("1,10,5,3,false", "output_limit is 3, below the output_tokens, 5"),
        (
            "1,10,5,9,true",
            "ignore_eos is true and output_tokens is 5, below output_limit, 9; expected equal numbers",
        ),
        ("1,10,5,9,maybe", "ignore_eos is 'maybe'; expected true or false"),
    ],
)
def test_a_contradiction_names_file_and_line(tmp_path: Path, row: str, problem: str) -> None:
    path = tmp_path / "bad.csv"
    with pytest.raises(TraceError) as caught:
        requests_of(path, "0,10,5,5,false", row)
    assert str(caught.value) == f"{path}:3: {problem}"
