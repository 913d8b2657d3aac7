"""The keys of a traffic class: what sets some requests of a workload apart from the others."""

from __future__ import annotations

from dataclasses import field
from typing import Any, ClassVar

from hermes_flow.config.quantities import (
    PositiveDuration,
    PositiveMilliseconds,
    PositiveTokens,
    Priority,
    RatePerSecond,
    Share,
)
from hermes_flow.config.within import Within
from hermes_flow.program.quick_dataclass import dataclass


@dataclass(frozen=True, slots=True)
class ClassBounds:
    """Latency bounds in milliseconds by percentile, in place of those of the SLO."""

    ttft_ms: dict[str, PositiveMilliseconds] = field(default_factory=dict)
    """Bounds on the time to the first token, by percentile."""
    tpot_ms: dict[str, PositiveMilliseconds] = field(default_factory=dict)
    """Bounds on the time per output token, by percentile."""
    e2e_ms: dict[str, PositiveMilliseconds] = field(default_factory=dict)
    """Bounds on the time from arrival to finish, by percentile."""
    within: Within | None = None
    """The share of the requests of the class that keeps several limits at once; null for none."""


@dataclass(frozen=True, slots=True)
class TrafficClass:
    """A class of requests: a ``share`` of all of them, or those that come at a rate of their own.

    Where a trace has a column ``class``, that says which requests belong to it. What is null is as for the others.
    """

    in_tables: ClassVar[bool] = True  # a mapping of classes replaces the one before it

    share: Share | None = None
    """The share of requests, or of sessions, that belong to the class; the shares of all classes add up to 1."""
    rate_per_s: RatePerSecond | None = None
    """The rate at which requests of the class arrive, where every class has one in place of a share."""
    arrivals: dict[str, Any] | str | None = None
    """The arrival process of a class with a rate; null takes that of the workload."""
    input_tokens: dict[str, Any] | PositiveTokens | None = None
    """The length of prompts: a number, or a length distribution."""
    output_tokens: dict[str, Any] | PositiveTokens | None = None
    """The length of answers: a number, or a length distribution."""
    pipeline: str | None = None
    """Which part of a pipeline with parts the requests take."""
    model: str | None = None
    """The model that the requests ask for."""
    priority: Priority | None = None
    """How urgent the requests are: lower numbers are more urgent, as in vLLM, so chats have 0 and batch work 1. The
    packing order, the scheduler and the gateway may go by it.
    """
    slo: ClassBounds | None = None
    """Latency bounds of the class, in place of all bounds of ``slo``."""
    adapter: str | None = None
    """The LoRA adapter that the requests ask for."""
    tenant: str | None = None
    """Who sends the requests; ``weighted_fair`` shares the cluster among tenants."""
    timeout_s: dict[str, Any] | PositiveDuration | None = None
    """The time after which its user gives up, a number or a distribution; null takes that of the workload."""
