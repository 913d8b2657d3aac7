"""A simulator of multi-stage LLM serving.

import hermes_flow as hf
config = hf.compose(["workload.rate_per_s=4", "model=llama3_70b", "cluster.pools.llm.tensor_parallel=4"])
program = hf.compile(config)
result = hf.simulate(program)
result.summary["ttft_s"]["p99"]
"""

from __future__ import annotations

# Nothing is imported here: Ctrl-C has no answer before the command has begun.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from hermes_flow.compiler.compile import compile
    from hermes_flow.config.compose import compose
    from hermes_flow.config.schema import Config
    from hermes_flow.errors import (
        CompileError,
        ConfigError,
        HermesFlowError,
        InternalError,
        PluginError,
        TraceError,
    )
    from hermes_flow.metrics.result import Result
    from hermes_flow.planning.capacity import Capacity, capacity
    from hermes_flow.planning.compare import Comparison, compare
    from hermes_flow.planning.plan import Plan, plan
    from hermes_flow.program.program import Program
    from hermes_flow.simulation import simulate
    from hermes_flow.validation.invariants.check import check_invariants

__all__ = [
    "Capacity",
    "Comparison",
    "CompileError",
    "Config",
    "ConfigError",
    "HermesFlowError",
    "InternalError",
    "Plan",
    "PluginError",
    "Program",
    "Result",
    "TraceError",
    "capacity",
    "check_invariants",
    "compare",
    "compile",
    "compose",
    "plan",
    "simulate",
]

_HOMES = {
    **dict.fromkeys(
        (*("CompileError", "ConfigError", "HermesFlowError", "InternalError", "PluginError", "TraceError"),),
        "hermes_flow.errors",
    ),
    "Capacity": "hermes_flow.planning.capacity",
    "Comparison": "hermes_flow.planning.compare",
    "Config": "hermes_flow.config.schema",
    "Plan": "hermes_flow.planning.plan",
    "Program": "hermes_flow.program.program",
    "Result": "hermes_flow.metrics.result",
    "capacity": "hermes_flow.planning.capacity",
    "check_invariants": "hermes_flow.validation.invariants.check",
    "compare": "hermes_flow.planning.compare",
    "compile": "hermes_flow.compiler.compile",
    "compose": "hermes_flow.config.compose",
    "plan": "hermes_flow.planning.plan",
    "simulate": "hermes_flow.simulation",
}


def __getattr__(name: str) -> Any:
    """Import public names when first used: a verb pays only for what it needs."""
    if name not in _HOMES:
        raise AttributeError(f"module 'hermes_flow' has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value
