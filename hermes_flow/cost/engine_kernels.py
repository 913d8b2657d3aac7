"""Replaces the figures of a hardware's kernels by those of its engine's own kernels, where these were measured."""

from __future__ import annotations

from dataclasses import fields, replace

from hermes_flow.config.schema import Efficiency, EngineKernels, Hardware, Model, Precision
from hermes_flow.errors import ConfigError

# Names of tables of figures where these are not those of their keys.
_WORDS = {"gemm": "matrix products", "all_reduce": "all-reduce of devices"}


def attends_as(model: Model) -> Precision:
    """Return the precision by which an engine's fit of attention over prompts is chosen.

    That is the precision of the KV cache. Prompts of latent attention are widened to heads in bf16, whatever the
    precision of their KV is.
    """
    return "bf16" if model.latent_attention is not None else model.precision.kv_cache


def with_engine_kernels(efficiency: Efficiency, hardware: Hardware, attends: Precision) -> Efficiency:
    """Return the efficiencies of a hardware with those of its engine's kernels in their place, figure by figure.

    ``attends`` chooses the fit of attention over prompts, which the hardware has for all precisions together.
    """
    engine = hardware.engine
    if engine is None:
        return efficiency
    if engine.experts:
        efficiency = replace(efficiency, experts={**efficiency.experts, **engine.experts})
    own = engine.kernels
    if own is None:
        return efficiency
    return replace(
        efficiency,
        gemm={**efficiency.gemm, **own.gemm},
        decode_attention={**efficiency.decode_attention, **own.decode_attention},
        prefill_attention=own.prefill_attention.get(attends, efficiency.prefill_attention),
        all_reduce={**efficiency.all_reduce, **own.all_reduce},
    )


def check_figures(kernels: EngineKernels | None, key: str) -> None:
    """Raise ConfigError where an engine's kernels, which ``key`` gives, have no figures."""
    names = [entry.name for entry in fields(EngineKernels) if entry.name != "source"]
    if kernels is not None and not any(getattr(kernels, name) for name in names):
        raise ConfigError(key, f"no figures; expected {', '.join(names[:-1])} or {names[-1]}, or null")


def kernel_words(kernels: EngineKernels) -> str:
    """Return which figures an engine's kernels have of their own, and where they come from, for people."""
    parts = []
    for entry in fields(kernels):
        table = getattr(kernels, entry.name)
        if entry.name != "source" and table:
            names = ", ".join(str(name) for name in table)
            parts.append(f"{_WORDS.get(entry.name, entry.name.replace('_', ' '))} ({names})")
    return f"{', '.join(parts)}: {kernels.source}"
