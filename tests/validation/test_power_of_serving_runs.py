"""Power of serving runs on H100 and B200 (ML.ENERGY leaderboard v3, lm-arena-chat), against the catalog's figures.

``power_measurements.csv`` has of each run the mean number of sequences, output tokens a second, and the mean power of
all its GPUs. What it does not have is taken as follows: prompts of 200 tokens; a sequence is halfway through its
answer (long ones are met more often than short ones): of Llama 406 of 380 tokens on average, of Qwen3 578 of 620.
"""

from __future__ import annotations

import csv
import dataclasses
import functools
from pathlib import Path

import numpy as np
import pytest
from cost.catalog import deployment, hardware, model

from hermes_flow.config.schema import ModelPrecision
from hermes_flow.cost.energy import step_energy
from hermes_flow.program.power import StepEnergy
from hermes_flow.program.step_cost import StepCost

LONG = [10**15] * 1101  # no limit binds: the times are measured
PROMPT = 200
ANSWER = {"qwen3": (620, 578), "llama3": (380, 406)}  # mean length, and how far a sequence is in it


@functools.cache
def measured(gpu: str) -> list[dict[str, str]]:
    with (Path(__file__).parent / "power_measurements.csv").open() as file:
        return [row for row in csv.DictReader(file) if row["hardware"] == gpu]


@functools.cache
def energy(gpu: str, name: str, devices: int) -> StepEnergy:
    shape = model(name)
    if name == "llama3_405b":
        shape = dataclasses.replace(shape, precision=ModelPrecision("fp8", "bf16", "fp8"))
    cost = StepCost(LONG, LONG[:601], LONG[:601], 10**15, prefill_pair_ps=1e15)
    found = step_energy(deployment(shape, hardware(gpu), devices, 1100, 600), cost)
    assert found is not None
    return found


def relative_error(gpu: str, row: dict[str, str]) -> float:
    """Of the power of a step of that many sequences, held to what the devices may draw."""
    devices, batch = int(row["devices"]), int(row["batch"])
    length, done = ANSWER[row["model"].partition("_")[0]]
    seconds = batch / float(row["output_tokens_per_s"])
    found = energy(gpu, row["model"], devices)
    tokens = batch + round(batch * PROMPT / length)  # who leaves is replaced
    joules = found.tokens_j[tokens] + found.decodes_j[batch] + found.context_j * batch * (PROMPT + done)
    limit = devices * (hardware(gpu).power_w or 0.0)
    watts = min(limit, found.active_w + joules / seconds)
    return watts / float(row["power_w"]) - 1


@pytest.mark.parametrize(("gpu", "runs", "stated"), [("h100_sxm", 35, 0.059), ("b200_sxm", 16, 0.061)])
def test_the_power_of_serving_runs_is_met_as_stated(gpu: str, runs: int, stated: float) -> None:
    errors = np.abs([relative_error(gpu, row) for row in measured(gpu)])
    assert len(errors) == runs
    assert errors.mean() == pytest.approx(stated, abs=0.002)
    assert errors.max() < 0.22
    assert f"{100 * stated:.1f} % off" in (fit.source if (fit := hardware(gpu).energy) else "")


def test_hardware_that_was_not_measured_takes_the_mean_of_what_was() -> None:
    fits = {name: hardware(name).energy for name in ("a100_sxm", "h100_sxm", "b200_sxm", "rtx_a6000", "l40s")}
    own = fits.pop("l40s")
    assert own is not None
    for figure, names in (
        ("idle", ("a100_sxm", "rtx_a6000")),
        ("active", tuple(fits)),
        ("compute", ("a100_sxm", "h100_sxm", "b200_sxm")),
        ("memory", tuple(fits)),
    ):
        mean = np.mean([getattr(fits[name], figure) for name in names])
        assert getattr(own, figure) == pytest.approx(mean, rel=0.03)
