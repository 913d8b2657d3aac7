from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import DictConfig, OmegaConf

from hermes_flow.config.convert import convert_value
from hermes_flow.config.schema import SessionsWorkload, SyntheticWorkload, TraceWorkload
from hermes_flow.errors import ConfigError
from hermes_flow.workload.build import build_requests

FOLDER = Path(__file__).resolve().parents[2] / "conf" / "workload"
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml"))


def plain(name: str) -> dict[str, Any]:
    """The file as a mapping, upon the one that its defaults name, below a root that has a seed."""
    entries = OmegaConf.load(FOLDER / f"{name}.yaml")
    assert isinstance(entries, DictConfig)
    for base in entries.pop("defaults", ["_self_"])[:-1]:
        entries = OmegaConf.merge(OmegaConf.load(FOLDER / f"{base}.yaml"), entries)
    root = OmegaConf.create({"seed": 11, "workload": entries})
    container = OmegaConf.to_container(root, resolve=True)
    assert isinstance(container, dict)
    workload: dict[str, Any] = container["workload"]
    return workload


def built_in(name: str) -> SyntheticWorkload:
    workload = convert_value(SyntheticWorkload | TraceWorkload, plain(name), "workload")
    assert isinstance(workload, SyntheticWorkload)
    return workload


@pytest.mark.parametrize("name", NAMES)
def test_every_file_names_itself_follows_the_seed_and_has_all_the_keys(name: str) -> None:
    entries = plain(name)
    kinds = {"trace": TraceWorkload, "sessions": SessionsWorkload, "synthetic": SyntheticWorkload}
    kind = kinds[entries["kind"]]
    assert set(entries) == {field.name for field in dataclasses.fields(kind)}
    assert entries["name"] == name
    assert entries["seed"] == 11


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("trace", "sessions")])
def test_every_synthetic_workload_draws_its_requests(name: str) -> None:
    workload = built_in(name)
    requests = build_requests(workload, workload.seed)
    assert len(requests) == workload.requests
    assert requests.input_tokens.min() >= 1
    assert requests.output_tokens.min() >= 1


def test_a_trace_workload_asks_for_its_path() -> None:
    with pytest.raises(ConfigError, match=r"^workload\.path: missing"):
        convert_value(SyntheticWorkload | TraceWorkload, plain("trace"), "workload")


@pytest.mark.parametrize(("name", "rate"), [("azure_conv", 5.53), ("azure_code", 2.57)])
def test_azure_workloads_have_the_rate_of_their_traces(name: str, rate: float) -> None:
    workload = dataclasses.replace(built_in(name), requests=200_000)
    assert workload.rate_per_s == rate
    last_s = build_requests(workload, 0).arrival_ns[-1] / 1e9
    assert abs(200_000 / last_s / rate - 1) < 5 / math.sqrt(200_000)


@pytest.mark.shared_data
@pytest.mark.parametrize("name", ["azure_conv", "azure_code"])
@pytest.mark.parametrize("column", ["input_tokens", "output_tokens"])
def test_azure_workloads_reproduce_the_lengths_of_their_traces(
    name: str, column: str, shared_data: Path
) -> None:
    path = shared_data / "azure" / f"AzureLLMInferenceTrace_{name.removeprefix('azure_')}.csv"
    traced = getattr(build_requests(TraceWorkload("trace", "test", str(path)), 0), column)
    drawn = getattr(build_requests(dataclasses.replace(built_in(name), requests=400_000), 0), column)
    percent = np.arange(10, 100)
    expected = np.percentile(traced, percent)
    assert (np.abs(np.percentile(drawn, percent) - expected) <= np.maximum(0.05 * expected, 1)).all()
    assert abs(drawn.mean() / traced.mean() - 1) < 0.02
    assert drawn.min() == traced.min()
    assert drawn.max() <= traced.max()


@pytest.mark.shared_data
def test_azure_code_is_about_as_bursty_as_its_trace(shared_data: Path) -> None:
    path = shared_data / "azure" / "AzureLLMInferenceTrace_code.csv"
    traced = np.diff(build_requests(TraceWorkload("trace", "test", str(path)), 0).arrival_ns)
    workload = dataclasses.replace(built_in("azure_code"), requests=100_000)
    drawn = np.diff(build_requests(workload, 0).arrival_ns)
    traced_cv, drawn_cv = (gaps.std() / gaps.mean() for gaps in (traced, drawn))
    assert 0.5 < drawn_cv / traced_cv < 1.0
