"""Tables of measured requests: what is wrong in them is found where it stands, and rounding is not wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from hermes_flow.errors import TraceError
from hermes_flow.validation.measured import read_measured, read_predicted

MISTAKES = {
    "a column without unit": (
        ("arrival_s,input_tokens,output_tokens,ttft", "0,1,2,3"),
        "bad.csv:1: ttft has no unit; expected ttft_s, _ms, _us or _ns",
    ),
    "a strange unit": (
        ("arrival_s,input_tokens,output_tokens,ttft_min", "0,1,2,3"),
        "bad.csv:1: ttft_min has no unit; expected ttft_s, _ms, _us or _ns",
    ),
    "nothing measured": (
        ("arrival_s,input_tokens,output_tokens", "0,1,2"),
        "bad.csv:1: no column ttft, tpot or e2e with a unit",
    ),
    "no arrival": (
        ("input_tokens,output_tokens,ttft_s", "1,2,3"),
        "bad.csv:1: no column arrival with a unit as suffix",
    ),
    "no lengths": (("arrival_s,ttft_s", "0,3"), "bad.csv:1: no column input_tokens, output_tokens"),
    "a bad cell": (
        ("arrival_s,input_tokens,output_tokens,ttft_s", "0,1,2,3", "1,1,2,soon"),
        "bad.csv:3: ttft_s is 'soon'; expected a time in seconds, 0 or more",
    ),
    "two units": (
        ("arrival_s,input_tokens,output_tokens,e2e_s,e2e_ms", "0,1,2,3,4"),
        "bad.csv:1: has e2e_s and e2e_ms; expected one of them",
    ),
    "seconds for milliseconds": (
        ("arrival_s,input_tokens,output_tokens,ttft_ms,e2e_ms", "0,9,20,61.2,1905", "1,9,20,61.2,1.905"),
        "bad.csv:3: e2e_ms is 1.905 and ttft_ms 61.2; expected an E2E of at least 61.2 ms",
    ),
    "more between the tokens than in all": (
        ("arrival_s,input_tokens,output_tokens,tpot_ms,e2e_s", "0,9,21,50,0.9"),
        "bad.csv:2: e2e_s is 0.9 and tpot_ms 50 for each of the 20 tokens after the first; expected an E2E of",
    ),
    "a time below 0": (
        ("arrival_s,input_tokens,output_tokens,ttft_s", "0,1,2,-3"),
        "bad.csv:2: ttft_s is -3; expected a time in seconds, 0 or more",
    ),
    "a row that is cut off": (
        ("arrival_s,input_tokens,output_tokens,ttft_s,e2e_s", "0,1,2,3,4", "1,1,2,3"),
        "bad.csv:3: 4 fields; the header has 5: is the file cut off?",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_a_table_is_named_with_its_line(tmp_path: Path, mistake: str) -> None:
    lines, expected = MISTAKES[mistake]
    path = tmp_path / "bad.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    with pytest.raises(TraceError) as raised:
        read_measured(path)
    assert expected in str(raised.value)


@pytest.mark.parametrize(
    "row",
    [
        "0,9,1,61.24,61.2",  # one token: what TTFT has more is rounding to a tenth
        "0,9,100,,61.2",
        "0,9,100,61.2,",
    ],
)
def test_latencies_that_differ_by_rounding_are_taken(tmp_path: Path, row: str) -> None:
    path = tmp_path / "rounded.csv"
    path.write_text(
        f"arrival_s,input_tokens,output_tokens,ttft_ms,e2e_ms\n0,9,20,61.2,1905.3\n{row}\n", encoding="utf-8"
    )
    assert len(read_measured(path).order) == 2


def test_a_blank_tpot_leaves_no_e2e(tmp_path: Path) -> None:
    path = tmp_path / "requests.csv"
    path.write_text(
        "arrival_s,input_tokens,output_tokens,ttft_s,tpot_s\n0,9,20,3,\n1,9,1,2,\n2,9,5,1,2\n",
        encoding="utf-8",
    )
    e2e = read_measured(path).sample.latencies["e2e"].tolist()
    assert e2e[0] != e2e[0]  # nan: it failed after the first token
    assert e2e[1:] == [2.0, 9.0]


def test_a_prediction_is_checked_against_the_tokens_of_its_own_row(tmp_path: Path) -> None:
    (tmp_path / "real.csv").write_text(
        "arrival_s,input_tokens,output_tokens,e2e_s\n1,9,21,2\n0,9,1,2\n", encoding="utf-8"
    )
    measured = read_measured(tmp_path / "real.csv")
    path = tmp_path / "theirs.csv"
    path.write_text("tpot_ms,e2e_s\n44,0.9\n50,0.9\n", encoding="utf-8")
    assert read_predicted(path, measured).latencies["ttft"].tolist() == pytest.approx([0.9, 0.02])
    path.write_text("tpot_ms,e2e_s\n50,0.9\n44,0.9\n", encoding="utf-8")
    with pytest.raises(
        TraceError, match=r"theirs\.csv:2: e2e_s is 0\.9 and tpot_ms 50 for each of the 20 tokens"
    ):
        read_predicted(path, measured)
