"""The configuration of inference-perf: what it sends (``data``) and when (``load``).

https://github.com/kubernetes-sigs/inference-perf, docs/config.md. Read are loads of the types constant,
poisson and concurrent with their stages, and data of the types random, synthetic and shared_prefix.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from hermes_flow.config.schema import RepeatedPrompts, SyntheticWorkload, TraceWorkload
from hermes_flow.errors import TraceError
from hermes_flow.program.requests import Requests
from hermes_flow.workload.drawn.drawn_format import drawn_formats

# "constant" is the number of requests of a stage. Their gaps are exponential (inference_perf/loadgen/load_timer.py,
# ConstantLoadTimer: as many gaps as the rate times the duration, scaled to the duration).
_OPEN = {"constant": "poisson_fixed_count", "poisson": "poisson"}
_INTERVAL_S = 1.0  # source: inference_perf/config.py, LoadConfig
_WAITS = (
    "workload.path: each stage begins load.interval after the end of the one before it; inference-perf also waits "
    "for the last answers, which takes as long as one answer"
)
_DRAWN = ("random", "synthetic")
_NOT_READ = ("sweep", "lora_traffic_split")
_NOT_READ_OF_DATA = ("multimodal", "bimodal", "trace")
_SPREAD = ("normal", "lognormal")
_OF_A_DISTRIBUTION = {"type", "distribution", "min", "max", "mean", "std_dev", "std", "total_count"}


@drawn_formats.register("inference_perf_config")
class InferencePerfConfig:
    """inference-perf's configuration: stages of a rate, or of a number of workers, and prompts that may repeat."""

    @staticmethod
    def fits(path: Path, document: Any) -> bool:
        """Return whether it is such a configuration."""
        return (
            isinstance(document, Mapping) and isinstance(document.get("load"), Mapping) and "data" in document
        )

    @staticmethod
    def draw(path: Path, document: Any, workload: TraceWorkload) -> Requests:
        """Draw the requests of the stages."""
        from hermes_flow.workload.build import draw_requests

        load, data = document["load"], document["data"]
        for key in _NOT_READ:
            if load.get(key):
                raise TraceError(str(path), None, f"load.{key} is not read; leave it out")
        stages = load.get("stages")
        if (
            not isinstance(stages, list)
            or not stages
            or not all(isinstance(stage, Mapping) for stage in stages)
        ):
            raise TraceError(str(path), None, "load.stages is no list of stages")
        arrivals, requests = _arrivals(path, load, stages)
        for key in _NOT_READ_OF_DATA:
            if isinstance(data, Mapping) and data.get(key):
                raise TraceError(str(path), None, f"data.{key} is not read; leave it out")
        inputs, outputs, repeated = _lengths(path, data if isinstance(data, Mapping) else {})
        drawn = draw_requests(
            SyntheticWorkload(
                kind="synthetic",
                name=workload.name,
                requests=requests,
                rate_per_s=None,
                arrivals=arrivals,
                input_tokens=inputs,
                output_tokens=outputs,
                rate_scale=workload.rate_scale,
                repeated_prompts=repeated,
            ),
            workload.seed,
        )
        return drawn if len(stages) == 1 else replace(drawn, notes=(*drawn.notes, _WAITS))


def stages_of(stages: list[dict[str, Any]], pause_s: float) -> tuple[dict[str, Any], int]:
    """Return the arrival process of stages with pauses between them, and an upper limit of its requests."""
    spaced: list[dict[str, Any]] = []
    for stage in stages:
        if spaced and pause_s > 0:
            spaced.append({"rate_per_s": 0.0, "duration_s": pause_s})
        spaced.append(stage)
    expected = math.fsum(stage["rate_per_s"] * stage["duration_s"] for stage in stages)
    return {"process": "stages", "stages": spaced}, math.ceil(2.0 * expected) + 100


def positive(path: Path, value: Any, name: str) -> float:
    """Return a number above 0; raises TraceError naming ``name``."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
        shown = "missing" if value is None else repr(value)
        raise TraceError(str(path), None, f"{name} is {shown}; expected a number above 0")
    return float(value)


def _count(path: Path, value: Any, name: str) -> int:
    """Return a whole number above 0; raises TraceError naming ``name``."""
    number = positive(path, value, name)
    if not number.is_integer():
        raise TraceError(str(path), None, f"{name} is {value!r}; expected a whole number above 0")
    return int(number)


def _arrivals(
    path: Path, load: Mapping[str, Any], stages: list[Mapping[str, Any]]
) -> tuple[dict[str, Any], int]:
    kind = load.get("type", "constant")
    if kind == "concurrent":
        if len(stages) > 1:
            raise TraceError(
                str(path), None, f"load.stages has {len(stages)} concurrent stages; expected one"
            )
        users = _count(path, stages[0].get("concurrency_level"), "load.stages.concurrency_level")
        count = _count(path, stages[0].get("num_requests"), "load.stages.num_requests")
        return {"process": "closed_loop", "concurrency": users}, count
    if kind not in _OPEN:
        known = ", ".join([*_OPEN, "concurrent"])
        raise TraceError(str(path), None, f"load.type is {kind!r}; expected one of: {known}")
    found = [
        {
            "rate_per_s": positive(path, stage.get("rate"), "load.stages.rate"),
            "duration_s": positive(path, stage.get("duration"), "load.stages.duration"),
            "process": _OPEN[kind],
        }
        for stage in stages
    ]
    given = load.get("interval")
    given = _INTERVAL_S if given is None else given
    none = given == 0 and not isinstance(given, bool)
    return stages_of(found, 0.0 if none else positive(path, given, "load.interval"))


def _lengths(path: Path, data: Mapping[str, Any]) -> tuple[Any, Any, RepeatedPrompts | None]:
    """Return the lengths of prompts and of answers, and how prompts repeat."""
    kind = data.get("type")
    if kind in _DRAWN:
        inputs = _distribution(path, data.get("input_distribution"), "data.input_distribution")
        return inputs, _distribution(path, data.get("output_distribution"), "data.output_distribution"), None
    if kind != "shared_prefix":
        known = ", ".join([*_DRAWN, "shared_prefix"])
        raise TraceError(
            str(path), None, f"data.type is {kind!r}, whose lengths are not in the file; expected {known}"
        )
    shared = data.get("shared_prefix")
    if not isinstance(shared, Mapping):
        raise TraceError(str(path), None, "data.shared_prefix is missing")
    groups, each = "num_groups", "num_prompts_per_group"
    if groups not in shared:  # the names since inference-perf 0.3
        groups, each = "num_unique_system_prompts", "num_users_per_system_prompt"
    return shared_prefix(path, shared, groups, each)


def shared_prefix(
    path: Path, shared: Mapping[str, Any], groups: str, each: str
) -> tuple[Any, Any, RepeatedPrompts]:
    """Return the lengths of questions and answers, and the repeated prompts of a shared prefix."""
    if shared.get("enable_multi_turn_chat"):
        raise TraceError(str(path), None, "shared_prefix.enable_multi_turn_chat is not read; expected false")
    lengths = []
    for name in ("question", "output"):
        given = shared.get(f"{name}_distribution")
        key = f"shared_prefix.{name}"
        length = shared.get(f"{name}_len")
        if given or isinstance(length, Mapping):
            lengths.append(
                _distribution(path, given or length, f"{key}_{'distribution' if given else 'len'}")
            )
        else:
            lengths.append(_count(path, length, f"{key}_len"))
    prefix = shared.get("system_prompt_len", 0)
    repeated = RepeatedPrompts(
        prefixes=_count(path, shared.get(groups), f"shared_prefix.{groups}"),
        per_prefix=_count(path, shared.get(each), f"shared_prefix.{each}"),
        prefix_tokens=_count(path, prefix, "shared_prefix.system_prompt_len") if prefix else 0,
    )
    return lengths[0], lengths[1], repeated


def _distribution(path: Path, given: Any, name: str) -> Any:
    if not isinstance(given, Mapping):
        raise TraceError(str(path), None, f"{name} is missing; expected min, max, mean and std_dev")
    unknown = sorted(set(given) - _OF_A_DISTRIBUTION)
    if unknown:
        known = ", ".join(sorted(_OF_A_DISTRIBUTION))
        raise TraceError(str(path), None, f"{name}.{unknown[0]} is not read; expected {known}")
    kind = given.get("type", given.get("distribution", "normal"))
    mean = positive(path, given.get("mean"), f"{name}.mean")
    bounds = {
        bound: max(1.0, positive(path, given[bound], f"{name}.{bound}"))
        for bound in ("min", "max")
        if given.get(bound)
    }
    spread = given.get("std_dev", given.get("std", 0.0))
    if kind == "uniform" and len(bounds) == 2:
        return {"distribution": "uniform", **bounds}
    if kind == "fixed" or (kind in _SPREAD and not spread):
        return round(mean)
    if kind not in _SPREAD:
        known = ", ".join((*_SPREAD, "uniform, fixed"))
        raise TraceError(str(path), None, f"{name}.type is {kind!r}; expected {known}")
    spread = positive(path, spread, f"{name}.std_dev")
    if kind == "lognormal":
        return {"distribution": "lognormal", "mean": mean, "cv": spread / mean, **bounds}
    return {"distribution": "normal", "mean": mean, "std": spread, **bounds}
