"""Fits what a device draws to measured steps, with and without a part of these steps.

A device that works draws min(1, active + compute · u + memory · v) of its ``power_w`` (docs/energy.md). u and v
follow from a step's operations, bytes and measured time, so the constants are fitted by the least mean size of the
relative errors of the power.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from numpy.typing import NDArray

import hermes_flow as hf
from hermes_flow.config.schema import EnergyFit, Hardware
from hermes_flow.cost.energy import step_energy
from hermes_flow.cost.model import Deployment
from hermes_flow.pools.llm.schema import LLMPool
from hermes_flow.program.power import StepEnergy
from hermes_flow.program.step_cost import StepCost

Floats = NDArray[np.float64]
LARGEST = 2048
"""The tokens of the largest measured step, prompts and decodes alike."""
_NO_LIMIT = 10**15


@dataclass(frozen=True, slots=True)
class Constants:
    """The fractions of ``power_w`` that a device draws, as in ``hardware.energy``."""

    active: float
    compute: float
    memory: float

    @property
    def overrides(self) -> list[str]:
        """The overrides that give the hardware of a run these constants."""
        return [
            f"hardware.energy.{name}={getattr(self, name):.6g}" for name in ("active", "compute", "memory")
        ]


@dataclass(frozen=True, slots=True)
class MeasuredStep:
    """One measured kind of step.

    ``group`` is what it shares with others that are left out together, ``phase`` is "prefill" or "decode".
    ``compute`` and ``memory`` are the shares of the peak rate and of the bandwidth that it used in its measured
    time, ``power`` the fraction of ``power_w`` that was measured.
    """

    group: str
    shape: str
    phase: str
    compute: float
    memory: float
    power: float


@dataclass(frozen=True, slots=True)
class Shape:
    """The work of one step: chunks of prompts that begin, or sequences that decode with so many computed tokens."""

    prompts: tuple[int, ...] = ()
    decodes: int = 0
    context: int = 0


def catalog(gpu: str) -> Constants:
    """Return the constants of the catalog's entry ``gpu``."""
    fit = _hardware(gpu).energy
    assert fit is not None
    assert fit.active is not None
    assert fit.compute is not None
    assert fit.memory is not None
    return Constants(fit.active, fit.compute, fit.memory)


def shares(gpu: str, model: Sequence[str], devices: int, shape: Shape, seconds: float) -> tuple[float, float]:
    """Return the shares of the peak rate and of the bandwidth that a step uses if it takes so long.

    ``model`` are the overrides that choose it.
    """
    watts = _hardware(gpu).power_w
    assert watts is not None
    joules = []
    for energy in _units(gpu, tuple(model), devices):
        chunks = [(tokens, 0) for tokens in shape.prompts]
        joules.append(energy.step_joules(chunks, shape.decodes, shape.context, seconds))
    compute, memory = (each / (seconds * devices * watts) for each in joules)
    return compute, memory


def drawn(constants: Constants, compute: float, memory: float) -> float:
    """Return the fraction of ``power_w`` that a device draws at these shares."""
    return min(1.0, constants.active + constants.compute * compute + constants.memory * memory)


def errors(constants: Constants, steps: Sequence[MeasuredStep]) -> Floats:
    """Return the relative error of the power of each step at its measured time."""
    found = np.array([[step.compute, step.memory, step.power] for step in steps])
    return _errors(constants, found)


def fitted(steps: Sequence[MeasuredStep], active: float | None = None) -> Constants:
    """Return the constants with the least mean size of errors; with ``active`` given, only the other two."""
    from scipy.optimize import minimize

    measured = np.array([[step.compute, step.memory, step.power] for step in steps])

    def constants(values: Floats) -> Constants:
        return Constants(*values) if active is None else Constants(active, *values)

    def size(values: Floats) -> float:
        below = float(np.minimum(values, 0.0).sum())
        return float(np.abs(_errors(constants(values), measured)).mean()) - 10.0 * below

    starts = ((0.28, 1.3, 0.78), (0.2, 1.0, 0.5), (0.35, 1.6, 0.9))
    options = {"xatol": 1e-5, "fatol": 1e-8, "maxiter": 4000}
    found = [
        minimize(size, start if active is None else start[1:], method="Nelder-Mead", options=options)
        for start in starts
    ]
    return constants(min(found, key=lambda each: float(each.fun)).x)


def left_out(
    steps: Sequence[MeasuredStep], by: str, active: float | None = None
) -> dict[str, tuple[Constants, Floats]]:
    """Return, for each value of the field ``by``, the constants fitted without it and the errors of its steps."""
    result = {}
    for value in sorted({str(getattr(step, by)) for step in steps}):
        own = [step for step in steps if getattr(step, by) == value]
        found = fitted([step for step in steps if getattr(step, by) != value], active)
        result[value] = found, errors(found, own)
    return result


def mean_of_others(gpu: str, gpus: Collection[str]) -> Constants:
    """Return what ``gpu`` would have if it had not been measured: the mean of the others' constants.

    The catalog does the same for hardware that was not measured. compute was not measured on the RTX A6000.
    """
    others = [name for name in gpus if name != gpu]
    found = {name: catalog(name) for name in others}
    return Constants(
        float(np.mean([each.active for each in found.values()])),
        float(np.mean([each.compute for name, each in found.items() if name != "rtx_a6000"])),
        float(np.mean([each.memory for each in found.values()])),
    )


def _errors(constants: Constants, measured: Floats) -> Floats:
    watts = constants.active + constants.compute * measured[:, 0] + constants.memory * measured[:, 1]
    result: Floats = np.minimum(1.0, watts) / measured[:, 2] - 1.0
    return result


@cache
def _units(gpu: str, model: tuple[str, ...], devices: int) -> tuple[StepEnergy, StepEnergy]:
    """Return the joules of operations alone and of bytes alone, as if each constant were 1 and nothing limited it."""
    found = []
    for compute, memory in ((1.0, 0.0), (0.0, 1.0)):
        fit = EnergyFit("unit", idle=0.0, active=0.0, compute=compute, memory=memory)
        config = _config(gpu, *model)
        pool = config.cluster.pools["llm"]
        assert isinstance(pool, LLMPool)
        longest, most = [_NO_LIMIT] * (LARGEST + 1), [_NO_LIMIT] * 601
        deployment = Deployment(
            "cluster.pools.llm", pool.model, replace(pool.hardware, energy=fit), devices, LARGEST, 600
        )
        cost = StepCost(longest, most, most, _NO_LIMIT, prefill_pair_ps=float(_NO_LIMIT))
        energy = step_energy(deployment, cost)
        assert energy is not None
        found.append(energy)
    return found[0], found[1]


@cache
def _config(gpu: str, *model: str) -> hf.Config:
    return hf.compose(["pipeline=llm", f"hardware={gpu}", *model, "slo=none"])


def _hardware(gpu: str) -> Hardware:
    pool = _config(gpu).cluster.pools["llm"]
    assert isinstance(pool, LLMPool)
    return pool.hardware
