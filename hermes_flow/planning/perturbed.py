"""Makes the steps of a program's LLM clients longer or shorter, to see what other step times would change."""

from __future__ import annotations

from dataclasses import replace

from hermes_flow.program.pools import LLMClientSpec, Pool
from hermes_flow.program.program import Program
from hermes_flow.program.step_cost import StepCost


def with_step_times(program: Program, factor: float) -> Program:
    """Return the program with every step of its LLM clients ``factor`` times as long."""
    if factor == 1.0:
        return program
    return replace(program, pools=tuple(_changed(pool, factor) for pool in program.pools))


def _changed(pool: Pool, factor: float) -> Pool:
    client = pool.client
    if not isinstance(client, LLMClientSpec):
        return pool
    upstream = None if client.upstream is None else _times(client.upstream, factor)
    return replace(
        pool,
        client=replace(
            client,
            cost=_times(client.cost, factor),
            upstream=upstream,
            hop_ps=round(client.hop_ps * factor),
            hop_ps_per_token=client.hop_ps_per_token * factor,
        ),
    )


def _times(cost: StepCost, factor: float) -> StepCost:
    """Return the cost with every duration multiplied, that of ingest included, rounded to picoseconds."""
    return replace(cost.scaled(factor), ingest_ns=round(cost.ingest_ns * factor))
