"""Lowers an endpoint pool to its specification, and draws the latencies of its calls."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from hermes_flow.errors import ConfigError
from hermes_flow.pools.endpoint.schema import EndpointPool
from hermes_flow.pools.endpoint.spec import EndpointClientSpec
from hermes_flow.program.ops import Op
from hermes_flow.program.pools import Pool
from hermes_flow.program.units import NS_PER_MS, NS_PER_S, Ints
from hermes_flow.routing import RoutingPolicy
from hermes_flow.workload.lengths import Distribution, length_distributions, parse_distribution
from hermes_flow.workload.number_checks import MAX_SECONDS
from hermes_flow.workload.streams import stream


def lower_endpoint(name: str, pool: EndpointPool, routing: RoutingPolicy) -> Pool:
    """Return the pool with its limits and prices; its latencies are drawn later."""
    key = f"cluster.pools.{name}"
    latencies = {
        which: parse_distribution(getattr(pool, f"{which}_ms"), f"{key}.{which}_ms", whole=False)
        for which in ("ttft", "tpot")
    }
    prices = (pool.usd_per_million_input_tokens, pool.usd_per_million_output_tokens)
    for_input, for_output = (None, None) if None in prices else prices  # the cost is known with both
    client = EndpointClientSpec(
        model=pool.model_name,
        requests_per_minute=pool.requests_per_minute,
        tokens_per_minute=pool.tokens_per_minute,
        rejects=pool.on_limit == "reject",
        ttft_ms=latencies["ttft"],
        tpot_ms=latencies["tpot"],
        usd_per_million_input_tokens=for_input,
        usd_per_million_output_tokens=for_output,
    )
    return Pool(
        name=name,
        hardware=None,
        count=pool.count,
        routing=routing,
        client=client,
        paid_by_use=True,
        notes=(
            _limit_note(pool),
            f"first token after {_shown(pool.ttft_ms, latencies['ttft'])}, each further one after "
            f"{_shown(pool.tpot_ms, latencies['tpot'])}",
            _price_note(pool),
            "power: not known; the machines are not part of the cluster",
        ),
    )


def draw_ns(distribution: Distribution, which: str, pool: str, op: Op, count: int, seed: int) -> Ints:
    """Return the latency of an op's call for each request in ns; ``which`` is "ttft" or "tpot".

    Each op of each pool has its own random stream. Raises ConfigError where a draw is out of reason.
    """
    values = distribution.sample(count, stream(seed, f"endpoint:{pool}:{op.name}:{which}"), whole=False)
    nanoseconds = np.maximum(values, 0.0) * NS_PER_MS
    if nanoseconds.max(initial=0.0) > MAX_SECONDS * float(NS_PER_S):
        raise ConfigError(
            f"cluster.pools.{pool}.{which}_ms", f"gives {values.max():.3g} ms; expected milliseconds"
        )
    rounded: Ints = np.rint(nanoseconds).astype(np.int64)
    return rounded


def _shown(given: dict[str, Any] | float, distribution: Distribution) -> str:
    if isinstance(given, Mapping):
        return f"{length_distributions.describe(distribution)}, in ms"
    return f"{given:g} ms"


def _limit_note(pool: EndpointPool) -> str:
    limits = [
        f"{limit:,} {what}"
        for limit, what in ((pool.requests_per_minute, "calls"), (pool.tokens_per_minute, "tokens"))
        if limit is not None
    ]
    if not limits:
        return "an endpoint without limits"
    above = "wait in order" if pool.on_limit == "queue" else "are rejected, and their requests fail"
    return (
        f"an endpoint with at most {' and '.join(limits)} a minute on each account; calls above that {above}"
    )


def _price_note(pool: EndpointPool) -> str:
    prices = (pool.usd_per_million_input_tokens, pool.usd_per_million_output_tokens)
    if None in prices:
        return "price: not known"
    return f"price: ${prices[0]:g} per million input tokens, ${prices[1]:g} per million output tokens"
