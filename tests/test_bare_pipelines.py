"""Every ready pipeline runs as it is: with its own pools, at a load that its pools carry, within its SLO."""

from __future__ import annotations

import pytest
from tries import some_of

import hermes_flow as hf
from hermes_flow.config.folders import config_folder

PIPELINES = sorted(path.stem for path in (config_folder() / "pipeline").glob("*.yaml"))


def summary(*overrides: str) -> dict[str, object]:
    return hf.simulate(hf.compile(hf.compose(overrides))).summary


def within_slo(found: dict[str, object]) -> bool:
    slo, limits = found["slo"], found["limits"]
    assert isinstance(slo, dict)
    assert isinstance(limits, dict)
    assert slo["bounds"]
    return all(bound["met"] for bound in slo["bounds"].values()) and not limits["saturated"]


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_a_bare_pipeline_completes_every_request_within_its_slo(pipeline: str) -> None:
    found = summary(f"pipeline={pipeline}")
    requests = found["requests"]
    assert isinstance(requests, dict)
    assert requests["completed"] == requests["submitted"]
    assert within_slo(found)


@pytest.mark.parametrize("pipeline", some_of(PIPELINES, 2))
def test_its_load_is_between_30_and_80_percent_of_what_its_pools_carry(pipeline: str) -> None:
    given = hf.compose([f"pipeline={pipeline}"]).workload
    rate = given.rate_per_s  # type: ignore[union-attr]
    shorter = f"workload.requests={given.requests // 2}"  # type: ignore[union-attr]
    assert within_slo(summary(f"pipeline={pipeline}", shorter, f"workload.rate_per_s={rate / 0.8}"))
    assert not within_slo(summary(f"pipeline={pipeline}", shorter, f"workload.rate_per_s={rate / 0.3}"))
