from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hermes_flow.errors import ConfigError
from hermes_flow.workload.streams import stream

PURPOSES = ["arrivals", "input_lengths", "output_lengths", "routing", "shares"]


@given(seed=st.integers(0, 2**63), purpose=st.sampled_from(PURPOSES))
def test_equal_seed_and_purpose_give_equal_draws(seed: int, purpose: str) -> None:
    assert np.array_equal(stream(seed, purpose).random(8), stream(seed, purpose).random(8))


def test_no_two_streams_begin_alike() -> None:
    begins = {tuple(stream(seed, purpose).random(2)) for seed in range(50) for purpose in PURPOSES}
    assert len(begins) == 50 * len(PURPOSES)


def test_streams_of_different_purposes_are_not_correlated() -> None:
    draws = np.array([stream(7, purpose).standard_normal(100_000) for purpose in PURPOSES])
    between = np.corrcoef(draws)[~np.eye(len(PURPOSES), dtype=bool)]
    assert np.abs(between).max() < 5 / np.sqrt(100_000)


def test_draws_are_the_same_in_another_process() -> None:
    code = "from hermes_flow.workload.streams import stream; print(stream(3, 'arrivals').integers(1 << 62))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(out.stdout) == stream(3, "arrivals").integers(1 << 62)


def test_a_negative_seed_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^workload\.seed: -1 is negative"):
        stream(-1, "arrivals")
