"""The summary on the terminal leads with the verdict, fits 80 columns and leaves nothing important out."""

from __future__ import annotations

import copy
import re
from dataclasses import replace

import numpy as np
import pytest
from metrics.handmade import four_requests, llm_run, segments_ms, single_stage_run, with_program

from hermes_flow.metrics.result import Result
from hermes_flow.program.program import SLOBounds
from hermes_flow.report.console import run_summary

LATE = SLOBounds("chat", {"ttft": {50.0: 0.02, 99.0: 0.03}, "tpot": {50.0: 0.02}})


def text_of(recording, **changes) -> str:
    result = Result(recording)
    return run_summary(result.summary | changes, result.program)


def line_of(text: str, label: str) -> str:
    return next(line for line in text.splitlines() if line.startswith(label))


def test_the_whole_text_of_a_worked_example():
    assert (
        text_of(four_requests(LATE))
        == """\
SLO chat MISSED. Bottleneck: decode on pool llm takes 52 % of the end-to-end
time; requests hardly queue for it.

                     mean         p50         p90         p99
TTFT              17.7 ms     21.0 ms!    21.0 ms     21.0 ms!
TPOT              12.5 ms     12.5 ms     14.5 ms     14.9 ms
ITL               12.0 ms     10.0 ms     20.0 ms     20.0 ms
E2E               38.7 ms     42.0 ms     50.0 ms     51.8 ms

requests      3 of 4 completed, 1 FAILED
throughput    48.4 requests/s, 129 output tokens/s
goodput       48.4 requests/s, 75 % of requests within the SLO
SLO missed    TTFT p50 is 21.0 ms, bound 20.0 ms
SLO missed    TTFT p99 is 21.0 ms, bound 30.0 ms, but too many requests failed
why           TTFT p50 is missed. Of the time that counts for the 2 requests
              concerned, 48 % is waiting for the prompts ahead (prefill on pool
              llm) and 48 % is steps that prefill other prompts (prefill on pool
              llm). Arriving work, as a share of what full batches could do:
              pool host 18 %. More of no single resource would help much; faster
              hardware would.
error bar     none: its step times are given
time goes to  decode 52 %, prefill 43 %, tokenize 3 %, detokenize 3 %
cost          $3.60 per hour, $7.75 per million output tokens (host unpriced)
simulated     19 events and 5 LLM steps in 250 ms

pool          clients                  busy     work     wait    batch  KV peak
host          1 × grace_cpu             6 %     18 %      0 s        –        –
llm           1 × h100_sxm             97 %      0 %  3.33 ms     1.40     50 %

warning: the kernel table was extrapolated
warning: 1 request failed: needs 57 KV blocks of 12"""
    )


@pytest.mark.parametrize(
    ("bounds", "start"),
    [
        ({}, "No SLO set. Bottleneck: "),
        ({"ttft": {50.0: 1.0}}, "SLO chat met. Bottleneck: "),
        ({"ttft": {50.0: 0.001}}, "SLO chat MISSED. Bottleneck: "),
    ],
)
def test_the_first_line_says_whether_the_slo_is_met_and_what_limits(bounds, start):
    assert text_of(four_requests(SLOBounds("chat", bounds))).startswith(start)


def test_a_met_slo_has_no_missed_lines_or_marks():
    text = text_of(four_requests(SLOBounds("chat", {"ttft": {50.0: 1.0}})))
    assert "SLO missed" not in text
    assert "!" not in text


def test_unknown_costs_and_metrics_are_left_out():
    text = text_of(single_stage_run([0, 1], [0, 5], [5, 9]))
    labels = [line.split()[0] for line in text.splitlines() if line]
    assert "E2E" in labels
    for absent in ("TTFT", "TPOT", "ITL", "cost", "goodput"):
        assert absent not in labels
    assert line_of(text, "throughput") == "throughput    222 requests/s"


def test_small_shares_are_told_together():
    shares = {"a": 0.6, "b": 0.3, "c": 0.05, "d": 0.03, "e": 0.01, "f": 0.006, "g": 0.004}
    path = {"mean": {"shares": shares}, "p99": None}
    line = line_of(text_of(four_requests(), critical_path=path), "time goes to")
    assert line == "time goes to  a 60 %, b 30 %, c 5 %, d 3 %, e 1 %, other stages 1 %"


@pytest.mark.parametrize(
    "recording",
    [
        four_requests(LATE),
        llm_run(segments_ms([])),
        replace(four_requests(LATE), status=np.ones(4, np.int8)),
        single_stage_run([0] * 50, list(range(50)), list(range(1, 51))),
    ],
    ids=["some failed", "no requests", "all failed", "overloaded"],
)
def test_no_line_is_wider_than_80_columns(recording):
    pools = tuple(
        replace(pool, name=pool.name * 9, hardware=pool.hardware * 4) for pool in recording.program.pools
    )
    recording = with_program(recording, pools=pools, warnings=("long " * 60,))
    assert max(len(line) for line in text_of(recording).splitlines()) <= 80


def test_colour_changes_nothing_but_colour():
    result = Result(four_requests(LATE))
    plain = run_summary(result.summary, result.program)
    coloured = run_summary(result.summary, result.program, colour=True)
    assert "\x1b[31mSLO chat MISSED.\x1b[0m" in coloured
    assert "\x1b" not in plain
    assert re.sub(r"\x1b\[\d*m", "", coloured) == plain


def test_the_summary_is_not_changed_by_showing_it():
    result = Result(four_requests(LATE))
    before = copy.deepcopy(result.summary)
    run_summary(result.summary, result.program, colour=True)
    assert result.summary == before


def test_energy_is_told_per_token_with_what_is_not_in_it():
    energy = {"total_j": 7.2e6, "j_per_output_token": 0.5, "idle_j": 1.8e6, "unmetered": []}
    line = line_of(text_of(four_requests(), energy=energy), "energy")
    assert line == "energy        2.00 kWh, 0.500 J per output token, 25 % of it while idle"
    unmetered = energy | {"total_j": 450.0, "idle_j": 0.0, "unmetered": ["host"]}
    line = line_of(text_of(four_requests(), energy=unmetered), "energy")
    assert line == "energy        450 J, 0.500 J per output token, 0 % of it while idle (host not"
    assert "energy  " not in text_of(four_requests())


def test_an_energy_that_is_not_known_is_said_where_the_power_of_other_pools_is():
    energy = {"total_j": None, "j_per_output_token": None, "idle_j": None, "unmetered": ["llm"]}
    line = line_of(text_of(four_requests(), energy=energy), "energy")
    assert line == "energy        not known, as no power is known of llm"


def test_a_run_without_a_price_says_so_and_counts_accelerators():
    recording = four_requests()
    host, llm = recording.program.pools
    unpriced = with_program(recording, pools=(host, replace(llm, usd_per_hour=None)))
    lines = text_of(unpriced).splitlines()
    first = next(index for index, line in enumerate(lines) if line.startswith("cost"))
    text = " ".join(line.strip() for line in lines[first : first + 2])
    assert text == (
        "cost          unknown, as host and llm have no price; 1 accelerator, 2.15 accelerator-hours per million "
        "output tokens"
    )
