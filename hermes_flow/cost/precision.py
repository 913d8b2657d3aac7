"""Chooses the precision of matrix products, and measured kernels in place of unmeasured ones."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import replace

from hermes_flow.config.hardware_measurements import ExpertFit
from hermes_flow.config.model import ExpertKernels
from hermes_flow.config.schema import Efficiency, Hardware, Model, ModelPrecision, ModulePrecision, Precision

_BITS: dict[Precision, int] = {"bf16": 16, "fp8": 8, "int8": 8, "int4": 4, "mxfp4": 4, "nvfp4": 4}

# The key of each peak in the hardware's catalog entry.
PEAK_KEYS: dict[Precision, str] = {
    "bf16": "peak_tflops_bf16",
    "fp8": "peak_tflops_fp8",
    "int8": "peak_tops_int8",
    "int4": "peak_tops_int4",
    "mxfp4": "peak_tflops_fp4",
    "nvfp4": "peak_tflops_fp4",
}

# Whose fit stands in for a precision that was not measured: the first that was. Matrix products take the same
# fractions of the bandwidth and of the precision's own peak; fp8 first, as its activations are cast too. Decode
# attention reads the KV cache, where bytes count, not what they mean; fp8 first, as it is unpacked too.
_STAND_INS: dict[Precision, tuple[Precision, ...]] = {
    "bf16": (),
    "fp8": ("bf16",),
    "int8": ("fp8", "bf16"),
    "int4": ("fp8", "bf16"),
    "mxfp4": ("nvfp4", "fp8", "bf16"),
    "nvfp4": ("mxfp4", "fp8", "bf16"),
}

# The weights that other kernels of experts than the default ones are for, with what these compute in, and their fits.
KERNELS_FOR: dict[ExpertKernels, tuple[Precision, Precision]] = {
    "marlin": ("mxfp4", "bf16"),
    "deepgemm": ("fp8", "fp8"),
    "cutlass": ("nvfp4", "nvfp4"),
}
KERNEL_FITS: dict[ExpertKernels, ExpertFit] = {
    "marlin": "mxfp4_marlin",
    "deepgemm": "fp8_deepgemm",
    "cutlass": "nvfp4_cutlass",
}


def peak_tera(hardware: Hardware, precision: Precision) -> float | None:
    """Return the hardware's peak in this precision, in 10¹² operations per second; None where it has none."""
    peak: float | None = getattr(hardware, PEAK_KEYS[precision])
    return peak


def compute_precision(precision: ModelPrecision, hardware: Hardware) -> Precision:
    """Return the precision in which the products of the layers are computed.

    That of the activations, where the weights have no more bits and the hardware computes in it. Else weight-only:
    weights are read at their width and widened in the kernel, and the product is bf16.
    """
    wanted = precision.activations
    fits = _BITS[precision.weights] <= _BITS[wanted]
    return wanted if fits and peak_tera(hardware, wanted) is not None else "bf16"


def measured_as(precision: Precision, fits: Container[str]) -> Precision:
    """Return the precision whose fit is used: its own, or a similar one; ``precision`` if neither is measured."""
    return next((each for each in (precision, *_STAND_INS[precision]) if each in fits), precision)


def experts_measured_as(
    weights: Precision, compute: Precision, kernels: ExpertKernels = "default"
) -> ExpertFit | None:
    """Return the entry of ``efficiency.experts`` that is about experts of this precision; None if there is none.

    Weights of 4 bits that are widened in the kernel cost alike, whatever their format is.
    """
    if kernels in KERNEL_FITS:
        return KERNEL_FITS[kernels]
    if weights == compute and weights in ("bf16", "fp8", "nvfp4"):
        return weights
    if (weights, compute) == ("mxfp4", "fp8"):
        return "mxfp4_fp8"
    if compute != "bf16":
        return None
    return {"int4": "int4", "mxfp4": "mxfp4", "nvfp4": "mxfp4"}.get(weights)  # type: ignore[return-value]


def computes_in_fp32(hardware: Hardware) -> bool:
    """Whether matrix products have to be fp32: there is no bf16 peak, but one of fp32."""
    return hardware.peak_tflops_bf16 is None and hardware.peak_tflops_fp32 is not None


def in_fp32(model: Model, hardware: Hardware) -> tuple[Model, Hardware]:
    """Return both as if bf16 were fp32: its peak, and half the bandwidth, as everything has four bytes."""
    peak, bandwidth = hardware.peak_tflops_fp32, hardware.bandwidth_gb_s / 2.0
    stand_in = replace(hardware, peak_tflops_bf16=peak, bandwidth_gb_s=bandwidth)
    return replace(model, precision=ModelPrecision()), stand_in


def precision_notes(precision: ModelPrecision, hardware: Hardware, efficiency: Efficiency) -> tuple[str, ...]:
    """Return notes on computations that are not in bf16, and on fits that stand in for unmeasured ones."""
    notes = []
    weights, wanted, kv_cache = precision.weights, precision.activations, precision.kv_cache
    compute = compute_precision(precision, hardware)
    if (weights, wanted) != ("bf16", "bf16"):
        how = f"{weights} weights"
        if weights != compute:
            change = "widened" if _BITS[weights] < _BITS[compute] else "converted"
            how += f" {change} to {compute} in the kernel"
        why = ""
        if wanted != compute:
            narrow = peak_tera(hardware, wanted) is not None
            why = f" ({weights} weights are wider)" if narrow else f" ({hardware.name} has no {wanted} peak)"
            why = f", not in {wanted}{why}"
        notes.append(f"layers: {how}, computed in {compute}{why}; output head in bf16")
    if precision.unquantized or precision.unquantized_layers:
        modules = [name.replace("_", " ") for name in precision.unquantized]
        if precision.unquantized_layers:
            modules.append(f"all of {precision.unquantized_layers} layers")
        notes.append(f"not quantized, computed in bf16: {', '.join(modules)}")
    if precision.modules:
        notes.append(f"in another precision: {'; '.join(map(_module_words, precision.modules.values()))}")
    if (like := measured_as(compute, efficiency.gemm)) != compute:
        cast = "" if efficiency.gemm[like].quantize is not None else ", without a cast of the activations"
        notes.append(
            f"{compute} GEMMs: no measured efficiency on this hardware; the {like} fit stands in{cast}"
        )
    if (like := measured_as(kv_cache, efficiency.decode_attention)) != kv_cache:
        what = f"{like}, which is not unpacked," if like == "bf16" else like
        notes.append(
            f"{kv_cache} KV: not measured; decode attention as fitted to {what} with the bytes of {kv_cache}"
        )
    return tuple(notes)


def _module_words(module: ModulePrecision) -> str:
    what = f"{', '.join(module.matrices)} of {module.module}" if module.matrices else module.module
    where = "" if module.layers is None else f" in {module.layers} layers"
    return f"{what.replace('_', ' ')}{where} {module.weights} with activations in {module.activations}"
