"""The overheads that an engine adds to a step: sampling the next tokens and launching kernels."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from hermes_flow.config.mixer_shape import has_delta_rule
from hermes_flow.config.schema import EagerSteps, EngineOverhead, Model, Sampler
from hermes_flow.config.shape import whole
from hermes_flow.cost.operators import Floats
from hermes_flow.cost.small_kernels import kernels_of

# of steps without CUDA graphs
_LAUNCHES = ("layer_us", "experts_us", "triton_us", "latent_us", "delta_rule_us")


def sampler_us(sampler: Sampler, model: Model, rows: Floats) -> Floats:
    """Return the µs of drawing a token for each of ``rows`` sequences, as the model's requests sample."""
    millions = rows * model.vocab_size / 1e6
    total = sampler.us_per_million * millions
    if model.sampling.sorted:
        total = total + sampler.sort_us + sampler.sort_us_per_million * millions
    if model.sampling.penalties:
        total = total + sampler.penalty_us
    result: Floats = np.where(rows > 0, total, 0.0)
    return result


@dataclass(frozen=True, slots=True)
class LaunchedLayers:
    """The layers whose kernels the host launches: ``dense`` ones and ``mixtures`` of experts count apart.

    ``latent`` is how many of both keep latent KV, and ``delta_rule`` how many have the delta rule.
    """

    dense: float
    mixtures: float
    latent: float = 0.0
    delta_rule: float = 0.0


def launched_us(
    token_wise_us: Floats, eager: EagerSteps, layers: LaunchedLayers, max_sequences: int
) -> Floats:
    """Return times by number of tokens, raised to the launch time where no CUDA graph was captured."""
    floor = _launches_us(eager, layers)
    result = token_wise_us.copy()
    eagerly = slice(_captured(eager, max_sequences) + 1, None)
    kernels = token_wise_us[eagerly]
    added = added_share(eager, layers)
    result[eagerly] = (1.0 - added) * np.maximum(kernels, floor) + added * (kernels + floor)
    return result


def waiting_us(
    token_wise_us: Floats, eager: EagerSteps, layers: LaunchedLayers, max_sequences: int
) -> Floats:
    """Return by number of tokens how long the device waits for launches that come beside its kernels."""
    result = 0.0 * token_wise_us
    eagerly = slice(_captured(eager, max_sequences) + 1, None)
    waits = np.maximum(0.0, _launches_us(eager, layers) - token_wise_us[eagerly])
    result[eagerly] = (1.0 - added_share(eager, layers)) * waits
    return result


def _launches_us(eager: EagerSteps, layers: LaunchedLayers) -> float:
    floor = layers.dense * eager.layer_us + layers.mixtures * eager.experts_us
    return floor + layers.latent * eager.latent_us + layers.delta_rule * eager.delta_rule_us


def launching_in(engine: EngineOverhead, factor: float) -> EngineOverhead:
    """Return the engine with ``factor`` times the launches of steps without CUDA graphs."""
    eager = engine.eager
    if eager is None or factor == 1.0:
        return engine
    launches = {name: factor * us for name in _LAUNCHES if (us := getattr(eager, name)) is not None}
    return replace(engine, eager=replace(eager, **launches))


def added_share(eager: EagerSteps, layers: LaunchedLayers) -> float:
    """Return the share of the layers whose launches and kernels add."""
    return layers.delta_rule / (layers.dense + layers.mixtures) if eager.delta_rule_waits else 0.0


def with_gaps_us(token_wise_us: Floats, eager: EagerSteps, layers: float, max_sequences: int) -> Floats:
    """Return times by number of tokens, with the gaps between kernels where no CUDA graph was captured."""
    result = token_wise_us.copy()
    result[_captured(eager, max_sequences) + 1 :] += layers * eager.gap_us
    return result


def _captured(eager: EagerSteps, max_sequences: int) -> int:
    return min(eager.above_tokens, eager.above_per_sequence * max_sequences)


def engine_terms(engine: EngineOverhead, model: Model | None, tensor_parallel: int) -> list[str]:
    """Return the overheads of the engine for people; ``model`` is the model that answers, if it is another one."""
    if engine.layer_us is None:
        terms = [f"{engine.step_us:g} µs a step", f"{engine.sequence_us:g} µs a sequence"]
    else:
        terms = [f"{engine.layer_us:g} µs a layer"]
        terms += _small_kernel_terms(engine, model)
        terms += [f"{engine.step_us:g} µs a step"] if engine.step_us else []
        terms += [f"{engine.sequence_us:g} µs a sequence"] if engine.sequence_us else []
    if engine.dependent_launches:
        terms.append(f"dependent launches that hide {engine.kernel_gap_us:g} µs between kernels")
    elif engine.kernel_gap_us and model is not None and model.latent_attention is not None:
        terms.append(f"{engine.kernel_gap_us:g} µs between kernels")
    if engine.elementwise is not None:
        terms.append(f"norms and activations at {engine.elementwise:g} of the bandwidth")
    if engine.attention_launch or engine.layer_us is None:
        terms.append(f"{engine.attention_launch:g} of the attention launches")
    if model is not None and model.experts is not None and engine.experts_us:
        terms.append(f"{engine.experts_us:g} µs more with experts")
    if tensor_parallel > 1 and engine.all_reduce_wait != 1.0:
        terms.append(f"all-reduces × {engine.all_reduce_wait:g}")
    if model is not None:
        if engine.sampler is not None:
            terms.append(sampling_note(model))
        if engine.eager is not None:
            experts = "" if model.experts is None else f", {engine.eager.experts_us:g} µs of experts"
            if model.latent_attention is not None and engine.eager.latent_us:
                experts += f", {engine.eager.latent_us:g} µs more for latent attention"
            if has_delta_rule(model):
                experts += _delta_rule_term(engine.eager)
            gaps = f"{engine.eager.gap_us:g} µs more and " if engine.eager.gap_us else ""
            terms.append(f"without CUDA graphs {gaps}at least {engine.eager.layer_us:g} µs a layer{experts}")
    return terms


def _small_kernel_terms(engine: EngineOverhead, model: Model | None) -> list[str]:
    """Return how many small kernels the model has beside those of plain layers, if any."""
    if engine.small_kernels is None or model is None:
        return []
    found = kernels_of(engine.small_kernels, model, whole(model))
    words = [f"{count:g} of {name.replace('_', ' ')}" for name, count in found.items() if count]
    return (
        [f"{engine.small_kernels.us:g} µs for each further small kernel ({', '.join(words)})"]
        if words
        else []
    )


def _delta_rule_term(eager: EagerSteps) -> str:
    more = f", {eager.delta_rule_us:g} µs more for the delta rule" if eager.delta_rule_us else ""
    layers = "it" if more else "the delta rule"
    return f"{more}, added to the kernels of layers with {layers}" if eager.delta_rule_waits else more


def sampling_note(model: Model) -> str:
    """Return how the model's requests sample, for people."""
    sampling = model.sampling
    kinds = [
        name for name, does in (("top-p/top-k", sampling.sorted), ("penalties", sampling.penalties)) if does
    ]
    return f"sampling with {' and '.join(kinds)}" if kinds else "plain sampling"
