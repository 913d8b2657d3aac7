"""The workloads' configuration: drawn from distributions, in sessions, or read from a trace."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class SyntheticWorkload:
    """Requests drawn from arrival and length distributions, or issued by ``concurrency`` users in a loop.

    ``models`` gives the shares of the models that requests ask for; empty: they ask for none.
    """

    kind: Literal["synthetic"]
    name: str
    requests: int
    rate_per_s: float | None
    arrivals: dict[str, Any] | str
    input_tokens: dict[str, Any] | int
    output_tokens: dict[str, Any] | int
    rate_scale: float = 1.0
    seed: int = 0
    models: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SessionsWorkload:
    """Sessions of several turns on shared system prompts; ``sessions`` of them begin, ``rate_per_s`` on average.

    A turn's prompt is the system prompt, all earlier turns with their answers, and ``input_tokens`` new ones; it
    arrives ``think_time_s`` after the answer before it. Each session has one of ``system_prompts`` system prompts,
    the n-th as likely as 1/n**system_prompt_skew. ``models`` gives the shares of the models that sessions ask for.
    """

    kind: Literal["sessions"]
    name: str
    sessions: int
    rate_per_s: float | None
    arrivals: dict[str, Any] | str
    turns: dict[str, Any] | int
    think_time_s: dict[str, Any] | float
    input_tokens: dict[str, Any] | int
    output_tokens: dict[str, Any] | int
    system_prompt_tokens: dict[str, Any] | int = 0
    system_prompts: int = 1
    system_prompt_skew: float = 0.0
    rate_scale: float = 1.0
    seed: int = 0
    models: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TraceWorkload:
    """Requests read from a file; see docs/workloads.md for the formats."""

    kind: Literal["trace"]
    name: str
    path: str
    format: str = "auto"
    limit: int | None = None
    rate_scale: float = 1.0
    prefix_block_tokens: int | None = None
    seed: int = 0
