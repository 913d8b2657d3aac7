"""The seconds of single operators on one device: the larger of compute and memory time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from hermes_flow.config.model import ExpertKernels, Model
from hermes_flow.config.schema import AllReduceFit, Efficiency, EngineOverhead, GemmFit, Hardware, Precision
from hermes_flow.config.shape import BYTES, Gemm
from hermes_flow.cost.across_nodes import NodeLinks
from hermes_flow.cost.engine_kernels import attends_as, check_figures, with_engine_kernels
from hermes_flow.cost.precision import PEAK_KEYS, experts_measured_as, measured_as, peak_tera
from hermes_flow.cost.torus import collective_gb_s, exchanged_share
from hermes_flow.errors import ConfigError
from hermes_flow.program.units import (
    BYTES_PER_GB,
    BYTES_PER_KIB,
    BYTES_PER_MB,
    FLOPS_PER_TFLOPS,
    S_PER_US,
    gb_to_bytes,
)

Floats = NDArray[np.float64]
K = TypeVar("K")
V = TypeVar("V")


def all_reduce_s(fit: AllReduceFit, size: Floats, devices: int, link_gb_s: float) -> Floats:
    """Return the seconds of one all-reduce of ``size`` bytes, by the fastest algorithm that is used for it."""
    share = 2.0 * (devices - 1) / devices
    result: Floats = fit.alpha_us * S_PER_US + share * size / (fit.fraction * link_gb_s * BYTES_PER_GB)
    one = fit.one_shot
    if one is not None:
        alone = one.alpha_us * S_PER_US + (devices - 1) * size / (one.fraction * link_gb_s * BYTES_PER_GB)
        result = np.minimum(result, alone)
    two = fit.two_stage
    if two is not None:
        rate = two.fraction * link_gb_s * BYTES_PER_GB
        staged = np.maximum(two.least_us * S_PER_US, two.alpha_us * S_PER_US + share * size / rate)
        result = np.where(size >= two.from_kb * BYTES_PER_KIB, staged, result)
    large = fit.nccl
    if large is not None:
        rate = large.fraction * link_gb_s * BYTES_PER_GB
        result = np.minimum(result, large.alpha_us * S_PER_US + share * size / rate)
    return result


def with_wait(reduce: Callable[[Floats], Floats], size: Floats, engine: EngineOverhead | None) -> Floats:
    """Return the seconds of all-reduces of ``size`` bytes among devices that wait for the slowest one.

    ``reduce`` gives those without waiting. The wait is a share of them, but where the engine says so devices do not
    drift further apart because a message is large.
    """
    if engine is None or engine.all_reduce_wait == 1.0:
        return reduce(size)
    if engine.all_reduce_wait_mb is None:
        return engine.all_reduce_wait * reduce(size)
    waited: Floats = np.minimum(size, engine.all_reduce_wait_mb * BYTES_PER_MB)
    return reduce(size) + (engine.all_reduce_wait - 1.0) * reduce(waited)


def _factors(by_rows: Mapping[int, float], each: Floats) -> Floats:
    """Return the factors on the time of matrices that have so many rows ``each``."""
    known = sorted(by_rows)
    factors: Floats = np.interp(each, known, [by_rows[rows] for rows in known])
    return factors


# source: vLLM, MiniMaxText01RMSNormTP.forward_qk, since pull request 31493 (December 2025): the sums of squares of
# queries and of keys, in fp32; SGLang has it alike since pull request 14416
NORM_BYTES = 8.0


class Operators:
    """One device's operators. ``key`` is the hardware's config key; ``unmeasured`` stands in for missing fits.

    Attention over prompts takes the fit for the ``model``, where the engine has several; without one that of bf16.
    """

    def __init__(
        self, hardware: Hardware, unmeasured: Efficiency, key: str, model: Model | None = None
    ) -> None:
        self.hardware = hardware
        self.key = key
        self.measured = hardware.efficiency is not None
        of_hardware = hardware.efficiency or unmeasured
        if unmeasured.kernels_of is not None:
            raise ConfigError(
                "cost.unmeasured.kernels_of",
                f"{unmeasured.kernels_of}, but these figures are the mean of several; expected null",
            )
        if hardware.engine is not None:
            check_figures(hardware.engine.kernels, f"{key}.engine.kernels")
        attends: Precision = "bf16" if model is None else attends_as(model)
        self.efficiency = with_engine_kernels(of_hardware, hardware, attends)
        self._exchanges = of_hardware.all_reduce
        self.bandwidth = gb_to_bytes(hardware.bandwidth_gb_s)

    def gemm(
        self,
        gemm: Gemm,
        rows: Floats,
        weights: Precision,
        compute: Precision,
        copies: Floats | float = 1.0,
        *,
        launched: bool = True,
        scale_bytes: float = 0.0,
        fit: GemmFit | None = None,
        elsewhere: Floats | float = 0.0,
    ) -> Floats:
        """Rows × in × out; ``copies`` weight matrices are read, the rows spread over them.

        Weights narrower than what is computed in save bytes only: they are widened in the kernel. ``launched``: with
        its launch, which counts elsewhere otherwise. A precision that was not measured takes the fit that stands in.
        ``scale_bytes`` are read beside each weight. ``fit`` takes the place of that of the precision.
        ``elsewhere`` are rows of which only the cast is done here, as far as the fit says so.
        """
        fits = self.efficiency.gemm
        fit = fit or self.fit("gemm", fits, measured_as(compute, fits))
        each = rows / np.maximum(copies, 1.0)
        flops = 2.0 * (rows + fit.tile_rows * copies if fit.tile_rows else rows) * gemm.parameters
        activations = rows * (gemm.in_features * BYTES[compute] + gemm.out_features * BYTES["bf16"])
        traffic = activations + copies * gemm.parameters * (BYTES[weights] + scale_bytes)
        seconds = np.maximum(
            flops / (self.peak(compute) * fit.compute), traffic / (self.bandwidth * fit.memory)
        )
        if fit.quantize is not None:
            cast = BYTES["bf16"] + BYTES[compute]
            rows = rows + fit.cast_elsewhere * elsewhere
            seconds += cast * rows * gemm.in_features / (self.bandwidth * fit.quantize)
        if fit.by_rows:
            seconds = seconds * _factors(fit.by_rows, each)
        result: Floats = seconds + (fit.launch_us * S_PER_US if launched else 0.0)
        return result

    def experts_fit(
        self, weights: Precision, compute: Precision, kernels: ExpertKernels = "default"
    ) -> GemmFit | None:
        """Return the fit of routed experts with such weights, or None where the fit of other products holds.

        That of the engine's own kernels, where there is one, takes the place of that of the hardware.
        """
        name = experts_measured_as(weights, compute, kernels)
        return None if name is None else self.efficiency.experts.get(name)

    def all_reduce(self, size: Floats, devices: int, nodes: NodeLinks | None = None) -> Floats:
        """One all-reduce of ``size`` bytes among ``devices``, none of which waits for another.

        ``nodes`` are those that the devices fill, if they are several.
        """
        if nodes is not None:
            nodes.check(self.key, "tensor parallelism")
            whole = self.exchange_fit(nodes.devices)[1]
            return nodes.all_reduce_s(size, devices, whole, self._reduce_gb_s(nodes.devices))
        fit = self.reduce_fit(devices)[1]
        return all_reduce_s(fit, size, devices, self._reduce_gb_s(devices))

    def all_to_all(self, size: Floats, devices: int, nodes: NodeLinks | None = None) -> Floats:
        """One all-to-all among ``devices``, each with ``size`` bytes for all of them together, itself included.

        ``nodes`` are those that the devices fill, if they are several: what stays within a node is sent meanwhile.
        """
        if nodes is not None:
            nodes.check(self.key, "an exchange between experts")
            within = self.all_to_all(size * nodes.devices / devices, nodes.devices)
            return np.maximum(within, nodes.exchange_s(size, devices))
        fit = self.exchange_fit(devices)[1]
        rate = fit.fraction * self.link("an exchange between experts") * BYTES_PER_GB
        result: Floats = fit.alpha_us * S_PER_US + exchanged_share(self.hardware, devices) * size / rate
        return result

    def gather(self, size: Floats, devices: int) -> Floats:
        """One all-gather, or reduce-scatter, of ``size`` bytes of all ``devices`` together."""
        fit = self.fit("gather", self.efficiency.gather, devices)
        rate = fit.fraction * self.link("an exchange between experts") * BYTES_PER_GB
        result: Floats = fit.alpha_us * S_PER_US + (devices - 1) / devices * size / rate
        return result

    def exchange_fit(self, devices: int) -> tuple[int, AllReduceFit]:
        """Return the all-reduce whose fit stands for an all-to-all among ``devices``: the largest within them."""
        fits = self._exchanges
        group = max((group for group in fits if group <= devices), default=devices)
        return group, self.fit("all_reduce", fits, group)

    def reduce_fit(self, devices: int) -> tuple[int, AllReduceFit]:
        """Return the all-reduce whose fit stands for one among ``devices``, and its devices.

        That is its own, and the largest that was measured for a slice of a torus that is larger than all of them.
        """
        fits = self.efficiency.all_reduce
        if self.hardware.torus is not None and devices > max(fits, default=devices):
            return self.exchange_fit(devices)
        return devices, self.fit("all_reduce", fits, devices)

    def _reduce_gb_s(self, devices: int) -> float:
        self.link("tensor parallelism")
        return collective_gb_s(self.hardware, devices) or 0.0

    def link(self, purpose: str) -> float:
        """GB/s of one device's scale-up link in one direction; raises ConfigError where it is not known."""
        link = self.hardware.scale_up_gb_s
        if link is None:
            raise ConfigError(f"{self.key}.scale_up_gb_s", f"null; {purpose} needs it")
        return link

    def peak(self, precision: Precision) -> float:
        """Operations per second."""
        peak = peak_tera(self.hardware, precision)
        if peak is None:
            raise ConfigError(
                f"{self.key}.{PEAK_KEYS[precision]}", f"null; {self.hardware.name} has no such figure"
            )
        return peak * FLOPS_PER_TFLOPS

    def fit(self, name: str, fits: Mapping[K, V], which: K) -> V:
        """Return the fit of ``efficiency.<name>``; raises ConfigError telling which were measured."""
        if which not in fits:
            have = ", ".join(str(entry) for entry in fits) or "none"
            of = f"{which} devices" if name in ("all_reduce", "gather") else str(which)
            figures = f"{name.replace('_', '-')} of {of} (it has: {have})"
            raise ConfigError(
                f"{self.key}.efficiency.{name}.{which}",
                f"missing; {self.hardware.name} has no measured {figures}, and the roofline invents none; "
                "give the figures of this key, or choose other hardware or parallelism",
            )
        return fits[which]
