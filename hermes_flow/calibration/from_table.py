"""Fits a table of measured shapes or steps, as a regression or as corrections of the roofline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from hermes_flow.calibration.entry import Entry, comment, fit_text, folded, number, table, wrapped
from hermes_flow.calibration.naming import as_configured
from hermes_flow.cost.fitted.correction import (
    Corrections,
    Site,
    corrected_us,
    fit_corrections,
    plain_us,
    without_engine,
)
from hermes_flow.cost.fitted.held_out import held_out
from hermes_flow.cost.fitted.step_fit import StepFit
from hermes_flow.cost.fitted.step_form import fit_steps, fitted_us
from hermes_flow.cost.fitted.steps import Errors, Floats, Steps
from hermes_flow.cost.fitted.tables import Measurements
from hermes_flow.cost.model import CostModel, Deployment
from hermes_flow.cost.regression import little_support_note
from hermes_flow.errors import ConfigError
from hermes_flow.metrics.number_text import counted
from hermes_flow.pools.llm.schema import LLMPool

_LEAST_SHAPES = 4  # with fewer, nothing can be left out
_FOLDS = 12  # of shapes held out of corrections, which take longer to fit


def regression(measured: Measurements, pool: LLMPool, name: str, form: str) -> Entry:
    """Return ``cost=regression`` of the pool ``name`` with a fit for each tensor parallelism in the table."""
    fits: dict[int, StepFit] = {}
    rows: list[tuple[str, ...]] = [_HEAD]
    figures: dict[str, Any] = {}
    told: list[str] = []
    for parallel, steps in _by_tensor_parallel(measured, pool).items():
        _require_shapes(steps, measured, parallel)
        fit = fit_steps(steps, form)
        known = Errors.of(fitted_us(fit, steps), steps)

        def predict(others: Steps, asked: Steps) -> Floats:
            return fitted_us(fit_steps(others, form), asked)

        unseen = held_out(steps, predict)
        fits[parallel] = replace(
            fit, source=f"fit: {known}. Shapes held out: {unseen}. Steps of up to {_range(steps)}"
        )
        rows += _rows(f"TP {parallel}", [known], unseen)
        figures[str(parallel)] = _figures(known, unseen)
        if little_support_note(fit):
            told += wrapped(f"TP {parallel}, {little_support_note(fit)}")
    what = f"{pool.model.name} on {pool.hardware.name}"
    body = "\n".join(f"  {parallel}:\n{fit_text(fit, '    ')}" for parallel, fit in fits.items())
    text = (
        comment(f"A step of {what}, fitted by hermes-flow calibrate (docs/calibration.md). Times in µs.")
        + "kind: regression\n"
        + f"model: {pool.model.name}\nhardware: {pool.hardware.name}\n"
        + f"source: {folded(_source(measured, form), '')}\n"
        + f"fits: # by tensor-parallel devices\n{body}\n"
    )
    least = min(fits)
    use = (
        f"model={pool.model.name}",
        f"hardware={pool.hardware.name}",
        f"cluster.pools.{name}.tensor_parallel={least}",
    )
    lines = (f"regression ({form}) of {what}", *_used(measured, pool), *table(rows), *told)
    return Entry("cost", text, lines, {"kind": "regression", **_counts(measured), "errors": figures}, use)


def hybrid(measured: Measurements, pool: LLMPool, name: str, roofline: CostModel) -> Entry:
    """Return ``cost=hybrid`` with one set of corrections, fitted to all tensor parallelisms of the table."""
    sites = {
        parallel: _site(name, pool, parallel, steps, roofline)
        for parallel, steps in _by_tensor_parallel(measured, pool).items()
    }
    for parallel, site in sites.items():
        _require_shapes(site.steps, measured, parallel)
    found = fit_corrections(list(sites.values()))
    rows: list[tuple[str, ...]] = [("", "roofline", *_HEAD[1:])]
    figures: dict[str, Any] = {}
    for parallel, site in sites.items():
        known = Errors.of(corrected_us(found, site), site.steps)
        unseen = _without_shapes(sites, parallel)
        plain = _plain(name, pool, parallel, site, roofline)
        rows += _rows(f"TP {parallel}", [plain, known], unseen)
        figures[str(parallel)] = _figures(known, unseen) | {"roofline": plain.mean}
        if len(sites) > 1:
            others = fit_corrections([other for count, other in sites.items() if count != parallel])
            alone = Errors.of(corrected_us(others, site), site.steps)
            rows += _rows(f"TP {parallel} from the others", [plain, None], alone)
            figures[str(parallel)]["from_other_devices"] = alone.mean
    what = f"{pool.model.name} on {pool.hardware.name}"
    source = (
        f"{_source(measured, 'corrections of the roofline')} of {pool.model.name}; off with shapes held out: "
    )
    source += "; ".join(
        f"TP {parallel} " + ", ".join(f"{kind} {100 * mean:.1f} %" for kind, mean in each["held_out"].items())
        for parallel, each in figures.items()
    )
    values = "".join(f"{key}: {number(value)}\n" for key, value in asdict(found).items())
    text = (
        comment(
            f"The roofline as corrected by steps of {what}, by hermes-flow calibrate (docs/calibration.md)."
        )
        + "defaults:\n  - hybrid\n  - _self_\n\n"
        + f"measured_on: {pool.hardware.name}\n{values}"
        + f"source: {folded(source, '')}\n"
    )
    lines = (f"corrections of the roofline by {what}", *_used(measured, pool), *table(rows), *_told(found))
    report = {"kind": "hybrid", **_counts(measured), "corrections": asdict(found), "errors": figures}
    return Entry("cost", text, lines, report, (f"hardware={pool.hardware.name}",))


_HEAD = ("", "fit", "held out", "  worst step held out")


def _by_tensor_parallel(measured: Measurements, pool: LLMPool) -> dict[int, Steps]:
    """Return the steps by devices; those of a table that does not say are of the pool's."""
    return {
        pool.tensor_parallel if count is None else count: steps
        for count, steps in measured.by_tensor_parallel.items()
    }


def _site(name: str, pool: LLMPool, parallel: int, steps: Steps, roofline: CostModel) -> Site:
    deployment = _deployment(name, pool, parallel, steps)
    bare = replace(deployment, hardware=without_engine(pool.hardware))
    return Site(steps, roofline.lower(bare), pool.model.layers)


def _deployment(name: str, pool: LLMPool, parallel: int, steps: Steps) -> Deployment:
    return Deployment(
        key=f"cluster.pools.{name}",
        model=pool.model,
        hardware=pool.hardware,
        tensor_parallel=parallel,
        max_tokens=int(steps.tokens.max()),
        max_sequences=int((steps.decodes + steps.prefills).max()),
    )


def _without_shapes(sites: Mapping[int, Site], parallel: int) -> Errors:
    """Return the errors on shapes of one site that were left out, of that one only."""
    own = sites[parallel]
    others = [site for count, site in sites.items() if count != parallel]

    def predict(known: Steps, asked: Steps) -> Floats:
        found = fit_corrections([replace(own, steps=known), *others])
        return corrected_us(found, replace(own, steps=asked))

    return held_out(own.steps, predict, _FOLDS)


def _plain(name: str, pool: LLMPool, parallel: int, site: Site, roofline: CostModel) -> Errors:
    """Return the errors of the roofline as it is, with the hardware's engine."""
    deployment = _deployment(name, pool, parallel, site.steps)
    return Errors.of(plain_us(replace(site, kernels=roofline.lower(deployment))), site.steps)


def _require_shapes(steps: Steps, measured: Measurements, parallel: int) -> None:
    by_kind = [len(np.unique(steps.shape[steps.kind == kind])) for kind in np.unique(steps.kind)]
    # A row of a table of shapes has its prefill and its decode.
    shapes = max(by_kind) if measured.form == "shapes" else sum(by_kind)
    if shapes < _LEAST_SHAPES:
        listed = "".join(f"\n  - {fault}" for fault in measured.faults)
        raise ConfigError(
            "task.path",
            f"{measured.path}: {counted(shapes, 'distinct shape')} on {counted(parallel, 'device')}; expected "
            f"{_LEAST_SHAPES} or more, to hold some out" + (f"; left out:{listed}" if listed else ""),
        )


def _source(measured: Measurements, form: str) -> str:
    left = f", {measured.left_out:,} left out" if measured.left_out else ""
    distinct = sum(len(steps) for steps in measured.by_tensor_parallel.values())
    used = f"{measured.rows - measured.left_out:,} rows of {measured.form}"
    return f"{measured.path}: {used}{left}, fitted as {distinct:,} steps; {form}"


def _counts(measured: Measurements) -> dict[str, Any]:
    return {"source": measured.path, "rows": measured.rows, "left_out": measured.left_out}


def _used(measured: Measurements, pool: LLMPool) -> list[str]:
    """Return what the rows are taken to be of, how many were used, and what was wrong with the others."""
    of = [line for text in as_configured(pool, measured.of) for line in wrapped(text)]
    distinct = sum(len(steps) for steps in measured.by_tensor_parallel.values())
    rows = f"{measured.rows - measured.left_out:,} of {measured.rows:,} rows"
    used = f"from {rows} of {measured.path}, as {distinct:,} steps"
    if not measured.left_out:
        return [*of, *wrapped(used), ""]
    listed = [line for fault in measured.faults for line in wrapped(f"  - {fault}", "    ")]
    return [*of, *wrapped(f"{used}; left out:"), *listed, ""]


def _range(steps: Steps) -> str:
    parts = [f"{steps.tokens.max():,.0f} tokens"]
    if steps.decodes.any():
        parts.append(f"{steps.decodes.max():,.0f} decodes over {steps.decode_context.max():,.0f}")
    return ", ".join(parts)


def _rows(name: str, known: Sequence[Errors | None], unseen: Errors) -> list[tuple[str, ...]]:
    """Return a line for each kind of step: mean errors of ``known`` fits and of what was held out, and the worst."""
    rows = []
    for kind, mean in unseen.mean.items():
        error, label = unseen.worst[kind]
        means = ["" if each is None else f"{100 * each.mean[kind]:.1f} %" for each in known]
        rows.append((f"{name}, {kind}", *means, f"{100 * mean:.1f} %", f"  {100 * error:+.0f} % ({label})"))
    return rows


def _figures(known: Errors, unseen: Errors) -> dict[str, Any]:
    """Return mean sizes of relative errors by kind of step, and the worst step held out."""
    worst = {kind: {"error": error, "step": label} for kind, (error, label) in unseen.worst.items()}
    return {"fit": known.mean, "held_out": unseen.mean, "worst": worst}


def _told(found: Corrections) -> list[str]:
    text = (
        f"token work × {found.token_work:.3g}, at least {found.host_layer_us:,.4g} µs a layer; decode attention × "
        f"{found.decode_attention:.3g}, prefill attention × {found.prefill_attention:.3g}; "
        f"{found.sequence_us:,.4g} µs a sequence, {found.prefill_layer_us:,.4g} µs a layer in steps with prompts"
    )
    return ["", *wrapped(text, "")]
