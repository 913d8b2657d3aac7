"""A program with longer steps takes as much longer, term by term."""

from __future__ import annotations

import pytest

import hermes_flow as hf
from hermes_flow.planning.perturbed import with_step_times
from hermes_flow.program.pools import LLMClientSpec


def test_every_step_takes_the_factor_as_long() -> None:
    config = hf.compose(["pipeline=llm", "workload.requests=20", "cluster.pools.llm.pipeline_parallel=2"])
    program = hf.compile(config)
    longer = with_step_times(program, 1.25)
    for before, after in zip(program.pools, longer.pools, strict=True):
        if not isinstance(before.client, LLMClientSpec):
            assert after is before
            continue
        assert isinstance(after.client, LLMClientSpec)
        for steps in (([], 3, 900), ([(512, 0)], 0, 0), ([(100, 50), (30, 0)], 7, 7000)):
            assert after.client.cost.step_ps(*steps) == pytest.approx(
                1.25 * before.client.cost.step_ps(*steps)
            )
            assert before.client.upstream is not None
            assert after.client.upstream is not None
            upstream = before.client.upstream.step_ps(*steps)
            assert after.client.upstream.step_ps(*steps) == pytest.approx(1.25 * upstream)
        assert after.client.hop_ps_per_token == 1.25 * before.client.hop_ps_per_token


def test_an_unloaded_request_takes_as_much_longer() -> None:
    config = hf.compose(["pipeline=llm", "workload.requests=5", "workload.rate_per_s=0.01"])
    program = hf.compile(config)
    short, long = (hf.simulate(with_step_times(program, factor)).summary for factor in (1.0, 1.5))
    assert long["tpot_s"]["mean"] == pytest.approx(1.5 * short["tpot_s"]["mean"], rel=1e-6)
    assert long["ttft_s"]["mean"] == pytest.approx(1.5 * short["ttft_s"]["mean"], rel=1e-3)
