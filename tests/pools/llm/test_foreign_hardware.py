"""An engine on hardware that it never runs on is simulated with a warning."""

from __future__ import annotations

import pytest

import hermes_flow as hf


def warnings(*overrides: str) -> list[str]:
    load = ["pipeline=llm", "slo=none", "workload=synthetic", "workload.requests=3"]
    program = hf.compile(hf.compose([*load, *overrides]))
    return [text for text in program.warnings if "made by" in text]


@pytest.mark.parametrize(("hardware", "maker"), [("tpu_v6e", "google"), ("mi300x", "amd")])
def test_tensorrt_llm_runs_on_no_accelerator_of_another_maker(hardware: str, maker: str) -> None:
    (text,) = warnings(f"hardware={hardware}", "engine=tensorrt_llm")
    assert text.startswith(
        "cluster.pools.llm.engine: TensorRT-LLM runs on accelerators of NVIDIA only, "
        f"and {hardware} is made by {maker}"
    )


@pytest.mark.parametrize(
    "overrides",
    [
        ("hardware=tpu_v6e",),
        ("hardware=h100_sxm", "engine=tensorrt_llm"),
        ("hardware=tpu_v6e", "hardware.maker=null", "engine=tensorrt_llm"),
    ],
)
def test_other_engines_and_makers_that_are_not_known_have_no_warning(overrides: tuple[str, ...]) -> None:
    assert warnings(*overrides) == []
