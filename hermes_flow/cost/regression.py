"""The cost model ``regression``: a fit to measured steps of the same model on the same hardware."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from hermes_flow.config.quantities import Count, Milliseconds, PositiveSeconds
from hermes_flow.cost.fitted.step_fit import StepFit
from hermes_flow.cost.model import Deployment, Hop, cost_models
from hermes_flow.errors import ConfigError, HermesFlowError
from hermes_flow.program.step_cost import StepCost
from hermes_flow.program.units import PS_PER_NS, PS_PER_US, ms_to_ns

LITTLE_SUPPORT = "slopes that few measured steps determine"


@cost_models.register("regression")
@dataclass(frozen=True, slots=True)
class Regression:
    """``fits`` by tensor-parallel devices, as ``hermes-flow calibrate`` writes them, or made here from ``path``.

    ``path`` is a table of measured shapes or steps; of its rows those count that have the values of ``where``, by
    column. ``model`` and ``hardware`` name what the fits are of (null: not known, anything goes), ``source`` where
    they are from. Steps larger than all measured ones go on with the last slope, or are an error if ``strict``.
    """

    path: str | None = None
    where: dict[str, Any] = field(default_factory=dict)
    form: Literal["piecewise", "affine"] = "piecewise"
    """The form of a step that is fitted to the rows of ``path``: piecewise linear, or one straight line."""
    strict: bool = False
    drift_s: PositiveSeconds | None = None
    """The length of the windows of a log in which the speed of its machine is measured; null: one speed for all."""
    ingest_ms: Milliseconds = 0.0
    """The time between a request's arrival and the scheduler seeing it."""
    model: str | None = None
    hardware: str | None = None
    source: str = ""
    fits: dict[Count, StepFit] = field(default_factory=dict)

    def lower(self, deployment: Deployment) -> StepCost:
        """Return the step tables; raises ConfigError without a fit for this deployment, and if ``strict``."""
        self._check(deployment)
        fit, notes = self._fit(deployment)
        drift: tuple[float, ...] = ()
        if self.drift_s is not None:
            fit, drift = self._drifting(self.drift_s)
            spread = f"{min(drift):.2f} to {max(drift):.2f}"
            notes.append(f"speed by windows of {self.drift_s:g} s of the log: {spread} times the fit")
        _check_fit(fit, f"cost.fits.{deployment.tensor_parallel}")
        cost = _tables(fit, deployment, self.ingest_ms, (*notes, *self._outside(fit, deployment)))
        return replace(cost, drift=drift, drift_ps=ms_to_ns(1e3 * (self.drift_s or 0.0)) * PS_PER_NS)

    def hop(self, deployment: Deployment) -> Hop:
        """Raise ConfigError: no table has the transfers between pipeline ranks."""
        raise ConfigError(
            f"{deployment.key}.pipeline_parallel", "cost=regression has no measurements of it; expected 1"
        )

    def _check(self, deployment: Deployment) -> None:
        """Refuse what was not measured, by the key that asks for it."""
        encoder = ["model"] if deployment.part == "encoder" else []
        for name in deployment.beyond_tensors() + encoder:
            raise ConfigError(
                f"{deployment.key}.{name}", "cost=regression has no measurements of it; use cost=roofline"
            )
        for name, measured, here in (
            ("model", self.model, deployment.model.name),
            ("hardware", self.hardware, deployment.hardware.name),
        ):
            if measured is not None and here != measured:
                raise ConfigError(
                    f"{deployment.key}.{name}",
                    f"{here}, but cost.{name} says that the fit is of {measured}; use cost=hybrid, or null there",
                )

    def _fit(self, deployment: Deployment) -> tuple[StepFit, list[str]]:
        """Return the fit for its tensor parallelism, and what there is to say of it."""
        tensor_parallel, key = deployment.tensor_parallel, f"{deployment.key}.tensor_parallel"
        if (self.path is None) == (not self.fits):
            which = "both path and fits" if self.fits else "neither path nor fits"
            raise ConfigError(
                "cost.path", f"{which}; expected a table of measured steps, or fits by calibrate"
            )
        if self.path is None:
            if tensor_parallel not in self.fits:
                have = ", ".join(str(count) for count in sorted(self.fits))
                raise ConfigError(key, f"{tensor_parallel}; cost.fits has {have}")
            fit = self.fits[tensor_parallel]
            return fit, [
                f"regression: {self.source or 'fits of unknown origin'}",
                *filter(None, [fit.source, little_support_note(fit)]),
            ]
        from hermes_flow.cost.fitted.step_form import fit_steps, fitted_us
        from hermes_flow.cost.fitted.steps import Errors
        from hermes_flow.cost.fitted.tables import read_measurements

        measured = read_measurements(self.path, self.where, "cost")
        steps = measured.steps(tensor_parallel, key)
        try:
            fit = fit_steps(steps, self.form)
        except HermesFlowError as error:
            raise ConfigError("cost.path", f"{self.path}: {error}") from None
        return fit, [
            f"regression ({self.form}): {measured.summary}",
            f"fit: {Errors.of(fitted_us(fit, steps), steps)}; calibrate reports the error on held-out shapes",
            *filter(None, [little_support_note(fit)]),
        ]

    def _drifting(self, window_s: float) -> tuple[StepFit, tuple[float, ...]]:
        """Return the fit to the log at its usual speed, and the factors of its windows."""
        from hermes_flow.cost.fitted.drift import fit_with_drift
        from hermes_flow.cost.fitted.tables import read_log

        if self.path is None:
            raise ConfigError("cost.drift_s", "needs cost.path, a log of steps with their start_us")
        rows, starts_us = read_log(self.path, self.where, "cost")
        try:
            return fit_with_drift(rows, starts_us, self.form, window_s)
        except HermesFlowError as error:
            raise ConfigError("cost.drift_s", f"{self.path}: {error}") from None

    def _outside(self, fit: StepFit, deployment: Deployment) -> list[str]:
        from hermes_flow.cost.kernels.curve import Findings

        findings = Findings()
        for name, most, asked in (
            ("tokens of a step", fit.most_tokens, deployment.max_tokens),
            ("decodes of a step", fit.most_decodes, deployment.max_sequences),
        ):
            if most:
                findings.check_range(name, np.arange(1.0, asked + 1.0), 1.0, float(most))
        if self.strict and findings.outside:
            where = "; ".join(f"{name}: {what}" for name, what in findings.outside.items())
            raise ConfigError(
                "cost.strict", f"outside the measurements of {self.path or self.source}: {where}"
            )
        return [
            f"outside the measurements, extrapolated: {name}, {what}"
            for name, what in findings.outside.items()
        ]


def little_support_note(fit: StepFit) -> str:
    """Return what to say of a fit with slopes that only a few measured steps determine, or ""."""
    if not fit.little_support:
        return ""
    return f"{LITTLE_SUPPORT}: {fit.little_support}; measure more steps of this kind"


def _check_fit(fit: StepFit, key: str) -> None:
    """Refuse a fit that is no step: points that do not rise, or times without sizes."""
    for name in ("tokens", "decodes"):
        sizes, times = getattr(fit, name), getattr(fit, f"{name}_us")
        if len(sizes) != len(times):
            raise ConfigError(
                f"{key}.{name}_us", f"{len(times)} times for {len(sizes)} {name}; expected as many"
            )
        for what, values in ((name, sizes), (f"{name}_us", times)):
            rising = all(before <= after for before, after in zip((0.0, *values), values, strict=False))
            if not rising:
                raise ConfigError(f"{key}.{what}", "the numbers fall; expected rising ones, from 0 up")
    if not fit.step_us + fit.per_token_us + math.fsum(fit.tokens_us):
        raise ConfigError(f"{key}.step_us", "0, like all the others; expected steps that take some time")


def _tables(fit: StepFit, deployment: Deployment, ingest_ms: float, notes: tuple[str, ...]) -> StepCost:
    from hermes_flow.cost.fitted.step_form import line

    tokens = np.arange(deployment.max_tokens + 1, dtype=np.float64)
    numbers = np.arange(deployment.max_sequences + 1, dtype=np.float64)
    token_wise = fit.step_us + line(fit.tokens, fit.tokens_us, fit.per_token_us, tokens)
    token_wise[0] = 0.0
    # A prompt after the first costs something, a decode beside prompts does not cost that too: only sums of these
    # tables are ever asked for, so what decodes take may be less than nothing in one of them.
    prompts = fit.per_prompt_us * np.maximum(0.0, numbers - 1.0)
    decodes = line(fit.decodes, fit.decodes_us, fit.per_decode_us, numbers)
    beside = decodes if fit.per_beside_us is None else fit.per_beside_us * numbers
    mixed = beside - fit.per_prompt_us * numbers
    apart = fit.per_prompt_us > 0.0 or fit.per_beside_us is not None
    context_ps = round(fit.per_context_us * PS_PER_US)
    return StepCost(
        tokens_ps=_picoseconds(token_wise),
        sequences_ps=_picoseconds(prompts),
        decode_attention_ps=_picoseconds(decodes - prompts),
        context_ps=context_ps,
        prefill_launch_ps=round(fit.prefill_us * PS_PER_US),
        prefill_pair_ps=fit.per_pair_us * PS_PER_US,
        prefill_context_ps=round(fit.per_past_us * PS_PER_US),
        ingest_ns=ms_to_ns(ingest_ms),
        provenance=notes,
        mixed_attention_ps=_picoseconds(mixed) if apart else [],
        mixed_context_ps=context_ps if apart else 0,
    )


def _picoseconds(us: np.ndarray[tuple[int], np.dtype[np.float64]]) -> list[int]:
    values: list[int] = np.rint(us * PS_PER_US).astype(np.int64).tolist()
    return values
