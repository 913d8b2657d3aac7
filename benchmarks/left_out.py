"""What the constants are worth where nothing was measured: without a model in the engine's fit, without a GPU.

Six constants of the H100 (time per layer and per layer of experts, wait of all-reduces, bandwidth of decode
attention, sorting and penalties of the sampler) are fitted to serving runs. Here they are fitted anew without each
model in turn, by least squares of the relative error of the mean time per output token, which is taken as linear in
them about the catalog's values; the model's own runs are then simulated with what the others gave. What the other
runs say little about is drawn towards what is known without any run (``EXPECTED``). For a GPU, its
efficiencies are replaced by the mean of the other measured ones, and its engine by that of accelerators which were
not compared with serving runs, with the rates of the sampler by the bandwidth. These have the engine as fitted on
the H100, so for the H100 itself that engine has what is known without any run (``EXPECTED``) in place of what was
fitted to its decodes. An engine with kernels of its own has the mean of those that it has on the other GPUs. The
fit without a size of tensor parallelism is made like that without a model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import nnls

import hermes_flow as hf
from hermes_flow.config.hardware_measurements import EngineOverhead
from hermes_flow.config.schema import Efficiency, Hardware, Precision
from hermes_flow.cost.engine_kernels import attends_as, with_engine_kernels
from hermes_flow.pools.llm.schema import LLMPool
from hermes_flow.validation.compare import Compared, compare
from hermes_flow.validation.description import read_description

FITTED = {
    "hardware.engine.layer_us": 2.0,
    "hardware.engine.experts_us": 5.0,
    "hardware.engine.all_reduce_wait": 0.1,
    "hardware.efficiency.decode_attention.bf16.memory": -0.03,
    "hardware.engine.sampler.sort_us_per_million": 30.0,
    "hardware.engine.sampler.penalty_us": 100.0,
}  # with the step by which each is changed to see what it does
# What is known of them without serving runs, and how well. Sources: six small kernels of 3 to 4 µs in a layer, and
# one more with experts; devices that do not wait for each other; the bandwidth in the operator tables of the H100
# (the fit to them is 3 % off); the published benchmark of sorting (conf/engine/vllm.yaml). Nothing is known of
# penalties, which only one model has: the fit without it keeps the catalog's value
EXPECTED = {
    "hardware.engine.layer_us": (20.0, 10.0),
    "hardware.engine.experts_us": (5.0, 10.0),
    "hardware.engine.all_reduce_wait": (1.0, 0.4),
    "hardware.efficiency.decode_attention.bf16.memory": (0.93, 0.03),
    "hardware.engine.sampler.sort_us_per_million": (125.0, 60.0),
    "hardware.engine.sampler.penalty_us": (480.0, 300.0),
}
_SMALL_KERNELS = 6  # of a plain layer (EXPECTED)
SCATTER_PERCENT = 2.5  # how far the mean time per token of a run may be off with the right constants
FITTED_ON = "h100_sxm"  # the GPU of the serving runs that the constants are fitted to
MEASURED = ("a100_sxm", "b200_sxm", "h100_sxm", "h200_sxm")


@dataclass(frozen=True, slots=True)
class LeftOut:
    """The constants fitted without some runs, and mean errors of these, in percent, in size."""

    name: str  # a model, a size of tensor parallelism, or "none" for the fit to all runs
    runs: int
    constants: tuple[float, ...]
    tpot: float
    e2e: float
    ttft: float


class Constants:
    """The constants of the H100 as functions of the runs that they are fitted to."""

    def __init__(self, descriptions: Sequence[Path]) -> None:
        """Simulate every run with the catalog's constants, and with each of them changed."""
        self.runs = list(descriptions)
        self.models = [_model(path) for path in self.runs]
        self._start = _catalog()
        self._errors = np.array([_error(path, self._start)[0] for path in self.runs])
        self._slopes = np.empty((len(self.runs), len(self._start)))
        for column, step in enumerate(FITTED.values()):
            moved = self._start.copy()
            moved[column] += step
            changed = np.array([_error(path, moved)[0] for path in self.runs])
            self._slopes[:, column] = (changed - self._errors) / step

    def least_squares(self, rows: Sequence[int]) -> Any:
        """Return the constants fitted to these runs and to ``EXPECTED``, as ``FITTED`` has them, none negative."""
        fitted = list(rows)
        expected, known_within = np.array([EXPECTED[key] for key in FITTED]).T
        slopes = np.vstack([self._slopes[fitted] / SCATTER_PERCENT, np.diag(1 / known_within)])
        errors = np.concatenate(
            [self._errors[fitted] / SCATTER_PERCENT, (self._start - expected) / known_within]
        )
        return nnls(slopes, slopes @ self._start - errors)[0]

    def fitted_to(self, rows: Sequence[int]) -> list[str]:
        """Return the overrides that set the constants fitted to these runs."""
        return overrides(self.least_squares(rows))


def models_left_out(constants: Constants) -> list[LeftOut]:
    """Return an entry per model of the runs, and a first one, "none", for the fit to all of them."""
    return [_left_out(constants, None, constants.models), *_groups_left_out(constants, constants.models)]


def sizes_left_out(constants: Constants) -> list[LeftOut]:
    """Return an entry per size of tensor parallelism of the runs."""
    return _groups_left_out(constants, [_size(path) for path in constants.runs])


def overrides(constants: Any) -> list[str]:
    """Return the overrides that set the constants, which are in the order of ``FITTED``."""
    return [f"{key}={value:.6g}" for key, value in zip(FITTED, constants, strict=True)]


def without(config: hf.Config) -> hf.Config:
    """Return the configuration with its LLM pool's GPU as if nothing had been measured on it or its host."""
    pool = config.cluster.pools["llm"]
    assert isinstance(pool, LLMPool)
    unmeasured = _unmeasured(pool.hardware, pool.engine.name, attends_as(pool.model))
    pools = config.cluster.pools | {"llm": replace(pool, hardware=unmeasured)}
    return replace(config, cluster=replace(config.cluster, pools=pools))


def replay_without_gpu(path: Path) -> Compared:
    """Replay a run on H100 as ``without`` has it."""
    return compare(read_description(path), edit=without)


def _groups_left_out(constants: Constants, groups: Sequence[str]) -> list[LeftOut]:
    return [_left_out(constants, group, groups) for group in sorted(set(groups))]


def _left_out(constants: Constants, left_out: str | None, groups: Sequence[str]) -> LeftOut:
    """Return the constants without the group, and the errors of its runs, or of all where there is none."""
    fitted = constants.least_squares([row for row, group in enumerate(groups) if group != left_out])
    own = [
        path
        for path, group in zip(constants.runs, groups, strict=True)
        if left_out is None or group == left_out
    ]
    sizes = np.abs([_error(path, fitted) for path in own]).mean(axis=0)
    return LeftOut(left_out or "none", len(own), tuple(fitted.tolist()), *sizes.tolist())


def _size(path: Path) -> str:
    prefix = "cluster.pools.llm.tensor_parallel="
    given = read_description(path).overrides
    return "TP" + next((text.removeprefix(prefix) for text in given if text.startswith(prefix)), "1")


def _model(path: Path) -> str:
    given = read_description(path).overrides
    return next(text.partition("=")[2] for text in given if text.startswith("model="))


def _catalog() -> Any:
    gpu = _hardware("h100_sxm")
    engine = gpu.engine
    assert engine is not None
    assert engine.layer_us is not None
    assert engine.sampler is not None
    assert gpu.efficiency is not None
    memory = gpu.efficiency.decode_attention["bf16"].memory
    sampler = engine.sampler.sort_us_per_million, engine.sampler.penalty_us
    return np.array([engine.layer_us, engine.experts_us, engine.all_reduce_wait, memory, *sampler])


def _error(path: Path, constants: Any) -> tuple[float, float, float]:
    """Return the errors of mean TPOT, mean E2E and mean TTFT in percent."""
    rows = compare(read_description(path), overrides(constants)).rows
    found = {
        row.metric: row.error_percent
        for row in rows
        if row.statistic == "mean" and row.simulator == "hermes_flow"
    }
    return found["tpot"], found["e2e"], found["ttft"]


def _unmeasured(gpu: Hardware, engine: str, attends: Precision) -> Hardware:
    """Return the GPU with what is known without it; its engine is as on accelerators without serving runs."""
    others = [_hardware(name, engine) for name in MEASURED if name != gpu.name]
    with_own = [other for other in others if other.engine is not None and other.engine.kernels is not None]
    fits = [with_engine_kernels(other.efficiency, other, attends) for other in with_own or others]
    like = _hardware("a100_sxm", engine)
    launching = replace(like.engine, sampler=_sampler(like, gpu))
    if gpu.name == FITTED_ON:
        launching = _not_fitted(launching)
    if gpu.engine is not None:  # neither the server's time nor which kernels a GPU has is a measurement of it
        own = gpu.engine
        launching = replace(launching, ingest_ms=own.ingest_ms, tiled_decodes=own.tiled_decodes)
    if with_own and gpu.engine is not None:  # how the engine launches is not a measurement of this GPU
        of_another = with_own[0].engine
        launching = replace(
            launching,
            dependent_launches=gpu.engine.dependent_launches,
            kernel_gap_us=of_another.kernel_gap_us,
        )
    return replace(gpu, efficiency=_mean(fits), engine=launching)


def _sampler(like: Any, gpu: Hardware) -> Any:
    """Return the sampler of another GPU, with rates in proportion to the bandwidth, as the catalog has them."""
    sampler, slower = like.engine.sampler, like.bandwidth_gb_s / gpu.bandwidth_gb_s
    return replace(
        sampler,
        us_per_million=sampler.us_per_million * slower,
        sort_us_per_million=sampler.sort_us_per_million * slower,
    )


def _not_fitted(engine: EngineOverhead) -> EngineOverhead:
    """Return the engine with what is expected of decodes where the catalog has what was fitted to the H100.

    Launches of prompts stay (``eager``): nothing is known of them without a run.
    """
    expected = {key.rpartition(".")[2]: value for key, (value, _) in EXPECTED.items()}
    assert engine.sampler is not None
    assert engine.small_kernels is not None
    layer_us = expected["layer_us"]
    return replace(
        engine,
        layer_us=layer_us,
        small_kernels=replace(engine.small_kernels, us=layer_us / _SMALL_KERNELS),
        experts_us=expected["experts_us"],
        all_reduce_wait=expected["all_reduce_wait"],
        sampler=replace(engine.sampler, sort_us_per_million=expected["sort_us_per_million"]),
    )


@cache
def _hardware(name: str, engine: str = "vllm") -> Any:
    return hf.compose([f"hardware={name}", f"engine={engine}"]).hardware


def _mean(fits: Sequence[Efficiency]) -> Efficiency:
    """Return the mean of every figure that all have, as conf/cost/roofline.yaml has it."""

    def mean(parts: Sequence[Any]) -> Any:
        values = {name: [getattr(part, name) for part in parts] for name in parts[0].__slots__}
        numbers = {name: float(np.mean(each)) for name, each in values.items() if _are_numbers(each)}
        # one shot and NCCL: the mean of those GPUs that have them
        within = {
            name: [fit for fit in values.get(name, ()) if fit is not None] for name in ("one_shot", "nccl")
        }
        found = {name: mean(fits) for name, fits in within.items() if fits}
        if "by_rows" in values and None in values["by_rows"]:
            found["by_rows"] = None
        return replace(parts[0], **numbers, **found)

    def by_key(tables: Sequence[dict[Any, Any]]) -> dict[Any, Any]:
        keys = dict.fromkeys(key for table in tables for key in table)
        return {key: mean([table[key] for table in tables if key in table]) for key in keys}

    return Efficiency(
        source="mean of the other measured GPUs",
        gemm=by_key([fit.gemm for fit in fits]),
        decode_attention=by_key([fit.decode_attention for fit in fits]),
        prefill_attention=mean([fit.prefill_attention for fit in fits]),
        all_reduce=by_key([fit.all_reduce for fit in fits]),
        experts=by_key([fit.experts for fit in fits]),
        latent_decode=_mean_shares([fit.latent_decode for fit in fits]),
    )


def _are_numbers(values: Sequence[Any]) -> bool:
    return all(isinstance(value, int | float) for value in values)


def _mean_shares(tables: Sequence[dict[str, float]]) -> dict[str, float]:
    keys = dict.fromkeys(key for table in tables for key in table)
    return {key: float(np.mean([table[key] for table in tables if key in table])) for key in keys}
