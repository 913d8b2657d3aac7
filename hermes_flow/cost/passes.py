"""The cost of one pass of a batched client: a batch of searches, or an encoder over a batch of sequences."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from hermes_flow.config.schema import Hardware, Model
from hermes_flow.config.shape import block_parameters, whole
from hermes_flow.config.vision import tower_model, tower_of
from hermes_flow.cost.model import CostModel, Deployment
from hermes_flow.cost.precision import PEAK_KEYS, computes_in_fp32
from hermes_flow.cost.retrieval import Host, Index, demand, work
from hermes_flow.cost.weights import rank_weight_bytes
from hermes_flow.errors import ConfigError
from hermes_flow.program.same_bits import mean
from hermes_flow.program.units import NS_PER_S, PS_PER_NS, Ints, bytes_to_gb, gb_to_bytes
from hermes_flow.program.work import PassCost

_MOST_TOKENS = 4_000_000  # a table has an entry for each token of a pass
_MOST_SECONDS = 1e9
_FP32_BYTES = 4.0


class PassPool(Protocol):
    """The parts of a pool that determine the cost of a pass: hardware, encoder and largest batch."""

    @property
    def hardware(self) -> Hardware:
        """The accelerator, or the CPU host."""

    @property
    def model(self) -> Model | None:
        """The encoder, if there is one."""

    @property
    def tensor_parallel(self) -> int:
        """Devices that share the encoder."""

    @property
    def cores(self) -> int | None:
        """Cores of a CPU host that are used; None: all."""

    @property
    def max_batch(self) -> int:
        """The most tasks of a pass."""


@dataclass(frozen=True, slots=True)
class Site:
    """The pool on which the tasks of a batched stage run; ``key`` is its full key.

    ``tokens`` are those of each task that is taken, ``model`` the one that the stage names, ``searched`` the index
    that was searched last before it.
    """

    key: str
    pool: PassPool
    cost: CostModel
    tokens: Ints
    model: str | None = None
    searched: Index | None = None


def search_pass(site: Site, index: Index, what: str) -> PassCost:
    """Return the cost of passes over searches of ``index`` on the pool's hosts; ``what`` names it in notes.

    Raises ConfigError where a figure is null.
    """
    pool, hardware = site.pool, site.pool.hardware
    key = f"{site.key}.hardware.retrieval"
    fit = hardware.retrieval
    cores = pool.cores or hardware.cores
    if fit is None or cores is None:
        raise ConfigError(key, f"null; a vector search needs it, and {hardware.name} has no figures for one")
    host = Host(key, cores, gb_to_bytes(hardware.bandwidth_gb_s), fit)
    ns, sizes = [0], [0]
    for batch in range(1, pool.max_batch + 1):
        asked = demand(index, batch, host)
        seconds = asked.seconds(host.usable_bandwidth)
        if not seconds < _MOST_SECONDS:
            raise ConfigError(
                site.key, "a pass would take longer than 30 years; check the index and the hardware"
            )
        ns.append(max(1, round(seconds * NS_PER_S)))
        sizes.append(round(asked.bytes))
    one = work(index, 1)
    notes = (
        f"{what}: a query reads {_scaled(one.bytes)}B and computes {_scaled(one.flops)}FLOP, on {cores} cores "
        f"and {bytes_to_gb(host.usable_bandwidth):,.4g} GB/s; {_spread(ns)}",
        fit.source,
    )
    return PassCost(ns=tuple(ns), bytes=tuple(sizes), provenance=notes)


def encoder_pass(site: Site, what: str, sequences: int = 1) -> PassCost:
    """Return the forward passes of the pool's encoder over ``sequences`` equal parts of each task's tokens.

    On a CPU a pass reads the weights from memory once. Raises ConfigError where a figure is null.
    """
    pool, model = site.pool, site.pool.model
    if model is None:
        raise ConfigError(f"{site.key}.model", f"null; {what} needs an encoder")
    kept = np.sort(cut(site.tokens, sequences, model))[-pool.max_batch :]
    longest = max(sequences, int(kept.sum()))
    if longest > _MOST_TOKENS:
        raise ConfigError(
            f"{site.key}.max_batch",
            f"{pool.max_batch} tasks of {what} may have {longest:,} tokens; expected fewer",
        )
    deployment = Deployment(
        key=site.key,
        model=model,
        hardware=_on_cores(pool),
        tensor_parallel=pool.tensor_parallel,
        max_tokens=longest,
        max_sequences=pool.max_batch * sequences,
        part="encoder",
    )
    step = site.cost.lower(deployment)
    each = max(1, round(mean(kept) / sequences)) if len(kept) else 1
    ns = [0] + [
        step.step_ps([(each, 0)] * (batch * sequences), 0, 0) // PS_PER_NS
        for batch in range(1, pool.max_batch + 1)
        if batch * sequences * each <= longest
    ]
    long = f"of {each:,} tokens" if sequences == 1 else f"of {sequences} × {each:,} tokens"
    cores = f" on {pool.cores} cores" if pool.cores else ""
    notes = (f"{what} by {model.name}{cores}, {long}: {_spread(ns)}", *step.provenance)
    return PassCost(bytes=_weights_read(pool, model), step=step, sequences=sequences, provenance=notes)


def image_pass(site: Site, model: Model, patches: int) -> PassCost:
    """Return the forward passes of the model's vision encoder over images of so many ``patches`` each.

    Every token of an image also passes the projector, at the rate of the encoder's own matrices. Raises ConfigError
    where the model has no such encoder, or a figure is null.
    """
    pool, tower = site.pool, tower_of(model)
    if tower is None:
        raise ConfigError(f"{site.key}.model", f"{model.name} has no vision encoder of a known shape")
    encoder = tower_model(model, tower)
    kept = np.sort(site.tokens)[-pool.max_batch :]
    longest = max(patches, int(kept.sum()))
    if longest > _MOST_TOKENS:
        raise ConfigError(
            f"{site.key}.max_batch",
            f"{pool.max_batch} tasks of encoding images may have {longest:,} patches; expected fewer",
        )
    step = site.cost.lower(
        Deployment(
            key=site.key,
            model=encoder,
            hardware=_on_cores(pool),
            tensor_parallel=pool.tensor_parallel,
            max_tokens=longest,
            max_sequences=longest // patches,
            part="encoder",
        )
    )
    if getattr(site.cost, "of_hardware", True):
        more = tower.projector_b * 1e9 / tower.merge**2 / block_parameters(encoder)
        first = step.tokens_ps[1]  # what does not grow with the patches
        step = replace(step, tokens_ps=[time + round(more * max(0, time - first)) for time in step.tokens_ps])
    one = step.step_ps([(patches, 0)], 0, 0) // PS_PER_NS
    note = f"images by {encoder.name}: one of {patches:,} patches takes {_scaled(one * 1e-9)}s"
    return PassCost(
        bytes=_weights_read(pool, encoder),
        step=step,
        sequence_tokens=patches,
        provenance=(note, *step.provenance),
    )


def cut(tokens: Ints, sequences: int, model: Model) -> Ints:
    """Return the tokens of tasks of ``sequences`` texts each, cut to the encoder's context."""
    shortened: Ints = np.clip(tokens // sequences, 1, model.max_context) * sequences
    return shortened


def _on_cores(pool: PassPool) -> Hardware:
    """Return the hardware with the peaks of the cores that the pool has."""
    hardware = pool.hardware
    if pool.cores is None or not hardware.cores:
        return hardware
    share = pool.cores / hardware.cores
    peaks = (*PEAK_KEYS.values(), "peak_tflops_fp32")
    known = {name: getattr(hardware, name) for name in peaks}
    return replace(hardware, **{name: peak * share for name, peak in known.items() if peak is not None})


def _weights_read(pool: PassPool, model: Model) -> tuple[int, ...]:
    """Return what a pass reads of a CPU's memory, by the number of tasks."""
    if pool.hardware.kind != "cpu":
        return ()
    fp32 = computes_in_fp32(pool.hardware)
    size = block_parameters(model) * _FP32_BYTES if fp32 else rank_weight_bytes(model, whole(model))
    return (0, *[round(size)] * pool.max_batch)


def _spread(ns: list[int]) -> str:
    """Say how long the smallest and the largest pass take."""
    text = f"1 takes {_scaled(ns[1] * 1e-9)}s"
    return text if len(ns) == 2 else f"{text}, {len(ns) - 1} take {_scaled(ns[-1] * 1e-9)}s"


def _scaled(value: float) -> str:
    """Return three digits and the prefix of a unit."""
    for factor, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""), (1e-3, "m"), (1e-6, "µ")):
        if value >= factor:
            return f"{value / factor:,.3g} {prefix}"
    return f"{value * 1e9:,.3g} n"
