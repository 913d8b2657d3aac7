"""Checks that a client of a batched pool can exist: its encoder and its cores."""

from __future__ import annotations

from hermes_flow.config.retrieval import RetrievalEfficiency
from hermes_flow.config.schema import Model
from hermes_flow.config.vision import tower_model, tower_of
from hermes_flow.cost.weights import side_encoder_bytes, weight_bytes
from hermes_flow.pools.batched.schema import BatchedPool
from hermes_flow.pools.llm.check import check_heads
from hermes_flow.program.units import bytes_to_gb


def check_batched_pool(pool: BatchedPool, key: str, problems: list[str], sound: bool) -> None:
    """Append the problems of the pool; ``sound`` is False if its numbers cannot be used for further checks."""
    hardware = pool.hardware
    if pool.model is not None:
        _check_encoder(pool, pool.model, key, problems, sound)
    elif "embed" in pool.serves:
        problems.append(f"{key}.model: null; a pool that embeds needs an encoder")
    elif "encode_images" in pool.serves:
        problems.append(f"{key}.model: null; a pool that encodes images needs the model whose encoder runs")
    if hardware.kind != "cpu":
        problems.extend(
            f"{key}.{name}: {value!r}; {hardware.name} is not a CPU, expected null"
            for name, value in (("cores", pool.cores), ("host", pool.host))
            if value is not None
        )
    elif pool.tensor_parallel > 1:
        problems.append(
            f"{key}.tensor_parallel: {pool.tensor_parallel}; {hardware.name} is a CPU, expected 1"
        )
    elif pool.cores is None and hardware.cores is None:
        problems.append(f"{key}.cores: null, and {hardware.name} has no figure for it either")
    elif pool.cores is not None and hardware.cores is not None and pool.cores > hardware.cores:
        problems.append(f"{key}.cores: {pool.cores} is above the {hardware.cores} cores of {hardware.name}")
    if hardware.retrieval is not None:
        _check_retrieval(hardware.retrieval, f"{key}.hardware.retrieval", problems)


def _check_encoder(pool: BatchedPool, model: Model, key: str, problems: list[str], sound: bool) -> None:
    images = set(pool.serves) == {"encode_images"}
    tower = tower_of(model) if images else None
    if images and tower is None:
        problems.append(
            f"{key}.model: {model.name} has no vision encoder of a known shape (model.side_encoders.NAME.tower)"
        )
        return
    if tower is not None:
        model = tower_model(model, tower)
    elif model.kind != "encoder":
        problems.append(f"{key}.model: {model.name} is a {model.kind}; a batched pool needs an encoder")
    if not sound:
        return
    check_heads(model, pool.tensor_parallel, key, problems)
    size = bytes_to_gb(encoder_bytes(pool))
    memory = pool.hardware.usable_gb or pool.hardware.memory_gb
    if size > memory:
        problems.append(
            f"{key}: the weights of {model.name} take {size:,.1f} GB a device, and {pool.hardware.name} has "
            f"{memory:,g} GB"
        )


def encoder_bytes(pool: BatchedPool) -> float:
    """Return the bytes of the pool's encoder on one device; 0 without one.

    A pool that encodes images holds only that part of the model.
    """
    model = pool.model
    if model is None:
        return 0.0
    if set(pool.serves) == {"encode_images"}:
        return side_encoder_bytes(model, pool.tensor_parallel)
    return weight_bytes(model, pool.tensor_parallel)


def _check_retrieval(fit: RetrievalEfficiency, key: str, problems: list[str]) -> None:
    if all(level.fits_mb is not None for level in fit.levels.values()):
        problems.append(f"{key}.levels: none of them is the memory; expected one whose fits_mb is null")
