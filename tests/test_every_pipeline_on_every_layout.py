"""Every ready pipeline runs on every ready layout."""

from __future__ import annotations

import pytest
from tries import some_of

import hermes_flow as hf
from hermes_flow.config.folders import config_folder

PIPELINES = sorted(path.stem for path in (config_folder() / "pipeline").glob("*.yaml"))
LAYOUTS = ["replicas", "disaggregated", "hgx", "rack", "hybrid"]
SMALL = ["workload=synthetic", "workload.requests=12", "workload.rate_per_s=1"]
EVERY = [
    (pipeline, layout) for pipeline in PIPELINES for layout in LAYOUTS
]  # an odd number of layouts: one in two


@pytest.mark.parametrize(("pipeline", "layout"), some_of(EVERY, 2))
def test_the_pipeline_runs_on_the_layout(pipeline: str, layout: str) -> None:
    result = hf.simulate(hf.compile(hf.compose([f"pipeline={pipeline}", f"cluster={layout}", *SMALL])))
    assert result.summary["requests"] == {"submitted": 12, "completed": 12, "failed": 0}
