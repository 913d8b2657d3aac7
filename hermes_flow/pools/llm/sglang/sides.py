"""Checks that clients with SGLang's scheduler can prefill and decode on pools of their own."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from hermes_flow.config.schema import Cluster
from hermes_flow.pools.llm.schema import LLMPool
from hermes_flow.pools.llm.sglang.admission import MOST_RESERVED
from hermes_flow.program.pools import LLMClientSpec
from hermes_flow.program.units import Ints


def check_sides(
    theirs: str, first: LLMPool, ours: str, second: LLMPool, cluster: Cluster, problems: list[str]
) -> None:
    """Append a problem for every setting with which prefill on pool ``theirs`` and decode on ``ours`` cannot be."""
    for key, text in (
        *_of_pools(theirs, first, ours, second),
        *_of_cluster(cluster),
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
                f"{', '.join(others)} beside {only}, on a pool whose KV moves; with the scheduler of SGLang expected "
                f"[{only}] alone",
            )
        for setting in ("autoscale", "failures"):
            if getattr(pool, setting) is not None:
                yield (
                    f"pools.{name}.{setting}",
                    "it is not modelled with SGLang's prefill and decode on pools of their own; expected null",
                )
    if second.prefix_cache:
        yield (
            f"pools.{ours}.prefix_cache",
            "true, but SGLang's decode clients have no radix tree by default, and one is not modelled; expected null",
        )


def _of_cluster(cluster: Cluster) -> Iterator[tuple[str, str]]:
    why = "with the scheduler of SGLang"
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


def never_granted(client: LLMClientSpec, prompt: Ints, limit: Ints) -> NDArray[np.bool_]:
    """Return which prompts a decode client never has memory for, though nobody else is there."""
    settings = client.sglang
    assert settings is not None
    longest = np.minimum(limit, MOST_RESERVED)
    return (
        prompt + np.maximum(settings.reserved_decode_tokens, longest) > client.kv_blocks * client.block_size
    )
