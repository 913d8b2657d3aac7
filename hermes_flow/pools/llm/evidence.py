"""Says what the step times of an LLM pool come from: cost model, engine, hardware and model."""

from __future__ import annotations

from collections.abc import Iterator

from hermes_flow.config.folders import config_folder, hardware_names
from hermes_flow.config.mixer_shape import state_layers
from hermes_flow.config.quick_yaml import read_plain
from hermes_flow.config.schema import Hardware, Model
from hermes_flow.cost.model import CostModel, cost_models
from hermes_flow.errors import did_you_mean
from hermes_flow.pools.llm.schema import LLMPool
from hermes_flow.program.evidence import Evidence


def evidence_of(pool: LLMPool, cost: CostModel) -> Evidence:
    """Return the sources of the pool's step times; only those of a roofline depend on figures of the datasheet."""
    name = cost_models.name_of(cost)
    computed = name == "roofline"
    return Evidence(
        cost=name,
        engine=pool.engine.name,
        hardware=pool.hardware.name,
        kind=pool.hardware.kind,
        figures=datasheet(pool.hardware) if computed else (),
        kernels_of=kernels_of(pool.hardware) if computed else None,
        model=pool.model.name,
        shape=shape_of(pool.model) if computed else (),
        mixture=pool.model.experts is not None,
        special=tuple(special_features(pool)),
        maker=pool.hardware.maker,
    )


def kernels_of(hardware: Hardware) -> str | None:
    """Return the hardware whose measured kernels it has; None where it has the mean of all measured ones.

    An entry of the user's that is built on one of the catalog's has that one's, unless it brings measurements.
    """
    if hardware.efficiency is None:
        return None
    return hardware.efficiency.kernels_of or _built_on(hardware) or hardware.name


def _built_on(hardware: Hardware) -> str | None:
    """Return the catalog's entry of another name whose efficiencies, by their source, and overheads it inherits."""
    base = hardware.overheads_of
    if base is None or base == hardware.name or hardware.efficiency is None:
        return None
    path = config_folder() / "hardware" / f"{base}.yaml"
    if not path.is_file():
        return None
    theirs = read_plain(path.read_text(encoding="utf-8")).get("efficiency")
    same = theirs is not None and theirs["source"].strip() == hardware.efficiency.source.strip()
    return base if same else None


def unknown_kernels(name: str, hardware: Hardware) -> list[str]:
    """Return a warning if the kernels of a pool's hardware are those of hardware that the catalog does not have."""
    sibling = kernels_of(hardware)
    known = hardware_names() if sibling not in (None, hardware.name) else []
    if sibling is None or not known or sibling in known:
        return []
    return [
        f"cluster.pools.{name}.hardware.efficiency.kernels_of: {sibling!r} is no hardware"
        f"{did_you_mean(sibling, known)}"
    ]


def special_features(pool: LLMPool) -> Iterator[str]:
    """Yield what few measured runs have: narrow weights, layers of other kinds, speculation, adapters, ranks."""
    model = pool.model
    weights = {model.precision.weights, *(each.weights for each in model.precision.modules.values())}
    for narrow in sorted(weights & {"int4", "int8", "mxfp4", "nvfp4"}):
        yield f"{narrow} weights"
    if state_layers(model):
        yield "layers that keep a state"
    if model.sparse_attention is not None:
        yield "sparse attention"
    if pool.drafter is not None:
        yield "speculative decoding"
    if pool.adapters is not None:
        yield "LoRA adapters"
    if pool.pipeline_parallel > 1:
        yield "pipeline ranks"


def datasheet(hardware: Hardware) -> tuple[float | None, ...]:
    """Return the figures of the datasheet that set the speed of a device."""
    return (
        hardware.bandwidth_gb_s,
        hardware.peak_tflops_bf16,
        hardware.peak_tflops_fp8,
        hardware.scale_up_gb_s,
    )


def shape_of(model: Model) -> tuple[float, ...]:
    """Return the layers, the width and the billions of parameters of a model."""
    return (model.layers, model.hidden_size, model.parameters_b)
