"""Power and energy of a server with RTX A6000s, second by second (LLMServingSim, MIT), against simulated runs.

The same thirty requests ran on one GPU and on two. The source has the watts of the whole server: its host and its
fans are not modelled, so their share is what the server of one GPU draws when idle, without the idle power of the
GPU. To leave a server out, ``active`` and ``memory`` are fitted to the other one by the rule of the catalog
(conf/hardware).
"""

from __future__ import annotations

import csv
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import polars as pl

import hermes_flow as hf
from benchmarks.energy_constants import Constants, catalog
from hermes_flow.program.power import StepEnergy

GPU = "rtx_a6000"
SERVERS = (1, 2)
POWER_W = 300.0
IDLE_W = 33.0
"""A GPU's idle power, as in LLMServingSim's own configuration."""
_STANDBY = range(16, 23)  # the seconds of the recording in which both servers stand by after the first burst
_NEAR_IDLE_W = 30.0
_NEAR_MOST = 0.95
_REACHED = 0.99  # of what is wanted; the parts of a step are limited one by one, so their sum stays below


@dataclass(frozen=True, slots=True)
class Outcome:
    """The relative errors of one server: of the time of its last token, and of its mean power.

    ``decoding`` is the error of the power while a burst decodes, ``joules`` that of the energy of an output token
    above what the idle server draws.
    """

    devices: int
    time: float
    power: float
    decoding: float
    joules: float


@cache
def watts(data: Path, devices: int) -> tuple[float, ...]:
    """Return the watts of the server with so many GPUs, second by second."""
    with (data / "power" / f"server_power_tp{devices}.tsv").open() as file:
        return tuple(float(row["power_w"]) for row in csv.DictReader(file, delimiter="\t"))


def idle_w(data: Path, devices: int) -> float:
    """Return what the server draws between the bursts, once its GPUs are idle."""
    measured = watts(data, devices)
    return float(np.median([each for each in measured if each < min(measured) + _NEAR_IDLE_W]))


def simulated(data: Path, devices: int, constants: Constants) -> Outcome:
    """Return the errors of the run with so many GPUs and these constants."""
    measured = watts(data, devices)
    result = _run(data, devices, constants)
    seconds, end_s = len(measured), result.recording.end_ns / 1e9
    busy_j = float(result.clients.filter(pl.col("pool") == "llm")["energy_j"].sum())
    gpus_j = busy_j + (seconds - end_s) * devices * IDLE_W
    host_w = idle_w(data, 1) - IDLE_W
    server_j, measured_j = host_w * seconds + gpus_j, float(sum(measured))
    above = gpus_j - devices * IDLE_W * seconds
    return Outcome(
        devices,
        end_s / seconds - 1.0,
        server_j / measured_j - 1.0,
        (host_w + _decoding_w(result)) / _most(measured) - 1.0,
        above / (measured_j - idle_w(data, devices) * seconds) - 1.0,
    )


def fitted_to(data: Path, devices: int) -> Constants:
    """Return the constants fitted to the server with so many GPUs.

    ``active`` is what a GPU draws while it stands by after a burst. ``memory`` is the least value with which decoding
    reaches the power above idle, or the limit of the GPU. ``compute`` is that of the A100.
    """
    measured, rest = watts(data, devices), idle_w(data, devices)
    standby = float(np.median([measured[second] for second in _STANDBY]))
    start = replace(catalog(GPU), active=(IDLE_W + (standby - rest) / devices) / POWER_W)
    wanted = min(POWER_W, IDLE_W + (_most(measured) - rest) / devices)
    low, high = 0.0, 2.0
    for _ in range(12):
        middle = (low + high) / 2.0
        found = _decoding_w(_run(data, devices, replace(start, memory=middle))) / devices
        low, high = (middle, high) if found < _REACHED * wanted else (low, middle)
    return replace(start, memory=high)


def _most(measured: tuple[float, ...]) -> float:
    """Return the power while a burst decodes."""
    return float(np.median([each for each in measured if each > _NEAR_MOST * max(measured)]))


def _decoding_w(result: hf.Result) -> float:
    """Return the watts of all GPUs while they work."""
    (pool,) = [pool for pool in result.program.pools if pool.name == "llm"]
    assert isinstance(pool.energy, StepEnergy)
    return float(result.energies.work_j[-1]) / (result.recording.clients[-1].busy_ns / 1e9)


def _run(data: Path, devices: int, constants: Constants) -> hf.Result:
    overrides = [
        *("pipeline=llm", "model=llama3_8b", f"hardware={GPU}", "slo=none", "workload=trace"),
        f"workload.path='{data / 'power' / 'workload.parquet'}'",
        *(f"cluster.pools.llm.tensor_parallel={devices}", *constants.overrides),
    ]
    return hf.simulate(hf.compile(hf.compose(overrides)))
