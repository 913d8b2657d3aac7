"""Levels over time count what is open, whatever the bins, and KV follows the prompts and answers in service."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from hermes_flow.metrics.levels import bins, kv_levels, ramp_level


def test_the_mean_level_is_the_time_that_intervals_are_open_in_a_part() -> None:
    parts = bins(4.0, 4)
    level = parts.mean_level(np.array([0.5, 1.0]), np.array([2.5, 2.0]))
    assert level.tolist() == pytest.approx([0.5, 2.0, 0.5, 0.0])


def test_mean_levels_agree_with_a_count_at_many_instants() -> None:
    random = np.random.default_rng(7)
    starts = random.uniform(0.0, 9.0, 300)
    ends = starts + random.exponential(0.7, 300)
    parts = bins(10.0, 20)
    instants = np.linspace(0.0, 10.0, 200_001)[:-1] + 10.0 / 400_000
    counts = np.searchsorted(np.sort(starts), instants) - np.searchsorted(np.sort(ends), instants)
    assert parts.mean_level(starts, ends) == pytest.approx(counts.reshape(20, -1).mean(axis=1), abs=0.02)


def test_rates_add_up_to_all_instants() -> None:
    parts = bins(5.0, 10)
    instants = np.array([0.1, 0.2, 4.9, 5.0])
    rates = parts.rate(instants)
    assert rates[0] == pytest.approx(2 / 0.5)
    assert rates.sum() * parts.width_s == pytest.approx(4)


def test_a_ramp_rises_from_its_first_to_its_last_level_and_ends() -> None:
    times = np.array([0.0, 1.0, 2.0, 2.999, 3.0])
    one = np.array([1.0]), np.array([3.0]), np.array([10.0]), np.array([30.0])
    assert ramp_level(times, *one) == pytest.approx([0.0, 10.0, 20.0, 29.99, 0.0])


def test_kv_grows_with_the_prompt_and_then_with_the_answer() -> None:
    stages = pl.DataFrame(
        {
            "request": [0, 0, 0],
            "stage": ["prefill", "decode", "detokenize"],
            "kind": ["prefill", "decode", "detokenize"],
            "client": ["llm/0", "llm/0", "host/0"],
            "ready_s": [0.0, 2.0, 4.0],
            "start_s": [1.0, 2.0, 4.0],
            "finish_s": [2.0, 4.0, 5.0],
            "tokens": [100, 40, 40],
        }
    )
    levels = kv_levels(stages, np.array([0.5, 1.5, 2.0, 3.0, 4.5]))
    assert list(levels) == ["llm/0"]
    assert levels["llm/0"] == pytest.approx([0.0, 50.0, 100.0, 120.0, 0.0])
