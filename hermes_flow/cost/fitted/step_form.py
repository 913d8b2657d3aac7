"""The form of a fitted step: piecewise linear in tokens and sequences, linear in pairs and context.

    fixed + tokens(T) + decodes(n) + per_context · decode context
    + [with prompts: prefill + per_pair · pairs + per_past · their computed tokens + per_prompt · (prompts − 1)]

T counts all tokens of the step. ``tokens`` never falls. ``decodes`` is convex: with more sequences the next one never
costs less, as where the larger of several times counts. Of all coefficients none is negative. In a log with enough
steps of both kinds the decodes beside prompts have a slope of their own in place of ``decodes``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hermes_flow.cost.fitted.least_squares import Floats, Pulls, least_relative
from hermes_flow.cost.fitted.step_fit import StepFit
from hermes_flow.cost.fitted.step_support import bounded
from hermes_flow.cost.fitted.steps import KINDS, Mask, Steps
from hermes_flow.errors import HermesFlowError
from hermes_flow.program.same_bits import exp, log, mean, total

# Pulls, as relative errors: neighbouring slopes of ``tokens`` towards each other, and prompts to cost nothing apart.
_SMOOTH = 0.1
_NO_PROMPT = 1.0
# The coefficients that steps without prompts have most of, and those that steps with prompts do.
_OF_DECODES = frozenset({"step_us", "decodes_us", "per_decode_us", "per_context_us"})
_OF_PROMPTS = frozenset(
    {
        "tokens_us",
        "per_token_us",
        "prefill_us",
        "per_prompt_us",
        "per_pair_us",
        "per_past_us",
        "per_beside_us",
    }
)
_ALL = _OF_DECODES | _OF_PROMPTS
# A log with as many steps of decodes alone, and beside prompts, tells the two apart; then they are pulled together.
_BOTH = 20
_ALIKE = 0.3
_TURNS = 8  # of one after the other; they hardly overlap
_MOST_SCALED = (0.5, 2.0)  # in a turn
_KNOTS = 16  # at most; more distinct sizes than that are covered by a geometric grid


def fit_steps(steps: Steps, form: str) -> StepFit:
    """Return the fit of ``form`` (piecewise or affine) to measured steps; raises HermesFlowError for too few."""
    if len(steps) < 3:
        raise HermesFlowError(f"{len(steps)} distinct steps; expected 3 or more to fit a line to")
    piecewise = form == "piecewise"
    basis = _Basis.of(steps, piecewise=piecewise)
    columns = basis.columns(steps)
    pulls = basis.pulls(steps, columns)
    if steps.rows is None:  # a table of shapes has each of them on purpose
        return basis.fit(least_relative(columns, steps.time_us, pulls), steps)
    weights, held = bounded(columns, basis.sizes(steps), basis.names(), steps.time_us, pulls)
    fit = replace(basis.fit(weights, steps), little_support=held)
    return keeping_total(fit, steps)


def fitted_us(fit: StepFit, steps: Steps) -> Floats:
    """Return the times of the fit for these steps, in µs."""
    prompts = steps.prefill_tokens > 0
    found = fit.step_us + line(fit.tokens, fit.tokens_us, fit.per_token_us, steps.tokens)
    decodes = line(fit.decodes, fit.decodes_us, fit.per_decode_us, steps.decodes)
    if fit.per_beside_us is not None:
        decodes = np.where(prompts, fit.per_beside_us * steps.decodes, decodes)
    found = found + decodes
    found = found + fit.per_context_us * steps.decode_context
    launched = fit.prefill_us + fit.per_prompt_us * (steps.prefills - 1.0)
    found = found + np.where(prompts, launched, 0.0)
    result: Floats = found + fit.per_pair_us * steps.pairs + fit.per_past_us * steps.prefill_context
    return result


def keeping_total(fit: StepFit, steps: Steps) -> StepFit:
    """Return the fit scaled so that the steps of a log take as long as all of its rows were measured to take.

    Steps with prompts and those without keep their totals apart. The least mean size of relative errors follows the
    typical step. Where times are skewed, as by pauses, it would lose what the slow ones take more.
    """
    if steps.rows is None or steps.mean_us is None:
        return fit
    fit = _scaled(fit, _ratio(fit, steps, np.ones(len(steps), dtype=np.bool_)), _ALL)
    prompts = steps.prefill_tokens > 0
    if prompts.all() or not prompts.any():
        return fit
    for _ in range(_TURNS):
        fit = _part_scaled(fit, steps, ~prompts, _OF_DECODES)
        fit = _part_scaled(fit, steps, prompts, _OF_PROMPTS)
    return fit


def _ratio(fit: StepFit, steps: Steps, chosen: Mask) -> float:
    """Return the measured total of the chosen steps over that of the fit."""
    rows, mean_us = steps.rows, steps.mean_us
    assert rows is not None
    assert mean_us is not None
    return total((rows * mean_us)[chosen]) / total((rows * fitted_us(fit, steps))[chosen])


def _part_scaled(fit: StepFit, steps: Steps, chosen: Mask, names: frozenset[str]) -> StepFit:
    """Return the fit with some coefficients scaled so that the chosen steps keep their total, if these reach."""
    rows, mean_us = steps.rows, steps.mean_us
    assert rows is not None
    assert mean_us is not None
    found = fitted_us(fit, steps)
    part = total((rows * (found - fitted_us(_scaled(fit, 0.0, names), steps)))[chosen])
    missing = total((rows * (mean_us - found))[chosen])
    if part <= 0.0:
        return fit
    return _scaled(fit, float(np.clip(1.0 + missing / part, *_MOST_SCALED)), names)


def _scaled(fit: StepFit, factor: float, names: frozenset[str]) -> StepFit:
    scaled: dict[str, Any] = {
        name: tuple(factor * time for time in value) if isinstance(value, tuple) else factor * value
        for name in sorted(names)
        if (value := getattr(fit, name))
    }
    return replace(fit, **scaled)


def line(sizes: Sequence[float], times: Sequence[float], beyond: float, at: Floats) -> Floats:
    """Return a time over a size: 0 at 0, linear between the points, and with the slope ``beyond`` after them."""
    known = np.concatenate(([0.0], sizes))
    within = np.interp(at, known, np.concatenate(([0.0], times)))
    result: Floats = within + beyond * np.maximum(0.0, at - known[-1])
    return result


@dataclass(frozen=True, slots=True)
class _Basis:
    """Where the pieces of ``tokens`` begin (0 first), and where the slope of ``decodes`` may rise.

    ``apart``: decodes beside prompts have a slope of their own.
    """

    tokens: Floats
    decodes: Floats
    apart: bool

    @classmethod
    def of(cls, steps: Steps, *, piecewise: bool) -> _Basis:
        start = np.zeros(1)
        if not piecewise:
            return cls(start, np.zeros(0), apart=False)
        with_prompts = np.unique(steps.tokens[steps.prefill_tokens > 0])
        numbers = _knots(np.unique(steps.decodes[steps.decodes > 0]))
        kinds = np.bincount(steps.kind, minlength=len(KINDS))
        apart = steps.rows is not None and min(kinds[1:]) >= _BOTH
        tokens = np.concatenate([start, _knots(with_prompts)[:-1]])
        return cls(tokens, np.sqrt(numbers[:-1] * numbers[1:]), apart=apart)

    def columns(self, steps: Steps) -> Floats:
        """Return what each coefficient is multiplied with, a row per step."""
        prompts = steps.prefill_tokens > 0
        ends = np.append(self.tokens[1:], np.inf)
        pieces = [
            np.clip(steps.tokens - begin, 0.0, end - begin)
            for begin, end in zip(self.tokens, ends, strict=True)
        ]
        alone = np.where(prompts, 0.0, steps.decodes) if self.apart else steps.decodes
        hinges = [np.maximum(0.0, alone - knot) for knot in self.decodes]
        beside = [steps.decodes - alone] if self.apart else []
        return np.stack(
            [
                np.ones(len(steps)),
                prompts.astype(np.float64),
                np.where(prompts, steps.prefills - 1.0, 0.0),
                steps.pairs,
                steps.prefill_context,
                steps.decode_context,
                *pieces,
                alone,
                *hinges,
                *beside,
            ],
            axis=1,
        )

    def names(self) -> list[str]:
        """Return the name of each coefficient, for people; "" where it is no slope."""
        pieces = [f"tokens beyond {begin:,.0f}" if begin else "tokens" for begin in self.tokens]
        hinges = [f"decodes beyond {knot:,.0f}" for knot in self.decodes]
        slopes = ["prompts of a step", "query-key pairs", "computed tokens of prompts", "context of decodes"]
        beside = ["decodes beside prompts"] if self.apart else []
        return ["", "", *slopes, *pieces, "decodes", *hinges, *beside]

    def sizes(self, steps: Steps) -> Floats:
        """Return the whole size that each coefficient is a slope of, a row per step."""
        prompts = np.where(steps.prefill_tokens > 0, steps.prefills, 0.0)
        none = np.zeros(len(steps))
        pieces, hinges = (
            [steps.tokens] * len(self.tokens),
            [steps.decodes] * (1 + len(self.decodes) + self.apart),
        )
        sizes = [none, none, prompts, steps.pairs, steps.prefill_context, steps.decode_context]
        return np.stack([*sizes, *pieces, *hinges], axis=1)

    def pulls(self, steps: Steps, columns: Floats) -> Pulls:
        """Return what holds coefficients that the measurements leave open."""
        rows = np.zeros((len(self.tokens) + self.apart, columns.shape[1]))
        if self.apart:
            alone = 6 + len(self.tokens)
            size = _ALIKE * mean(columns[:, -1] / steps.time_us)
            rows[-1, alone], rows[-1, -1] = size, -size
        rows[len(self.tokens) - 1, 2] = _NO_PROMPT * mean(columns[:, 2] / steps.time_us)
        order = np.argsort(steps.tokens, kind="stable")
        for piece in range(len(self.tokens) - 1):
            knot = float(self.tokens[piece + 1])
            there = float(np.interp(knot, steps.tokens[order], steps.time_us[order]))
            rows[piece, 6 + piece] = _SMOOTH * knot / there
            rows[piece, 7 + piece] = -_SMOOTH * knot / there
        return Pulls(rows, np.zeros(len(rows)))

    def fit(self, weights: Floats, steps: Steps) -> StepFit:
        """Return the coefficients under their names."""
        count = len(self.tokens)
        fixed, launch, prompt, pair, past, context = weights[:6].tolist()
        slopes, decode = weights[6 : 6 + count], weights[6 + count]
        tokens, tokens_us, per_token = _points(self.tokens, slopes)
        steeper = weights[7 + count : 7 + count + len(self.decodes)]
        rising = decode + np.concatenate([[0.0], np.cumsum(steeper)])
        decodes, decodes_us, per_decode = _points(np.concatenate([[0.0], self.decodes]), rising)
        return StepFit(
            step_us=fixed,
            tokens=tokens,
            tokens_us=tokens_us,
            per_token_us=per_token,
            decodes=decodes,
            decodes_us=decodes_us,
            per_decode_us=per_decode,
            per_context_us=context,
            per_beside_us=float(weights[-1]) if self.apart else None,
            prefill_us=launch,
            per_prompt_us=prompt,
            per_pair_us=pair,
            per_past_us=past,
            most_tokens=int(steps.tokens.max()),
            most_decodes=int(steps.decodes.max()),
        )


def _knots(sizes: Floats) -> Floats:
    """Return the sizes, or a geometric grid over them where they are many."""
    if len(sizes) <= _KNOTS:
        return sizes
    least, most = log([sizes[0], sizes[-1]]).tolist()
    grid: Floats = np.unique(np.rint(exp(np.linspace(least, most, _KNOTS))))
    return grid


def _points(begins: Floats, slopes: Floats) -> tuple[tuple[float, ...], tuple[float, ...], float]:
    """Return where the slope changes after 0, the times there, and the last slope."""
    times = np.cumsum(slopes[:-1] * np.diff(begins))
    bends = ~np.isclose(slopes[1:], slopes[:-1], rtol=1e-6, atol=0.0)
    return tuple(begins[1:][bends].tolist()), tuple(times[bends].tolist()), float(slopes[-1])
