"""Corrects the roofline by measurements on the same hardware: factors on its terms, and engine overheads.

A step takes

    max(host_layer_us · layers, token_work · tokens(T)) + token_work · output head(k) + sequence_us · k
    + decode_attention · (decode attention) + prefill_attention · (prefill attention)
    + [with prompts: prefill_layer_us · layers]

with the roofline's own times of T tokens and k sequences, without what the hardware's ``engine`` adds. The first term
is the larger of what the host takes to launch the kernels and what the device takes to run them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from hermes_flow.config.schema import EngineOverhead, Hardware
from hermes_flow.cost.fitted.least_squares import Floats, Pulls, least_relative
from hermes_flow.cost.fitted.steps import Steps
from hermes_flow.program.same_bits import mean
from hermes_flow.program.step_cost import StepCost
from hermes_flow.program.units import PS_PER_US

_NEAR_ONE = 0.05  # the relative error that a factor's deviation from 1 by its own size counts as
_CANDIDATES = 40  # at most, of where the device begins to take longer than the host


@dataclass(frozen=True, slots=True)
class Corrections:
    """Factors on the roofline's terms, and additional times in µs (see the module)."""

    host_layer_us: float
    token_work: float
    prefill_layer_us: float
    sequence_us: float
    decode_attention: float
    prefill_attention: float


@dataclass(frozen=True, slots=True)
class Site:
    """Measured steps of one deployment, and the roofline's tables for its kernels alone."""

    steps: Steps
    kernels: StepCost
    layers: int


def without_engine(hardware: Hardware) -> Hardware:
    """Return the hardware without engine overheads, except its kernels and the wait of ranks for each other."""
    engine = hardware.engine
    alone = EngineOverhead(
        source="kernels alone",
        step_us=0.0,
        sequence_us=0.0,
        attention_launch=0.0,
        ingest_ms=0.0 if engine is None else engine.ingest_ms,
        layer_us=0.0,
        all_reduce_wait=1.0 if engine is None else engine.all_reduce_wait,
        experts=None if engine is None else engine.experts,
        kernels=None if engine is None else engine.kernels,
    )
    return replace(hardware, engine=alone)


def fit_corrections(sites: Sequence[Site]) -> Corrections:
    """Return the corrections with the least relative error over all sites; undetermined factors stay near 1."""
    terms = [_Terms.of(site) for site in sites]
    times = np.concatenate([site.steps.time_us for site in sites])
    together = _Terms(*(np.concatenate(columns) for columns in zip(*map(_Terms.columns, terms), strict=True)))
    best: tuple[float, Floats] | None = None
    for turn in _turns(together.tokens / together.layers):
        on_device = together.tokens / together.layers >= turn
        columns = together.matrix(on_device)
        weights = least_relative(columns, times, _near_one(len(times)))
        found = together.at(weights)
        away = mean(np.square(weights[[1, 4, 5]] - 1.0))
        error = mean(np.abs(found / times - 1.0)) + _NEAR_ONE * away
        if best is None or error < best[0]:
            best = (error, weights)
    assert best is not None
    return Corrections(*(float(weight) for weight in best[1]))


def corrected_us(corrections: Corrections, site: Site) -> Floats:
    """Return the corrected roofline's times for the site's steps, in µs."""
    return _Terms.of(site).at(np.array([getattr(corrections, name) for name in _NAMES]))


def plain_us(site: Site) -> Floats:
    """Return the uncorrected times for the site's steps, in µs."""
    prompts = site.steps.prefill_tokens > 0
    alone = np.array([0.0, 1.0, 0.0, 0.0, 1.0, 1.0])
    return _Terms.of(site).at(alone) + np.where(prompts, site.kernels.prefill_launch_ps / PS_PER_US, 0.0)


def corrected(kernels: StepCost, corrections: Corrections, layers: int) -> StepCost:
    """Return the roofline's tables of the kernels alone, corrected."""
    ours = corrections
    host = ours.host_layer_us * layers * PS_PER_US
    work = ours.token_work * np.array(kernels.tokens_ps, dtype=np.float64)
    tokens = np.maximum(host, work)
    tokens[0] = 0.0
    heads = ours.token_work * np.array(kernels.sequences_ps, dtype=np.float64)
    sequences = heads + ours.sequence_us * PS_PER_US * np.arange(len(heads))
    attention = ours.decode_attention * np.array(kernels.decode_attention_ps, dtype=np.float64)
    return replace(
        kernels,
        tokens_ps=_whole(tokens),
        sequences_ps=_whole(sequences),
        decode_attention_ps=_whole(attention),
        context_ps=round(ours.decode_attention * kernels.context_ps),
        prefill_launch_ps=round(ours.prefill_layer_us * layers * PS_PER_US),
        prefill_pair_ps=ours.prefill_attention * kernels.prefill_pair_ps,
        scans=tuple(scan.scaled(ours.token_work) for scan in kernels.scans),
        idle_ps=_whole(tokens - work) if kernels.scans else [],
    )


_NAMES = (
    "host_layer_us",
    "token_work",
    "prefill_layer_us",
    "sequence_us",
    "decode_attention",
    "prefill_attention",
)


@dataclass(frozen=True, slots=True)
class _Terms:
    """The roofline's terms of each step in µs, and the counts that times are multiplied with."""

    layers: Floats
    prompt_layers: Floats
    sequences: Floats
    tokens: Floats
    head: Floats
    decode: Floats
    prefill: Floats

    @classmethod
    def of(cls, site: Site) -> _Terms:
        steps, kernels = site.steps, site.kernels
        tokens, numbers = _index(steps.tokens), _index(steps.decodes + steps.prefills)
        decodes = _index(steps.decodes)
        layers = np.full(len(steps), float(site.layers))
        prompts = np.maximum(steps.prefills, 1.0)
        chunk, past = steps.prefill_tokens / prompts, steps.prefill_context / prompts
        pairs = chunk * (past + 0.5 * chunk)
        pairs *= 1.0 + kernels.prefill_half_length / np.maximum(chunk + past, 1.0)
        attention = _us(kernels.decode_attention_ps)[decodes]
        return cls(
            layers=layers,
            prompt_layers=np.where(steps.prefill_tokens > 0, layers, 0.0),
            sequences=steps.decodes + steps.prefills,
            tokens=_us(kernels.tokens_ps)[tokens] + _scans_us(kernels, steps),
            head=_us(kernels.sequences_ps)[numbers],
            decode=attention + kernels.context_ps / PS_PER_US * steps.decode_context,
            prefill=kernels.prefill_pair_ps / PS_PER_US * prompts * pairs,
        )

    def columns(self) -> tuple[Floats, ...]:
        return (
            self.layers,
            self.prompt_layers,
            self.sequences,
            self.tokens,
            self.head,
            self.decode,
            self.prefill,
        )

    def matrix(self, on_device: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> Floats:
        """Return what each correction is multiplied with, where the device is slower than the host there."""
        return np.stack(
            [
                np.where(on_device, 0.0, self.layers),
                np.where(on_device, self.tokens, 0.0) + self.head,
                self.prompt_layers,
                self.sequences,
                self.decode,
                self.prefill,
            ],
            axis=1,
        )

    def at(self, weights: Floats) -> Floats:
        """Return the times with these corrections, in the order of Corrections."""
        host, work, launch, sequence, decode, prefill = weights
        found: Floats = np.maximum(host * self.layers, work * self.tokens) + work * self.head
        found = found + launch * self.prompt_layers + sequence * self.sequences
        result: Floats = found + decode * self.decode + prefill * self.prefill
        return result


def _scans_us(kernels: StepCost, steps: Steps) -> Floats:
    """Return the time of scans over the prompts of each step, which count as equally long."""
    found = np.zeros(len(steps))
    for place in np.flatnonzero(steps.prefill_tokens) if kernels.scans else ():
        count, chunks = max(1, round(steps.prefills[place])), round(steps.prefill_tokens[place])
        longest = -(-chunks // count)
        found[place] = sum(scan.step_ps(chunks, longest, count) for scan in kernels.scans) / PS_PER_US
    return found


def _turns(pace: Floats) -> Floats:
    """Return times per layer from which on the device may be the slower one; all of them, and none."""
    distinct = np.unique(pace)
    if len(distinct) > _CANDIDATES:
        distinct = np.unique(np.quantile(distinct, np.linspace(0.0, 1.0, _CANDIDATES)))
    return np.append(distinct, np.inf)


def _near_one(steps: int) -> Pulls:
    rows = np.zeros((3, 6))
    for row, factor in enumerate((1, 4, 5)):
        rows[row, factor] = _NEAR_ONE * np.sqrt(steps)
    return Pulls(rows, np.full(3, _NEAR_ONE * np.sqrt(steps)))


def _index(counts: Floats) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.rint(counts).astype(np.int64)


def _us(picoseconds: list[int]) -> Floats:
    return np.array(picoseconds, dtype=np.float64) / PS_PER_US


def _whole(picoseconds: Floats) -> list[int]:
    values: list[int] = np.rint(picoseconds).astype(np.int64).tolist()
    return values
