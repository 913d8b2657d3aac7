"""Finds the prompts that get their blocks before a retrieval reads a context for them."""

from __future__ import annotations

from hermes_flow.program.pools import LLMClientSpec
from hermes_flow.program.program import Program


def holding_readers(program: Program, retrieval: int) -> list[int]:
    """Return the ops whose prompts get blocks before op ``retrieval`` reads a context for them.

    A task of the retrieval then waits for its prompt's client, and not for the store.
    """
    return [
        number
        for number, op in enumerate(program.ops)
        if op.context is not None
        and op.context.source == retrieval
        and isinstance(spec := program.pools[op.pool].client, LLMClientSpec)
        and spec.holds_contexts
    ]
