"""The tails of measured runs whose arrivals are drawn: which errors are the simulator's, and which are luck."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.drawn_tails import Tails
from benchmarks.measured_runs import BETWEEN_STAGES_S, drawn_workload
from hermes_flow.validation.compare import Compared, Row
from hermes_flow.validation.measured import Sample
from hermes_flow.validation.replay import Replayed

RUN = {
    "id": 7,
    "model": "Qwen/Qwen3-14B",
    "stages": "2.5rps x 600s;6rps x 600s",
    "system_prompt_len": 100,
    "question_len": 447,
    "real_stage0_e2e_mean_ms": 4_000.0,
    "real_stage1_e2e_mean_ms": 5_000.0,
}


def compared(measured: float, *draws: float, requests: int | None = None) -> Compared:
    """A run with this p99 of TTFT in s, measured and in each of the draws."""
    samples = tuple(Sample({"ttft": np.full(10, draw)}, {}, {}) for draw in draws)
    error = 100.0 * (float(np.median(draws)) / measured - 1.0)
    row = Row("run", "ttft", "p99", "hermes_flow", measured, None, error, requests)
    return Compared("run", (row,), {}, Replayed(samples, 10, 0, 0))


def test_runs_whose_draws_agree_are_told_from_those_of_luck() -> None:
    tails = Tails(
        [
            compared(1.0, 1.2, 1.21, 1.19),  # sure, and outside
            compared(1.0, 0.9, 8.0, 0.95),  # luck, and within
            compared(1.0, 0.9, requests=500),  # the arrivals are known
        ]
    )
    assert tails.sizes == pytest.approx([20.0, 5.0, 10.0])
    assert tails.known == pytest.approx([10.0])
    assert (tails.drawn, tails.sure, tails.within) == (2, 1, 1)


def test_a_drawn_run_has_the_counts_and_pauses_of_its_load_generator() -> None:
    arrivals_us, lengths = drawn_workload(RUN, 3)
    arrivals_s = np.array(arrivals_us) / 1e6
    start = 600 + 4.0 + BETWEEN_STAGES_S
    assert len(arrivals_s) == len(lengths) == 1500 + 3600
    assert arrivals_s[1499] == pytest.approx(600, abs=1e-6)
    assert arrivals_s[1500] > start
    assert arrivals_s[-1] == pytest.approx(start + 600, abs=1e-6)
    assert lengths[:100] == lengths[100:200]
    assert np.mean(lengths) == pytest.approx(1.054 * 547, abs=3)  # counted anew
    assert drawn_workload(RUN, 4)[0] != arrivals_us
