"""Says in words where the times of the roofline come from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hermes_flow.config.mixer_shape import mixer_words
from hermes_flow.config.schema import EngineOverhead
from hermes_flow.config.shape import routed_gemms
from hermes_flow.cost.engine_kernels import kernel_words
from hermes_flow.cost.engine_overhead import engine_terms
from hermes_flow.cost.expert_exchange import exchange_notes
from hermes_flow.cost.expert_groups import limited
from hermes_flow.cost.expert_routing import rows_on_fullest
from hermes_flow.cost.precision import precision_notes
from hermes_flow.cost.router import wide_peak
from hermes_flow.cost.tiled_decodes import tile_terms
from hermes_flow.cost.torus import torus_note
from hermes_flow.cost.windows import window_notes

KERNEL_NAMES = {"deepgemm": "DeepGEMM", "cutlass": "CUTLASS"}

if TYPE_CHECKING:
    from hermes_flow.cost.roofline_tables import RooflineTables

NO_ENGINE = EngineOverhead(
    source="the overheads of an engine were not measured here, and none are added",
    step_us=0.0,
    sequence_us=0.0,
    attention_launch=1.0,
    ingest_ms=0.0,
)


def provenance(tables: RooflineTables) -> tuple[str, ...]:
    """Return the origin of all terms of a step, for people."""
    operators = tables.operators
    kernels = operators.efficiency.source
    if not operators.measured:
        kernels = f"{tables.hardware.name} is not measured; {kernels}"
    return (
        f"roofline, kernels: {kernels}",
        *_own_kernel_notes(tables),
        *precision_notes(tables.model.precision, tables.hardware, operators.efficiency),
        *window_notes(tables.model),
        *_mixer_notes(tables),
        *_own_fit_notes(tables),
        *_expert_notes(tables),
        *_router_notes(tables),
        *_torus_notes(tables),
        *_node_notes(tables),
        _engine_note(tables),
    )


def _own_kernel_notes(tables: RooflineTables) -> list[str]:
    """Say which kernels of the engine take the place of those of the hardware."""
    own = tables.engine.kernels
    return [] if own is None else [f"kernels of the engine in their place: {kernel_words(own)}"]


def _torus_notes(tables: RooflineTables) -> list[str]:
    """Say which links of a torus the all-reduces use."""
    note = torus_note(tables.hardware, tables.tensor_parallel)
    if not note:
        return []
    like, fit = tables.operators.reduce_fit(tables.tensor_parallel)
    if like != tables.tensor_parallel:
        note += f", after {fit.alpha_us:g} µs, as fitted to {like} devices, which is too short for so many"
    return [note]


def _mixer_notes(tables: RooflineTables) -> list[str]:
    """Return how layers other than attention are counted."""
    words = mixer_words(tables.model)
    if not words:
        return []
    how = "by roofline"
    if tables.stateful:
        found = [f"scans at {tables.operators.efficiency.scan:g} of the bf16 peak"] if tables.scanned else []
        if tables.delta_rule is not None and tables.deltas:
            found.append(
                f"the delta rule on one of {tables.delta_rule.heads_at_once} multiprocessors by head and prompt, "
                f"{tables.delta_rule.chunk_us:g} µs for 64 tokens"
            )
        how += "".join(f", {each}" for each in found)
    return [f"layers beside the model's own attention, {how}: {'; '.join(words)}"]


def _own_fit_notes(tables: RooflineTables) -> list[str]:
    """Say which routed experts have a fit of their own, that of the hardware or that of the engine."""
    experts = tables.model.experts
    if experts is None:
        return []
    parts = tables.portions("experts", routed_gemms(tables.model, 1)[0], tables.mixtures)
    engines = list((tables.engine.experts or {}).values())
    fitted: dict[str, list[str]] = {}  # by whose kernels they are
    for weights, compute in sorted({(part.weights, tables.compute_of(part)) for part in parts}):
        fit = tables.operators.experts_fit(weights, compute, experts.kernels)
        if fit is not None:
            whose = (
                "the engine's measured kernels" if any(fit is own for own in engines) else "measured kernels"
            )
            fitted.setdefault(whose, []).append(weights)
    padded = ""
    if experts.kernels == "marlin":
        wide, deep = routed_gemms(tables.model, 1)
        padded = (
            f", with Marlin's kernels, padded to {wide.in_features:,} × {deep.in_features:,} on one device"
        )
    elif experts.kernels != "default":
        padded = f", with the kernels of {KERNEL_NAMES[experts.kernels]}"
    if not fitted:
        return [f"routed experts{padded}: not measured on this hardware"] if padded else []
    return [
        f"routed experts in {' and '.join(names)}: as fitted to {whose} of such experts{padded}"
        for whose, names in fitted.items()
    ]


def _engine_note(tables: RooflineTables) -> str:
    engine = tables.engine
    if engine is NO_ENGINE:
        return f"no engine: {engine.source}"
    answers = tables.deployment.part == "last"
    terms = engine_terms(engine, tables.model if answers else None, tables.tensor_parallel)
    terms += tile_terms(tables)
    if answers:
        terms.append(f"{engine.ingest_ms:g} ms ingest")
    return f"engine: {', '.join(terms)}; {engine.source}"


def _expert_notes(tables: RooflineTables) -> list[str]:
    experts, group = tables.model.experts, tables.deployment.expert_group
    if experts is None or group == 1:
        return []
    skew, routing = experts.routing_skew, "uniform routing"
    redundant = tables.deployment.redundant_experts
    if skew or redundant:
        many = np.array([1e9])  # of which each counts little, so that only popularity is left
        share = rows_on_fullest(experts, many, group, redundant)[0] * group / experts.per_token / many[0]
        routing = f"chosen as 1 / i^{skew:g}" if skew else routing
        routing += f", so that the fullest has {share:.2f} times the mean rows of many tokens"
    if limited(experts):
        routing += f", from {experts.groups_per_token} of {experts.groups} groups"
        routing += " that copies tear apart" * bool(redundant)
    of = f"{experts.count} and {redundant} copies laid out by load" if redundant else f"{experts.count}"
    held = f"experts: {(experts.count + redundant) // group} of {of} on each of {group} devices, {routing}"
    return [held, *exchange_notes(tables)]


def _router_notes(tables: RooflineTables) -> list[str]:
    """Say how a router in fp32 is computed."""
    experts = tables.model.experts
    if experts is None or experts.router_precision == "bf16":
        return []
    name = experts.router_precision
    if wide_peak(name, tables.hardware) is None:
        return [f"router of the experts as bf16, because {tables.hardware.name} has no peak_tflops_fp32"]
    return [f"router of the experts in {name}, as products of its shape were measured on a GB200"]


def _node_notes(tables: RooflineTables) -> list[str]:
    """Say that all-reduces go over several nodes, where they do."""
    nodes = tables.deployment.across(tables.tensor_parallel)
    if nodes is None:
        return []
    return [
        f"all-reduces on {-(-tables.tensor_parallel // nodes.devices)} nodes of {nodes.devices}: latencies of "
        f"NCCL's tree, and {nodes.rate():g} GB/s a device to other nodes; not compared with measured steps"
    ]
