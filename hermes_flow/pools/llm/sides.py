"""Checks that clients of SGLang or TensorRT-LLM can prefill and decode on pools of their own."""

from __future__ import annotations

from collections.abc import Iterator

from hermes_flow.config.mixer_shape import state_layers
from hermes_flow.config.schema import Cluster
from hermes_flow.pools.llm.schema import LLMPool

# Settings that only the other side's work reads, and the values that say nothing.
_IDLE_IN_PREFILL: dict[str, object] = {
    "mixed_chunk": False,
    "schedule_conservativeness": None,
    "num_reserved_decode_tokens": None,
}
_IDLE_IN_DECODE: dict[str, object] = {
    "mixed_chunk": False,
    "schedule_conservativeness": None,
    "max_prefill_tokens": None,
    "chunked_prefill_size": "auto",
    "packing": "fcfs",
    "context_chunking_policy": "none",
}
# Settings that are modelled only where one pool does both, and their values that say nothing; a pool that decodes may
# have an interval, while one that prefills looks after each of its steps
_NOT_APART = {
    "scheduler_recv_interval": 1,
    "batch_wait_timeout_iters": 0,
    "batch_wait_max_tokens_ratio": 0.0,
    "batch_wait_timeout_ms": 0.0,
}


def check_sides(
    theirs: str, first: LLMPool, ours: str, second: LLMPool, cluster: Cluster, problems: list[str]
) -> None:
    """Append a problem for every setting with which prefill on pool ``theirs`` and decode on ``ours`` cannot be."""
    for key, text in (
        *_of_pools(theirs, first, ours, second),
        *_of_cluster(cluster, first.engine.name),
    ):
        problem = f"cluster.{key}: {text}"
        if problem not in problems:
            problems.append(problem)


def _of_pools(theirs: str, first: LLMPool, ours: str, second: LLMPool) -> Iterator[tuple[str, str]]:
    for name, pool, only in ((theirs, first, "prefill"), (ours, second, "decode")):
        others = [kind for kind in pool.serves if kind != only]
        if others:
            yield (
                f"pools.{name}.serves",
                f"{', '.join(others)} beside {only}, on a pool whose KV moves; with the scheduler of "
                f"{pool.engine.name} expected [{only}] alone",
            )
        for setting in ("autoscale", "failures"):
            if getattr(pool, setting) is not None:
                yield (
                    f"pools.{name}.{setting}",
                    f"it is not modelled with prefill and decode of {pool.engine.name} on pools of their own; "
                    "expected null",
                )
    for name, pool, idle in ((theirs, first, _IDLE_IN_PREFILL), (ours, second, _IDLE_IN_DECODE)):
        for setting, default in idle.items():
            value = getattr(pool, setting)
            if value not in (default, None) and value != getattr(pool.engine, setting, default):
                part = "prefills" if pool is first else "decodes"
                yield (
                    f"pools.{name}.{setting}",
                    f"{value!r} has no effect on a pool that only {part}; expected null"
                    if default is None
                    else f"{value!r} has no effect on a pool that only {part}; expected {default}",
                )
    for name, pool in ((theirs, first), (ours, second)):
        if pool.attention_dp_config.enable_balance:
            yield (
                f"pools.{name}.attention_dp_config.enable_balance",
                "true has no effect where prefill and decode have pools of their own, as prompts wait only beside "
                "decodes; expected false",
            )
        if state_layers(pool.model):
            yield (
                f"pools.{name}.engine",
                f"{pool.engine.name}: the states of {pool.model.name} are not modelled where prefill and decode have "
                "pools of their own; expected engine=vllm",
            )
        for setting, off in _NOT_APART.items():
            value = getattr(pool, setting)
            modelled = setting == "scheduler_recv_interval" and pool is second
            if value not in (off, None) and not modelled:
                yield (
                    f"pools.{name}.{setting}",
                    f"{value:g} is not modelled where prefill and decode have pools of their own; expected null",
                )
        if pool.capacity_scheduler_policy == "max_utilization":
            yield (
                f"pools.{name}.capacity_scheduler_policy",
                "max_utilization is not modelled where prefill and decode have pools of their own; expected "
                "guaranteed_no_evict or static_batch",
            )
    if second.prefix_cache:
        yield (
            f"pools.{ours}.prefix_cache",
            f"true, but decode clients of {second.engine.name} that take over KV are modelled without one; expected "
            "null",
        )


def _of_cluster(cluster: Cluster, engine: str) -> Iterator[tuple[str, str]]:
    why = f"with the scheduler of {engine}"
    if cluster.first_token != "prefill":
        yield (
            "first_token",
            f"{cluster.first_token}; {why} the prefill computes the first token and the decode client delivers it: "
            "expected prefill",
        )
    if cluster.kv_transfer != "full":
        yield "kv_transfer", f"{cluster.kv_transfer} is not modelled {why}; expected full"
    if cluster.kv_handover_us:
        yield "kv_handover_us", f"{cluster.kv_handover_us:g} is not modelled {why}; expected 0"
    if cluster.kv_notice != "at_once":
        yield "kv_notice", f"{cluster.kv_notice} is not modelled {why}; expected at_once"
