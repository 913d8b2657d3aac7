"""Checks of an endpoint pool, and of what the pipeline and other pools ask of it."""

from __future__ import annotations

from dataclasses import fields

from hermes_flow.config.schema import Model
from hermes_flow.errors import ConfigError, did_you_mean
from hermes_flow.pools.endpoint.schema import EndpointPool
from hermes_flow.workload.lengths import parse_distribution

_KNOWN = [field.name for field in fields(Model)]


def check_endpoint(pool: EndpointPool, key: str, problems: list[str]) -> None:
    """Append a problem for every key of the pool that is wrong by itself."""
    name = pool.model.get("name")
    if not isinstance(name, str) or not name:
        problems.append(f"{key}.model.name: expected the name of a model, as in {key}.model.name=gpt-4o")
    problems.extend(
        f"{key}.model.{given}: unknown key{did_you_mean(given, _KNOWN)}"
        for given in pool.model
        if given not in _KNOWN
    )
    for latency in ("ttft_ms", "tpot_ms"):
        try:
            parse_distribution(getattr(pool, latency), f"{key}.{latency}", whole=False)
        except ConfigError as error:
            problems.append(str(error))
    limits = ("requests_per_minute", "tokens_per_minute")
    if pool.on_limit == "reject" and all(getattr(pool, limit) is None for limit in limits):
        problems.append(
            f"{key}.on_limit: 'reject', but there is no limit; set {key}.requests_per_minute or tokens_per_minute"
        )


def check_handover(theirs: str, ours: str, endpoint: str, problems: list[str]) -> None:
    """Append the problem that pool ``ours`` decodes what ``theirs`` prefills, and that KV would have to move."""
    problems.append(
        f"cluster.pools.{endpoint}.serves: pool {ours!r} would decode what {theirs!r} has prefilled, and no KV moves "
        "to or from an endpoint: a call is prefill and decode together; expected it to serve both stages, or neither"
    )
