"""A run is certain to miss a bound by the requests above its limit, but for those that may fail and count no more."""

from __future__ import annotations

import pytest

import hermes_flow as hf
from hermes_flow.machine.run import run
from hermes_flow.planning.certain_misses import certainly_missed

TWENTY = ["pipeline=llm", "workload=synthetic", "workload.requests=20", "workload.rate_per_s=200"]


def missed_with(above: int, *overrides: str) -> tuple[str, ...]:
    """Return the bounds that 20 requests are certain to miss, of which ``above`` are above the limit of p90."""
    plain = hf.simulate(hf.compile(hf.compose([*TWENTY, *overrides, "slo=none"])))
    ttft_s = sorted(plain.requests["ttft_s"].to_list(), reverse=True)
    limit_ms = 1e3 * (ttft_s[above - 1] + ttft_s[above]) / 2
    slo = f"slo={{name: ours, ttft_ms: {{p90: {limit_ms}}}}}"
    recording = run(hf.compile(hf.compose([*TWENTY, *overrides, slo])))
    return certainly_missed(recording, recording.end_ns)


@pytest.mark.parametrize(("above", "missed"), [(2, False), (3, True)])
def test_three_of_twenty_are_more_than_p90_allows(above: int, missed: bool) -> None:
    assert bool(missed_with(above)) is missed  # p90 of 20 lies between the 18th and the 19th


@pytest.mark.parametrize(("above", "missed"), [(4, False), (5, True)])
def test_two_of_twenty_may_give_up_later(above: int, missed: bool) -> None:
    """Of the 18 others, three are more than p90 allows."""
    assert bool(missed_with(above, "workload.timeout_s=1000")) is missed
