"""Experiments that sweep over policies name policies that exist, with settings that they have."""

from __future__ import annotations

import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser

import hermes_flow as hf
from hermes_flow.config.folders import config_folder


@pytest.mark.parametrize(
    ("experiment", "key"),
    [
        ("regions", "cluster.site_routing"),
        ("adapter_routing", "cluster.routing"),
        ("greedy_tenant", "cluster.admission"),
    ],
)
def test_every_policy_of_a_sweep_compiles(experiment: str, key: str) -> None:
    text = (config_folder() / "experiment" / f"{experiment}.yaml").read_text()
    values = yaml.safe_load(text)["hydra"]["sweeper"]["params"][key]
    override = OverridesParser.create().parse_override(f"{key}={values}")
    swept = list(override.sweep_string_iterator())
    assert len(swept) > 2
    for value in swept:
        hf.compile(hf.compose([f"experiment={experiment}", "workload.requests=5", f"{key}={value}"]))
