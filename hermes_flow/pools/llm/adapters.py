"""LoRA adapters of an LLM pool: checks, and their places and times as a client needs them."""

from __future__ import annotations

from collections.abc import Sequence

from hermes_flow.config.adapters import Adapters
from hermes_flow.config.schema import Efficiency
from hermes_flow.cost import CostModel
from hermes_flow.cost.adapters import adapter_bytes, adapter_times
from hermes_flow.errors import ConfigError, did_you_mean
from hermes_flow.pools.llm.batching import policy_name
from hermes_flow.pools.llm.schema import LLMPool
from hermes_flow.program.pools import AdapterSpec
from hermes_flow.program.units import PS_PER_S, bytes_to_gb, gb_to_bytes


def check_adapters(pool: LLMPool, adapters: Adapters, key: str, problems: list[str]) -> None:
    """Append a problem for every setting of the pool with which its adapters are not modelled."""
    model = pool.model
    own, why = f"{key}.adapters", "with adapters"
    expected = {
        "engine": (pool.engine.name, pool.engine.scheduler == "vllm", "engine=vllm"),
        "batching": (
            policy_name(pool.batching),
            policy_name(pool.batching) in ("chunked", "mixed"),
            "chunked or mixed",
        ),
        "packing": (pool.packing, pool.packing == "fcfs", "fcfs"),
        "pipeline_parallel": (pool.pipeline_parallel, pool.pipeline_parallel == 1, "1"),
        "data_parallel": (pool.data_parallel, pool.data_parallel == 1, "1"),
        "speculative.draft": (pool.drafter and pool.drafter.name, pool.drafter is None, "null"),
        "long_prefill_token_threshold": (
            pool.long_prefill_token_threshold,
            not pool.long_prefill_token_threshold,
            "0",
        ),
    }
    problems.extend(
        f"{key}.{name}: {value} is not modelled {why}; expected {valid}"
        for name, (value, allowed, valid) in expected.items()
        if not allowed
    )
    if model.mixers or model.latent_attention is not None or model.sparse_attention is not None:
        problems.append(
            f"{own}: {model.name} has other layers than plain attention, for which adapters are not modelled"
        )
    if not adapters.targets:
        problems.append(f"{own}.targets: empty; expected attention, mlp or both")
    if "mlp" in adapters.targets and (model.experts is not None or model.mlps):
        problems.append(
            f"{own}.targets: adapters of experts, and of MLPs of several widths, are not modelled, and {model.name} "
            "has such; expected [attention]"
        )
    if adapters.host_slots is not None and adapters.host_slots < adapters.slots:
        problems.append(
            f"{own}.host_slots: {adapters.host_slots} is below the {adapters.slots} slots; what is on a GPU is in "
            "host memory, too"
        )
    if (adapters.host_slots is None) != (adapters.disk_gb_s is None):
        missing, given = (
            ("disk_gb_s", "host_slots") if adapters.disk_gb_s is None else ("host_slots", "disk_gb_s")
        )
        problems.append(f"{own}.{missing}: null; {given} needs it, else all adapters are in host memory")


def lower_adapters(
    name: str, pool: LLMPool, cost: CostModel, most_tokens: int, asked: Sequence[str]
) -> AdapterSpec | None:
    """Return places and times of the pool's adapters; None where it has none. Requests ask for those in ``asked``.

    A cost model that is of no hardware has no time for their matrices. Raises ConfigError where a figure is missing.
    """
    adapters = pool.adapters
    if adapters is None:
        return None
    key, link = f"cluster.pools.{name}.hardware", pool.hardware.host_link_gb_s
    if link is None:
        raise ConfigError(f"{key}.host_link_gb_s", "null; loading adapters needs it")
    size = adapter_bytes(pool.model, adapters, pool.tensor_parallel)
    read_ps = 0
    if adapters.disk_gb_s is not None:
        whole = adapter_bytes(pool.model, adapters, 1)
        read_ps = round(whole / gb_to_bytes(adapters.disk_gb_s) * PS_PER_S)
    tokens_ps, each_ps = [0] * (most_tokens + 1), 0
    if getattr(cost, "of_hardware", True):
        efficiency: Efficiency | None = pool.hardware.efficiency or getattr(cost, "unmeasured", None)
        if efficiency is None:
            raise ConfigError(f"{key}.efficiency", "null; the matrices of adapters need it")
        deployment = (pool.model, adapters, pool.tensor_parallel, pool.hardware, efficiency, key)
        times = adapter_times(*deployment, most_tokens)
        tokens_ps, each_ps = times.tokens_ps, times.each_ps
    load_ps = max(1, round(size / gb_to_bytes(link) * PS_PER_S))
    return AdapterSpec(
        slots=adapters.slots,
        host_slots=adapters.host_slots,
        load_ps=load_ps,
        smaller=_smaller(f"cluster.pools.{name}.adapters.ranks", adapters, asked, load_ps, read_ps),
        read_ps=read_ps,
        tokens_ps=tokens_ps,
        each_ps=each_ps,
    )


def _smaller(
    key: str, adapters: Adapters, asked: Sequence[str], load_ps: int, read_ps: int
) -> dict[int, tuple[int, int]]:
    """Return the times to copy and to read each adapter of a rank of its own; the bytes go with the rank.

    Raises ConfigError for a rank above that of the places, and for an adapter that no request asks for.
    """
    found: dict[int, tuple[int, int]] = {}
    for name, rank in adapters.ranks.items():
        if rank > adapters.rank:
            raise ConfigError(
                f"{key}.{name}", f"{rank} is above rank ({adapters.rank}), which the places have"
            )
        if name not in asked:
            raise ConfigError(f"{key}.{name}", f"no request asks for this adapter{did_you_mean(name, asked)}")
        share = rank / adapters.rank
        found[asked.index(name)] = (max(1, round(load_ps * share)), round(read_ps * share))
    return found


def adapter_notes(pool: LLMPool, spec: AdapterSpec | None) -> list[str]:
    """Return what the compiled program says of the adapters."""
    adapters = pool.adapters
    if adapters is None or spec is None:
        return []
    size = adapter_bytes(pool.model, adapters, pool.tensor_parallel)
    disk = f", or {(spec.load_ps + spec.read_ps) / 1e9:,.3g} ms from disk" if spec.read_ps else ""
    many = spec.tokens_ps[min(32, len(spec.tokens_ps) - 1)]
    return [
        f"adapters: {adapters.slots} slots of rank {adapters.rank}"
        f"{f' ({len(adapters.ranks)} adapters of other ranks)' if adapters.ranks else ''} "
        f"on {' and '.join(adapters.targets)}, "
        f"{bytes_to_gb(size) * 1e3:,.3g} MB each a device; loading one takes {spec.load_ps / 1e9:,.3g} ms{disk}; "
        f"a step of 32 decodes with one adapter takes {many / 1e9:,.3g} ms longer, and"
        f" {spec.each_ps / 1e9:,.3g} ms for each further one"
    ]
